"""Training files: what is written, what is read back, and what is said about bad lines."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftmagic.errors import DataError, StoreError
from ftmagic.formats.atomic_files import write_lines
from ftmagic.formats.rows import row_problems
from ftmagic.formats.schemas import output_schemas
from ftmagic.formats.sidecars import sidecar_path
from ftmagic.formats.training_files import read_rows, to_row, write_rows
from ftmagic.types import Example, Json
from tests.disk import full_disk

TOOL: Json = {
    "type": "function",
    "function": {
        "name": "Album",
        "parameters": {"type": "object", "properties": {"year": {"type": "integer"}}},
        "strict": True,
    },
}
FORMAT: Json = {
    "type": "json_schema",
    "json_schema": {"name": "Album", "schema": TOOL["function"]["parameters"]},
}


def call(arguments: str, call_id: str = "call_1") -> Json:
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": "Album", "arguments": arguments},
    }


def tool_example(
    arguments: str = '{"year": 1976}', text: str = "An album", **fields: Any
) -> Example:
    messages: list[Json] = [
        {"role": "user", "content": text},
        {"role": "assistant", "tool_calls": [call(arguments)]},
    ]
    values = {"tools": [TOOL], "schemas": output_schemas([TOOL], None), **fields}
    return Example(messages, **values)


def format_example(**fields: Any) -> Example:
    messages: list[Json] = [
        {"role": "user", "content": "An album"},
        {"role": "assistant", "content": '{"year": 1976}'},
    ]
    schemas = output_schemas([], FORMAT)
    return Example(messages, response_format=FORMAT, schemas=schemas, **fields)


def read_text(path: Path, text: str | bytes) -> Any:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_rows(path)


PLAIN = '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}'


def test_line_has_only_the_fields_of_openais_format(tmp_path: Path) -> None:
    example = tool_example(parallel_tool_calls=False, tool_choice="required")
    manifest = write_rows(tmp_path / "a.jsonl", [example, format_example()])
    data = (tmp_path / "a.jsonl").read_bytes()
    first, second = [json.loads(line) for line in data.splitlines()]
    assert set(first) == {"messages", "tools", "parallel_tool_calls"}
    assert set(second) == {"messages"}
    assert data.endswith(b"}\n")
    assert (manifest.n_rows, manifest.size_bytes) == (2, len(data))
    import hashlib

    assert manifest.sha256 == hashlib.sha256(data).hexdigest()


def test_response_format_is_kept_where_the_engine_reads_it(tmp_path: Path) -> None:
    row = to_row(format_example(), keeps_response_format=True)
    assert row["response_format"] == FORMAT
    write_rows(tmp_path / "a.jsonl", [format_example()], keeps_response_format=True)
    sidecar_path(tmp_path / "a.jsonl").unlink()
    [example] = read_rows(tmp_path / "a.jsonl").examples
    assert example == format_example()
    assert example.schemas[0].name == "Album"


def test_what_is_written_is_read_back_with_its_bookkeeping(tmp_path: Path) -> None:
    examples = [
        tool_example(tool_choice="required", split="test", tags={"source": "s1"}, n_tokens=9),
        format_example(review="approved", model="gpt-4o"),
    ]
    write_rows(tmp_path / "a.jsonl", examples)
    result = read_rows(tmp_path / "a.jsonl")
    assert result.problems == []
    assert result.examples == examples
    assert [each.schemas for each in result.examples] == [each.schemas for each in examples]
    assert result.examples[0].split == "test"
    assert result.examples[0].tags == {"source": "s1"}
    assert result.examples[0].n_tokens == 9
    assert (result.examples[1].review, result.examples[1].model) == ("approved", "gpt-4o")


def test_sidecar_still_fits_after_lines_were_moved_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_rows(path, [tool_example(text=str(n), tool_choice=f"c{n}") for n in range(3)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[2] + PLAIN.encode() + b"\n" + lines[0])
    assert [each.tool_choice for each in read_rows(path).examples] == ["c2", None, "c0"]


def test_damaged_sidecar_is_reported_and_the_rows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_rows(path, [tool_example()])
    for text in ("{", "[]", '{"format": "other/1"}', '{"format": "ftmagic.schema/1"}'):
        sidecar_path(path).write_text(text)
        result = read_rows(path)
        assert len(result.examples) == 1
        assert [each.severity for each in result.problems] == ["warning"]


text = st.text(max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
made_examples = st.builds(
    lambda prompt, answer, choice, parallel, has_tools, tags: replace(
        tool_example(json.dumps(answer), prompt, tool_choice=choice, parallel_tool_calls=parallel)
        if has_tools
        else format_example(tool_choice=choice),
        tags=tags,
    ),
    text,
    st.dictionaries(text, values, max_size=3),
    st.none() | st.just("auto"),
    st.none() | st.booleans(),
    st.booleans(),
    st.dictionaries(text, text, max_size=2),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(made_examples, max_size=4), st.booleans())
def test_any_examples_survive_the_round_trip(examples: list[Example], keeps: bool) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        write_rows(path, examples, keeps_response_format=keeps)
        result = read_rows(path)
        assert path.read_bytes().count(b"\n") == len(examples)
        assert len(path.read_text("utf-8").splitlines()) == len(examples)
    assert result.errors == []
    assert result.examples == examples
    assert [each.tags for each in result.examples] == [each.tags for each in examples]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.binary(max_size=30) | st.just(PLAIN.encode()) | values.map(json.dumps)))
def test_any_bytes_are_read_without_an_exception_and_nothing_is_lost(lines: list[Any]) -> None:
    data = b"\n".join(each.encode() if isinstance(each, str) else each for each in lines)
    with TemporaryDirectory() as folder:
        result = read_text(Path(folder) / "a.jsonl", data)
    physical = data.removesuffix(b"\n").split(b"\n") if data else []
    n_blank = sum("blank line" in each.message for each in result.problems)
    assert len(result.examples) + len(result.errors) + n_blank == len(physical)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("{", "Expecting property name"),
        ("[]", "not a JSON object"),
        ('{"messages": []}', "there are no messages"),
        ('{"messages": 3}', "not lists of objects"),
        ('{"messages": [{"content": "a"}]}', "has no 'role'"),
        ('{"prompt": "a", "completion": "b"}', "a prompt-completion row"),
        ('{"input": {}, "preferred_output": []}', "a preference (DPO) row"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "the last message is from 'user'"),
        ('{"messages": [{"role": "robot", "content": "a"}]}', "the role 'robot' is not one of"),
        (PLAIN.replace('"b"', "NaN"), "NaN is not JSON"),
        (PLAIN.replace('"b"', '"b","role":"user"'), "the key 'role' appears twice"),
        (PLAIN.replace('"b"', '"\\ud800"'), "half a surrogate pair"),
        (PLAIN.replace('"b"', "1" * 5000), "a number has too many digits"),
        ("[" * 100_000, "nested deeper than 200 levels"),
        (PLAIN.replace('"b"', '[{"type":"file"}]'), "file or audio parts (file)"),
    ],
)
def test_bad_line_is_reported_by_number_and_the_others_are_read(
    tmp_path: Path, line: str, part: str
) -> None:
    result = read_text(tmp_path / "a.jsonl", f"{PLAIN}\n{line}\n{PLAIN}\n")
    assert len(result.examples) == 2
    [problem] = result.problems
    assert (problem.severity, problem.row) == ("error", 2)
    assert part in problem.message


def test_bytes_that_are_not_utf8_are_located(tmp_path: Path) -> None:
    result = read_text(tmp_path / "a.jsonl", b'{"messages": "\xff"}\n')
    assert result.problems[0].message == "not UTF-8 at byte 15 of the line"


def test_bom_crlf_and_blank_lines_are_no_errors(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf" + PLAIN.encode() + b"\r\n\r\n" + PLAIN.encode()
    result = read_text(tmp_path / "a.jsonl", data)
    assert len(result.examples) == 2
    assert [(each.severity, each.row) for each in result.problems] == [("warning", 2)]


def test_unicode_line_ends_inside_a_string_do_not_split_it(tmp_path: Path) -> None:
    odd = "a\u2028b\u2029c\x85d\x0be"
    raw = PLAIN.replace('"a"', f'"{odd[:-2]}"')
    [example] = read_text(tmp_path / "a.jsonl", raw).examples
    assert example.messages[0]["content"] == odd[:-2]
    write_rows(tmp_path / "b.jsonl", [tool_example(text=odd)])
    assert len((tmp_path / "b.jsonl").read_text("utf-8").splitlines()) == 1
    assert read_rows(tmp_path / "b.jsonl").examples[0].messages[0]["content"] == odd


def test_answer_that_breaks_its_schema_is_kept_and_flagged(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [tool_example('{"year": "x"}')])
    result = read_rows(tmp_path / "a.jsonl")
    assert not result.examples[0].is_trainable
    assert result.problems[0].severity == "warning"
    assert 'year: "x" is not of type "integer"' in result.problems[0].message


def test_legacy_functions_are_read_as_tools(tmp_path: Path) -> None:
    row = {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "function_call": {"name": "Album", "arguments": "{}"}},
        ],
        "functions": [TOOL["function"]],
    }
    [example] = read_text(tmp_path / "a.jsonl", json.dumps(row)).examples
    assert example.tools == [TOOL]
    assert example.answer["tool_calls"][0]["function"]["name"] == "Album"


def test_fields_that_would_be_lost_are_named(tmp_path: Path) -> None:
    result = read_text(tmp_path / "a.jsonl", PLAIN[:-1] + ',"id":3}')
    assert "a training row does not have: id" in result.problems[0].message


def test_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_rows(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    "example",
    [
        tool_example(text="\ud800"),
        replace(tool_example(), tools=[{**TOOL, "x": float("nan")}]),
    ],
)
def test_row_that_is_not_json_stops_the_write_and_leaves_the_old_file(
    tmp_path: Path, example: Example
) -> None:
    path = tmp_path / "a.jsonl"
    write_rows(path, [tool_example()])
    before = path.read_bytes()
    with pytest.raises(DataError, match="row 2 holds .*nothing was written"):
        write_rows(path, [tool_example(), example])
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.jsonl", "a.schema.json"]


def test_failing_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"old")
    with full_disk(4096), pytest.raises(StoreError, match="what was there before is unchanged"):
        write_lines(path, [b"x" * 1000] * 100)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.jsonl"]


def test_missing_folder_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Next:"):
        write_rows(tmp_path / "none" / "a.jsonl", [tool_example()])


def test_written_files_are_private(tmp_path: Path) -> None:
    manifest = write_rows(tmp_path / "a.jsonl", [tool_example()])
    for path in (manifest.path, manifest.sidecar):
        assert os.stat(path).st_mode & 0o777 == 0o600


def test_tool_calls_must_be_answered_before_the_next_turn() -> None:
    turns: list[Json] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "tool_calls": [call("{}")]},
        {"role": "tool", "tool_call_id": "call_1", "content": "r"},
        {"role": "assistant", "content": "b"},
    ]
    assert row_problems(turns) == []
    assert row_problems(turns[:2]) == []
    assert row_problems([*turns[:2], turns[3]]) == [
        "message 3: a tool call before it has no tool message"
    ]
    assert row_problems([turns[0], turns[2], turns[3]]) == [
        "message 2: answers no tool call before it"
    ]


def test_arguments_names_and_weights_are_checked() -> None:
    turns: list[Json] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "tool_calls": [call("{")], "weight": 2},
    ]
    tool = {"type": "function", "function": {"name": "a b"}}
    problems = " ".join(row_problems(turns, [tool]))
    assert "the arguments of 'Album' are not JSON" in problems
    assert "the weight is 2" in problems
    assert "'a b' cannot name a tool" in problems
