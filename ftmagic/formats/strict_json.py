"""JSON as the standard has it: no NaN, no infinity, no duplicate keys, no bottomless nesting.

Python's own parser lets all of these through, and each of them breaks something later: a NaN is
refused by every provider, of two equal keys one is lost without a word. Knows nothing of messages.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

MAX_DEPTH = 200
"""Deepest nesting that is read, in levels. Real rows have less than twenty."""


class StrictJsonError(ValueError):
    """Text that is not JSON, or JSON that could not be written again unchanged."""


def loads(text: str, *, unique_keys: bool = True) -> Any:
    """Parse JSON, refusing what Python's parser lets through.

    Args:
        text: One JSON value.
        unique_keys: Refuse an object that has a key twice; else the last one counts.

    Raises:
        StrictJsonError: With what is wrong, short enough to show.
    """
    pairs_hook = _unique if unique_keys else None
    try:
        value = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=pairs_hook,
        )
    except RecursionError:
        # The parser is recursive in C: '[' * 100_000 ends here, harmlessly.
        raise StrictJsonError(f"nested deeper than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as exc:
        raise StrictJsonError(f"{exc.msg} at character {exc.pos + 1}") from None
    except StrictJsonError:
        raise
    except ValueError:
        # int() refuses more than 4,300 digits.
        raise StrictJsonError("a number has too many digits") from None
    if is_deeper_than(value, MAX_DEPTH):
        raise StrictJsonError(f"nested deeper than {MAX_DEPTH} levels")
    return value


def is_deeper_than(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested more than `depth` levels; never recursive itself."""
    level: list[Any] = [value] if isinstance(value, (dict, list)) else []
    for _ in range(depth):
        level = [child for each in level for child in _children(each)]
        if not level:
            return False
    return bool(level)


def has_lone_surrogate(text: str) -> bool:
    """Whether a text holds half of a surrogate pair, which UTF-8 cannot spell."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _children(value: dict[str, Any] | list[Any]) -> list[Any]:
    children = value.values() if isinstance(value, dict) else value
    return [child for child in children if isinstance(child, (dict, list))]


def _refuse_constant(name: str) -> Any:
    raise StrictJsonError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise StrictJsonError(f"the number {text[:20]} is out of range")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise StrictJsonError(f"the key {twice[:60]!r} appears twice in one object")
    return value
