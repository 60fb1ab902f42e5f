"""Parts that the tests of `ftmagic.wire` share: an open scope, and the HTTP modules at hand."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import openai

from ftmagic.wire import scope, streams
from ftmagic.wire.exchange import Exchange
from tests.provider import Provider

HTTP_MODULES = [name for name in ("httpx", "httpx2") if importlib.util.find_spec(name)]

MODULES = [importlib.import_module(name) for name in HTTP_MODULES]

CUT_ERRORS = (openai.APIConnectionError, *[module.RemoteProtocolError for module in MODULES])
"""What a cut stream raises: the SDK's versions differ."""

ASK: Any = {"model": "gpt-test", "messages": [{"role": "user", "content": "Hi"}]}

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "album",
        "parameters": {"type": "object", "properties": {"title": {"type": "string"}}},
    },
}


class Captured(list[Exchange]):
    """The exchanges of one scope, in the order in which they ended."""

    scope: scope.Scope


@contextmanager
def captured(name: str = "run", tags: Mapping[str, str] | None = None) -> Iterator[Captured]:
    """Open a scope, and collect what it gets, also after its end."""
    got = Captured()
    got.scope = scope.Scope(name, sink=got.append, tags=tags or {})
    entry = scope.enter(got.scope)
    try:
        yield got
    finally:
        scope.leave(entry)


def text_of(exchange: Exchange) -> str | None:
    reply = streams.read_chat_reply(exchange).reply
    assert reply is not None
    content: str | None = reply["choices"][0]["message"]["content"]
    return content


def ask(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(**ASK, **more)


def with_async_client(provider: Provider, work: Callable[[openai.AsyncOpenAI], Any]) -> Any:
    async def main() -> Any:
        async with provider.async_client(max_retries=0) as client:
            return await work(client)

    return asyncio.run(main())
