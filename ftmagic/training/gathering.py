"""Which rows of a dataset train, which watch, and what is wrong with them.

Test rows are left behind here, and so is every row that shares its input or its source with one.
Knows an engine by its limits and its host.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from ftmagic.dataset import Dataset, examples, trainable
from ftmagic.dataset.splitting import Shares, plan_split, store_split
from ftmagic.dataset.view import MIN_TRAIN
from ftmagic.engines import Engine
from ftmagic.engines.addresses import is_loopback
from ftmagic.errors import DataError, message
from ftmagic.formats.training_files import to_row
from ftmagic.splits import groups
from ftmagic.store import open_store
from ftmagic.types import Example, Problem, canonical_json
from ftmagic.wire.secrets import find_secrets

_BY = "tag:source"
_SHARES = Shares(validation=0.1, test=0.2, seed=0, min_train=MIN_TRAIN)


@dataclasses.dataclass(frozen=True)
class Rows:
    """What a job learns from and is watched with; test rows are not among them.

    Attributes:
        name: The dataset.
        train: To learn from.
        validation: To stop early with; may be empty.
        n_test: Held out, never sent.
        n_given_away: Rows left out because a test row shares their input or source.
        note: How the rows were divided, in words.
        planned: Rows of the store with the splits that they get when the job is submitted.
        shares: How those were planned.
    """

    name: str
    train: Dataset
    validation: Dataset
    n_test: int
    n_given_away: int = 0
    note: str = ""
    planned: tuple[Example, ...] = ()
    shares: Shares = _SHARES

    def store_splits(self) -> None:
        """Store how the rows were divided: what is sent for training never tests.

        Raises:
            DataError: The rows changed, or another notebook divided them otherwise.
        """
        if self.planned:
            store_split(self.planned, self.name, by=_BY, shares=self.shares)


def gather(
    dataset: str | Dataset,
    validation: Dataset | None,
    place: Engine,
    *,
    approved: bool = False,
    seed: int = 0,
) -> Rows:
    """Collect the rows that train and validate, dividing them if they are not yet divided.

    Nothing is stored: `Rows.store_splits` does that.

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
    shares = _SHARES._replace(seed=seed)
    if not found.is_stored:
        shares = shares._replace(test=0)  # rows of a file have no comparison to come
    divided = found.dedupe()
    note, planned = "", False
    if validation is None and any(each.split is None for each in divided):
        plan = plan_split(divided, found.name, is_stored=found.is_stored, by=_BY, shares=shares)
        divided, planned, note = Dataset(found.name, plan.rows), found.is_stored, plan.note
    watched = divided.filter(split="validation") if validation is None else _usable(validation)
    rows = _without_test_rows(
        Rows(
            name=found.name,
            train=divided.filter(lambda each: each.split in ("train", None)),
            validation=watched.filter(lambda each: each.split != "test"),
            n_test=len(divided.filter(split="test")),
            note=note,
            planned=tuple(divided) if planned else (),
            shares=shares,
        ),
        [*_test_rows(found.name), *found, *divided, *watched],
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


def credentials_in(row: Example) -> list[str]:
    """Name the kinds of credentials that a row shows, wherever in it they stand."""
    return sorted({finding.kind for finding in find_secrets(_text(row))})


def _secrets(rows: Dataset, host: str) -> Iterator[Problem]:
    for number, row in enumerate(rows, 1):
        kinds = credentials_in(row)
        if kinds:
            yield Problem(
                "error",
                number,
                f"shows what looks like a credential ({', '.join(kinds)}); it must not go to "
                f"{host}.",
                f"ft.examples({rows.name!r}).filter(lambda row: row.id == {row.id}).reject()",
            )


def _text(row: Example) -> str:
    return canonical_json(to_row(row, keeps_response_format=True))


def _test_rows(name: str) -> list[Example]:
    """The test rows of the stored dataset of this name, if there is one."""
    store = open_store()
    known = name in store.datasets.names()
    return store.examples.select(name, split="test") if known else []


def _without_test_rows(rows: Rows, everything: Sequence[Example]) -> Rows:
    """Leave out what is in one group with a test row: a model that saw it has seen the test."""
    names = groups(everything, _BY)
    named = list(zip(names, everything, strict=True))
    held = {name for name, each in named if each.split == "test"}
    inputs = {each.input_key() for name, each in named if name in held}
    kept, watched = (
        part.filter(lambda each: each.input_key() not in inputs)
        for part in (rows.train, rows.validation)
    )
    n_given_away = len(rows.train) - len(kept) + len(rows.validation) - len(watched)
    if not n_given_away:
        return rows
    noun = "row" if n_given_away == 1 else "rows"
    said = f"{n_given_away:,} {noun} left out: test rows share their input or source"
    return dataclasses.replace(
        rows,
        train=kept,
        validation=watched,
        n_given_away=n_given_away,
        note=f"{rows.note}; {said}" if rows.note else said,
    )


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
        "with the input or source of a test row": rows.n_given_away,
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
