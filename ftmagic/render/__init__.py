"""Values -> escaped HTML and inline SVG, and the plain text twins for consoles. No I/O.

What a model, a provider or a file said is hostile until it went through `text`.
"""

from __future__ import annotations

from ftmagic.render.curve import loss_curve
from ftmagic.render.escaping import plain, text
from ftmagic.render.quotes import (
    problems_html,
    problems_text,
    quote_html,
    quote_text,
)
from ftmagic.render.tables import progress_bar, progress_text, table, table_text

__all__ = [
    "loss_curve",
    "plain",
    "problems_html",
    "problems_text",
    "progress_bar",
    "progress_text",
    "quote_html",
    "quote_text",
    "table",
    "table_text",
    "text",
]
