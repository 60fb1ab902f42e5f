"""A real loopback HTTP server that speaks chat completions, scripted by the test.

    with Provider() as provider:
        client = provider.client()                      # an openai.OpenAI that points at it
        provider.script(json_reply(completion("Hi")))   # answers the next request; then the default
        client.chat.completions.create(model="m", messages=[...])
        provider.requests[0].json["messages"]

A request without a script is answered by `provider.answer` (default: `answer`): the first offered
tool is called, a JSON schema gets the smallest value that fits, anything else gets "Hello.";
streamed when the request says so. It owns the wire and knows nothing of ftmagic.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import openai

Json = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What to answer.

    Attributes:
        status: HTTP status.
        pieces: The body; each piece is sent by itself.
        headers: More headers; `content-type` is JSON unless it is here.
        delay_s: Wait before the status line.
        is_cut: Close the connection without an end of the body.
        gate: After the first piece, wait until the test sets this event (10 s at most).
    """

    status: int = 200
    pieces: tuple[bytes, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0.0
    is_cut: bool = False
    gate: threading.Event | None = None


@dataclass(frozen=True)
class Received:
    """A request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes
    json: Json = field(default_factory=dict)


def tool_call(name: str, arguments: Json | str, call_id: str = "call_1") -> Json:
    """Build one tool call of an assistant message."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}


def completion(
    content: str | None = None,
    *,
    tool_calls: list[Json] | None = None,
    refusal: str | None = None,
    finish_reason: str | None = None,
    model: str = "gpt-test",
    n: int = 1,
) -> Json:
    """Build the body of a chat completion; with `n`, that many equal choices."""
    message: Json = {"role": "assistant", "content": content}
    if tool_calls:
        message["tool_calls"] = tool_calls
    if refusal is not None:
        message["refusal"] = refusal
    reason = finish_reason or ("tool_calls" if tool_calls else "stop")
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [
            {"index": index, "message": dict(message), "finish_reason": reason}
            for index in range(n)
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
    }


def chunks_of(body: Json, size: int = 4) -> list[Json]:
    """Cut a chat completion into the chunks of a stream, text by `size` characters."""
    head = {name: body[name] for name in ("id", "created", "model")}
    head["object"] = "chat.completion.chunk"

    def chunk(index: int, delta: Json, reason: str | None = None) -> Json:
        return {**head, "choices": [{"index": index, "delta": delta, "finish_reason": reason}]}

    found: list[Json] = []
    for choice in body["choices"]:
        index, message = choice["index"], choice["message"]
        found.append(chunk(index, {"role": "assistant", "content": None}))
        for name in ("content", "refusal"):
            found += [chunk(index, {name: part}) for part in _cut(message.get(name) or "", size)]
        for position, call in enumerate(message.get("tool_calls", [])):
            found += [chunk(index, delta) for delta in _call_deltas(position, call, size)]
        found.append(chunk(index, {}, choice["finish_reason"]))
    return [*found, {**head, "choices": [], "usage": body.get("usage")}]


def _cut(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def _call_deltas(position: int, call: Json, size: int) -> Iterator[Json]:
    function = {"name": call["function"]["name"], "arguments": ""}
    yield {"tool_calls": [{**call, "index": position, "function": function}]}
    for part in _cut(call["function"]["arguments"], size):
        yield {"tool_calls": [{"index": position, "function": {"arguments": part}}]}


def sse_bytes(chunks: list[Json], *, is_done: bool = True) -> list[bytes]:
    """Encode chunks as server-sent events, one piece each."""
    pieces = [f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode() for chunk in chunks]
    return [*pieces, b"data: [DONE]\n\n"] if is_done else pieces


def json_reply(body: Json, status: int = 200, **options: Any) -> Reply:
    """Answer with one JSON body."""
    return Reply(status=status, pieces=(json.dumps(body).encode(),), **options)


def stream_reply(body: Json, *, keep: int | None = None, size: int = 4, **options: Any) -> Reply:
    """Answer with a stream; with `keep`, only its first events come."""
    pieces = sse_bytes(chunks_of(body, size))[:keep]
    headers = (("content-type", "text/event-stream; charset=utf-8"), *options.pop("headers", ()))
    return Reply(pieces=tuple(pieces), headers=headers, **options)


def error_reply(status: int, text: str, **options: Any) -> Reply:
    """Answer as the API does when it refuses; the SDK's wait before a retry is 1 ms."""
    error = {"message": text, "type": "error", "param": None, "code": None}
    headers = (("retry-after-ms", "1"), *options.pop("headers", ()))
    return json_reply({"error": error}, status, headers=headers, **options)


def smallest(schema: Json) -> Any:
    """Make a small value that fits a JSON schema of the kinds that pydantic writes."""
    if "$ref" in schema and "$defs" in schema:
        target = schema["$defs"][schema["$ref"].rpartition("/")[2]]
        return smallest({**target, "$defs": schema["$defs"]})
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return smallest({"$defs": schema.get("$defs", {}), **schema["anyOf"][0]})
    inside = {"$defs": schema.get("$defs", {})}
    kind = schema.get("type")
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: smallest({**inside, **part}) for name, part in properties.items()}
    if kind == "array":
        return [smallest({**inside, **schema.get("items", {})})]
    values = {"string": "text", "integer": 1, "number": 1.5, "boolean": True}
    return values.get(str(kind))


def answer(request: Json) -> Json:
    """Answer a request as a well-behaved model would: see the module's first lines."""
    model, n = str(request.get("model", "")), int(request.get("n") or 1)
    tools = request.get("tools") or []
    if tools:
        function = tools[0]["function"]
        arguments = smallest(function.get("parameters", {"type": "object"}))
        return completion(tool_calls=[tool_call(function["name"], arguments)], model=model, n=n)
    wanted = request.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        value = smallest(wanted["json_schema"]["schema"])
        return completion(json.dumps(value), model=model, n=n)
    return completion("{}" if wanted.get("type") == "json_object" else "Hello.", model=model, n=n)


class Provider:
    """The server; a context manager. `requests` holds what arrived, in order."""

    def __init__(self) -> None:
        """Bind a free port; `with` starts to answer."""
        self.requests: list[Received] = []
        self.answer: Callable[[Json], Json] = answer
        self._script: deque[Reply] = deque()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.daemon = True

    @property
    def origin(self) -> str:
        """'http://127.0.0.1:PORT'."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def base_url(self) -> str:
        """The origin with the API's version folder."""
        return f"{self.origin}/v1"

    def script(self, *replies: Reply) -> None:
        """Answer the next requests so, one each."""
        self._script.extend(replies)

    def client(self, **options: Any) -> openai.OpenAI:
        """Make an SDK client that talks to this server."""
        import openai

        return openai.OpenAI(**{"base_url": self.base_url, "api_key": "sk-test-key", **options})

    def async_client(self, **options: Any) -> openai.AsyncOpenAI:
        """Make an async SDK client that talks to this server."""
        import openai

        return openai.AsyncOpenAI(
            **{"base_url": self.base_url, "api_key": "sk-test-key", **options}
        )

    def reply_to(self, received: Received) -> Reply:
        """Note a request and choose its reply."""
        self.requests.append(received)
        with contextlib.suppress(IndexError):
            return self._script.popleft()
        if not received.path.partition("?")[0].endswith("/chat/completions"):
            return json_reply({"id": "other", "object": "other", "data": []})
        body = self.answer(received.json)
        return stream_reply(body) if received.json.get("stream") else json_reply(body)

    def __enter__(self) -> Provider:
        """Start to answer."""
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop, and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away early are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("content-length") or 0)))

    def do_GET(self) -> None:
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            value = json.loads(body)
        except ValueError:
            value = {}
        received = Received(self.path, headers, body, value if isinstance(value, dict) else {})
        self._send(self.server.provider.reply_to(received))

    def _send(self, reply: Reply) -> None:
        if reply.delay_s:
            time.sleep(reply.delay_s)
        headers = {"content-type": "application/json", **dict(reply.headers)}
        self.send_response(reply.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number, piece in enumerate(reply.pieces):
            if number == 1 and reply.gate is not None:
                reply.gate.wait(10)
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if reply.is_cut:
            self.close_connection = True
            return
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
