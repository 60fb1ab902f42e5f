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

PUBLIC_HEADERS = frozenset(
    {"accept", "accept-encoding", "content-type", "user-agent", "idempotency-key"}
)
"""Headers that may reach another server, with the SDK's own `x-stainless-*`.

A list of what may travel, because every gateway names the header of its key in its own way.
"""


def rewrite(request: Any, endpoint: Endpoint) -> Any:
    """Make the same request for another server.

    Args:
        request: An httpx or httpx2 request whose body is JSON.
        endpoint: The server, its key, and the model to name in the body.

    Returns:
        A new request of the same module. Everything in the body but the model stays as it was,
        and so does the timeout; of the headers only the public ones travel.

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
    headers = [pair for pair in request.headers.raw if is_public(pair[0].decode("latin-1"))]
    headers.append((b"authorization", f"Bearer {endpoint.key()}".encode()))
    return type(request)(
        request.method,
        endpoint.base_url.rstrip("/") + suffix,
        headers=headers,
        content=json.dumps({**body, "model": endpoint.model}).encode(),
        extensions=request.extensions,
    )


def is_public(header: str) -> bool:
    """Whether a header tells nothing about the account of its server."""
    name = header.lower()
    return name in PUBLIC_HEADERS or name.startswith("x-stainless-")


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
