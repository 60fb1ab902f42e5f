"""What a report shows, made from rows without any model."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from ftmagic.evals.report import Report, Row
from ftmagic.evals.scoring import score_outputs
from ftmagic.evals.worst import N_WORST, escape, leaves
from ftmagic.types import OutputSchema

SCHEMA = OutputSchema(
    "Citation",
    "tool",
    {"properties": {"author": {"type": "string"}, "year": {"type": "integer"}}},
)
EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>\x1b[31m\u202etxet $\\LaTeX$"


def row(number: int, model: str, *, year: int = 2000, **changes: Any) -> Row:
    target = {"author": "Wu", "year": 2000}
    output = {"author": "Wu", "year": year}
    score = score_outputs([("Citation", output)], [("Citation", target)], [SCHEMA])
    values: dict[str, Any] = {
        "example_id": number,
        "source": f"s{number}",
        "model": model,
        "score": score,
        "latency_s": 0.1 * number,
        "prompt": "passage",
        "target": target,
        "output": output,
        "has_tools": True,
    }
    return Row(**{**values, **changes})


def report(*rows: Row, **changes: Any) -> Report:
    models = tuple(dict.fromkeys(each.model for each in rows))
    return Report(**{"dataset": "citations", "models": models, "results": rows, **changes})


def both(n: int, n_base_right: int = 0) -> list[Row]:
    base = [row(at, "base", year=2000 if at < n_base_right else 1) for at in range(n)]
    return [*base, *(row(at, "tuned") for at in range(n))]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.open: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("br",):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags_of(html: str) -> _Tags:
    parser = _Tags()
    parser.feed(html)
    assert parser.open == []
    return parser


def test_difference_stands_before_every_table() -> None:
    html = report(*both(40))._repr_html_()

    assert "more fields right than base; 95 % interval +0.50 to +0.50" in html
    assert html.index("+0.50") < html.index("<table")
    assert "0.50 → 1.00" in html
    assert "class='gain good'" in html


def test_no_clear_difference_has_no_colour_and_says_so() -> None:
    rows = both(40)
    mixed = [row(at, "base", year=1 if at % 2 else 2000) for at in range(40)]
    tuned = [row(at, "tuned", year=2000 if at % 2 else 1) for at in range(40)]
    html = report(*mixed, *tuned)._repr_html_()

    assert len(rows) == 80
    assert "no clear difference between tuned and base" in html
    assert "class='gain '" in html


def test_worse_is_said_as_plainly_as_better() -> None:
    rows = [
        *(row(at, "base") for at in range(30)),
        *(row(at, "tuned", year=1) for at in range(30)),
    ]

    assert "fewer fields right than base" in report(*rows)._repr_html_()
    assert "class='gain bad'" in report(*rows)._repr_html_()


def test_few_sources_show_no_interval() -> None:
    found = report(*both(12))

    assert "too few to tell (12 sources; 20 are needed)" in found._repr_html_()
    assert "interval +" not in found._repr_html_()


def test_everything_from_outside_is_escaped() -> None:
    rows = [
        row(
            1,
            model,
            year=1,
            output={"author": EVIL, EVIL: [EVIL]},
            target={"author": EVIL},
            prompt=EVIL,
            group=EVIL,
            problems=(EVIL,),
        )
        for model in (EVIL, EVIL + "2")
    ]
    failed = row(2, EVIL + "2", score=None, error=EVIL)
    html = report(
        *rows,
        row(2, EVIL),
        failed,
        dataset=EVIL,
        group_tag=EVIL,
        teachers=(EVIL,),
        warnings=(EVIL,),
        notes=(EVIL,),
    )._repr_html_()
    found = tags_of(html)

    assert not found.names & {"img", "script", "iframe", "link", "a"}
    assert not {name for name in found.attributes if name.startswith("on")}
    assert "\x1b" not in html and "\u202e" not in html
    assert "[U+202E]" in html
    assert "http" not in html.replace("http://www.w3.org", "")


def test_html_is_well_formed_and_fetches_nothing() -> None:
    html = report(*both(25, 5), notes=("Measured at http://127.0.0.1:1/v1",))._repr_html_()
    found = tags_of(html)

    assert "src" not in found.attributes and "href" not in found.attributes
    assert "url(" not in html and "@import" not in html


def test_worst_rows_mark_the_missed_fields_only() -> None:
    html = report(row(1, "base"), row(1, "tuned", year=1999))._repr_html_()

    assert re.findall(r"<mark>(.*?)</mark>", html) == ["year: 1999"]
    assert "tuned: 1 of 2 fields" in html
    assert html.count("<details>") == 2


def test_missing_fields_of_an_output_are_named() -> None:
    target, output = {"author": "Wu", "year": 2000}, {"author": "Wu"}
    score = score_outputs([("Citation", output)], [("Citation", target)], [SCHEMA])
    html = report(row(1, "base"), row(1, "tuned", output=output, score=score))._repr_html_()

    assert "<mark>year is missing</mark>" in html


def test_only_the_worst_rows_are_shown() -> None:
    rows = both(30)
    html = report(*rows[30:], *[row(at, "late", year=1) for at in range(30)])._repr_html_()

    assert f"The {N_WORST} worst of 30 rows" in html
    assert html.count("class='rows'") == N_WORST


def test_all_right_shows_no_worst_rows() -> None:
    assert "worst" not in report(*both(3))._repr_html_()


def test_long_outputs_are_cut_for_display() -> None:
    output = {"author": "x" * 100_000, "year": 1, "more": list(range(5000))}
    html = report(row(1, "base"), row(1, "tuned", year=1, output=output))._repr_html_()

    assert len(html) < 20_000


def test_columns_without_numbers_are_left_out() -> None:
    text = repr(report(row(1, "base", has_tools=False), row(1, "tuned", has_tools=False)))

    assert "list F1" not in text
    assert "tool" not in text.splitlines()[5]


def test_one_model_has_no_difference() -> None:
    found = report(row(1, "m"), row(2, "m", year=1))

    assert "minus" not in repr(found)
    assert found.of("m").field_accuracy == 0.75
    assert found.of("m").latency_p50_s == pytest.approx(0.15)
    assert "class='gain" not in found._repr_html_()


def test_models_that_share_no_row_say_so() -> None:
    found = report(row(1, "base", score=None, error="down"), row(1, "tuned"))

    assert "no row was answered by both models" in found._repr_html_()
    assert "-" in repr(found)


def test_long_names_keep_the_text_within_a_hundred_columns() -> None:
    names = ("ft:gpt-4.1-nano-2025-04-14:acme:" + "a" * 60, "ft:gpt-4.1:" + "b" * 80)
    found = report(*(row(at, name, group="g" * 90) for at in range(25) for name in names))
    text = repr(Report(**{**vars(found), "group_tag": "kind"}))

    assert max(len(line) for line in text.splitlines()) <= 100


def test_escape_marks_what_would_hide() -> None:
    assert escape("a\u2066b\x00\x9bc<") == "a[U+2066]bc&lt;"


def test_leaves_name_each_value_twice() -> None:
    assert leaves({"a": [{"b": 1}, {"b": 2}]}) == [
        ("a[0].b", "a[].b", 1),
        ("a[1].b", "a[].b", 2),
    ]
