"""Grammar rules of one JSON answer, with fields that may be tied to the input's own words.

A grounded string can hold nothing but a span of the last user message, from the start of one word
to the end of another; a grounded integer nothing but a run of its digits: the model cannot misspell
what it copies. Knows JSON schema and llguidance's Lark dialect; nothing about models.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md (`substring_chunks`)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ftmagic.local.answers import answer_values, last_user_text
from ftmagic.local.schema import close_objects, compact_json, follow
from ftmagic.types import Json

_CHUNK = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)+|\w+|\s|[^\w\s]")  # a hyphenated word is one word
_DIGITS = re.compile(r"(?<!\d)(?:0|[1-9]\d{0,17})(?!\d)")
_EDGE_SPACE = r"(?s:(([ ]|\\[nrt]).*)|(.*([ ]|\\[nrt])))"  # of JSON text: a newline is \n
_WHITESPACE = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
_CONSTRAINED = frozenset(
    ("enum", "const", "pattern", "format", "minLength", "maxLength", "multipleOf")
    + ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
)


def json_rules(
    rule: str, schema: Json, grounded: frozenset[str] = frozenset(), text: str = ""
) -> list[str]:
    """Write the Lark rules of one JSON answer: compact, keys in the schema's order, no others.

    Args:
        rule: The name of the rule to define.
        schema: The JSON schema of the answer.
        grounded: Dotted paths (`title`, `citations[].year`) of fields to tie to `text`; a path
            whose schema already constrains the value (an enum, a pattern) is left as it is.
        text: The last user message.
    """
    closed = close_objects(schema or {"type": "object"})
    return _Writer(closed, grounded, text).write(rule, closed, "")


def grounded_fields(rows: Sequence[Json]) -> frozenset[str]:
    """Name the fields that are, in every training row, a span of the last user message.

    Args:
        rows: Training rows with `messages`, and `tools` or `response_format`.

    Returns:
        Dotted paths, such as `title` and `citations[].title`.
    """
    spans: set[str] = set()
    others: set[str] = set()
    for row in rows:
        text = last_user_text(row["messages"])
        for value in answer_values(row):
            for path, leaf in _leaves(value, ""):
                (spans if _is_span(leaf, text) else others).add(path)
    return frozenset(spans - others)


class _Writer:
    """Writes rules into one list, descending only where a grounded field lies below."""

    def __init__(self, root: Json, grounded: frozenset[str], text: str) -> None:
        self._root = root
        self._grounded = grounded
        self._chunks = [json.dumps(chunk, ensure_ascii=False)[1:-1] for chunk in _split(text)]
        self._integers = sorted(set(_DIGITS.findall(text)))

    def write(self, rule: str, schema: Json, path: str) -> list[str]:
        """Write the rules of one value; the first one is called `rule`."""
        real = follow(schema, self._root)
        if not self._leads_to_grounded(path):
            return [self._plain(rule, schema)]
        if path in self._grounded and _is_free(real, "string"):
            return self._span(rule)
        if path in self._grounded and _is_free(real, "integer") and self._integers:
            return [f"{rule}: " + " | ".join(map(json.dumps, self._integers))]
        if "properties" in real:
            return self._object(rule, real, path)
        if real.get("type") == "array" and not {"minItems", "maxItems"} & real.keys():
            item = self.write(f"{rule}_item", real.get("items") or {}, f"{path}[]")
            return [f'{rule}: "[" ({rule}_item ("," {rule}_item)*)? "]"', *item]
        return [self._plain(rule, schema)]

    def _span(self, rule: str) -> list[str]:
        name = rule.upper()
        span = compact_json({"substring_chunks": self._chunks})
        return [
            f'{rule}: "\\"" {name}_SPAN "\\""',
            f"{name}_SPAN: {name}_ANY & /(?s:.+)/ & ~/{_EDGE_SPACE}/",
            f"{name}_ANY: %regex {span}",
        ]

    def _object(self, rule: str, schema: Json, path: str) -> list[str]:
        parts, rules = [], []
        for index, (key, part) in enumerate(schema["properties"].items()):
            name = f"{rule}_{index}"
            prefix = ("," if index else "{") + compact_json(key) + ":"
            parts.append(f"{json.dumps(prefix)} {name}")
            rules += self.write(name, part, f"{path}.{key}" if path else key)
        return [f'{rule}: {" ".join(parts)} "}}"', *rules]

    def _plain(self, rule: str, schema: Json) -> str:
        definitions = {
            key: self._root[key] for key in ("$defs", "definitions") if key in self._root
        }
        return f"{rule}: %json {compact_json({**definitions, **schema, 'x-guidance': _WHITESPACE})}"

    def _leads_to_grounded(self, path: str) -> bool:
        below = (f"{path}.", f"{path}[") if path else ""
        return any(field == path or field.startswith(below) for field in self._grounded)


def _is_free(schema: Json, kind: str) -> bool:
    return schema.get("type") == kind and not _CONSTRAINED & schema.keys()


def _split(text: str) -> list[str]:
    return _CHUNK.findall(text)


def _is_span(value: str | int, text: str) -> bool:
    """Return whether a value is a run of whole chunks, or of digits, of a text."""
    if isinstance(value, int):
        return str(value) in _DIGITS.findall(text)
    if value != value.strip():
        return False
    wanted, chunks = _split(value), _split(text)
    starts = range(len(chunks) - len(wanted) + 1)
    return any(chunks[start : start + len(wanted)] == wanted for start in starts)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str | int]]:
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        yield path, value
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, f"{path}[]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else key)
