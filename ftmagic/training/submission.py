"""The verbs of training: `train`, `quote`, `prepare`. Gathers rows, makes the spec, hands on."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from ftmagic.dataset import Dataset
from ftmagic.engines import Engine, engine
from ftmagic.errors import ConfigError, message
from ftmagic.training.gathering import gather
from ftmagic.training.handle import Job
from ftmagic.training.preparation import Preparation, write_preparation
from ftmagic.types import Quote, TrainSpec

DATASET_KEY = "ftmagic_dataset"
"""Metadata key: the dataset's name."""
AGAIN_KEY = "ftmagic_again"
"""Metadata key: what makes a repetition another job."""


def train(
    dataset: str | Dataset,
    validation: Dataset | None = None,
    *,
    engine: str | Engine = "local",
    model: str | None = None,
    approved: bool = False,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate_multiplier: float | None = None,
    suffix: str | None = None,
    seed: int = 0,
    again: bool = False,
    confirm: Callable[[Quote], bool] | None = None,
    base_url: str | None = None,
) -> Job:
    """Fine-tune a model on the trainable rows of a dataset.

    The rows are divided into train, validation and test if they are not yet, and the division is
    stored before anything is sent. The same rows and spec again are the same job, unless `again`.

    Args:
        dataset: A dataset's name, or rows.
        validation: Rows to stop early with, instead of the dataset's own.
        engine: 'local', 'openai', or an engine object.
        model: The base model; each engine has a default.
        approved: Only rows that somebody approved.
        epochs: Passes over the rows; None lets the engine decide.
        batch_size: Rows a step; None lets the engine decide.
        learning_rate_multiplier: None lets the engine decide.
        suffix: Up to 64 characters that become part of the tuned model's name.
        seed: For the division of the rows, and for training where the engine takes one.
        again: Train again although the same job exists.
        confirm: Shown the quote before anything is sent; False stops. Needed where rows would
            leave this machine.
        base_url: With 'openai': any server that speaks its dialect.

    Returns:
        The job; it goes on when the kernel does not.

    Raises:
        UnknownNameError: There is no such dataset or engine.
        DataError: Too few rows, or rows that cannot be trained on.
        ConfigError: There is no key, `confirm` said no, or it is needed.
        EngineError: The engine refused, or did not answer.
    """
    prepared = prepare(
        dataset,
        validation,
        engine=engine,
        model=model,
        approved=approved,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate_multiplier=learning_rate_multiplier,
        suffix=suffix,
        seed=seed,
        again=again,
        base_url=base_url,
    )
    if prepared.existing is not None:
        return prepared.existing
    prepared.require_sound()
    prepared.require_consent(confirm)
    return prepared.submit()


def quote(
    dataset: str | Dataset,
    validation: Dataset | None = None,
    *,
    engine: str | Engine = "local",
    model: str | None = None,
    approved: bool = False,
    epochs: int | None = None,
    base_url: str | None = None,
) -> Quote:
    """Say what training would take, and what stands in its way; send nothing.

    See `train` for the arguments.
    """
    return prepare(
        dataset,
        validation,
        engine=engine,
        model=model,
        approved=approved,
        epochs=epochs,
        base_url=base_url,
    ).quote


def prepare(
    dataset: str | Dataset,
    validation: Dataset | None = None,
    *,
    engine: str | Engine = "local",
    model: str | None = None,
    approved: bool = False,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate_multiplier: float | None = None,
    suffix: str | None = None,
    seed: int = 0,
    again: bool = False,
    base_url: str | None = None,
) -> Preparation:
    """Divide the rows, write the training files and ask for the quote; send nothing.

    See `train` for the arguments.

    Raises:
        UnknownNameError: There is no such dataset or engine.
        DataError: Too few rows.
    """
    place = _engine(engine, base_url)
    rows = gather(dataset, validation, place, approved=approved, seed=seed)
    metadata = {DATASET_KEY: rows.name} if rows.name else {}
    if again:
        metadata[AGAIN_KEY] = uuid.uuid4().hex
    spec = TrainSpec(
        model=model or place.default_model,
        suffix=suffix,
        seed=seed,
        n_epochs=epochs,
        batch_size=batch_size,
        learning_rate_multiplier=learning_rate_multiplier,
        metadata=metadata,
    )
    return write_preparation(rows, place, spec)


def _engine(chosen: str | Engine, base_url: str | None) -> Engine:
    if base_url and chosen != "openai":
        raise ConfigError(
            message(
                f"base_url {base_url!r} goes with engine 'openai', not with {chosen!r}.",
                next_step=f"%ft_train NAME --engine openai --base-url {base_url}",
            )
        )
    return engine(chosen, base_url=base_url)
