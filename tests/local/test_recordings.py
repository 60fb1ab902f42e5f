from __future__ import annotations

import json
from pathlib import Path

import pytest

from ftmagic.errors import DataError, RecordingMiss
from ftmagic.local.recordings import RecordingShelf, read_recording, request_key
from ftmagic.types import Json

TOOL: Json = {"type": "function", "function": {"name": "Cite", "parameters": {"type": "object"}}}


def ask(text: str, **fields: object) -> Json:
    return {"messages": [{"role": "user", "content": text}], **fields}


def write(path: Path, *lines: Json) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def line(text: str, answer: str, **fields: object) -> Json:
    reply = {"role": "assistant", "content": answer}
    return {"model": "gpt", "request": ask(text, **fields), "reply": reply}


def test_key_ignores_streaming_sampling_model_and_key_order() -> None:
    first = ask("hello", tools=[TOOL], temperature=0.3, stream=True, model="a", user="me")
    second = {"tools": [dict(reversed(TOOL.items()))], **ask("hello"), "model": "b"}
    assert request_key(first) == request_key(second)


def test_key_takes_an_absent_field_for_null_and_for_its_default() -> None:
    plain = request_key(ask("hello"))
    assert request_key(ask("hello", tools=None, response_format=None)) == plain
    assert request_key(ask("hello", tools=[], tool_choice="none")) == plain
    with_tool = request_key(ask("hello", tools=[TOOL]))
    assert request_key(ask("hello", tools=[TOOL], tool_choice="auto")) == with_tool
    assert request_key(ask("hello", tools=[TOOL], tool_choice="required")) != with_tool


def test_key_tells_other_messages_and_formats_apart() -> None:
    assert request_key(ask("hello")) != request_key(ask("hello "))
    json_object = {"type": "json_object"}
    assert request_key(ask("hello", response_format=json_object)) != request_key(ask("hello"))


def test_message_becomes_a_completion_with_call_ids(tmp_path: Path) -> None:
    call = {"function": {"name": "Cite", "arguments": "{}"}}
    reply = {"role": "assistant", "content": None, "tool_calls": [call]}
    path = write(tmp_path / "a.jsonl", {"request": ask("hi", tools=[TOOL]), "reply": reply})
    body = read_recording("key", path).answer(ask("hi", tools=[TOOL]))
    assert body["model"] == "key"
    assert "usage" not in body  # nothing was counted
    assert body["choices"][0]["finish_reason"] == "tool_calls"
    assert body["choices"][0]["message"]["tool_calls"][0]["id"].startswith("call_")


def test_completion_body_is_kept_as_recorded(tmp_path: Path) -> None:
    message = {"role": "assistant", "content": "hi", "refusal": None}
    reply = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 5,
        "model": "gpt-4-0613",
        "choices": [{"index": 0, "message": message, "finish_reason": "length", "logprobs": None}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
    path = write(tmp_path / "a.jsonl", {"model": "m", "request": ask("x"), "reply": reply})
    assert read_recording("key", path).answer(ask("x")) == reply


def test_several_answers_to_one_request_take_turns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", line("x", "one"), line("x", "two"))
    recording = read_recording("key", path)
    texts = [recording.answer(ask("x"))["choices"][0]["message"]["content"] for _ in range(3)]
    assert texts == ["one", "two", "one"]


def test_miss_names_the_nearest_request(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", line("cite Knuth 1984", "a"), line("weather today", "b"))
    with pytest.raises(RecordingMiss, match="nearest recorded request asks 'cite Knuth 1984'"):
        read_recording("key", path).answer(ask("cite Knuth 1985"))


def test_miss_with_the_same_words_says_what_differs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", line("cite Knuth", "a", tools=[TOOL]))
    with pytest.raises(RecordingMiss, match=r"same user message differs in tools\."):
        read_recording("key", path).answer(ask("cite Knuth"))


def test_long_requests_are_cut_in_a_miss(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", line("a" * 5000, "a"))
    with pytest.raises(RecordingMiss) as caught:
        read_recording("key", path).answer(ask("b" * 5000))
    assert len(str(caught.value)) < 800


def test_damaged_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = json.dumps(line("x", "y"))
    no_messages = json.dumps({"request": {}, "reply": {}})
    no_answer = json.dumps({"request": ask("q"), "reply": {"role": "assistant"}})
    path.write_text(f"{good}\n{{half\n\n{no_messages}\n{no_answer}\n" + "[" * 100_000)
    with pytest.raises(DataError) as caught:
        read_recording("key", path)
    text = str(caught.value)
    assert "line 2: Expecting property name" in text
    assert "line 4: 'request' has no list of 'messages'" in text
    assert "line 5: the reply has neither content nor tool calls" in text
    assert "line 6: " in text


def test_empty_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it has no lines"):
        read_recording("key", write(tmp_path / "empty.jsonl"))
    with pytest.raises(DataError, match="cannot be read"):
        read_recording("key", tmp_path / "none.jsonl")


def test_shelf_finds_recordings_again_but_not_lost_files(tmp_path: Path) -> None:
    shelf = RecordingShelf(tmp_path / "index.json")
    kept = write(tmp_path / "kept.jsonl", line("x", "y"))
    lost = write(tmp_path / "lost.jsonl", line("x", "z"))
    shelf.register("kept", kept)
    shelf.register("lost", lost)
    lost.unlink()
    again = RecordingShelf(tmp_path / "index.json")
    assert again.names() == ["kept"]
    assert again.answer("kept", ask("x"))["choices"][0]["message"]["content"] == "y"


@pytest.mark.parametrize("name", ["", "a/b", "ft:x", "ftmagic-student", "x" * 101])
def test_names_that_could_be_models_are_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.jsonl", line("x", "y"))
    with pytest.raises(DataError, match="cannot name a recording"):
        RecordingShelf(tmp_path / "index.json").register(name, path)
