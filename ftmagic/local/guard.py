"""The server's door: who may come in, how much they may bring, and when nobody came for long.

Refuses a request whose Host is not loopback (DNS rebinding), whose Origin is a foreign page, or
that has no valid bearer token; sends no CORS header. Knows nothing about the routes behind it.
"""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftmagic.local.dialect import ApiError

MAX_FILE_BYTES = 512 * 2**20
"""Largest upload; OpenAI's limit."""
MAX_BODY_BYTES = 64 * 2**20
"""Largest body of any other request."""

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass
class Activity:
    """When the server last had something to do.

    Attributes:
        n_open: Requests in flight.
        last_at: Monotonic seconds at which the last request came or ended.
    """

    n_open: int = 0
    last_at: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Note that a request came in."""
        self.n_open += 1
        self.last_at = time.monotonic()

    def end(self) -> None:
        """Note that a request was answered."""
        self.n_open -= 1
        self.last_at = time.monotonic()

    def touch(self) -> None:
        """Note that other work went on."""
        self.last_at = time.monotonic()

    @property
    def idle_s(self) -> float:
        """Seconds since the last request; 0 while one is open."""
        return 0.0 if self.n_open else time.monotonic() - self.last_at


class Guard:
    """ASGI middleware that lets a request through, or answers it with the refusal.

    Args:
        app: What it guards.
        api_key: The bearer token.
        activity: Where requests are noted.
    """

    def __init__(self, app: ASGIApp, *, api_key: str, activity: Activity) -> None:
        """Keep the parts; see the class."""
        self._app = app
        self._expected = f"Bearer {api_key}".encode()
        self._activity = activity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._activity.begin()
        try:
            refusal = self._refusal(Headers(scope=scope))
            if refusal is not None:
                answer = JSONResponse(refusal.body(), status_code=refusal.status)
                await answer(scope, receive, _harden(send))
            else:
                limit = MAX_FILE_BYTES if scope["path"] == "/v1/files" else MAX_BODY_BYTES
                await self._app(scope, _limited(receive, limit), _harden(send))
        finally:
            self._activity.end()

    def _refusal(self, headers: Headers) -> ApiError | None:
        host = _hostname(f"//{headers.get('host', '')}")
        if host not in _LOOPBACK:
            return ApiError(403, "this server answers to loopback addresses only (Host header).")
        origin = headers.get("origin")
        if origin is not None and _hostname(origin) not in _LOOPBACK:
            return ApiError(403, "this server does not answer web pages (Origin header).")
        given = headers.get("authorization", "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, self._expected):
            return ApiError(
                401,
                "Incorrect API key provided: this server needs the api_key it printed when it "
                "started.",
                code="invalid_api_key",
            )
        return None


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _limited(receive: Receive, limit: int) -> Receive:
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        part = await receive()
        seen += len(part.get("body", b""))
        if seen > limit:
            raise ApiError(413, f"the request body is larger than {limit} bytes.")
        return part

    return counted


def _harden(send: Send) -> Send:
    async def hardened(part: Message) -> None:
        if part["type"] == "http.response.start":
            headers = MutableHeaders(scope=part)
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Cache-Control"] = "no-store"
        await send(part)

    return hardened
