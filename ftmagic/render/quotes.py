"""A quote and its problems: what a training job would take, before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence

from ftmagic.render.escaping import plain, text
from ftmagic.types import Problem, Quote

_SHOWN = 8
_ERROR, _WARNING = "#dc4a3d", "#d99a1c"


def quote_facts(quote: Quote, n_test: int | None = None) -> list[tuple[str, str]]:
    """List what a quote says, as (name, value), every figure with what it is."""
    rows = f"{quote.n_train:,} train, {quote.n_validation:,} validation"
    if n_test is not None:
        rows += f"; {n_test:,} test rows stay here"
    facts = [
        ("rows", rows),
        ("tokens", f"{quote.n_tokens:,} once through ({_basis(quote.tokens_basis)})"),
        ("model", quote.model),
        ("sent to", f"{quote.host} (engine {quote.engine})"),
        ("cost", _cost(quote)),
    ]
    if quote.n_truncated:
        facts.insert(2, ("too long", f"{quote.n_truncated:,} rows would be cut or left out"))
    return facts


def quote_html(quote: Quote, n_test: int | None = None) -> str:
    """Render a quote.

    Args:
        quote: The quote.
        n_test: Rows that are held out; None does not mention them.
    """
    cells = "".join(
        f'<span style="opacity:.72;white-space:nowrap">{text(name)}</span>'
        f'<span style="font-variant-numeric:tabular-nums">{text(value)}</span>'
        for name, value in quote_facts(quote, n_test)
    )
    return (
        '<div style="font:13px/1.55 system-ui,sans-serif;color:inherit;max-width:52rem">'
        '<div style="display:grid;grid-template-columns:max-content 1fr;gap:.15em 1.2em;'
        f'margin:.3em 0">{cells}</div>{problems_html(quote.problems)}</div>'
    )


def quote_text(quote: Quote, n_test: int | None = None) -> str:
    """Render a quote for a console."""
    facts = quote_facts(quote, n_test)
    width = max(len(name) for name, _ in facts)
    lines = [f"{name.ljust(width)}  {plain(value)}" for name, value in facts]
    problems = problems_text(quote.problems)
    return "\n".join([*lines, problems] if problems else lines)


def problems_html(problems: Sequence[Problem]) -> str:
    """Render problems, errors first; '' when there are none."""
    items = "".join(
        f'<li style="margin:.15em 0;padding-left:.6em;border-left:3px solid '
        f'{_ERROR if each.severity == "error" else _WARNING}"><b style="font-weight:600">'
        f"{each.severity}</b> {text(_line(each))}{_fix_html(each)}</li>"
        for each in _sorted(problems)[:_SHOWN]
    )
    if not items:
        return ""
    more = f"<li>{text(_more(problems))}</li>" if len(problems) > _SHOWN else ""
    return f'<ul style="list-style:none;margin:.4em 0;padding:0">{items}{more}</ul>'


def problems_text(problems: Sequence[Problem]) -> str:
    """Render problems for a console, one a line; '' when there are none."""
    lines = [
        f"{each.severity}: {plain(_line(each))}" + (f"  [{plain(each.fix)}]" if each.fix else "")
        for each in _sorted(problems)[:_SHOWN]
    ]
    if len(problems) > _SHOWN:
        lines.append(_more(problems))
    return "\n".join(lines)


def _sorted(problems: Sequence[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda each: (each.severity != "error", each.row or 0))


def _line(problem: Problem) -> str:
    return f"row {problem.row}: {problem.message}" if problem.row else problem.message


def _fix_html(problem: Problem) -> str:
    if not problem.fix:
        return ""
    return f' <code style="color:inherit;background:none;opacity:.72">{text(problem.fix)}</code>'


def _more(problems: Sequence[Problem]) -> str:
    return f"and {len(problems) - _SHOWN:,} more"


def _basis(basis: str) -> str:
    return {
        "measured": "counted with the model's tokenizer",
        "provider": "the provider's count",
        "estimate": "estimate",
    }.get(basis, basis)


def _cost(quote: Quote) -> str:
    if quote.cost_usd is None:
        return f"unknown: {quote.cost_basis}" if quote.cost_basis else "unknown"
    if quote.cost_usd == 0:
        return f"none ({quote.cost_basis})" if quote.cost_basis else "none"
    amount = f"about ${quote.cost_usd:,.2f}" if quote.cost_usd >= 0.01 else "less than $0.01"
    return f"{amount} ({quote.cost_basis})" if quote.cost_basis else amount
