"""Which rows of a dataset train, which watch, and what is wrong with them.

Test rows are left behind here. Knows an engine by its limits and its host.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ftmagic.dataset import Dataset, examples, trainable
from ftmagic.engines import Engine
from ftmagic.engines.addresses import is_loopback
from ftmagic.errors import DataError, message
from ftmagic.types import Example, Problem
from ftmagic.wire.secrets import find_secrets


@dataclasses.dataclass(frozen=True)
class Rows:
    """What a job learns from and is watched with; test rows are not among them.

    Attributes:
        name: The dataset.
        train: To learn from.
        validation: To stop early with; may be empty.
        n_test: Held out, never sent.
        note: How the rows were divided, in words.
    """

    name: str
    train: Dataset
    validation: Dataset
    n_test: int
    note: str = ""


def gather(
    dataset: str | Dataset,
    validation: Dataset | None,
    place: Engine,
    *,
    approved: bool = False,
    seed: int = 0,
) -> Rows:
    """Collect the rows that train and validate, dividing them if they are not yet divided.

    Args:
        dataset: A dataset's name, or rows.
        validation: Given rows are not divided again.
        place: The engine, for its minimum.
        approved: Only approved rows.
        seed: For the division.

    Raises:
        DataError: Fewer rows may train than the engine needs.
    """
    found = trainable(dataset, approved) if isinstance(dataset, str) else _usable(dataset, approved)
    found = found.dedupe()
    note = ""
    if validation is None and any(each.split is None for each in found):
        divided = (
            found.split(seed=seed)
            if found.is_stored
            else found.split(seed=seed, test=0)  # rows of a file have no comparison to come
        )
        note = divided.note
        found = Dataset(found.name, [*divided.train, *divided.validation, *divided.test])
    watched = found.filter(split="validation") if validation is None else _usable(validation)
    rows = Rows(
        name=found.name,
        train=found.filter(lambda each: each.split in ("train", None)),
        validation=watched.filter(lambda each: each.split != "test"),
        n_test=len(found.filter(split="test")),
        note=note,
    )
    if len(rows.train) < place.limits.min_rows:
        raise _too_few(dataset, rows, place)
    return rows


def row_problems(rows: Rows, place: Engine, host: str) -> Iterator[Problem]:
    """Check rows against an engine's limits, and for credentials if they would leave here.

    Args:
        rows: What would be sent.
        place: The engine.
        host: Where its server is.
    """
    yield from rows.train.check(place)
    if rows.validation:
        limits = dataclasses.replace(place.limits, min_rows=0)
        for problem in rows.validation.check(limits):
            yield dataclasses.replace(problem, message=f"validation: {problem.message}")
    if not is_loopback(host):
        for part in (rows.train, rows.validation):
            yield from _secrets(part, host)


def _secrets(rows: Dataset, host: str) -> Iterator[Problem]:
    for number, row in enumerate(rows, 1):
        kinds = sorted({finding.kind for finding in find_secrets(_text(row))})
        if kinds:
            yield Problem(
                "error",
                number,
                f"shows what looks like a credential ({', '.join(kinds)}); it must not go to "
                f"{host}.",
                f"ft.examples({rows.name!r})[{number - 1}:{number}].reject()",
            )


def _text(row: Example) -> str:
    return str([row.messages, row.tools])


def _usable(rows: Dataset, approved: bool = False) -> Dataset:
    kept = rows.filter(lambda each: each.is_trainable)
    return kept.filter(review="approved") if approved else kept


def _too_few(dataset: str | Dataset, rows: Rows, place: Engine) -> DataError:
    everything = examples(dataset) if isinstance(dataset, str) else dataset
    n_invalid = sum(bool(each.problems) and each.review != "rejected" for each in everything)
    counts = {
        "rejected": len(everything.filter(review="rejected")),
        "invalid": n_invalid,
        "held out for test": rows.n_test,
        "held out for validation": len(rows.validation),
    }
    left_out = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    why = f"ft.examples({rows.name!r}).check()   (says what is wrong with each invalid row)"
    step = why if n_invalid else f"%%capture_ft {rows.name}"
    return DataError(
        message(
            f"{rows.name!r} has {len(rows.train)} rows that may train"
            f"{f' ({left_out})' if left_out else ''}; engine {place.name!r} needs at least "
            f"{place.limits.min_rows}.",
            next_step=step,
        )
    )
