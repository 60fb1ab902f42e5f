"""Split the rows of a view; of stored rows the assignment is stored, or planned for later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ftmagic.errors import DataError, message
from ftmagic.splits import By, SplitPlan, SplitRow, assign, groups
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
    """Give every row a split; of rows of the stored dataset it is stored.

    Args:
        rows: The rows of a view.
        name: Their dataset.
        is_stored: Whether they are rows of the stored dataset.
        by: What keeps rows together.
        shares: How much to hold out.
    """
    if not is_stored:
        return _split_loose(rows, name, by, shares)
    plan = open_store().examples.assign_splits(
        name, lambda stored: _plan(stored, rows, name, by, shares)
    )
    return _divided(rows, plan)


def plan_split(
    rows: Sequence[Example], name: str, *, is_stored: bool, by: By, shares: Shares
) -> SplitExamples:
    """Say how `split_examples` would divide; nothing is stored."""
    if not is_stored:
        return _split_loose(rows, name, by, shares)
    return _divided(rows, _plan(open_store().examples.select(name), rows, name, by, shares))


def store_split(planned: Sequence[Example], name: str, *, by: By, shares: Shares) -> None:
    """Store what `plan_split` planned for rows of the stored dataset.

    Raises:
        DataError: The rows would be divided otherwise now; nothing is stored.
    """

    def plan_again(stored: list[Example]) -> SplitPlan:
        plan = _plan(stored, planned, name, by, shares)
        if any(plan.assignment.get(each.id) != each.split for each in planned):
            raise _changed(name)
        return plan

    open_store().examples.assign_splits(name, plan_again)


def _split_loose(rows: Sequence[Example], name: str, by: By, shares: Shares) -> SplitExamples:
    names = groups(rows, by)
    to_assign = [SplitRow(n, names[n], fixed=each.split) for n, each in enumerate(rows)]
    plan = assign(to_assign, **shares._asdict(), dataset=name)
    return SplitExamples(
        [replace(each, split=plan.assignment[n]) for n, each in enumerate(rows)], plan.note
    )


def _plan(
    stored: Sequence[Example], rows: Sequence[Example], name: str, by: By, shares: Shares
) -> SplitPlan:
    ids = {each.id for each in rows}
    # Stored rows outside the view count for nothing, but they hold their group's place.
    to_assign = [
        SplitRow(each.id, group, int(each.id in ids), each.split)
        for each, group in zip(stored, groups(stored, by), strict=True)
        if each.id in ids or each.split is not None
    ]
    return assign(to_assign, **shares._asdict(), dataset=name)


def _divided(rows: Sequence[Example], plan: SplitPlan) -> SplitExamples:
    """The rows with their splits; those that the store has no more are dropped."""
    present = [each for each in rows if each.id in plan.assignment]
    return SplitExamples(
        [replace(each, split=plan.assignment[each.id]) for each in present], plan.note
    )


def _changed(name: str) -> DataError:
    return DataError(
        message(
            f"the rows of {name!r} changed or were divided otherwise since the quote was made; "
            "nothing was sent.",
            next_step=f"%ft_train {name}",
        )
    )
