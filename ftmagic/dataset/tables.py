"""Small escaped HTML tables for `_repr_html_`. What is captured is hostile until escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_CLIP = 160


def html_table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Render a table; every cell is escaped, clipped, and kept from changing text direction.

    Args:
        caption: Shown above the table.
        columns: Headings.
        rows: Cells; None shows as nothing.
    """
    head = "".join(f'<th style="text-align:left">{cell(each)}</th>' for each in columns)
    body = "".join(
        "<tr>" + "".join(f"<td {_STYLE}>{cell(each)}</td>" for each in row) + "</tr>"
        for row in rows
    )
    return (
        f'<table><caption style="text-align:left">{cell(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def cell(value: object) -> str:
    """Escape one value for HTML: clipped, control characters shown as such, direction isolated."""
    text = "" if value is None else str(value)
    text = text if len(text) <= _CLIP else text[: _CLIP - 1] + "…"
    shown = "".join(each if each.isprintable() else _visible(each) for each in text)
    return f"<bdi>{escape(shown)}</bdi>"


def _visible(character: str) -> str:
    """A space for white space; U+202E and the like by their number, so that they do nothing."""
    return " " if character.isspace() else f"\\u{ord(character):04x}"


_STYLE = 'style="text-align:left;vertical-align:top;white-space:normal"'
