"""Send a request elsewhere: another base URL, key and model, the same shape.

Owns what must change in a request when its server changes, and what may not travel along. Which
calls go where is decided in `ftmagic.routing`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ftmagic.errors import DataError, RoutingError
from ftmagic.types import Endpoint

PATHS = ("/chat/completions", "/responses", "/messages", "/completions")
"""What follows the API's version folder in a URL."""

PRIVATE_HEADERS = frozenset(
    {
        "authorization",
        "api-key",  # Azure
        "x-api-key",  # Anthropic
        "x-goog-api-key",
        "openai-organization",
        "openai-project",
        "cookie",
        "proxy-authorization",
    }
)
"""Headers that belong to the first server's account: they never reach another one."""

_REMADE_HEADERS = frozenset({"host", "content-length", "transfer-encoding"})


def rewrite(request: Any, endpoint: Endpoint, model: str) -> Any:
    """Make the same request for another server.

    Args:
        request: An httpx or httpx2 request whose body is JSON.
        endpoint: The server, and its key.
        model: The model to name in the body.

    Returns:
        A new request of the same module. Everything but address, key and model stays as it was:
        stream flag, tools, other headers, timeout.

    Raises:
        DataError: The path or the body is not one that can be sent to an OpenAI dialect.
        ConfigError: The endpoint has no key.
    """
    path = request.url.path
    suffix = next((known for known in PATHS if path.endswith(known)), None)
    body = json.loads(request.content)
    if suffix is None or not isinstance(body, dict):
        raise DataError(
            f"a call to {path} cannot be sent to {endpoint.base_url}: only JSON objects posted to "
            f"{', '.join(PATHS)} can"
        )
    dropped = PRIVATE_HEADERS | _REMADE_HEADERS
    headers = [pair for pair in request.headers.raw if pair[0].decode().lower() not in dropped]
    headers.append((b"authorization", f"Bearer {endpoint.key()}".encode()))
    return type(request)(
        request.method,
        endpoint.base_url.rstrip("/") + suffix,
        headers=headers,
        content=json.dumps({**body, "model": model}).encode(),
        extensions=request.extensions,
    )


def visible(exc: RoutingError) -> RoutingError:
    """Dress an error so that the openai SDK hands it to the user at once.

    The SDK retries what `send` raises and then reports a connection error; only an OpenAIError
    passes (openai `_base_client.py`, "Propagate OpenAIErrors as-is", 2.x and 3.x). Without
    openai the error is returned as it is.
    """
    openai = sys.modules.get("openai")
    if openai is None:
        return exc
    plain = type(exc)
    methods = {"__reduce__": lambda self: (plain, self.args)}  # pickles as the plain error
    kind = type(plain.__name__, (plain, vars(openai)["OpenAIError"]), methods)
    dressed: RoutingError = kind(*exc.args)
    return dressed
