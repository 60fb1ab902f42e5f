"""A report as HTML: the difference with its interval first, then tables, then the worst rows.

Everything that came from outside passes `escape`. Works in light and dark: colours are inherited
or half transparent. Knows nothing of how the numbers were made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from ftmagic.evals import plain
from ftmagic.evals.intervals import Difference
from ftmagic.evals.worst import escape, worst_rows_html

if TYPE_CHECKING:
    from ftmagic.evals.report import Report, Summary

STYLE = """
.ftmagic-report{font:14px/1.5 system-ui,sans-serif;color:inherit;max-width:60rem;text-align:left}
.ftmagic-report .gain{font-size:2.4em;font-weight:650;line-height:1.1;margin:.3em .35em 0 0;
 display:inline-block;font-variant-numeric:tabular-nums}
.ftmagic-report .good{color:#1a8f55}.ftmagic-report .bad{color:#cf4f2e}
.ftmagic-report .quiet{opacity:.72}.ftmagic-report p{margin:.35em 0}
.ftmagic-report h4{margin:1.3em 0 .2em;font-size:1em;font-weight:650}
.ftmagic-report .wide{overflow-x:auto}
.ftmagic-report table{border-collapse:collapse;margin:.2em 0 0;font-size:13px;color:inherit;
 font-variant-numeric:tabular-nums;background:none}
.ftmagic-report th,.ftmagic-report td{text-align:right;padding:.3em .8em .3em 0;border:0;
 background:none;vertical-align:top;white-space:nowrap;color:inherit}
.ftmagic-report tr{border-bottom:1px solid rgba(128,128,128,.25);
 background:none!important}
.ftmagic-report th{font-weight:500;opacity:.72}
.ftmagic-report th:first-child,.ftmagic-report td:first-child{text-align:left}
.ftmagic-report .warn{border-left:3px solid #d99a1c;padding:.1em 0 .1em .7em}
.ftmagic-report .note{font-size:12px;opacity:.72}
.ftmagic-report summary{cursor:pointer;margin-top:1.2em}
.ftmagic-report .rows{table-layout:fixed;margin-bottom:1.2em}
.ftmagic-report .rows td,.ftmagic-report .rows th{text-align:left;white-space:normal;
 width:19em}
.ftmagic-report .rows code,.ftmagic-report .rows mark{font:12px/1.45 ui-monospace,monospace;
 color:inherit;background:none;white-space:pre-wrap;overflow-wrap:anywhere;padding:0}
.ftmagic-report .rows mark{background:rgba(207,79,46,.22);border-radius:2px;padding:0 2px}
.ftmagic-report svg{display:block;max-width:100%;height:auto}
.ftmagic-report svg text{fill:currentColor;font:13px system-ui,sans-serif}
"""

_WIDTH, _LABEL, _PLOT, _LINE = 860, 190, 320, 26


def report_html(report: Report) -> str:
    """Write a report as one self-contained, escaped piece of HTML."""
    parts = [f"<style>{STYLE}</style>", f"<p class='quiet'>{escape(plain.title(report))}</p>"]
    parts += [_headline(report, model) for model in report.models[1:]]
    parts += [f"<p class='warn'>{escape(text)}</p>" for text in report.warnings]
    for group in report.groups:
        here = [each for each in report.summary if each.group == group]
        parts.append(f"<h4>{escape(plain.group_title(report, group))}</h4>")
        parts.append(_table(plain.columns(report), here))
    parts.append(_fields_html(report))
    parts.append(worst_rows_html(report))
    parts += [f"<p class='note'>{escape(text)}</p>" for text in plain.captions(report)]
    return f"<div class='ftmagic-report'>{''.join(parts)}</div>"


def _headline(report: Report, model: str) -> str:
    gains = [
        (each.group, each.gain)
        for each in report.summary
        if each.model == model and each.gain is not None
    ]
    gain = gains[0][1]
    if not gain.n:
        return f"<p><b>{escape(model)}</b>: no row was answered by both models.</p>"
    first = report.models[0]
    said = plain.verdict(gain, model, first)
    levels = f"{report.of(first).field_accuracy:.2f} \u2192 {report.of(model).field_accuracy:.2f}"
    return (
        f"<div><span class='gain {_tone(gain)}'>{gain.mean:+.2f}</span>"
        f"<b>{escape(model)}</b>: {escape(said)} <span class='quiet'>({levels})</span></div>"
        f"{_forest(gains, model, first)}"
    )


def _tone(gain: Difference) -> str:
    if not gain.is_clear:
        return ""
    return "good" if gain.mean > 0 else "bad"


def _forest(gains: Sequence[tuple[str, Difference]], model: str, first: str) -> str:
    """Draw each difference as a dot on its interval, around a line at zero."""
    ends = [0.0]
    for _, gain in gains:
        ends += [gain.mean, *([gain.interval.low, gain.interval.high] if gain.interval else [])]
    low, high = min(ends), max(ends)
    low, high = low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1)

    def x(value: float) -> float:
        return _LABEL + (value - low) / (high - low) * _PLOT

    height = _LINE * len(gains) + 22
    named = escape(f"{model} minus {first}, share of fields right, with 95 % intervals")
    parts = [
        f"<svg role='img' aria-label='{named}' viewBox='0 0 {_WIDTH} {height}' width='{_WIDTH}'>",
        f"<line x1='{x(0):.1f}' x2='{x(0):.1f}' y1='0' y2='{height - 18}' stroke='currentColor' "
        "stroke-opacity='.4' stroke-dasharray='3 3'/>",
        f"<text x='{x(0):.1f}' y='{height - 4}' text-anchor='middle' opacity='.72'>0</text>",
    ]
    for place, (group, gain) in enumerate(gains):
        y = _LINE * place + _LINE / 2
        parts.append(_forest_line(group, gain, y, x(gain.mean), x))
    return "<div class='wide'>" + "".join(parts) + "</svg></div>"


def _forest_line(
    group: str, gain: Difference, y: float, middle: float, x: Callable[[float], float]
) -> str:
    label = f"<text x='0' y='{y + 4:.0f}'>{escape(plain.shorten(group, 26))}</text>"
    said = f"{gain.mean:+.2f}  {plain.interval_text(gain)}" if gain.n else "no row"
    number = (
        f"<text x='{_LABEL + _PLOT + 14}' y='{y + 4:.0f}' xml:space='preserve'>"
        f"{escape(said)}</text>"
    )
    tone = f"class='{_tone(gain)}' " if _tone(gain) else ""
    dot = f"<circle cx='{middle:.1f}' cy='{y:.0f}' r='4.5' fill='currentColor'/>"
    if gain.interval is None:
        hollow = dot.replace("fill='currentColor'", "fill='none' stroke='currentColor'")
        return f"<g>{label}{hollow if gain.n else ''}{number}</g>"
    bar = (
        f"<line x1='{x(gain.interval.low):.1f}' x2='{x(gain.interval.high):.1f}' y1='{y:.0f}' "
        f"y2='{y:.0f}' stroke='currentColor' stroke-width='2.5' stroke-linecap='round'/>"
    )
    return f"<g>{label}<g {tone}>{bar}{dot}</g>{number}</g>"


def _table(names: Sequence[str], rows: Iterable[Summary]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(plain.cell(each, name))}</td>" for name in names) + "</tr>"
        for each in rows
    )
    return f"<div class='wide'><table><tr>{head}</tr>{body}</table></div>"


def _fields_html(report: Report) -> str:
    """Each field's share right, model by model, over all rows."""
    overall = [each for each in report.summary if each.group == report.groups[0]]
    paths = list(dict.fromkeys(path for each in overall for path in each.fields))
    if len(paths) < 2:
        return ""
    head = "".join(f"<th>{escape(each.model)}</th>" for each in overall)
    body = ""
    for path in paths:
        shares = [each.fields.get(path) for each in overall]
        cells = "".join(f"<td>{'-' if s is None else f'{s:.2f}'}</td>" for s in shares)
        body += f"<tr><td>{escape(path)}</td>{cells}</tr>"
    return (
        "<details><summary>Each field, share right over all rows</summary>"
        f"<div class='wide'><table><tr><th>field</th>{head}</tr>{body}</table></div></details>"
    )
