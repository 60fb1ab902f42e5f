from __future__ import annotations

import asyncio
import gc
import gzip
import json
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftmagic.errors import DataError
from ftmagic.wire import scope, seam
from ftmagic.wire.exchange import STILL_OPEN, Exchange, library_name, strip_url
from ftmagic.wire.streams import merge_chat_chunks, read_chat_reply, sse_events
from tests.provider import (
    Provider,
    Reply,
    chunks_of,
    completion,
    sse_bytes,
    stream_reply,
    tool_call,
)
from tests.wire_parts import (
    ASK,
    CUT_ERRORS,
    MODULES,
    ask,
    captured,
    text_of,
    with_async_client,
)


@pytest.fixture
def provider() -> Iterator[Provider]:
    seam.install()
    with Provider() as running:
        yield running
    seam.uninstall()


@pytest.fixture
def client(provider: Provider) -> Iterator[openai.OpenAI]:
    with provider.client() as made:
        yield made


SCOPE = scope.Scope("run", sink=lambda exchange: None)


def merge(chunks: list[Any], *, is_done: bool = True) -> Any:
    return merge_chat_chunks(sse_events(b"".join(sse_bytes(chunks, is_done=is_done))))


def chunk(delta: Any, index: int = 0, reason: str | None = None, **more: Any) -> Any:
    choice = {"index": index, "delta": delta, "finish_reason": reason}
    return {"id": "c1", "model": "m", "choices": [choice], **more}


def test_events_follow_the_standard() -> None:
    data = (
        b"\xef\xbb\xbf: a comment\r\n"
        b"event: delta\r\nid: 7\r\ndata: one\r\ndata:two\r\n\r\n"
        b"data\n\n"
        b"retry: 3\n\n"
        b"data:  three \r\r"
        b"data: [DONE]\n\n"
    )
    assert sse_events(data) == ["one\ntwo", "", " three ", "[DONE]"]


def test_line_separators_inside_json_do_not_split_events() -> None:
    data = 'data: {"a":"x\u2028y\x85z\x0b"}\n\n'.encode()
    assert sse_events(data) == ['{"a":"x\u2028y\x85z\x0b"}']


def test_events_of_a_body_cut_inside_a_character_are_readable() -> None:
    data = "data: é\n\ndata: ü".encode()
    assert sse_events(data[:-1]) == ["é", "\ufffd"]


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8")), min_size=1))
def test_every_text_survives_as_an_event(texts: list[str]) -> None:
    data = "".join(f"data: {text}\n\n" for text in texts).encode()
    # A text that starts with a byte order mark keeps it: only the body's first bytes lose theirs.
    assert sse_events(data) == texts


@given(st.integers(0, 2000))
def test_a_cut_stream_never_counts_as_whole_and_never_raises(cut: int) -> None:
    body = completion('{"title": "Żółć \u2028"}')
    data = b"".join(sse_bytes(chunks_of(body)))
    end = data.index(b'"stop"') + len(b'"stop"')
    merged = merge_chat_chunks(sse_events(data[: min(cut, end - 1)]))
    assert not merged.is_complete
    assert merged.problem


def test_text_tools_usage_and_reason_are_merged() -> None:
    body = completion(
        tool_calls=[
            tool_call("album", {"title": "Dark Side", "year": 1973}, "call_1"),
            tool_call("album", {"title": "ünï"}, "call_2"),
        ]
    )
    merged = merge(chunks_of(body))
    assert merged.reply == body
    assert merged.is_complete
    assert merged.problem == ""


def test_several_choices_are_kept_apart() -> None:
    merged = merge(
        [
            chunk({"role": "assistant", "content": "a"}, 1),
            chunk({"content": "b"}, 0),
            chunk({"content": "c"}, 1, "stop"),
            chunk({}, 0, "length"),
        ]
    )
    choices = merged.reply["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["b", "ac"]
    assert [choice["finish_reason"] for choice in choices] == ["length", "stop"]


def test_a_refusal_is_merged() -> None:
    body = completion(refusal="I cannot help with that.")
    assert merge(chunks_of(body)).reply == body


def test_legacy_function_call_is_merged() -> None:
    merged = merge(
        [
            chunk({"role": "assistant", "function_call": {"name": "f", "arguments": ""}}),
            chunk({"function_call": {"arguments": '{"a"'}}),
            chunk({"function_call": {"arguments": ":1}"}}, reason="function_call"),
        ]
    )
    message = merged.reply["choices"][0]["message"]
    assert message["function_call"] == {"name": "f", "arguments": '{"a":1}'}


def test_tool_calls_arrive_out_of_order_without_type_or_index() -> None:
    merged = merge(
        [
            chunk({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g"}}]}),
            chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f"}}]}),
            chunk({"tool_calls": [{"index": 1, "function": {"name": "g", "arguments": "{}"}}]}),
            chunk({"tool_calls": [{"id": "c", "function": {"name": "h", "arguments": "1"}}]}),
            chunk({"tool_calls": [{"function": {"arguments": "2"}}]}, reason="tool_calls"),
        ]
    )
    calls = merged.reply["choices"][0]["message"]["tool_calls"]
    assert [(call["id"], *call["function"].values()) for call in calls] == [
        ("a", "f", ""),
        ("b", "g", "{}"),
        ("c", "h", "12"),
    ]
    assert all(call["type"] == "function" and "index" not in call for call in calls)


def test_azure_first_chunk_without_choices_does_not_hide_the_model() -> None:
    first = {"id": "", "model": "", "choices": [], "prompt_filter_results": [{"ok": True}]}
    reply = merge([first, chunk({"content": "x"}, reason="stop", system_fingerprint=None)]).reply
    assert reply["model"] == "m"
    assert reply["id"] == "c1"


def test_log_probabilities_are_joined() -> None:
    def part(text: str, reason: str | None) -> Any:
        made = chunk({"content": text}, reason=reason)
        made["choices"][0]["logprobs"] = {"content": [{"token": text}], "refusal": None}
        return made

    reply = merge([part("a", None), part("b", "stop")]).reply
    tokens = reply["choices"][0]["logprobs"]["content"]
    assert tokens == [{"token": "a"}, {"token": "b"}]


def test_done_or_a_finish_reason_on_every_choice_makes_a_reply_whole() -> None:
    started = [chunk({"content": "a"}, 0), chunk({"content": "b"}, 1)]
    assert not merge(started, is_done=False).is_complete
    assert not merge([*started, chunk({}, 0, "stop")], is_done=False).is_complete
    stopped = [*started, chunk({}, 0, "stop"), chunk({}, 1, "stop")]
    assert merge(stopped, is_done=False).is_complete
    assert merge(started, is_done=True).is_complete


def test_what_came_before_a_bad_chunk_is_kept_with_the_reason() -> None:
    merged = merge_chat_chunks([json.dumps(chunk({"content": "He"})), '{"id": '])
    assert merged.reply is not None
    assert merged.reply["choices"][0]["message"]["content"] == "He"
    assert not merged.is_complete
    assert merged.problem.startswith("chunk 2 cannot be read: JSONDecodeError")


def test_an_error_event_is_the_reason() -> None:
    merged = merge([chunk({"content": "He"}), {"error": {"message": "overloaded"}}])
    assert not merged.is_complete
    assert "overloaded" in merged.problem


@pytest.mark.parametrize(
    "event",
    ["", "null", "[]", '"x"', "{}", '{"choices": 3}', '{"choices": [3]}', '{"choices": [{}]}',
     '{"choices": [{"index": "x"}]}', '{"choices": [{"delta": {"tool_calls": [null]}}]}',
     '{"choices": [{"delta": {"tool_calls": 1}}]}', '{"choices": [{"delta": {"content": {}}}]}',
     '{"choices": [{"delta": {"function_call": []}}]}', '{"choices": [{"logprobs": [1]}]}'],
)  # fmt: skip
def test_no_malformed_chunk_raises(event: str) -> None:
    after = json.dumps(chunk({"content": "x"}, reason=None))
    assert not merge_chat_chunks([event, after]).is_complete


def exchange(body: bytes, content_type: str = "application/json", encoding: str = "") -> Exchange:
    return Exchange(
        SCOPE, "http://x/v1/chat/completions", status=200, content_type=content_type,
        content_encoding=encoding, chunks=[body[:7], body[7:]],
    )  # fmt: skip


def test_a_compressed_stream_is_read_as_far_as_it_came() -> None:
    body = completion("Hello, world")
    data = b"".join(sse_bytes(chunks_of(body)))
    kind = "text/event-stream; charset=utf-8"
    for encoding, packed in (
        ("gzip", gzip.compress(data)),
        ("deflate", zlib.compress(data)),
        ("deflate", zlib.compress(data)[2:-4]),
        ("identity, GZIP", gzip.compress(data)),
    ):
        assert read_chat_reply(exchange(packed, kind, encoding)) == (body, True, "")
        cut = read_chat_reply(exchange(packed[: len(packed) // 2], kind, encoding))
        assert not cut.is_complete


def test_an_undecodable_body_is_a_reason_not_an_exception() -> None:
    assert read_chat_reply(exchange(b"x" * 20, encoding="gzip")).problem.startswith("DataError")
    assert "'rot13'" in read_chat_reply(exchange(b"{}", encoding="rot13")).problem
    assert "not JSON" in read_chat_reply(exchange(b"<html>")).problem
    assert "not a JSON object" in read_chat_reply(exchange(b"[1]")).problem
    with pytest.raises(DataError, match="20 bytes are not valid gzip"):
        exchange(b"x" * 20, encoding="gzip").body()


def test_a_url_loses_query_and_credentials() -> None:
    assert strip_url("https://me:pw@h.example:8/a/b?key=1#f") == "https://h.example:8/a/b"
    assert strip_url("https://h.example/a@b") == "https://h.example/a@b"


def test_a_user_agent_is_shortened_to_product_and_version() -> None:
    assert library_name("AsyncOpenAI/Python 3.54.0") == "openai 3.54.0"
    assert library_name("AzureOpenAI/Python 2.54.0") == "azureopenai 2.54.0"
    assert library_name("python-httpx/0.28.1") == "python-httpx 0.28.1"
    assert library_name("langchain/1.2 (linux; me@example.com)") == "langchain 1.2"
    assert library_name("curious") == ""


def test_an_exchange_does_not_show_bodies() -> None:
    shown = repr(exchange(b"private"))
    assert "private" not in shown
    assert "chat/completions" in shown


# The tees, between the SDK and the server


def test_the_bytes_of_a_stream_are_passed_through_untouched(provider: Provider) -> None:
    body = completion("ünï")
    expected = b"".join(sse_bytes(chunks_of(body)))
    module = MODULES[-1]
    provider.script(stream_reply(body))
    with captured() as got, module.Client() as client:
        url = f"{provider.base_url}/chat/completions"
        with client.stream("POST", url, json=ASK) as response:
            assert b"".join(response.iter_raw()) == expected
    assert got[0].body() == expected
    assert got[0].is_complete


def test_compressed_replies_are_read_like_plain_ones(
    provider: Provider, client: openai.OpenAI
) -> None:
    body = completion("Hello, wörld")
    packed = gzip.compress(b"".join(sse_bytes(chunks_of(body))))
    kind, encoding = ("content-type", "text/event-stream"), ("content-encoding", "gzip")
    streamed = Reply(pieces=(packed[:20], packed[20:60], packed[60:]), headers=(kind, encoding))
    whole = Reply(pieces=(gzip.compress(json.dumps(body).encode()),), headers=(encoding,))
    provider.script(whole, streamed)
    with captured() as got:
        ask(client)
        list(ask(client, stream=True))
    assert [read_chat_reply(exchange) for exchange in got] == [(body, True, "")] * 2
    assert [exchange.content_encoding for exchange in got] == ["", "gzip"]


def test_a_stream_that_is_closed_early_is_partial(
    provider: Provider, client: openai.OpenAI
) -> None:
    gate = threading.Event()
    provider.script(stream_reply(completion("Hello, world"), gate=gate))
    with captured() as got:
        stream = ask(client, stream=True)
        next(stream)
        stream.close()
    gate.set()
    assert len(got) == 1
    assert not read_chat_reply(got[0]).is_complete
    assert scope.snapshot_open(got.scope) == []


def test_a_stream_that_is_dropped_is_recorded_when_it_is_collected(
    provider: Provider, client: openai.OpenAI
) -> None:
    with captured() as got:
        ask(client, stream=True)
        gc.collect()
        assert len(got) == 1
        module = MODULES[0]
        with module.Client() as bare:
            url = f"{provider.base_url}/chat/completions"
            bare.send(bare.build_request("POST", url, json=ASK), stream=True)
            gc.collect()
    assert len(got) == 2


def test_a_stream_left_open_is_a_snapshot_and_comes_whole_later(
    provider: Provider, client: openai.OpenAI
) -> None:
    gate = threading.Event()
    provider.script(stream_reply(completion("Hello, world"), gate=gate))
    with captured() as got:
        stream = ask(client, stream=True)
        next(stream)
        [partial] = scope.snapshot_open(got.scope)
    assert got == []
    gate.set()
    list(stream)
    [whole] = got
    assert partial.error == STILL_OPEN
    assert partial.id == whole.id
    assert len(partial.chunks) < len(whole.chunks)
    assert not read_chat_reply(partial).is_complete
    assert text_of(whole) == "Hello, world"


@pytest.mark.parametrize("keep", [1, 3])
def test_a_stream_that_is_cut_is_partial(
    keep: int, provider: Provider, client: openai.OpenAI
) -> None:
    cut = stream_reply(completion("Hello, world"), keep=keep, is_cut=True)
    quiet = stream_reply(completion("Hello, world"), keep=keep)
    provider.script(cut, quiet)
    with captured() as got:
        with pytest.raises(CUT_ERRORS):
            list(ask(client, stream=True))
        list(ask(client, stream=True))  # the SDK reports nothing here
    assert [read_chat_reply(exchange).is_complete for exchange in got] == [False, False]
    assert got[0].error.startswith("RemoteProtocolError")


def test_an_async_stream_closed_early_cancelled_or_dropped_is_recorded(
    provider: Provider,
) -> None:
    gate = threading.Event()
    body = completion("Hello, world")
    provider.script(*[stream_reply(body, gate=gate) for _ in range(3)])

    async def work(client: openai.AsyncOpenAI) -> None:
        closed = await client.chat.completions.create(**ASK, stream=True)
        await anext(aiter(closed))
        await closed.close()
        task = asyncio.create_task(read_all(client))
        while len(provider.requests) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        dropped = await client.chat.completions.create(**ASK, stream=True)
        await dropped.response.aclose()

    async def read_all(client: openai.AsyncOpenAI) -> None:
        async for _ in await client.chat.completions.create(**ASK, stream=True):
            pass

    with captured() as got:
        with_async_client(provider, work)
    gate.set()
    assert [exchange.error for exchange in got] == ["", "CancelledError", ""]
    assert not any(read_chat_reply(exchange).is_complete for exchange in got)


def test_threads_that_read_an_exchange_at_once_see_the_same(client: openai.OpenAI) -> None:
    with captured() as got:
        for _ in range(20):
            ask(client)
    with ThreadPoolExecutor(4) as pool:
        for exchange in got:
            ids = pool.map(lambda _, each=exchange: (each.id, each.url), range(8))
            assert len(set(ids)) == 1
