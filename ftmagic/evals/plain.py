"""The words and numbers of a report, and its plain text table (at most 100 columns)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftmagic.evals.intervals import MIN_CLUSTERS, Difference

if TYPE_CHECKING:
    from ftmagic.evals.report import Rate, Report, Summary

WIDTH = 100
VALID_NOTE = (
    "schema-valid is what constrained decoding guarantees on the local engine, not what the model "
    "learned."
)


def report_text(report: Report) -> str:
    """Write a report as plain text: the differences first, then a table for each group."""
    lines = [*textwrap.wrap(title(report), WIDTH), ""]
    lines += _difference_lines(report)
    for group in report.groups:
        here = [each for each in report.summary if each.group == group]
        lines += [f"{group_title(report, group)}", *_table(columns(report), here), ""]
    for text in (*report.warnings, *captions(report)):
        prefix = "! " if text in report.warnings else "  "
        lines += textwrap.wrap(
            text, WIDTH, initial_indent=prefix, subsequent_indent="  ", break_long_words=True
        )
    return "\n".join(lines)


def title(report: Report) -> str:
    """Say what was compared with what."""
    rows = f"{report.n_examples} {report.split} row{'' if report.n_examples == 1 else 's'}"
    return f"{report.dataset}: {rows}, against the recorded answers ({reference(report)})"


def reference(report: Report) -> str:
    """Name whose answers the reference is."""
    return f"reference: {', '.join(report.teachers)}" if report.teachers else "reference"


def group_title(report: Report, group: str) -> str:
    """Name one block of the report with its size."""
    here = [each for each in report.summary if each.group == group]
    n_rows = max(each.n + each.n_errors for each in here)
    tag = f"{report.group_tag} = " if group in report.groups[1:] else ""
    n_sources = max(each.n_sources for each in here)
    return f"{shorten(tag + group, 60)}: {n_rows} rows, {n_sources} sources"


def captions(report: Report) -> list[str]:
    """What every reader of the numbers should know."""
    return [
        "A score is agreement with the recorded answer, measured in this process; a field is right "
        "when it equals the recorded one. Rows without a reply are counted and not scored. "
        f"Intervals are 95 %: Wilson for rates, paired by source for differences; under "
        f"{MIN_CLUSTERS} sources there is none.",
        VALID_NOTE,
        reviewed_note(report),
        *report.notes,
    ]


def reviewed_note(report: Report) -> str:
    """Report the rows apart whose reference a person has approved or edited."""
    reviewed = [row for row in report.results if row.is_reviewed]
    if not reviewed:
        return "No test row was approved or edited by a person: the reference is as recorded."
    parts = []
    for model in report.models:
        shares = [row.score.field_accuracy for row in reviewed if row.model == model and row.score]
        parts.append(f"{model} {sum(shares) / len(shares):.2f}" if shares else f"{model} -")
    n_rows = len({row.example_id for row in reviewed})
    return (
        f"{n_rows} of {report.n_examples} rows were approved or edited by a person; fields right "
        f"on those: {', '.join(parts)}."
    )


def columns(report: Report) -> list[str]:
    """Names of the columns, without those that would be empty."""
    names = ["model", "schema-valid", "tool", "fields", "exact", "list F1"]
    if not any(each.lists for each in report.summary):
        names.remove("list F1")
    if not any(each.tool_choice for each in report.summary):
        names.remove("tool")
    return [*names, "p50", "p95", "tokens", "errors"]


def cell(each: Summary, column: str) -> str:
    """Write one number of the table."""
    return {
        "model": each.model,
        "schema-valid": rate(each.valid),
        "tool": f"{each.tool_choice.share:.0%}" if each.tool_choice else "-",
        "fields": f"{each.field_accuracy:.2f}" if each.n else "-",
        "exact": rate(each.exact),
        "list F1": f"{each.lists.f1:.2f}" if each.lists else "-",
        "p50": f"{each.latency_p50_s:.2f} s" if each.n else "-",
        "p95": f"{each.latency_p95_s:.2f} s" if each.n else "-",
        "tokens": "-" if each.tokens_per_call is None else f"{each.tokens_per_call:.0f}",
        "errors": str(each.n_errors),
    }[column]


def rate(value: Rate) -> str:
    """Write a rate with its interval: '100% (84-100)'."""
    if not value.n:
        return "-"
    low, high = value.interval.low, value.interval.high
    return f"{value.share:.0%} ({low * 100:.0f}-{high * 100:.0f})"


def interval_text(difference: Difference) -> str:
    """Write the interval of a difference, or why there is none."""
    if difference.interval is None:
        sources = f"{difference.n_clusters} source{'' if difference.n_clusters == 1 else 's'}"
        return f"too few to tell ({sources}; {MIN_CLUSTERS} are needed)"
    return f"[{difference.interval.low:+.2f}, {difference.interval.high:+.2f}]"


def verdict(difference: Difference, model: str, first: str) -> str:
    """Say in words what a difference means."""
    if difference.interval is None:
        return f"{model} against {first}: {interval_text(difference)}"
    low, high = difference.interval.low, difference.interval.high
    where = f"95 % interval {low:+.2f} to {high:+.2f}"
    if not difference.is_clear:
        return f"no clear difference between {model} and {first} in fields right; {where}"
    word = "more" if difference.mean > 0 else "fewer"
    return f"{word} fields right than {first}; {where}"


def _difference_lines(report: Report) -> list[str]:
    lines: list[str] = []
    for model in report.models[1:]:
        names = f"{shorten(model, 24)} minus {shorten(report.models[0], 24)}"
        lines.append(f"{names}, share of fields right (95 % interval)")
        gains = [(each.group, each.gain) for each in report.summary if each.model == model]
        width = max(len(group) for group, _ in gains)
        for group, gain in gains:
            if gain is not None:
                value = f"{gain.mean:+.2f}" if gain.n else "  -  "
                lines.append(
                    f"  {shorten(group, 40):{min(width, 40)}}  {value}  {interval_text(gain)}"
                )
        lines.append("")
    return lines


def _table(names: Sequence[str], rows: Sequence[Summary]) -> list[str]:
    table = [list(names), *([shorten(cell(each, name), 18) for name in names] for each in rows)]
    widths = [max(len(line[at]) for line in table) for at in range(len(names))]
    return [
        "  "
        + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]


def shorten(text: str, width: int) -> str:
    """Shorten from the middle: the end of a model's name tells it apart."""
    half = width // 2
    return text if len(text) <= width else f"{text[: half - 1]}…{text[half - width :]}"
