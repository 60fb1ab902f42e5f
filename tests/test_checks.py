"""Checks against an engine's limits: what is said about rows that cannot or should not train."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from ftmagic.checks import check, used_schema
from ftmagic.formats.schemas import output_schemas
from ftmagic.types import Example, Json, Limits

TWO = Limits(min_rows=2)


def make(text: str, answer: str = "{}", **fields: Any) -> Example:
    messages: list[Json] = [
        {"role": "user", "content": text},
        {"role": "assistant", "content": answer},
    ]
    return Example(messages, **{"dataset": "triage", **fields})


def versioned(n: int, year_type: str, version: int) -> Example:
    schema = {"type": "object", "properties": {"year": {"type": year_type}}}
    described = {"type": "json_schema", "json_schema": {"name": "Album", "schema": schema}}
    return make(
        f"{year_type} {n}",
        response_format=described,
        schemas=output_schemas([], described),
        schema_version=version,
    )


def messages(examples: list[Example], limits: Limits = TWO) -> list[str]:
    return [each.message for each in check(examples, limits, engine_name="openai")]


def test_good_rows_have_no_problems() -> None:
    assert check([make("a"), make("b")], TWO) == []


def test_no_rows_is_an_error() -> None:
    [problem] = check([], TWO)
    assert (problem.severity, problem.message) == (
        "error",
        "there are no rows: nothing to train on",
    )


def test_too_few_trainable_rows_say_what_was_left_out() -> None:
    rows = [make(str(n)) for n in range(8)]
    rows += [make(f"r{n}", review="rejected") for n in range(3)]
    rows += [make(f"i{n}", problems=("x: bad",)) for n in range(2)]
    first, *rest = check(rows, Limits(min_rows=10), engine_name="openai")
    assert first.severity == "error"
    assert first.message == (
        "'triage' has 8 rows that may train (3 rejected, 2 invalid); engine 'openai' needs at "
        "least 10"
    )
    assert first.fix == "ft.examples('triage').check()"
    assert [(each.severity, each.row) for each in rest] == [
        ("warning", number) for number in range(9, 14)
    ]
    assert rest[-1].message.endswith("its answer is not valid: x: bad")


def test_shape_of_messages_is_checked() -> None:
    bad = Example([{"role": "user", "content": "a"}])
    [problem] = check([make("a"), make("b"), bad], TWO)
    assert (problem.severity, problem.row) == ("error", 3)
    assert problem.message.startswith("the last message is from 'user'")


def test_long_rows_name_where_the_number_comes_from() -> None:
    limits = Limits(max_row_tokens=100)
    estimated, counted = messages([make("x" * 1000), make("b", n_tokens=101)], limits)
    assert "tokens (estimate: characters / 4); engine 'openai' takes at most 100" in estimated
    assert counted.startswith("about 101 tokens (the provider's count of the call)")
    assert messages([make("x" * 1000, n_tokens=99)], limits) == []


def test_size_of_the_file_is_checked() -> None:
    problem, *_ = messages([make("x" * 3_000_000), make("b")], Limits(max_file_bytes=2**20))
    assert problem == ("the training file would have 3 MB; engine 'openai' takes at most 1 MB")


def test_repeated_rows_are_counted_whatever_their_call_ids() -> None:
    def called(call_id: str) -> Example:
        call = {"id": call_id, "type": "function", "function": {"name": "A", "arguments": "{}"}}
        return Example(
            [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [call]}]
        )

    [problem] = check([called("1"), called("2"), called("3")], TWO)
    assert (problem.severity, problem.row, problem.fix) == ("warning", 2, "ds.dedupe()")
    assert problem.message == "2 rows repeat an earlier one exactly (rows 2, 3)"


def test_conflicting_answers_are_pointed_out() -> None:
    [problem] = messages([make("a", "1"), make("b", "1"), make("a", "2")])
    assert problem == "1 input has different answers, the first one in rows 1, 3"


def test_mixed_schema_versions_are_named() -> None:
    rows = [versioned(n, "integer", 1) for n in range(3)] + [versioned(0, "string", 2)]
    assert messages(rows) == ["2 versions of the schema 'Album' are mixed: v1 (3 rows), v2 (1 row)"]
    unsaved = [replace(each, schema_version=1) for each in rows]
    assert "are mixed" in messages(unsaved)[0] and "v1" not in messages(unsaved)[0]


def test_errors_come_first() -> None:
    rows = [make("a"), make("a"), Example([])]
    problems = check(rows, Limits(min_rows=9))
    assert [(each.severity, each.row) for each in problems] == [
        ("error", None),
        ("error", 3),
        ("warning", 2),
    ]


def test_schema_in_use_is_the_one_of_the_called_tool() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("A", "B")]
    call = {"id": "1", "type": "function", "function": {"name": "B", "arguments": "{}"}}
    example = Example(
        [{"role": "assistant", "tool_calls": [call]}], schemas=output_schemas(tools, None)
    )
    schema = used_schema(example)
    assert schema is not None and schema.name == "B"
    assert used_schema(make("a", json.dumps({}))) is None
