"""The shapes of OpenAI's HTTP API: errors, pages, chat completions and their chunks.

Field for field as the official SDK's types (openai 3.54) read them. Knows nothing about files, jobs
or models.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

from starlette.requests import Request

from ftmagic.formats import strict_json
from ftmagic.types import Json

_PIECE_CHARS = 24


class ApiError(Exception):
    """A refusal that the client sees, in OpenAI's error shape.

    Args:
        status: HTTP status. Not 408, 409 or 429: the SDK retries those.
        text: What happened, what was needed, what to do next.
        code: A word for programs ('model_not_found').
        param: The request field at fault.
    """

    def __init__(
        self, status: int, text: str, *, code: str | None = None, param: str | None = None
    ) -> None:
        """Keep the parts; see the class."""
        super().__init__(text)
        self.status = status
        self.code = code
        self.param = param

    def body(self) -> Json:
        """The JSON body that goes with the status."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


async def read_object(request: Request) -> Json:
    """Read a request's body as one JSON object.

    Raises:
        ApiError: 400, the body is not a JSON object.
    """
    try:
        value = parse_json(await request.body())
    except ValueError as exc:
        raise ApiError(400, f"the request body is not valid JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise ApiError(400, f"the request body must be an object, not {type(value).__name__}.")
    return value


def parse_json(content: bytes) -> Any:
    """Parse strict JSON in UTF-8.

    Raises:
        ValueError: It is not, holds NaN, a key twice or half a surrogate pair, or is too deep.
    """
    text = content.decode("utf-8")
    value = strict_json.loads(text)
    if "\\u" in text and strict_json.has_lone_surrogate(json.dumps(value, ensure_ascii=False)):
        raise ValueError("half a surrogate pair, which UTF-8 cannot spell")
    return value


def list_page(items: Sequence[Json], request: Request, *, default_limit: int) -> Json:
    """Cut one page out of a list, by the query's `after` (an id) and `limit`.

    Args:
        items: All of them, in the order of the list, each with an `id`.
        request: Whose query is read.
        default_limit: Without `limit`.

    Raises:
        ApiError: 400, `after` names nothing or `limit` is not a number from 1 to 10000.
    """
    limit = _limit(request, default_limit)
    start, after = 0, request.query_params.get("after")
    if after is not None:
        ids = [item["id"] for item in items]
        if after not in ids:
            raise ApiError(400, f"nothing in this list has the id {after!r}.", param="after")
        start = ids.index(after) + 1
    page = items[start : start + limit]
    return {
        "object": "list",
        "data": list(page),
        "has_more": start + limit < len(items),
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def chat_completion(
    model: str, message: Json, finish_reason: str, usage: Json | None = None
) -> Json:
    """Build a `chat.completion` body with one choice; without `usage` where nothing was counted."""
    filled = {"refusal": None, **message, "role": "assistant"}
    filled.setdefault("content", None)
    choice = {"index": 0, "message": filled, "finish_reason": finish_reason, "logprobs": None}
    body = {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
    }
    return body if usage is None else {**body, "usage": usage}


def count_usage(prompt_tokens: int, completion_tokens: int) -> Json:
    """Build a `usage` object."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


class ChunkWriter:
    """Writes the server-sent events of one streamed completion.

    Args:
        model: As the client will read it.
        has_usage: Whether the client asked for `stream_options.include_usage`.
    """

    def __init__(self, model: str, *, has_usage: bool) -> None:
        """Fix what all chunks of the stream share."""
        self._shared: Json = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._has_usage = has_usage

    def delta(self, delta: Json, finish_reason: str | None = None) -> str:
        """Write one chunk."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        chunk: Json = {**self._shared, "choices": [choice]}
        if self._has_usage:
            chunk["usage"] = None
        return _event(chunk)

    def end(self, finish_reason: str, usage: Json | None) -> str:
        """Write the closing chunks: the reason, the usage if known and asked for, and `[DONE]`."""
        text = self.delta({}, finish_reason)
        if self._has_usage and usage is not None:
            text += _event({**self._shared, "choices": [], "usage": usage})
        return text + "data: [DONE]\n\n"

    def error(self, error: ApiError) -> str:
        """Write a failure in mid-stream; the SDK raises it."""
        return _event(error.body())


def stream_body(body: Json, writer: ChunkWriter) -> Iterator[str]:
    """Replay a finished `chat.completion` body as a stream."""
    choice = body["choices"][0]
    message = choice["message"]
    yield writer.delta({"role": "assistant", "content": ""})
    for key in ("content", "refusal"):
        for piece in _pieces(message.get(key) or ""):
            yield writer.delta({key: piece})
    for index, call in enumerate(message.get("tool_calls") or []):
        yield writer.delta({"tool_calls": [open_call(index, call)]})
        for piece in _pieces(call["function"]["arguments"]):
            yield writer.delta({"tool_calls": [continue_call(index, piece)]})
    yield writer.end(choice["finish_reason"], body.get("usage"))


def open_call(index: int, call: Json) -> Json:
    """The first delta of a streamed tool call: id and name, no arguments yet."""
    function = {"name": call["function"]["name"], "arguments": ""}
    return {"index": index, "id": call["id"], "type": "function", "function": function}


def continue_call(index: int, arguments: str) -> Json:
    """A further delta of a streamed tool call: a piece of its arguments."""
    return {"index": index, "function": {"arguments": arguments}}


def _event(value: Json) -> str:
    return f"data: {json.dumps(value, separators=(',', ':'))}\n\n"


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), _PIECE_CHARS):
        yield text[start : start + _PIECE_CHARS]


def _limit(request: Request, default: int) -> int:
    text = request.query_params.get("limit", str(default))
    if not text.isdecimal() or len(text) > 5 or not 1 <= int(text) <= 10_000:
        raise ApiError(400, f"limit={text[:20]!r} is not a number from 1 to 10000.", param="limit")
    return int(text)
