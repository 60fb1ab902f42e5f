"""Mapping of recorded chat completions: bodies made by the real SDK, and bodies written by hand."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import OpenAI
from pydantic import BaseModel

from ftmagic.formats import detect_api, map_call, strict_json
from ftmagic.formats.openai_chat import examples_from_call, is_structured
from ftmagic.formats.strict_json import StrictJsonError
from ftmagic.formats.validation import compile_schema, schema_problems
from ftmagic.types import Call, Json

SONGS: Json = {
    "type": "object",
    "properties": {
        "songs": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"length_seconds": {"type": "integer"}},
                "required": ["length_seconds"],
            },
        }
    },
    "required": ["songs"],
}
ALBUM_TOOL: Json = {
    "type": "function",
    "function": {"name": "Album", "parameters": SONGS, "strict": True},
}
ASK = [{"role": "user", "content": "An album, please."}]


def tool_call(arguments: str, name: str = "Album", call_id: str = "call_1") -> Json:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def choice(message: Json, finish_reason: str | None = "stop", index: int = 0) -> Json:
    message = {"role": "assistant", "content": None, **message}
    return {"index": index, "finish_reason": finish_reason, "message": message}


def make_call(request: Json, *choices: Json, **fields: Any) -> Call:
    request = {"model": "gpt-4o", "messages": ASK, **request}
    reply = {"model": "gpt-4o-2024-08-06", "choices": list(choices), "usage": {"total_tokens": 42}}
    values = {"reply": reply, "started_at": 1.5, "tags": {"source": "a"}, **fields}
    return Call(
        "c1", "r1", "openai.chat", "http://127.0.0.1/v1/chat/completions", request, **values
    )


def tools_call(arguments: str, **fields: Any) -> Call:
    answer = choice({"tool_calls": [tool_call(arguments)]}, "tool_calls")
    return make_call({"tools": [ALBUM_TOOL]}, answer, **fields)


def test_tool_call_becomes_one_valid_example() -> None:
    mapped = map_call(tools_call('{"songs": [{"length_seconds": 3}]}'))
    [example] = mapped.examples
    assert mapped.skipped == ""
    answer = {"role": "assistant", "tool_calls": [tool_call('{"songs": [{"length_seconds": 3}]}')]}
    assert example.messages == [*ASK, answer]
    assert example.tools == [ALBUM_TOOL]
    assert (example.schemas[0].name, example.schemas[0].kind) == ("Album", "tool")
    assert example.schemas[0].is_strict
    assert (example.model, example.n_tokens, example.call_id) == ("gpt-4o-2024-08-06", 42, "c1")
    assert example.tags == {"source": "a"}
    assert example.created_at == 1.5
    assert example.is_trainable


def test_output_that_breaks_its_schema_is_kept_with_the_path_of_the_field() -> None:
    arguments = '{"songs": [{"length_seconds": 1}, {"length_seconds": 2}, {"length_seconds": "x"}]}'
    [example] = examples_from_call(tools_call(arguments)).examples
    assert example.problems == ('songs[2].length_seconds: "x" is not of type "integer"',)
    assert not example.is_trainable


def test_json_schema_answer_is_kept_as_content_beside_its_schema() -> None:
    response_format = {
        "type": "json_schema",
        "json_schema": {"name": "Album", "schema": SONGS, "strict": True},
    }
    call = make_call({"response_format": response_format}, choice({"content": '{"songs": []}'}))
    [example] = examples_from_call(call).examples
    assert example.answer == {"role": "assistant", "content": '{"songs": []}'}
    assert example.response_format == response_format
    assert example.schemas[0].kind == "response_format"
    assert example.tools == []


def test_json_object_answer_must_be_an_object() -> None:
    request = {"response_format": {"type": "json_object"}}
    [good] = examples_from_call(make_call(request, choice({"content": "{}"}))).examples
    [bad] = examples_from_call(make_call(request, choice({"content": "[]"}))).examples
    assert good.is_trainable
    assert bad.problems == ("the answer is not a JSON object",)


def test_developer_role_and_text_parts_are_normalised() -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]
    answer = choice({"tool_calls": [tool_call('{"songs": []}')]})
    call = make_call({"messages": messages, "tools": [ALBUM_TOOL]}, answer)
    [example] = examples_from_call(call).examples
    assert example.prompt == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a\nb"},
    ]


def test_images_by_url_are_kept() -> None:
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ]
    request = {"messages": [{"role": "user", "content": parts}], "tools": [ALBUM_TOOL]}
    call = make_call(request, choice({"tool_calls": [tool_call('{"songs": []}')]}))
    [example] = examples_from_call(call).examples
    assert example.prompt[0]["content"] == parts


def test_legacy_functions_become_tools() -> None:
    messages = [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "look", "arguments": "{}"},
        },
        {"role": "function", "name": "look", "content": "seen"},
    ]
    request = {
        "messages": messages,
        "functions": [{"name": "look"}, ALBUM_TOOL["function"]],
        "function_call": {"name": "Album"},
    }
    reply = {"function_call": {"name": "Album", "arguments": '{"songs": []}'}}
    [example] = examples_from_call(make_call(request, choice(reply, "function_call"))).examples
    assert example.messages == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [tool_call("{}", "look", "call_1")]},
        {"role": "tool", "tool_call_id": "call_1", "content": "seen"},
        {"role": "assistant", "tool_calls": [tool_call('{"songs": []}', call_id="call_3")]},
    ]
    assert example.tools[1] == ALBUM_TOOL
    assert example.tool_choice == {"type": "function", "function": {"name": "Album"}}


def test_each_choice_is_an_example_and_the_lost_ones_are_named() -> None:
    call = make_call(
        {"tools": [ALBUM_TOOL], "n": 3},
        choice({"tool_calls": [tool_call('{"songs": []}')]}, index=0),
        choice({"tool_calls": [tool_call('{"so')]}, "length", index=1),
        choice({"tool_calls": [tool_call('{"songs": [1]}')]}, index=2),
    )
    mapped = examples_from_call(call)
    assert [each.is_trainable for each in mapped.examples] == [True, False]
    assert [each.n_tokens for each in mapped.examples] == [None, None]
    assert mapped.skipped == "1 of 3 choices: the reply was cut off (finish_reason length)"


def test_parallel_tool_calls_are_one_example_and_name_the_bad_call() -> None:
    calls = [tool_call('{"songs": []}'), tool_call("{}", call_id="call_2"), tool_call("{}", "X")]
    request = {"tools": [ALBUM_TOOL], "parallel_tool_calls": True}
    [example] = examples_from_call(make_call(request, choice({"tool_calls": calls}))).examples
    assert example.parallel_tool_calls is True
    assert example.problems == (
        'call 2 (Album): "songs" is a required property',
        "call 3 (X): the tool 'X' was not offered",
    )


GOOD = {"tool_calls": [tool_call('{"songs": []}')]}


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (make_call({}, choice({"content": "hi"})), "no tools and no response_format"),
        (
            make_call({"tools": [ALBUM_TOOL]}, choice({"content": "I cannot."})),
            "the model answered in words, no tool call",
        ),
        (make_call({"tools": [ALBUM_TOOL]}, choice({"refusal": "No."})), "refusal"),
        (make_call({"tools": [ALBUM_TOOL]}, choice({})), "the reply is empty"),
        (make_call({"tools": [ALBUM_TOOL]}), "the reply has no choices"),
        (tools_call('{"songs": ['), "arguments are not JSON"),
        (tools_call("[" * 100_000), "arguments are not JSON"),
        (tools_call('{"songs": NaN}'), "arguments are not JSON"),
        (
            make_call({"response_format": {"type": "json_object"}}, choice({"content": "Sure!"})),
            "the answer is not JSON",
        ),
        (
            make_call({"tools": [ALBUM_TOOL]}, choice(GOOD, "content_filter")),
            "the reply was filtered (finish_reason content_filter)",
        ),
        (
            make_call({"tools": [ALBUM_TOOL]}, choice(GOOD, None), is_stream=True),
            "stream ended before finish_reason",
        ),
        (
            make_call({"tools": [ALBUM_TOOL]}, reply=None, outcome="partial"),
            "stream ended before finish_reason",
        ),
        (
            make_call(
                {"tools": [ALBUM_TOOL]},
                status=429,
                outcome="failed",
                reply={"error": {"message": "Rate limit\nreached"}},
            ),
            "HTTP 429: Rate limit reached",
        ),
        (
            make_call({"tools": [ALBUM_TOOL]}, status=0, outcome="failed", error="refused"),
            "no response: refused",
        ),
        (
            make_call(
                {"tools": [ALBUM_TOOL]}, status=502, outcome="failed", reply=["x"], error="e" * 500
            ),
            "HTTP 502: " + "e" * 157 + "...",
        ),
        (
            make_call({"tools": [{"type": "web_search"}]}, choice(GOOD)),
            "a tool of type 'web_search'",
        ),
        (
            make_call(
                {
                    "tools": [ALBUM_TOOL],
                    "messages": [{"role": "user", "content": [{"type": "input_audio"}]}],
                },
                choice(GOOD),
            ),
            "file or audio parts (input_audio)",
        ),
        (
            make_call({"tools": [ALBUM_TOOL], "messages": "hi"}, choice(GOOD)),
            "the request or the reply is not shaped like a chat completion",
        ),
    ],
)
def test_nothing_to_make_has_a_named_reason(call: Call, reason: str) -> None:
    mapped = map_call(call)
    assert (mapped.examples, mapped.skipped) == ([], reason)


def test_record_all_takes_plain_answers() -> None:
    [example] = map_call(make_call({}, choice({"content": "hi"})), record_all=True).examples
    assert example.answer["content"] == "hi"
    assert example.is_trainable
    assert example.schemas == ()


def test_abandoned_stream_that_reached_its_finish_reason_is_complete() -> None:
    call = tools_call('{"songs": []}', outcome="partial", is_stream=True)
    assert len(examples_from_call(call).examples) == 1


def test_other_dialects_are_named_not_lost() -> None:
    call = Call("c", "r", "openai.responses", "http://x/v1/responses", {"model": "m"}, {})
    assert "not yet turned into examples" in map_call(call).skipped
    call = Call("c", "r", "unknown", "http://x/v1/other", {}, {})
    assert map_call(call).skipped == "a call of the dialect 'unknown'"


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v1/chat/completions", "openai.chat"),
        ("/openai/deployments/d/chat/completions?api-version=1", "openai.chat"),
        ("http://127.0.0.1:9/v1/responses/", "openai.responses"),
        ("/v1/messages", "anthropic.messages"),
        ("/v1/threads/t/messages", "unknown"),
        ("/v1/embeddings", "unknown"),
    ],
)
def test_dialect_is_told_by_the_path(path: str, api: str) -> None:
    assert detect_api(path) == api


def test_half_a_surrogate_pair_is_a_problem_not_a_crash() -> None:
    request = {"messages": [{"role": "user", "content": "\ud800"}], "tools": [ALBUM_TOOL]}
    [example] = examples_from_call(make_call(request, choice(GOOD))).examples
    assert example.problems == ("a text holds half a surrogate pair, which UTF-8 cannot spell",)


small = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@small
@given(st.dictionaries(st.sampled_from(["messages", "tools", "response_format"]), json_values))
def test_any_request_body_is_mapped_or_skipped_by_name(request: Json) -> None:
    mapped = map_call(Call("c", "r", "openai.chat", "u", request, {"choices": [choice(GOOD)]}))
    assert mapped.examples or mapped.skipped


@small
@given(json_values)
def test_any_reply_body_is_mapped_or_skipped_by_name(reply: Any) -> None:
    for body in ({"choices": reply}, {"choices": [reply]}, {"choices": [{"message": reply}]}):
        mapped = map_call(make_call({"tools": [ALBUM_TOOL]}, reply=body))
        assert mapped.examples or mapped.skipped


# Bodies that the real SDK puts on the wire


class Song(BaseModel):
    title: str
    length_seconds: int


class Album(BaseModel):
    name: str
    songs: list[Song]


@contextmanager
def recording_server(reply: Json) -> Iterator[tuple[OpenAI, list[Json]]]:
    """A loopback server that answers every request alike and keeps the request bodies."""
    seen: list[Json] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            body = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        try:
            with OpenAI(base_url=url, api_key="k", max_retries=0) as client:
                yield client, seen
        finally:
            server.shutdown()
            thread.join()


def sdk_reply(message: Json) -> Json:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [{**choice(message), "logprobs": None}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def test_body_of_the_sdks_parse_is_mapped_with_its_pydantic_schema() -> None:
    reply = sdk_reply({"content": '{"name":"A","songs":[{"title":"t","length_seconds":1}]}'})
    with recording_server(reply) as (client, seen):
        client.chat.completions.parse(
            model="gpt-4o",
            messages=[{"role": "user", "content": "go"}],
            response_format=Album,
        )
    [example] = examples_from_call(make_call(seen[0], reply=reply)).examples
    assert example.is_trainable
    assert (example.schemas[0].name, example.schemas[0].is_strict) == ("Album", True)
    assert set(example.schemas[0].schema["properties"]) == {"name", "songs"}


def test_body_of_the_sdks_pydantic_tool_is_mapped_and_checked() -> None:
    import openai

    reply = sdk_reply({"tool_calls": [tool_call('{"name":"A","songs":[{"title":"t"}]}')]})
    with recording_server(reply) as (client, seen):
        client.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "developer", "content": "s"}, {"role": "user", "content": "go"}],
            tools=[openai.pydantic_function_tool(Album)],
            tool_choice="required",
        )
    [example] = examples_from_call(make_call(seen[0], reply=reply)).examples
    assert example.tool_choice == "required"
    assert [each["role"] for each in example.messages] == ["system", "user", "assistant"]
    assert example.problems == ('songs[0]: "length_seconds" is a required property',)


# Validation and strict JSON


def test_broken_and_distant_schemas_are_reported_not_raised_and_not_fetched() -> None:
    assert schema_problems({"type": "foo"}, 1)[0].startswith("the schema cannot be used: ")
    distant = schema_problems({"$ref": "http://127.0.0.1:1/s.json"}, 1)[0]
    assert "schemas are never fetched" in distant


def test_many_problems_are_counted_after_the_fifth() -> None:
    problems = schema_problems({"items": {"type": "integer"}}, ["x"] * 9)
    assert problems[0] == '[0]: "x" is not of type "integer"'
    assert (len(problems), problems[-1]) == (6, "and 4 more problems")


def test_equal_schemas_share_one_compiled_validator() -> None:
    one = compile_schema({"type": "object", "required": ["a"]})
    assert one is compile_schema({"required": ["a"], "type": "object"})


def test_long_values_are_clipped_in_messages() -> None:
    [problem] = schema_problems({"type": "integer"}, "x" * 10_000)
    assert len(problem) <= 200


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e999", '{"a": 1, "a": 2}', "[" * 100_000])
def test_what_python_lets_through_is_refused(text: str) -> None:
    with pytest.raises(StrictJsonError):
        strict_json.loads(text)


def test_depth_is_counted_exactly() -> None:
    assert strict_json.loads("[" * 200 + "]" * 200)
    with pytest.raises(StrictJsonError, match="nested deeper than 200 levels"):
        strict_json.loads("[" * 201 + "]" * 201)


def test_numbers_of_5000_digits_are_refused() -> None:
    with pytest.raises(StrictJsonError, match="too many digits"):
        strict_json.loads("1" * 5000)


def test_is_structured_needs_tools_or_a_json_format() -> None:
    assert is_structured({"functions": [{}]})
    assert not is_structured({"response_format": {"type": "text"}})
    assert not is_structured({"tools": []})
