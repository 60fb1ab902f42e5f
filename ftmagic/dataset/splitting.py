"""Split the rows of a view, and store the assignment where the rows are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ftmagic.splits import By, SplitRow, assign, groups
from ftmagic.store import open_store
from ftmagic.types import Example


class Shares(NamedTuple):
    """How much to hold out; `splits.assign` explains the fields."""

    validation: float | int
    test: float | int
    seed: int
    min_train: int


class SplitExamples(NamedTuple):
    """Rows with their split, and what was done in words."""

    rows: list[Example]
    note: str


def split_examples(
    rows: Sequence[Example], name: str, *, is_stored: bool, by: By, shares: Shares
) -> SplitExamples:
    """Give every row a split.

    Args:
        rows: The rows of a view.
        name: Their dataset.
        is_stored: Whether they are rows of the stored dataset: then the assignment is stored.
        by: What keeps rows together.
        shares: How much to hold out.
    """
    if is_stored:
        return _split_stored(rows, name, by, shares)
    names = groups(rows, by)
    to_assign = [SplitRow(n, names[n], fixed=each.split) for n, each in enumerate(rows)]
    plan = assign(to_assign, **shares._asdict(), dataset=name)
    return SplitExamples(
        [replace(each, split=plan.assignment[n]) for n, each in enumerate(rows)], plan.note
    )


def _split_stored(rows: Sequence[Example], name: str, by: By, shares: Shares) -> SplitExamples:
    store = open_store().examples
    stored = store.select(name)
    ids = {each.id for each in rows}
    # Stored rows outside the view count for nothing, but they hold their group's place.
    to_assign = [
        SplitRow(each.id, group, int(each.id in ids), each.split)
        for each, group in zip(stored, groups(stored, by), strict=True)
        if each.id in ids or each.split is not None
    ]
    plan = assign(to_assign, **shares._asdict(), dataset=name)
    store.set_split(plan.assignment)
    # Read back: another notebook may have been first, and the first assignment stands.
    splits = {each.id: each.split for each in store.select(name, ids=sorted(ids))}
    present = [each for each in rows if each.id in splits]
    return SplitExamples([replace(each, split=splits[each.id]) for each in present], plan.note)
