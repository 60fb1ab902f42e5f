"""Datasets over a real store: view, filter, split, write, read, rename, copy, delete."""

from __future__ import annotations

import importlib.util
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from ftmagic.dataset import Dataset, calls, datasets, examples, trainable
from ftmagic.errors import ConfigError, DataError, MissingExtraError, UnknownNameError
from ftmagic.formats import map_call
from ftmagic.formats.schemas import output_schemas
from ftmagic.magics import load, unload
from ftmagic.store import CallRecord, open_store
from ftmagic.types import Call, Example, Json, Limits, Split

SCHEMA: Json = {
    "type": "object",
    "properties": {"artist": {"type": "string"}, "year": {"type": "integer"}},
    "required": ["artist", "year"],
}
TOOL: Json = {"type": "function", "function": {"name": "Album", "parameters": SCHEMA}}


def make_call(run_id: str, n: int, arguments: str, **fields: Any) -> Call:
    function = {"name": "Album", "arguments": arguments}
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": f"call_{run_id[:4]}_{n}", "type": "function", "function": function}],
    }
    return Call(
        id=f"{run_id}-{n}",
        run_id=run_id,
        api="openai.chat",
        url="http://127.0.0.1/v1/chat/completions",
        request={
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": f"Album {n}, please."}],
            "tools": [TOOL],
        },
        reply={
            "model": "gpt-4o",
            "choices": [{"index": 0, "finish_reason": "tool_calls", "message": message}],
            "usage": {"total_tokens": 100},
        },
        **fields,
    )


def capture(
    name: str, n_rows: int, *, first: int = 0, split: Split | None = None, sources: int = 0
) -> None:
    """Store calls and examples as the recorder does; sources > 0 spreads them over that many."""
    store = open_store()
    run = store.calls.begin_run(name, split=split)
    made = []
    for n in range(first, first + n_rows):
        arguments = json.dumps({"artist": "Queen" if n % 2 else "ABBA", "year": 1970 + n})
        tags = {"source": f"s{n % sources}"} if sources else {}
        call = make_call(run.id, n, arguments, tags=tags)
        made.append(CallRecord(call, map_call(call).examples))
    store.calls.add(made)


def capture_one(name: str, arguments: str, n: int = 999) -> None:
    store = open_store()
    run = store.calls.begin_run(name)
    call = make_call(run.id, n, arguments)
    store.calls.add([CallRecord(call, map_call(call).examples)])


def test_examples_are_a_sequence_in_captured_order() -> None:
    capture("albums", 12)
    ds = examples("albums")
    assert len(ds) == 12
    assert ds[0].messages[0]["content"] == "Album 0, please."
    assert ds[-1].outputs() == [("Album", {"artist": "Queen", "year": 1981})]
    assert [each.id for each in ds[2:4]] == [each.id for each in ds][2:4]
    assert repr(ds) == "<Dataset 'albums': 12 rows>"
    assert ds.is_stored and ds[:3].is_stored


def test_unknown_dataset_names_the_closest() -> None:
    capture("albums", 1)
    with pytest.raises(UnknownNameError, match="did you mean 'albums'"):
        examples("album")
    with pytest.raises(UnknownNameError, match="did you mean 'albums'"):
        calls("albumz")
    with pytest.raises(UnknownNameError, match="did you mean 'albums'"):
        trainable("album")


def test_where_search_and_states_filter() -> None:
    capture("albums", 12)
    ids = [each.id for each in examples("albums")]
    open_store().examples.set_review(ids[:3], "approved")
    assert len(examples("albums", where="year > 1975 and artist == 'Queen'")) == 3
    assert len(examples("albums", search="ALBUM 1,")) == 1
    assert len(examples("albums", search="abba")) == 6
    assert len(examples("albums", review="approved")) == 3
    assert len(examples("albums").filter(lambda each: each.id == ids[0])) == 1
    assert len(trainable("albums", approved_only=True)) == 3
    with pytest.raises(UnknownNameError, match="did you mean 'year'"):
        examples("albums", where="yaer > 3")
    with pytest.raises(ConfigError, match="Next:"):
        examples("albums", where="open('x')")
    with pytest.raises(UnknownNameError, match="did you mean 'approved'"):
        examples("albums", review="aproved")  # type: ignore[arg-type]


def test_invalid_and_rejected_rows_are_not_trainable() -> None:
    capture("albums", 12)
    capture_one("albums", '{"artist": "X"}')
    open_store().examples.set_review([examples("albums")[0].id], "rejected")
    assert len(examples("albums")) == 13
    assert len(trainable("albums")) == 11
    assert repr(examples("albums")) == ("<Dataset 'albums': 13 rows, 2 not trainable; 1 rejected>")


def test_split_is_stored_exact_and_never_changes() -> None:
    capture("albums", 100)
    result = examples("albums").split()
    train, validation, test = result
    assert (len(train), len(validation), len(test)) == (70, 10, 20)
    assert result.note == "70 train, 10 validation, 20 test"
    assert len(examples("albums", split="test")) == 20
    again = examples("albums").split(validation=0.3, test=0.5, seed=7)
    assert [each.id for each in again.test] == [each.id for each in test]
    capture("albums", 50, first=100)
    later = examples("albums").split()
    assert {each.id for each in test} == {each.id for each in later.test}
    assert {each.id for each in train} <= {each.id for each in later.train}
    assert len(later.validation) == 13  # a tenth of the 130 rows that are not test


def test_too_few_rows_hold_out_none_and_say_so() -> None:
    capture("albums", 13)
    result = examples("albums").split()
    assert [len(part) for part in result] == [13, 0, 0]
    assert "13 rows: nothing held out, because the engine needs at least 10" in result.note
    assert "%%capture_ft albums --split test" in result.note


def test_rows_captured_for_testing_stay_apart_with_their_sources() -> None:
    capture("albums", 40, sources=20)
    capture("albums", 10, first=40, split="test", sources=20)
    train, validation, test = examples("albums").split(test=0.2)
    sources = [{each.tags["source"] for each in part} for part in (train, validation, test)]
    # The ten test rows have the sources s0 to s9; the older rows of those sources follow them.
    assert sources[2] == {f"s{n}" for n in range(10)}
    assert not sources[2] & (sources[0] | sources[1])
    assert len(test) == 10 + 20
    assert len(validation) == 2  # a tenth of the other twenty


def test_a_view_splits_its_own_rows_and_respects_those_outside() -> None:
    capture("albums", 60, sources=30)
    examples("albums")[:20].split(validation=0, test=4, min_train=1)
    held = {each.tags["source"] for each in examples("albums", split="test")}
    assert len(examples("albums", split="test")) == 4
    assert len(examples("albums").filter(lambda each: each.split is None)) == 40
    _, _, test = examples("albums")[20:].split(validation=0, test=0, min_train=1)
    assert {each.tags["source"] for each in test} == held
    assert len(test) == 4  # the second rows of the four held sources


def test_rows_that_are_not_stored_are_split_without_a_store(home: Path) -> None:
    ds = Dataset("made", [row(str(n)) for n in range(50)])
    train, validation, test = ds.split()
    assert [len(part) for part in (train, validation, test)] == [35, 5, 10]
    assert test[0].split == "test"
    assert not ds.is_stored
    assert not home.exists()


def row(text: str, answer: str = "{}", **fields: Any) -> Example:
    messages: list[Json] = [
        {"role": "user", "content": text},
        {"role": "assistant", "content": answer},
    ]
    return Example(messages, **fields)


def test_dedupe_keeps_the_first_of_equal_rows() -> None:
    ds = Dataset("made", [row("a", id=1), row("b", id=2), row("a", id=3)])
    assert [each.id for each in ds.dedupe()] == [1, 2]


def test_equal_calls_are_one_stored_example() -> None:
    capture("albums", 12)
    capture("albums", 12)
    assert len(examples("albums")) == 12
    assert len(calls("albums")) == 24


def test_check_takes_limits_or_an_engine() -> None:
    capture("albums", 8)
    [problem] = examples("albums").check(Limits(min_rows=10))
    assert problem.message.startswith("'albums' has 8 rows that may train; engine")
    assert examples("albums").check(Limits(min_rows=8)) == []
    with pytest.raises(UnknownNameError, match="did you mean 'openai'"):
        examples("albums").check("opena")


def test_write_leaves_out_what_must_not_train_and_says_so(tmp_path: Path) -> None:
    capture("albums", 12)
    capture_one("albums", '{"artist": 3}')
    manifest = examples("albums").write(tmp_path / "a.jsonl")
    assert (manifest.n_rows, manifest.n_left_out) == (12, 1)
    assert str(manifest).endswith("(schemas in a.schema.json); 1 rejected or invalid rows left out")
    assert examples("albums").write(tmp_path / "b.jsonl", keeps_untrainable=True).n_rows == 13


def test_export_and_import_give_the_same_rows_with_sources_and_splits(tmp_path: Path) -> None:
    capture("albums", 30, sources=10)
    examples("albums").split(min_train=1)
    examples("albums").write(tmp_path / "a.jsonl", keeps_test=True)
    read = Dataset.read(tmp_path / "a.jsonl")
    assert (read.name, read.is_stored, read.problems) == ("a", False, ())
    assert str(read.add_to("copy")) == "copy: 30 new examples, 0 duplicates"
    assert str(read.add_to("copy")) == "copy: 0 new examples, 30 duplicates"
    original, copied = list(examples("albums")), list(examples("copy"))
    assert copied == original
    assert [each.tags for each in copied] == [each.tags for each in original]
    assert [each.split for each in copied] == [each.split for each in original]
    assert [each.schemas for each in copied] == [each.schemas for each in original]


def test_corrupt_file_is_refused_whole_with_line_numbers(tmp_path: Path) -> None:
    good = json.dumps({"messages": row("a").messages})
    lines = [good, "{", good, *["[]"] * 6, '{"messages": NaN}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        Dataset.read(tmp_path / "a.jsonl")
    text = str(caught.value)
    assert "8 lines of" in text and "nothing was imported" in text
    assert "line 2: Expecting property name" in text
    assert "and 3 more" in text and "Next: " in text


def test_empty_file_and_empty_dataset_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(DataError, match="has no rows"):
        Dataset.read(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="nothing was written"):
        Dataset("none").write(tmp_path / "b.jsonl")
    assert not (tmp_path / "b.jsonl").exists()
    assert Dataset("none").check(Limits())[0].severity == "error"
    assert [len(part) for part in Dataset("none").split()] == [0, 0, 0]


def test_token_count_says_where_it_comes_from() -> None:
    capture("albums", 5)
    count = examples("albums").count_tokens()
    assert (count.n_tokens, count.basis) == (500, "provider")
    assert str(count) == "500 tokens (the provider's count)"
    # Equal rows, one counted: it calibrates the other.
    mixed = Dataset("m", [row("abcd", n_tokens=7), row("abcd")]).count_tokens()
    assert (mixed.n_tokens, mixed.basis, mixed.n_estimated) == (14, "estimate", 1)
    # {"messages":[{"content":"abcd","role":"user"},{"content":"{}","role":"assistant"}]}: 83 / 4
    assert Dataset("m", [row("abcd")]).count_tokens().n_tokens == 21


def test_records_hold_output_and_tags() -> None:
    capture("albums", 2, sources=1)
    first = examples("albums").to_records()[0]
    assert first["output"] == {"artist": "ABBA", "year": 1970}
    assert first["tag.source"] == "s0"
    assert first["prompt"] == "Album 0, please."


def test_pandas_is_optional() -> None:
    capture("albums", 2)
    if importlib.util.find_spec("pandas") is None:
        with pytest.raises(MissingExtraError, match="pip install pandas"):
            examples("albums").to_pandas()
    else:
        assert list(examples("albums").to_pandas()["output.year"]) == [1970, 1971]


def test_hostile_text_is_escaped_and_clipped_in_html() -> None:
    hostile = "<script>alert(1)</script>\u202e\x1b[31m" + "x" * 10_000
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": "A", "arguments": "<img onerror=1>"},
    }
    messages: list[Json] = [
        {"role": "user", "content": [{"type": "text", "text": hostile}]},
        {"role": "assistant", "tool_calls": [call]},
    ]
    html = Dataset("<b>", [Example(messages, problems=("<i>",))])._repr_html_()
    assert "<script" not in html and "<img" not in html and "<i>" not in html and "<b>" not in html
    assert "\u202e" not in html and "\x1b" not in html
    assert len(html) < 5_000


def test_datasets_are_listed_renamed_copied_and_deleted() -> None:
    capture("albums", 12)
    assert repr(datasets()) == "albums: 12 calls, 12 examples"
    assert datasets().rename("albums", "records") == "albums is now named records"
    assert datasets().copy("records", "again") == "12 examples of records copied to again"
    assert datasets().names() == ["again", "records"]
    assert datasets()["records"].n_examples == 12
    assert datasets()[0].name == "again"
    with pytest.raises(UnknownNameError, match="did you mean 'records'"):
        datasets()["record"]
    with pytest.raises(DataError, match="already a dataset named 'again'"):
        datasets().rename("records", "again")
    assert datasets().delete("records") == "records erased: 12 calls, 12 examples"
    assert "again" in datasets()._repr_html_()
    datasets().delete("again")
    assert repr(datasets()) == "no datasets yet; capture one with %%capture_ft NAME"


def test_a_dataset_renames_copies_and_deletes_itself() -> None:
    capture("albums", 3)
    renamed = examples("albums").rename("records")
    assert (renamed.name, len(renamed), renamed.is_stored) == ("records", 3, True)
    assert len(renamed.copy("again")) == 3
    assert renamed.delete().n_examples == 3
    assert datasets().names() == ["again"]


def test_calls_are_written_as_a_recording_of_bodies(tmp_path: Path) -> None:
    capture("albums", 3)
    store = open_store()
    run = store.calls.begin_run("albums")
    failed = Call(
        id="f",
        run_id=run.id,
        api="openai.chat",
        url="http://127.0.0.1/v1/chat/completions",
        request={"model": "gpt-4o", "messages": []},
        reply=None,
        status=500,
        outcome="failed",
        error="boom",
    )
    store.calls.add([CallRecord(failed, [], "HTTP 500: boom")])
    log = calls("albums")
    assert repr(log) == "<CallLog 'albums': 4 calls, 1 failed>"
    assert "boom" in log._repr_html_()
    written = log.write_recording(tmp_path / "r.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert written.n_rows == len(lines) == 3
    assert set(lines[0]) == {"model", "request", "reply"}
    assert lines[0]["request"] == log[0].request
    assert lines[0]["reply"] == log[0].reply
    assert calls("albums")[:1].write_recording(tmp_path / "one.jsonl").n_rows == 1
    with pytest.raises(DataError, match="none of the 1 calls"):
        log[3:].write_recording(tmp_path / "none.jsonl")


def test_a_recording_written_here_is_served_by_the_embedded_server(tmp_path: Path) -> None:
    pytest.importorskip("starlette", reason="the embedded server is an extra")
    from ftmagic.local.recordings import read_recording

    capture("albums", 3)
    calls("albums").write_recording(tmp_path / "r.jsonl")
    recording = read_recording("key", tmp_path / "r.jsonl")
    call = calls("albums")[1]
    reply = recording.answer({**call.request, "stream": True, "temperature": 1})
    assert call.reply is not None
    answers = [each["choices"][0]["message"]["tool_calls"] for each in (reply, call.reply)]
    assert answers[0] == answers[1]


def test_schema_of_a_json_answer_survives_the_store() -> None:
    described = {"type": "json_schema", "json_schema": {"name": "Album", "schema": SCHEMA}}
    schemas = output_schemas([], described)
    ds = Dataset("made", [row("a", response_format=described, schemas=schemas)])
    ds.add_to("albums")
    assert examples("albums")[0].schemas == schemas


def test_rejected_rows_are_not_trainable_and_approved_ones_can_be_chosen() -> None:
    capture("albums", 4)
    assert [row.review for row in examples("albums")[:1].reject(reviewer="ana")] == ["rejected"]
    examples("albums", where="year > 1972").approve()
    assert len(trainable("albums")) == 3
    assert len(trainable("albums", approved_only=True)) == 1


def test_tags_outlive_a_copy_an_import_and_the_original(tmp_path: Path) -> None:
    capture("albums", 3, sources=3)
    examples("albums").write(tmp_path / "albums.jsonl")
    Dataset.read(tmp_path / "albums.jsonl").add_to("imported")
    examples("albums").copy("copied")
    datasets().delete("albums")
    for name in ("imported", "copied"):
        assert [row.tags["source"] for row in examples(name)] == ["s0", "s1", "s2"]


def test_write_leaves_test_rows_out_unless_asked_for_and_says_so(tmp_path: Path) -> None:
    capture("albums", 20)
    examples("albums").split()
    manifest = examples("albums").write(tmp_path / "a.jsonl")
    assert (manifest.n_rows, manifest.n_left_out, manifest.n_test_left_out) == (16, 0, 4)
    assert str(manifest).endswith("; 4 test rows left out")
    assert {each.split for each in Dataset.read(tmp_path / "a.jsonl")} == {"train", "validation"}
    held = examples("albums", split="test")
    with pytest.raises(DataError, match=r"(?s)4 test rows.*keeps_test=True"):
        held.write(tmp_path / "b.jsonl")
    assert held.write(tmp_path / "b.jsonl", keeps_test=True).n_rows == 4


def test_export_magic_writes_test_rows_only_when_asked(tmp_path: Path) -> None:
    capture("albums", 20)
    examples("albums").split()
    shell = InteractiveShell()
    load(shell)
    try:
        file = tmp_path / "a.jsonl"
        assert shell.run_line_magic("ft_export", f"albums {file}").n_test_left_out == 4
        assert shell.run_line_magic("ft_export", f"albums {file} --split test").n_rows == 4
        assert shell.run_line_magic("ft_export", f"albums {file} --split train").n_rows == 14
    finally:
        unload(shell)


def test_two_kernels_that_split_at_once_tear_no_group() -> None:
    capture("albums", 80, sources=40)
    examples("albums")[::2].approve()
    approved = examples("albums", review="approved")

    def split_approved() -> None:
        approved.split(seed=1)
        open_store().close()

    other = threading.Thread(target=split_approved)

    def source(example: Example) -> str:
        if other.ident is None:  # all rows have been read: now the other kernel comes
            other.start()
            other.join(timeout=0.5)
        return example.tags["source"]

    examples("albums").split(by=source)
    other.join()
    splits: dict[str, set[Split | None]] = {}
    for each in examples("albums"):
        splits.setdefault(each.tags["source"], set()).add(each.split)
    assert [len(found) for found in splits.values()] == [1] * 40


def test_rows_that_are_not_stored_cannot_be_decided_on(tmp_path: Path) -> None:
    capture("albums", 3)
    examples("albums").write(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="(?s)'a' is not stored.*add_to"):
        Dataset.read(tmp_path / "a.jsonl").approve()
    assert len(examples("albums")[:0].reject()) == 0


def test_a_missing_file_names_a_command_that_exists(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Next: ft.Dataset.read\("):
        Dataset.read(tmp_path / "none.jsonl")
