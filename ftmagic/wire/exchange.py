"""One HTTP request and its reply, as raw bytes, and how to decode them later.

The seam fills an exchange on the caller's thread, so nothing here parses while the call is under
way: what needs work is read from the HTTP client's objects on first use, on the writer's side, and
those objects are let go. Of the headers only the short facts that are named below are kept.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

from ftmagic.errors import DataError, MissingExtraError, message
from ftmagic.wire.redirect import is_public

if TYPE_CHECKING:
    from ftmagic.wire.scope import Scope

STILL_OPEN = "the stream was still open when the cell ended"
ILLEGAL_HEADER = "a header has an illegal value (a line end in the key?)"

_SHORTEST_SECRET = 8

_USER_AGENT = re.compile(r"(?:Async)?([A-Za-z][\w.-]*)(?:/Python)?[/ ]v?(\d[\w.+-]*)")


def new_id() -> str:
    """Make the id of one exchange: 32 random hex digits."""
    return os.urandom(16).hex()


@dataclass(slots=True, eq=False)
class Exchange:
    """One request to an LLM API and what came back, raw.

    Attributes:
        scope: The capture that it belongs to.
        url: Where it went, without query and credentials.
        request_body: The bytes that were sent.
        method: The HTTP method.
        tags: The scope's tags and `tag(...)` at the moment of the call.
        is_ambient: No token reached the call; it was made while the capture was open.
        attempt: Which try of the SDK this was, from 0.
        library: The SDK and its version, such as 'openai 3.54.0'; '' when it did not say.
        id: 32 hex digits, made when the call was sent; the same in a snapshot of it.
        started_at: Unix seconds.
        status: HTTP status; 0 until a response arrives.
        content_type: Of the reply.
        content_encoding: Of `chunks`; '' when they are decoded already.
        chunks: The reply's bytes in the order of their arrival.
        is_complete: The end of the body was seen. An SDK stops reading a stream at its last event,
            so a whole reply may lack this: judge it by `streams.read_chat_reply`.
        is_stream: The caller read the body piece by piece.
        error: What broke the call, in one line; '' when nothing did.
        latency_s: From sending to the last byte so far.
    """

    scope: Scope
    url: str
    request_body: bytes = field(default=b"", repr=False)
    method: str = "POST"
    tags: Mapping[str, str] = field(default_factory=dict)
    is_ambient: bool = False
    attempt: int = 0
    library: str = ""
    id: str = field(default_factory=new_id)
    started_at: float = field(default_factory=time)
    status: int = 0
    content_type: str = ""
    content_encoding: str = ""
    chunks: list[bytes] = field(default_factory=list, repr=False)
    is_complete: bool = False
    is_stream: bool = False
    error: str = ""
    latency_s: float = 0.0
    is_finished: bool = field(default=False, repr=False)
    _sent_at: float = field(default_factory=perf_counter, repr=False)
    _request: Any = field(default=None, repr=False)
    _response_headers: Any = field(default=None, repr=False)

    @classmethod
    def begin(
        cls, scope: Scope, request: Any, tags: Mapping[str, str], *, is_ambient: bool
    ) -> Exchange:
        """Note that an httpx request is about to be sent, in about a microsecond.

        What takes longer (url, library, attempt) is read from the request on first use.
        """
        self = cls.__new__(cls)
        self.id = new_id()
        self.scope = scope
        self.tags = tags
        self.is_ambient = is_ambient
        self.method = request.method
        self.request_body = _content(request)
        self.chunks = []
        self.error = ""
        self.status = 0
        self.latency_s = 0.0
        self.is_complete = self.is_stream = self.is_finished = False
        self._request = request
        self._response_headers = None
        self.started_at = time()
        self._sent_at = perf_counter()
        return self

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Fill a slot that `begin` and `read_head` left empty; reached for no other."""
            if name in _READ_ON_FIRST_USE:
                self._settle()
                return object.__getattribute__(self, name)
            raise AttributeError(name)

    def _settle(self) -> None:
        """Read what was left for later, and let the HTTP client's objects go."""
        headers, request = self._response_headers or {}, self._request
        if request is None:  # another thread was quicker; without a lock, both read the same
            return
        attempt = request.headers.get("x-stainless-retry-count", "")
        self.attempt = int(attempt) if attempt.isdecimal() else 0
        self.library = library_name(request.headers.get("user-agent", ""))
        self.content_type = headers.get("content-type", "")
        # The client decoded what it read as a whole.
        self.content_encoding = headers.get("content-encoding", "") if self.is_stream else ""
        self.url = strip_url(str(request.url))
        self._request = None  # before the headers: who finds a request finds them too
        self._response_headers = None

    @property
    def is_event_stream(self) -> bool:
        """Whether the reply is server-sent events rather than one JSON body."""
        return self.content_type.startswith("text/event-stream")

    def read_head(self, response: Any) -> None:
        """Take status, type and encoding from an httpx response."""
        self.status = response.status_code
        self._response_headers = response.headers

    def read_whole(self, content: bytes) -> None:
        """Take a body that the HTTP client has already read and decoded."""
        self.chunks.append(content)
        self.is_complete = True
        self.latency_s = perf_counter() - self._sent_at

    def read_chunk(self, chunk: bytes) -> None:
        """Take one more piece of a streamed body, as it came."""
        self.chunks.append(chunk)
        self.latency_s = perf_counter() - self._sent_at

    def fail(self, exc: BaseException) -> None:
        """Note what broke the call."""
        self.latency_s = perf_counter() - self._sent_at
        self.error = one_line(exc, self._request)

    def finish(self) -> bool:
        """Mark as ended; True the first time, when it must be delivered."""
        is_first = not self.is_finished
        self.is_finished = True
        return is_first

    def snapshot(self) -> Exchange:
        """Copy what has arrived so far of an open stream; the id stays the same."""
        return replace(self, chunks=list(self.chunks), error=STILL_OPEN, is_finished=True)

    def body(self) -> bytes:
        """Return the reply's body, decompressed as far as it came.

        Raises:
            DataError: It is not in the encoding that it claims.
            MissingExtraError: No installed package can decompress it.
        """
        data = b"".join(self.chunks)
        for encoding in reversed(self.content_encoding.lower().split(",")):
            data = decompress(data, encoding.strip())
        return data


_READ_ON_FIRST_USE = frozenset({"url", "attempt", "library", "content_type", "content_encoding"})


def _content(request: Any) -> bytes:
    try:
        return bytes(request.content)
    except RuntimeError:  # httpx.RequestNotRead: an upload that is read only once, by its server
        return b""


def one_line(exc: BaseException, request: Any = None) -> str:
    """Say what an exception is on one line of at most 300 characters, without any key.

    Args:
        exc: What was raised; h11 quotes an illegal header as a whole, which may be the key.
        request: The httpx request that it broke, whose headers are cut out of the text.
    """
    text = " ".join(str(exc).split())
    if type(exc).__name__ == "LocalProtocolError" and "header" in text.lower():
        text = ILLEGAL_HEADER
    for value in _private_values(request):
        text = text.replace(value, "[header]")
    return f"{type(exc).__name__}: {text}"[:300] if text else type(exc).__name__


def _private_values(request: Any) -> list[str]:
    """List what a request's headers hold that may be a secret; longest first."""
    if request is None:
        return []
    named = request.headers.items()
    values = [value.strip() for name, value in named if name != "host" and not is_public(name)]
    values += [word for value in values for word in value.split()]  # 'Bearer KEY', and KEY alone
    return sorted((each for each in values if len(each) >= _SHORTEST_SECRET), key=len, reverse=True)


def strip_url(url: str) -> str:
    """Remove query, fragment, user name and password from a URL."""
    bare = url.partition("?")[0].partition("#")[0]
    scheme, separator, rest = bare.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


@lru_cache(maxsize=64)
def library_name(user_agent: str) -> str:
    """Shorten a user agent to a product and its version.

    Args:
        user_agent: For example 'AsyncOpenAI/Python 3.54.0' or 'langchain/1.2 (linux)'.

    Returns:
        'openai 3.54.0', 'langchain 1.2'; '' when it names no product.
    """
    found = _USER_AGENT.match(user_agent)
    return f"{found[1].lower()} {found[2]}"[:60] if found else ""


def decompress(data: bytes, encoding: str) -> bytes:
    """Undo one content encoding; a body that was cut gives what came before the cut.

    Args:
        data: The encoded bytes.
        encoding: 'gzip', 'deflate', 'br', 'zstd', 'identity' or ''.

    Raises:
        DataError: `data` is not in that encoding, or the encoding is unknown.
        MissingExtraError: No installed package can decompress it.
    """
    if encoding in ("", "identity"):
        return data
    try:
        if encoding in ("gzip", "x-gzip"):
            return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(data)
        if encoding == "deflate":
            return _inflate(data)
        if encoding == "br":
            return bytes(_brotli_decoder()(data))
        if encoding == "zstd":
            return bytes(_zstd_decoder()(data))
    except MissingExtraError:
        raise
    except Exception as exc:  # each decompressor has an error class of its own
        raise DataError(f"{len(data)} bytes are not valid {encoding}: {exc}") from exc
    raise DataError(f"the reply has the unknown content-encoding {encoding!r}")


def _inflate(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data)
    except zlib.error:  # servers send deflate with and without the zlib header
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data)


def _brotli_decoder() -> Any:
    for name in ("brotli", "brotlicffi"):
        module = _import(name)
        if module is not None:
            return module.Decompressor().process
    raise _missing("brotli")


def _zstd_decoder() -> Any:
    module = _import("zstandard")
    if module is not None:
        return module.ZstdDecompressor().decompressobj().decompress
    for name in ("compression.zstd", "backports.zstd"):
        module = _import(name)
        if module is not None:
            return module.ZstdDecompressor().decompress
    raise _missing("zstandard")


def _import(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _missing(package: str) -> MissingExtraError:
    return MissingExtraError(
        message(
            f"a reply is compressed in a way that needs {package}.",
            next_step=f"pip install {package}",
        )
    )
