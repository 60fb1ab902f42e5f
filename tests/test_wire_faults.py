from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from ftmagic.wire import scope, seam
from ftmagic.wire.exchange import Exchange
from tests.provider import Provider, completion, stream_reply
from tests.wire_parts import ASK, CUT_ERRORS, ask, captured, with_async_client

# Faults are injected at every hook point of the recorder, in every style of call.


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    seam.install()
    yield
    seam.uninstall()


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as running:
        yield running


def _sync_call(provider: Provider) -> Any:
    with provider.client(max_retries=0) as client:
        return ask(client).choices[0].message.content


def _sync_stream(provider: Provider) -> Any:
    with provider.client(max_retries=0) as client:
        return joined(list(ask(client, stream=True)))


def _async_call(provider: Provider) -> Any:
    async def work(client: openai.AsyncOpenAI) -> Any:
        return (await client.chat.completions.create(**ASK)).choices[0].message.content

    return with_async_client(provider, work)


def _async_stream(provider: Provider) -> Any:
    async def work(client: openai.AsyncOpenAI) -> Any:
        stream = await client.chat.completions.create(**ASK, stream=True)
        return joined([chunk async for chunk in stream])

    return with_async_client(provider, work)


def joined(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


STYLES = [_sync_call, _sync_stream, _async_call, _async_stream]
WHOLE = [_sync_call, _async_call]
STREAMED = [_sync_stream, _async_stream]


def broken(*args: Any, **kwargs: Any) -> Any:
    raise OSError("injected")


HOOKS: list[tuple[str, Any, str, list[Any], int]] = [
    # hook, where it is injected, into which styles, how many exchanges still arrive
    ("match", seam, "PATHS", STYLES, 0),
    ("open", Exchange, "begin", STYLES, 0),
    ("reply", Exchange, "read_head", STYLES, 1),
    ("reply", Exchange, "read_whole", WHOLE, 1),
    ("chunk", Exchange, "read_chunk", STREAMED, 1),
    ("close", Exchange, "finish", STYLES, 0),
]
CASES = [
    pytest.param(hook, owner, name, style, n, id=f"{hook}-{name}-{style.__name__[1:]}")
    for hook, owner, name, styles, n in HOOKS
    for style in styles
]


@pytest.mark.parametrize(("hook", "owner", "name", "style", "n"), CASES)
def test_a_fault_of_ours_never_reaches_the_user(
    hook: str, owner: Any, name: str, style: Any, n: int,
    provider: Provider, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    before = scope.faults.by_hook.get(hook, 0)
    with captured() as got:
        monkeypatch.setattr(owner, name, broken)
        assert style(provider) == "Hello."
        gc.collect()
        monkeypatch.undo()
    assert scope.faults.by_hook[hook] > before
    assert scope.faults.last.startswith(f"{hook}: ")
    assert len(got) == n


@pytest.mark.parametrize("style", STYLES)
def test_a_fault_of_the_sink_never_reaches_the_user(style: Any, provider: Provider) -> None:
    before = scope.faults.count
    entry = scope.enter(scope.Scope("run", sink=broken))
    assert style(provider) == "Hello."
    scope.leave(entry)
    assert scope.faults.count == before + 1
    assert scope.faults.last == "sink: OSError: injected"


@pytest.mark.parametrize("style", STYLES)
def test_a_fault_on_the_error_path_never_masks_the_users_error(
    style: Any, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = stream_reply(completion("Hello."), keep=2, is_cut=True)
    provider.script(cut)
    monkeypatch.setattr(Exchange, "fail", broken)
    before = scope.faults.by_hook.get("error", 0)
    with captured() as got:
        with pytest.raises(CUT_ERRORS):
            style(provider)
        gc.collect()
    assert scope.faults.by_hook["error"] == before + 1
    assert len(got) == 1


@pytest.mark.parametrize("slots", ["", "__slots__ = ()"])
def test_a_module_or_loader_of_another_shape_still_imports(slots: str) -> None:
    code = f"""
        import importlib.machinery, importlib.util, sys, types
        from ftmagic.wire import scope, seam
        class Finder:
            {slots}
            def find_spec(self, name, path=None, target=None):
                if name == "httpx":
                    return importlib.util.spec_from_loader(name, self)
            def create_module(self, spec): return None
            def exec_module(self, module): module.Client = 3
        sys.meta_path.insert(0, Finder())
        seam.install()
        import httpx
        assert httpx.Client == 3
        assert scope.faults.by_hook == {{"import": 1}}, scope.faults.by_hook
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
