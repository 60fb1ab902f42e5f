"""Pass a streamed body through untouched, and rebuild the reply from its events afterwards.

The tees sit between the HTTP client and its reader and copy each piece of bytes. Everything below
them is pure: bytes in, JSON out, no exception for bad input. Whether a streamed reply is whole is
read from its events, never from the end of the connection: an SDK stops reading early, and a
stream that was cut ends like a good one.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from typing import Any, NamedTuple

from ftmagic.errors import FtmagicError
from ftmagic.types import Json
from ftmagic.wire.exchange import Exchange, one_line
from ftmagic.wire.scope import faults

_LINE_END = re.compile(rb"\r\n|\n|\r")  # not str.splitlines: U+2028 may stand inside JSON


def deliver(exchange: Exchange) -> None:
    """Hand an ended exchange to its scope's sink, once; a fault of ours is counted, not raised."""
    try:
        if not exchange.finish():
            return
        exchange.scope.open_streams.discard(exchange)
    except Exception as exc:  # recording must never hurt the user's call
        faults.add("close", exc)
        return
    try:
        exchange.scope.sink(exchange)
    except Exception as exc:  # as above
        faults.add("sink", exc)


def note_failure(exchange: Exchange, exc: BaseException) -> None:
    """Record what broke the user's call; a fault of ours is counted, not raised."""
    try:
        exchange.fail(exc)
    except Exception as fault:  # recording must never mask the user's error
        faults.add("error", fault)


class _Tee:
    """What both tees share; `_inner` is the HTTP client's own stream."""

    def __init__(self, inner: Any, exchange: Exchange) -> None:
        self._inner = inner
        self._exchange = exchange

    def __getattr__(self, name: str) -> Any:
        # httpx2 reads `response.stream.elapsed`; whatever else is asked is the inner stream's too.
        if name == "_inner":
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __del__(self) -> None:
        # The user dropped the stream without closing it: what came so far is recorded.
        if "_exchange" in vars(self):
            deliver(self._exchange)


class SyncTee(_Tee):
    """Copies what a sync stream yields. Mixed with the HTTP module's own base by `tee_classes`."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield the inner stream's pieces, the very objects."""
        read = self._exchange.read_chunk
        try:
            for chunk in self._inner:
                try:
                    read(chunk)
                except Exception as exc:  # recording must never hurt the user's stream
                    faults.add("chunk", exc)
                yield chunk
        except GeneratorExit:  # the reader stopped early
            raise
        except BaseException as exc:
            note_failure(self._exchange, exc)
            deliver(self._exchange)
            raise
        self._exchange.is_complete = True
        deliver(self._exchange)

    def close(self) -> None:
        """Close the inner stream, then record what came."""
        try:
            self._inner.close()
        finally:
            deliver(self._exchange)


class AsyncTee(_Tee):
    """Copies what an async stream yields."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the inner stream's pieces, the very objects."""
        read = self._exchange.read_chunk
        pieces = self._inner.__aiter__()
        try:
            async for chunk in pieces:
                try:
                    read(chunk)
                except Exception as exc:  # recording must never hurt the user's stream
                    faults.add("chunk", exc)
                yield chunk
        except GeneratorExit:  # the reader stopped early
            raise
        except BaseException as exc:
            note_failure(self._exchange, exc)
            deliver(self._exchange)
            raise
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
        self._exchange.is_complete = True
        deliver(self._exchange)

    async def aclose(self) -> None:
        """Close the inner stream, then record what came."""
        try:
            await self._inner.aclose()
        finally:
            deliver(self._exchange)


class TeeClasses(NamedTuple):
    """The tees of one HTTP module, which checks that its streams are of its own classes."""

    sync: Any
    asynchronous: Any


def tee_classes(module: Any) -> TeeClasses:
    """Make the tees for `httpx` or `httpx2`."""
    return TeeClasses(
        type("SyncTee", (SyncTee, module.SyncByteStream), {}),
        type("AsyncTee", (AsyncTee, module.AsyncByteStream), {}),
    )


class MergedReply(NamedTuple):
    """A reply as it was read.

    Attributes:
        reply: The chat.completion body; None when nothing usable came.
        is_complete: It is whole: `[DONE]`, or a finish_reason on every choice.
        problem: Why it is not whole or not usable, in one line; '' when it is.
    """

    reply: Json | None
    is_complete: bool
    problem: str = ""


def read_chat_reply(exchange: Exchange) -> MergedReply:
    """Read the reply of a chat-completions exchange, streamed or not; never raises."""
    try:
        body = exchange.body()
    except FtmagicError as exc:
        return MergedReply(None, False, one_line(exc))
    if exchange.is_event_stream:
        return merge_chat_chunks(sse_events(body))
    try:
        reply = json.loads(body)
    except ValueError as exc:
        return MergedReply(None, False, f"the reply is not JSON: {one_line(exc)}")
    if not isinstance(reply, dict):
        return MergedReply(None, False, "the reply is not a JSON object")
    return MergedReply(reply, True)


def sse_events(data: bytes) -> list[str]:
    r"""Split server-sent events into their data.

    Args:
        data: The decoded body, whole or cut anywhere; lines end in \n, \r\n or \r.

    Returns:
        The data of each event in order, lines of one event joined by \n. Comments, names and ids
        are left out. A last event without its empty line counts, as it does for the SDK.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
    """
    events: list[str] = []
    lines: list[str] = []
    for raw in _LINE_END.split(data.removeprefix(b"\xef\xbb\xbf")):
        if not raw and lines:
            events.append("\n".join(lines))
            lines = []
            continue
        field_name, _, value = raw.partition(b":")
        if field_name == b"data":
            lines.append(value.removeprefix(b" ").decode("utf-8", "replace"))
    if lines:
        events.append("\n".join(lines))
    return events


def merge_chat_chunks(events: Iterable[str]) -> MergedReply:
    """Rebuild the body of a chat completion from the data of its streamed chunks.

    Args:
        events: As `sse_events` gives them.

    Returns:
        The reply as it would have come unstreamed. After a chunk that cannot be read, what came
        before it, and the reason.
    """
    merged: Json = {}
    choices: dict[int, Json] = {}
    is_done = False
    problem = ""
    for number, event in enumerate(events, 1):
        if event.startswith("[DONE]"):
            is_done = True
            break
        try:
            _add_chunk(merged, choices, json.loads(event))
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            problem = f"chunk {number} cannot be read: {one_line(exc)}"
            break
    if not choices:
        return MergedReply(None, False, problem or "no chunk held a choice")
    merged["choices"] = [_finished(choices[index]) for index in sorted(choices)]
    all_stopped = all(choice["finish_reason"] for choice in choices.values())
    if not problem and not (is_done or all_stopped):
        problem = "the stream ended before a finish_reason"
    return MergedReply(merged, not problem, problem)


def _add_chunk(merged: Json, choices: dict[int, Json], chunk: Json) -> None:
    if chunk.get("error"):
        raise ValueError(f"the provider sent an error: {json.dumps(chunk['error'])}")
    merged["id"] = merged.get("id") or chunk.get("id") or ""
    merged["object"] = "chat.completion"
    for name, value in chunk.items():
        if name not in ("id", "object", "choices") and value is not None:
            # Azure's first chunk has an empty model; usage comes in the last.
            merged[name] = value or merged.get(name, value)
    for part in chunk.get("choices") or []:
        _add_choice(choices.setdefault(int(part.get("index", 0)), _new_choice(part)), part)


def _new_choice(part: Json) -> Json:
    message: Json = {"role": "assistant", "content": None}
    return {"index": int(part.get("index", 0)), "message": message, "finish_reason": None}


def _add_choice(choice: Json, part: Json) -> None:
    choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]
    if part.get("logprobs"):
        _add_logprobs(choice.setdefault("logprobs", {}), part["logprobs"])
    message = choice["message"]
    for name, value in (part.get("delta") or {}).items():
        if value is None:
            continue
        if name == "tool_calls":
            calls = message.setdefault("tool_calls", [])
            for fragment in value:
                _add_tool_call(calls, fragment)
        elif name == "function_call":
            _add_function(message.setdefault("function_call", {}), value)
        elif name == "role":
            message["role"] = value or message["role"]
        elif isinstance(value, str):  # content, refusal, reasoning_content
            message[name] = (message.get(name) or "") + value
        else:
            message[name] = value


def _add_logprobs(into: Json, part: Json) -> None:
    for name, tokens in part.items():
        into[name] = (into.get(name) or []) + tokens if tokens else into.get(name)


def _add_tool_call(calls: list[Json], fragment: Json) -> None:
    call = _call_of(calls, fragment)
    call["id"] = call["id"] or fragment.get("id") or ""
    call["type"] = fragment.get("type") or call["type"]
    _add_function(call["function"], fragment.get("function") or {})


def _call_of(calls: list[Json], fragment: Json) -> Json:
    """Find the call that a fragment belongs to: by index, else by a new id, else the last."""
    index = fragment.get("index")
    if index is None:  # some servers leave it out
        if calls and fragment.get("id") in (None, "", calls[-1]["id"]):
            return calls[-1]
        index = max((int(call["index"]) for call in calls), default=-1) + 1
    for call in calls:
        if call["index"] == index:
            return call
    calls.append(
        {"index": index, "id": "", "type": "function", "function": {"name": "", "arguments": ""}}
    )
    return calls[-1]


def _add_function(function: Json, fragment: Json) -> None:
    name = fragment.get("name") or ""
    if name != function.get("name"):  # some servers repeat the whole name in every chunk
        function["name"] = function.get("name", "") + name
    function["arguments"] = function.get("arguments", "") + (fragment.get("arguments") or "")


def _finished(choice: Json) -> Json:
    """Order tool calls by their index and drop it: an unstreamed reply has none."""
    message = choice["message"]
    if "tool_calls" in message:
        ordered = sorted(message["tool_calls"], key=lambda call: int(call["index"]))
        message["tool_calls"] = [
            {name: value for name, value in call.items() if name != "index"} for call in ordered
        ]
    return choice
