"""Which rows a filter keeps. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ftmagic.dataset.values import contains_text, output_objects
from ftmagic.errors import unknown_name
from ftmagic.expressions import parse_condition
from ftmagic.types import REVIEWS, SPLITS, Example, Review, Split


def select(
    rows: Sequence[Example],
    *,
    review: Review | None = None,
    split: Split | None = None,
    where: str = "",
    search: str = "",
) -> list[Example]:
    """Keep the rows that meet all conditions; `Dataset.filter` explains them.

    Raises:
        ConfigError: `where` is no condition.
        UnknownNameError: No such review state, split or output field.
    """
    _check_choice("review state", review, REVIEWS)
    _check_choice("split", split, SPLITS)
    kept = [
        each
        for each in rows
        if review in (None, each.review)
        and split in (None, each.split)
        and (not search or contains_text(each, search))
    ]
    return _where(kept, where) if where else kept


def _where(rows: Sequence[Example], text: str) -> list[Example]:
    condition = parse_condition(text)
    outputs = [output_objects(each) for each in rows]
    if rows:
        condition.require_known({key for each in outputs for fields in each for key in fields})
    return [
        row
        for row, objects in zip(rows, outputs, strict=True)
        if any(condition.matches(fields) for fields in objects)
    ]


def _check_choice(kind: str, value: str | None, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        raise unknown_name(kind, value, known, next_step='ft.examples("albums", split="train")')
