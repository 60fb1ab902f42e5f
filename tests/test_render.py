from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from ftmagic import render
from ftmagic.types import Problem, Quote

HOSTILE = "<img src=x onerror=alert(1)> <script>alert(2)</script> \"'&"
QUOTE = Quote(
    engine="openai",
    host="api.openai.com",
    model="gpt-4.1-mini",
    n_train=80,
    n_validation=9,
    n_tokens=30_211,
    tokens_basis="estimate",
    cost_usd=0.453,
    cost_basis="estimate: prices of 2025",
    problems=(
        Problem("warning", None, "closes soon"),
        Problem("error", 3, HOSTILE, "reject the row"),
    ),
)


def test_text_is_escaped_for_elements_and_attributes() -> None:
    assert render.text(HOSTILE) == (
        "&lt;img src=x onerror=alert(1)&gt; &lt;script&gt;alert(2)&lt;/script&gt; &quot;&#x27;&amp;"
    )


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07rest", "rest"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x00b\x08c\x9bd", "abc"),
        ("one\ntwo\tthree", "one\ntwo\tthree"),
        ("user\u202etxt.exe", "user[U+202E]txt.exe"),
        ("half \ud800 pair", "half \ufffd pair"),
        (None, ""),
        (3, "3"),
    ],
)
def test_plain_text_does_nothing_to_a_console(raw: object, shown: str) -> None:
    assert render.plain(raw) == shown


def test_long_text_is_cut_with_an_ellipsis() -> None:
    assert render.plain("x" * 50_000_000, longest=5) == "xxxx…"
    assert render.text("<<<<<<", longest=3) == "&lt;&lt;…"


def test_table_escapes_cells_headers_and_caption() -> None:
    page = render.table([[HOSTILE, None]], ["<b>", "n"], "<i>")
    assert "<img" not in page and "<b>" not in page and "<i>" not in page
    ElementTree.fromstring(page)


def test_table_text_aligns_columns_and_keeps_one_line_a_row() -> None:
    assert render.table_text([["a", "b\nc"], ["long", 1]], ["x", "y"]) == (
        "x     y\na     b c\nlong  1"
    )


def test_loss_curve_is_small_and_says_what_it_shows() -> None:
    train = [(float(step), 2.0 / step + 0.1) for step in range(1, 5001)]
    valid = [(float(step), 2.0 / step + 0.2) for step in range(50, 5001, 50)]
    svg = render.loss_curve(train, valid, total_steps=6000)
    assert len(svg.encode()) < 4096
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert "0.1 at step 5000" in str(root.get("aria-label"))
    assert "validation loss" in str(root.get("aria-label"))
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert {"step", "loss", "training 0.1", "validation 0.2"} <= set(texts)
    assert "currentColor" in svg


def test_loss_curve_puts_points_where_they_belong() -> None:
    svg = render.loss_curve([(0, 2.0), (10, 0.0)], width=520, height=190)
    # x from 46 to 506 for steps 0..10; y from 156 (0.0) to 26 (2.0).
    assert 'points="46.0,26.0 506.0,156.0"' in svg


@pytest.mark.parametrize(
    ("train", "valid"),
    [
        ([(1, 0.5)], []),
        ([], [(3, 0.5)]),
        ([(1, 1.0), (2, 1.0)], []),
        ([(1, float("nan")), (2, 0.7)], [(1, float("inf"))]),
        ([(1, 1e-9), (2, 1e9)], []),
        ([(1, 0.0)], []),
    ],
)
def test_loss_curve_draws_odd_data(
    train: list[tuple[float, float]], valid: list[tuple[float, float]]
) -> None:
    svg = render.loss_curve(train, valid)
    ElementTree.fromstring(svg)
    assert "nan" not in svg and "inf" not in svg


def test_loss_curve_of_nothing_is_nothing() -> None:
    assert render.loss_curve([]) == ""
    assert render.loss_curve([(1, float("nan"))]) == ""


def test_progress_bar_says_its_value() -> None:
    assert 'aria-valuenow="50"' in render.progress_bar(0.5)
    assert "aria-valuenow" not in render.progress_bar(None)
    assert "width:100.0%" in render.progress_bar(1.7)
    assert render.progress_text(0.5, width=4) == "[##--]  50%"


def test_quote_labels_every_figure() -> None:
    text = render.quote_text(QUOTE, n_test=20)
    assert "80 train, 9 validation; 20 test rows stay here" in text
    assert "30,211 once through (estimate)" in text
    assert "about $0.45 (estimate: prices of 2025)" in text
    assert "api.openai.com (engine openai)" in text
    lines = text.splitlines()
    assert lines[-2].startswith("error: row 3:") and lines[-1] == "warning: closes soon"


def test_quote_html_is_escaped_and_well_formed() -> None:
    page = render.quote_html(QUOTE, n_test=20)
    assert "<img" not in page and "<script" not in page
    ElementTree.fromstring(page)
    assert page.index("error") < page.index("warning")


@pytest.mark.parametrize(
    ("cost_usd", "shown"), [(None, "unknown"), (0.0, "none"), (0.0004, "less than $0.01")]
)
def test_costs_that_are_no_amount(cost_usd: float | None, shown: str) -> None:
    quote = Quote("local", "127.0.0.1", "m", 4, 0, 10, "measured", cost_usd=cost_usd)
    assert f"cost     {shown}" in render.quote_text(quote)
    assert "counted with the model's tokenizer" in render.quote_text(quote)


def test_no_problems_render_as_nothing() -> None:
    assert render.problems_html([]) == "" == render.problems_text([])


def test_many_problems_are_counted() -> None:
    problems = [Problem("warning", number, "odd") for number in range(1, 21)]
    assert render.problems_text(problems).endswith("and 12 more")
    assert "and 12 more" in render.problems_html(problems)
