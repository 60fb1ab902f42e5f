"""Tables and progress bars, as HTML and as text."""

from __future__ import annotations

from collections.abc import Sequence

from ftmagic.render.escaping import plain, text

Row = Sequence[object]

_CELL = (
    "text-align:left;padding:.25em .9em .25em 0;border:0;background:none;vertical-align:top;"
    "color:inherit;font-variant-numeric:tabular-nums"
)
_LONGEST_CELL = 200


def table(rows: Sequence[Row], headers: Sequence[str], caption: str = "") -> str:
    """Render a table with escaped cells.

    Args:
        rows: Cells by row; None is empty.
        headers: Column headings.
        caption: What it is, above the table.
    """
    head = "".join(
        f'<th scope="col" style="{_CELL};font-weight:500;opacity:.72">{text(each)}</th>'
        for each in headers
    )
    body = "".join(
        '<tr style="background:none;border-top:1px solid rgba(128,128,128,.25)">'
        + "".join(f'<td style="{_CELL}">{text(each, longest=_LONGEST_CELL)}</td>' for each in row)
        + "</tr>"
        for row in rows
    )
    above = (
        f'<caption style="text-align:left;color:inherit;padding:.2em 0">{text(caption)}</caption>'
        if caption
        else ""
    )
    return (
        '<table style="border-collapse:collapse;font:13px/1.5 system-ui,sans-serif;color:inherit">'
        f"{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def table_text(rows: Sequence[Row], headers: Sequence[str]) -> str:
    """Render a table for a console: aligned columns, one line a row."""
    lines = [list(map(str, headers))]
    lines += [
        [plain(each, longest=_LONGEST_CELL).replace("\n", " ") for each in row] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def progress_bar(fraction: float | None, *, colour: str = "#3b82f6") -> str:
    """Render a thin bar.

    Args:
        fraction: From 0 to 1; None is not known, which shows an empty bar.
        colour: Of the part that is done.
    """
    share = min(1.0, max(0.0, fraction or 0.0)) * 100
    known = f' aria-valuenow="{share:.0f}"' if fraction is not None else ""
    return (
        f'<div role="progressbar" aria-label="training progress" aria-valuemin="0"'
        f' aria-valuemax="100"{known} style="height:4px;border-radius:2px;overflow:hidden;'
        'background:rgba(128,128,128,.22)">'
        f'<div style="height:4px;border-radius:2px;width:{share:.1f}%;background:{colour}"></div>'
        "</div>"
    )


def progress_text(fraction: float | None, width: int = 24) -> str:
    """Render a bar for a console: '[######------]  50%'."""
    if fraction is None:
        return f"[{'-' * width}]"
    n_done = round(min(1.0, max(0.0, fraction)) * width)
    return f"[{'#' * n_done}{'-' * (width - n_done)}] {fraction:4.0%}"
