"""The rows that went worst, reference beside outputs, misses marked; as escaped HTML.

Owns how one answer is shown. Model text is shown as text: never as Markdown, LaTeX or HTML.
"""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ftmagic.evals.comparators import is_equal
from ftmagic.evals.scoring import FieldCount

if TYPE_CHECKING:
    from ftmagic.evals.report import Report, Row

N_WORST = 8
"""Rows that are shown."""

_MAX_LINES = 24
_MAX_TEXT = 300
_HIDDEN = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def escape(text: str) -> str:
    """Make outside text safe and honest: escaped, no control characters, bidi marks shown."""
    shown = _HIDDEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", _CONTROL.sub("", text))
    return html.escape(shown)


def worst_rows_html(report: Report) -> str:
    """Show the rows that the last model got most wrong, collapsed."""
    rows = {(row.example_id, row.model): row for row in report.results}
    last = [row for row in report.results if row.model == report.models[-1] and not _is_right(row)]
    last.sort(key=lambda row: (_accuracy(row), row.example_id))
    if not last:
        return ""
    blocks = []
    for row in last[:N_WORST]:
        columns = [_column("reference", row.target, row.target, {})]
        for model in report.models:
            answered = rows.get((row.example_id, model))
            if answered is not None:
                columns.append(_answer(answered))
        heads = "".join(head for head, _ in columns)
        cells = "".join(cell for _, cell in columns)
        blocks.append(
            f"<p class='quiet'>row {row.example_id}{_named(row)}: "
            f"{escape(_clip(row.prompt))}</p>"
            f"<div class='wide'><table class='rows'><tr>{heads}</tr><tr>{cells}</tr></table></div>"
        )
    return (
        f"<details><summary>The {len(blocks)} worst of {len(last)} rows that "
        f"{escape(report.models[-1])} did not get exactly right</summary>"
        f"{''.join(blocks)}</details>"
    )


def _is_right(row: Row) -> bool:
    return row.score is not None and row.score.is_exact


def _accuracy(row: Row) -> float:
    return -1.0 if row.score is None else row.score.field_accuracy


def _named(row: Row) -> str:
    return f" ({escape(row.group)})" if row.group else ""


def _answer(row: Row) -> tuple[str, str]:
    if row.score is None:
        text = f"<td><mark>no reply: {escape(_clip(row.error))}</mark></td>"
        return f"<th>{escape(row.model)}</th>", text
    title = f"{row.model}: {row.score.n_right} of {row.score.n_fields} fields"
    return _column(title, row.output, row.target, row.score.fields, row.problems)


def _column(
    title: str,
    value: Any,
    target: Any,
    fields: Mapping[str, FieldCount],
    problems: tuple[str, ...] = (),
) -> tuple[str, str]:
    expected = leaves(target)
    lines = []
    for path, kind, leaf in leaves(value)[:_MAX_LINES]:
        text = f"{path}: {_shown(leaf)}" if path else _shown(leaf)
        is_miss = _misses(kind, fields) and not any(
            kind == other and is_equal(leaf, wanted) for _, other, wanted in expected
        )
        tag = "mark" if is_miss else "code"
        lines.append(f"<{tag}>{escape(_clip(text))}</{tag}>")
    lines += [f"<mark>{escape(path)} is missing</mark>" for path in _absent(value, expected)]
    lines += [f"<mark>{escape(_clip(problem))}</mark>" for problem in problems]
    return f"<th>{escape(title)}</th>", f"<td>{'<br>'.join(lines)}</td>"


def _misses(kind: str, fields: Mapping[str, FieldCount]) -> bool:
    """Whether the score counts a miss of this field; either path may start with a tool's name."""
    here = "." + kind.replace("[]", "")
    for path, count in fields.items():
        scored = "." + path.replace("[]", "")
        if count.n_right < count.n and (here.endswith(scored) or scored.endswith(here)):
            return True
    return False


def _absent(value: Any, expected: list[tuple[str, str, Any]]) -> list[str]:
    got = Counter(kind for _, kind, _ in leaves(value))
    wanted = Counter(kind for _, kind, leaf in expected if leaf is not None)
    return [
        kind if wanted[kind] - got[kind] == 1 else f"{kind} (x{wanted[kind] - got[kind]})"
        for kind in wanted
        if wanted[kind] > got[kind]
    ][:_MAX_LINES]


def leaves(
    value: Any, path: str = "", kind: str = "", depth: int = 0
) -> list[tuple[str, str, Any]]:
    """Flatten JSON into (path as shown, path of the field, value): ('songs[0].title', ...)."""
    if isinstance(value, Mapping) and depth < 32:
        return [
            leaf
            for name, inner in value.items()
            for leaf in leaves(
                inner,
                f"{path}.{name}" if path else str(name),
                f"{kind}.{name}" if kind else str(name),
                depth + 1,
            )
        ]
    if isinstance(value, list) and depth < 32:
        return [
            leaf
            for at, inner in enumerate(value)
            for leaf in leaves(inner, f"{path}[{at}]", f"{kind}[]", depth + 1)
        ]
    return [(path, kind, value)]


def _shown(leaf: Any) -> str:
    return leaf if isinstance(leaf, str) else json.dumps(leaf, ensure_ascii=False)


def _clip(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
