"""When two values of one field count as equal.

It owns the rules for a single value and knows nothing of fields, records or lists.
"""

from __future__ import annotations

import difflib
import math
import unicodedata
from collections.abc import Callable
from typing import Any

from ftmagic.errors import unknown_name

Comparator = Callable[[Any, Any], bool]
"""Takes the output's value and the target's value, says whether they count as equal."""

RELATIVE_TOLERANCE = 1e-6
"""Of floats. Whole numbers must be equal."""

FUZZY_RATIO = 0.9
"""From this share of matching characters on (difflib's ratio), 'fuzzy' calls two texts equal."""


def is_equal(output: Any, target: Any) -> bool:
    """The default rule, by the kind of the values.

    Texts are equal after Unicode NFC and white space normalisation, whole numbers when they are
    the same, floats within `RELATIVE_TOLERANCE`. True is not 1, and '3' is not 3.
    """
    if isinstance(output, str) and isinstance(target, str):
        return normalise(output) == normalise(target)
    if isinstance(output, bool) or isinstance(target, bool):
        return output is target
    if isinstance(output, (int, float)) and isinstance(target, (int, float)):
        if isinstance(output, int) and isinstance(target, int):
            return output == target
        return math.isclose(output, target, rel_tol=RELATIVE_TOLERANCE)
    return type(output) is type(target) and bool(output == target)


def is_same(output: Any, target: Any) -> bool:
    """Equal to the last character; for enumerations."""
    return type(output) is type(target) and bool(output == target)


def is_similar(output: Any, target: Any) -> bool:
    """Like `is_equal`, but texts may differ in case and in a tenth of their characters."""
    if not (isinstance(output, str) and isinstance(target, str)):
        return is_equal(output, target)
    left, right = normalise(output).casefold(), normalise(target).casefold()
    return left == right or (
        difflib.SequenceMatcher(None, left, right, autojunk=False).ratio() >= FUZZY_RATIO
    )


def normalise(text: str) -> str:
    """Compose accents (NFC) and make every run of white space one blank."""
    return " ".join(unicodedata.normalize("NFC", text).split())


COMPARATORS: dict[str, Comparator] = {"exact": is_same, "equal": is_equal, "fuzzy": is_similar}
"""Comparators that have a name."""


def comparator(rule: str | Comparator) -> Comparator:
    """Return a comparator by name; a function is returned as it is.

    Raises:
        UnknownNameError: No comparator has that name.
    """
    if not isinstance(rule, str):
        return rule
    if rule not in COMPARATORS:
        raise unknown_name(
            "comparator",
            rule,
            COMPARATORS,
            next_step='ft.compare(NAME, comparators={"title": "fuzzy"})',
        )
    return COMPARATORS[rule]
