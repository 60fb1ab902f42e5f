"""Which rows a comparison may use: recorded as test, usable as a reference, unseen in training.

Owns the leak check and the grouping of rows. Knows nothing of models.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftmagic.errors import ConfigError, DataError, message, unknown_name
from ftmagic.store import JobRecord, open_store
from ftmagic.training.gathering import credentials_in
from ftmagic.types import SPLITS, Example

if TYPE_CHECKING:
    from ftmagic.dataset import Dataset


@dataclass(frozen=True)
class HeldOut:
    """The rows of a comparison.

    Attributes:
        dataset: Name of their dataset.
        examples: Rows that nothing was trained on.
        warnings: What was left out, and why.
    """

    dataset: str
    examples: tuple[Example, ...]
    warnings: tuple[str, ...] = ()


def held_out(dataset: str | Dataset, split: str, jobs: Sequence[JobRecord]) -> HeldOut:
    """Choose the rows to compare on.

    Args:
        dataset: Its name, or rows chosen before.
        split: 'test', as a rule.
        jobs: Jobs whose training rows must not be among them.

    Raises:
        DataError: No row is left.
        ConfigError: There is no such split.
        UnknownNameError: There is no such dataset.
    """
    if split not in SPLITS:
        raise ConfigError(
            message(
                f"{split!r} is no split; there are {', '.join(SPLITS)}.",
                next_step='ft.compare(NAME, split="test")',
            )
        )
    name = dataset if isinstance(dataset, str) else str(dataset.name)
    rows = (
        open_store().examples.select(dataset)
        if isinstance(dataset, str)
        else _numbered(list(dataset))
    )
    chosen = [row for row in rows if row.split == split]
    usable = [row for row in chosen if row.is_trainable]
    seen = _seen_in_training(name, split, usable, jobs)
    kept = tuple(row for row in usable if row.id not in seen)
    warnings = _warnings(len(chosen) - len(usable), seen)
    if not kept:
        raise _nothing_left(name, split, rows, warnings)
    return HeldOut(name, kept, warnings)


def require_tag(rows: HeldOut, tag: str) -> None:
    """Refuse to group by a tag that no row carries.

    Raises:
        UnknownNameError: There is none; the message names the closest.
    """
    known = {name for row in rows.examples for name in row.tags}
    if tag and tag not in known:
        raise unknown_name("tag", tag, known, next_step=f"%ft_compare {rows.dataset}")


def require_no_credential(rows: HeldOut, hosts: Sequence[str]) -> None:
    """Refuse to send rows that show a credential to other machines.

    Args:
        rows: What would be sent.
        hosts: Other machines that would be asked; with none there is nothing to refuse.

    Raises:
        DataError: A row shows one.
    """
    if not hosts:
        return
    shown = [(row.id, kinds) for row in rows.examples if (kinds := credentials_in(row))]
    if not shown:
        return
    row_id, kinds = shown[0]
    noun = "row shows" if len(shown) == 1 else "rows show"
    raise DataError(
        message(
            f"{len(shown):,} {noun} what looks like a credential ({', '.join(kinds)}); it must "
            f"not go to {', '.join(hosts)}. Nothing was sent.",
            next_step=f"ft.examples({rows.dataset!r}).filter(lambda row: row.id == {row_id})"
            ".reject()",
        )
    )


def source_of(example: Example) -> str:
    """The document that a row is about; a row without one is its own."""
    return example.tags.get("source") or f"row {example.id}"


def group_of(example: Example, tag: str) -> str:
    """The value of the tag that a report is grouped by; '' without a tag."""
    return example.tags.get(tag) or f"(no {tag})" if tag else ""


def _numbered(rows: list[Example]) -> list[Example]:
    """Rows that were never stored have no id: number them by their place."""
    if all(row.id for row in rows):
        return rows
    return [dataclasses.replace(row, id=place) for place, row in enumerate(rows, start=1)]


def _seen_in_training(
    dataset: str, split: str, rows: Sequence[Example], jobs: Sequence[JobRecord]
) -> dict[int, str]:
    """Say which rows were trained on: row id -> 'the same input' or 'the same source'."""
    store = open_store()
    if dataset not in store.datasets.names():
        return {}
    trained_splits = [name for name in ("train", "validation") if name != split]
    ids = [row_id for job in jobs if job.dataset == dataset for row_id, _ in job.example_ids]
    trained = store.examples.select(
        dataset,
        where="(e.split in (select value from json_each(?)) or e.id in (select value from "
        "json_each(?))) and (e.input_key in (select value from json_each(?)) or e.source in "
        "(select value from json_each(?)))",
        parameters=[
            json.dumps(trained_splits),
            json.dumps(ids),
            json.dumps([row.input_key() for row in rows]),
            json.dumps([row.tags["source"] for row in rows if row.tags.get("source")]),
        ],
    )
    before = store.examples.keys_of(ids)  # a rerun of the cell may have superseded them since
    inputs = {row.input_key() for row in trained} | {key for key, _ in before}
    sources = {source_of(row) for row in trained} | {source for _, source in before}
    reasons = {row.id: "the same source" for row in rows if source_of(row) in sources}
    return reasons | {row.id: "the same input" for row in rows if row.input_key() in inputs}


def _warnings(n_unusable: int, seen: dict[int, str]) -> tuple[str, ...]:
    found = []
    if seen:
        reasons = ", ".join(f"{why}: {n}" for why, n in Counter(seen.values()).items())
        found.append(
            f"{len(seen)} test row{'' if len(seen) == 1 else 's'} left out that training rows "
            f"give away ({reasons}): a score on them would be memory, not skill."
        )
    if n_unusable:
        found.append(
            f"{n_unusable} test row{'' if n_unusable == 1 else 's'} left out, whose recorded "
            "answer is rejected or does not fit its schema."
        )
    return tuple(found)


def _nothing_left(
    name: str, split: str, rows: Sequence[Example], warnings: Sequence[str]
) -> DataError:
    counts = Counter(row.split or "no split" for row in rows)
    there = ", ".join(f"{n} {each}" for each, n in counts.items()) or "no rows"
    why = " ".join(warnings) or f"it has {there}."
    return DataError(
        message(
            f"{name!r} has no {split} rows to compare on: {why}",
            next_step=f"%%capture_ft {name} --split {split}",
        )
    )
