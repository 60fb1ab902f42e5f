from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import openai
import pydantic
import pytest

from ftmagic.wire import scope, seam, streams
from ftmagic.wire.exchange import Exchange, one_line
from tests.provider import (
    Provider,
    completion,
    error_reply,
    json_reply,
)
from tests.wire_parts import (
    ASK,
    HTTP_MODULES,
    MODULES,
    TOOL,
    ask,
    captured,
    text_of,
    with_async_client,
)

CLASSES = [kind for module in MODULES for kind in (module.Client, module.AsyncClient)]
ORIGINALS = [vars(kind)["send"] for kind in CLASSES]


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    seam.install()
    yield
    seam.uninstall()
    scope.set_current(None)
    assert [vars(kind)["send"] for kind in CLASSES] == ORIGINALS


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as running:
        yield running


@pytest.fixture
def client(provider: Provider) -> Iterator[openai.OpenAI]:
    with provider.client() as made:
        yield made


class Album(pydantic.BaseModel):
    title: str
    year: int


# Putting in and taking out


def test_uninstall_puts_the_identical_functions_back() -> None:
    seam.install()
    assert seam.is_installed()
    wrapped = [vars(kind)["send"] for kind in CLASSES]
    assert all(new is not old for new, old in zip(wrapped, ORIGINALS, strict=True))
    seam.uninstall()
    seam.uninstall()
    assert not seam.is_installed()
    for kind, original in zip(CLASSES, ORIGINALS, strict=True):
        assert vars(kind)["send"] is original
    assert not [finder for finder in sys.meta_path if "ftmagic" in type(finder).__module__]


def test_the_wrapper_looks_like_the_original() -> None:
    for kind, original in zip(CLASSES, ORIGINALS, strict=True):
        wrapper = vars(kind)["send"]
        assert wrapper.__wrapped__ is original
        assert asyncio.iscoroutinefunction(wrapper) == asyncio.iscoroutinefunction(original)


@pytest.mark.parametrize("name", HTTP_MODULES)
def test_a_module_that_is_imported_later_is_wrapped(name: str) -> None:
    code = f"""
        import sys
        from ftmagic.wire import seam
        seam.install()
        assert {name!r} not in sys.modules
        import {name} as module
        wrapped = module.Client.send.__wrapped__, module.AsyncClient.send.__wrapped__
        assert "exec_module" not in vars(module.__spec__.loader)
        seam.install()
        assert module.Client.send.__wrapped__ is wrapped[0]
        seam.uninstall()
        assert (module.Client.send, module.AsyncClient.send) == wrapped
        import importlib
        importlib.reload(module)
        assert not hasattr(module.Client.send, "__wrapped__")
    """
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(code)], check=True)


def test_a_module_imported_after_uninstall_stays_as_it_is() -> None:
    code = f"""
        from ftmagic.wire import seam
        seam.install()
        seam.uninstall()
        import {HTTP_MODULES[0]} as module
        assert not hasattr(module.Client.send, "__wrapped__")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_somebody_elses_wrapper_survives_and_calls_are_still_seen_once(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: Any = next(kind for kind in type(client._client).__mro__ if "send" in vars(kind))
    ours = vars(kind)["send"]
    seen: list[str] = []

    def theirs(self: Any, request: Any, **options: Any) -> Any:
        seen.append(request.method)
        return ours(self, request, **options)

    monkeypatch.setattr(kind, "send", theirs)
    seam.uninstall()
    assert vars(kind)["send"] is theirs
    with captured() as idle:
        ask(client)
    assert (idle, seen) == ([], ["POST"])
    seam.install()
    with captured() as got:
        ask(client)
    assert (len(got), seen) == (1, ["POST", "POST"])
    seam.uninstall()
    assert vars(kind)["send"] is theirs
    monkeypatch.undo()
    kind.send = ORIGINALS[CLASSES.index(kind)]


def test_a_second_install_over_somebody_elses_wrapper_still_sees_a_call_once(
    client: openai.OpenAI,
) -> None:
    kind: Any = next(kind for kind in type(client._client).__mro__ if "send" in vars(kind))
    ours = vars(kind)["send"]
    kind.send = lambda self, request, **options: ours(self, request, **options)
    for _ in range(3):
        seam.install()  # every capture does
        with captured() as got:
            ask(client)
        assert len(got) == 1
    kind.send = ORIGINALS[CLASSES.index(kind)]  # or they take everything out
    seam.install()
    with captured() as got:
        ask(client)
    assert len(got) == 1


# What is seen


def test_a_call_is_recorded_as_it_was_sent_and_answered(
    provider: Provider, client: openai.OpenAI
) -> None:
    body = completion("Hello, wörld")
    provider.script(json_reply(body))
    with captured("run-1", tags={"a": "1"}) as got:
        token = scope.push_tags({"id": "7"})
        ask(client, extra_query={"key": "private"})
        scope.pop_tags(token)
    [exchange] = got
    assert exchange.scope is got.scope
    assert exchange.tags == {"a": "1", "id": "7"}
    assert exchange.url == f"{provider.base_url}/chat/completions"
    assert exchange.request_body == provider.requests[0].body
    assert json.loads(exchange.body()) == body
    assert (exchange.method, exchange.status, exchange.error) == ("POST", 200, "")
    assert exchange.library == f"openai {openai.__version__}"
    assert (exchange.is_complete, exchange.is_stream, exchange.is_ambient) == (True, False, False)
    assert exchange.attempt == 0
    assert 0 < exchange.latency_s < 10
    assert len(exchange.id) == 32


def test_the_sink_can_weigh_an_exchange_before_it_is_read(client: openai.OpenAI) -> None:
    weights: list[int] = []

    def weigh(exchange: Exchange) -> None:
        weights.append(len(exchange.request_body) + sum(map(len, exchange.chunks)))
        assert exchange._request is not None  # nothing was read from headers so far

    entry = scope.enter(scope.Scope("run", sink=weigh))
    ask(client, extra_headers={"x-stainless-retry-count": "many"})
    scope.leave(entry)
    assert weights and weights[0] > 100


def test_a_retry_count_that_is_no_number_is_the_first_try(client: openai.OpenAI) -> None:
    with captured() as got:
        ask(client, extra_headers={"x-stainless-retry-count": "many"})
    assert got[0].attempt == 0


def test_no_header_is_kept(provider: Provider, client: openai.OpenAI) -> None:
    with captured() as got:
        ask(client, extra_headers={"x-private": "headers stay out"})
    assert got[0].url  # read, and the HTTP client's objects let go
    held = repr([getattr(got[0], field.name) for field in fields(Exchange)])
    assert provider.requests[0].headers["authorization"] == "Bearer sk-test-key"
    assert "sk-test-key" not in held
    assert "headers stay out" not in held
    assert got[0]._request is got[0]._response_headers is None


def test_every_style_of_the_sdk_is_seen(provider: Provider, client: openai.OpenAI) -> None:
    bound = client.chat.completions.create
    with captured() as got:
        bound(**ASK)
        client.chat.completions.parse(**ASK, response_format=Album)
        client.chat.completions.with_raw_response.create(**ASK)
        with client.chat.completions.with_streaming_response.create(**ASK) as response:
            response.parse()
        with client.chat.completions.stream(**ASK, response_format=Album) as helper:
            assert helper.get_final_completion().choices[0].message.parsed == Album(
                title="text", year=1
            )
        list(client.chat.completions.create(**ASK, tools=[TOOL], stream=True))
        client.post("/chat/completions", body=ASK, cast_to=object)
        client.with_options(timeout=5).chat.completions.create(**ASK)
    assert len(got) == 8
    assert all(streams.read_chat_reply(exchange).is_complete for exchange in got)
    assert [exchange.is_stream for exchange in got] == [
        False, False, False, True, True, True, False, False,
    ]  # fmt: skip


def test_every_async_style_is_seen(provider: Provider) -> None:
    async def work(client: openai.AsyncOpenAI) -> None:
        await client.chat.completions.create(**ASK)
        await client.chat.completions.parse(**ASK, response_format=Album)
        async for _ in await client.chat.completions.create(**ASK, stream=True):
            pass
        async with client.chat.completions.stream(**ASK) as helper:
            await helper.get_final_completion()
        ask_once = client.chat.completions.create
        await asyncio.gather(*[ask_once(**ASK) for _ in range(20)])

    with captured() as got:
        with_async_client(provider, work)
    assert len(got) == 24
    assert all(streams.read_chat_reply(exchange).is_complete for exchange in got)
    assert {exchange.is_ambient for exchange in got} == {False}


def test_other_requests_pass_unseen(provider: Provider, client: openai.OpenAI) -> None:
    with captured() as got:
        client.models.list()
        client.embeddings.create(model="m", input="x", encoding_format="float")
        client.get("/chat/completions", cast_to=object)
        client.completions.create(model="m", prompt="x")
        client.responses.create(model="m", input="x")
    assert [exchange.url.rpartition("/v1")[2] for exchange in got] == [
        "/completions",
        "/responses",
    ]


@pytest.mark.parametrize("name", HTTP_MODULES)
def test_bare_http_clients_are_seen(name: str, provider: Provider) -> None:
    module = importlib.import_module(name)
    url = f"{provider.origin}/anthropic/v1/messages?beta=true"
    with captured() as got, module.Client() as client:
        client.post(url, json=ASK)
        with client.stream("POST", url, json=ASK) as response:
            assert b"".join(response.iter_raw()) == got[0].body()
            assert response.elapsed.total_seconds() > 0
        client.send(request=client.build_request("POST", url, content=iter([b"once"])))
    assert {exchange.url for exchange in got} == {f"{provider.origin}/anthropic/v1/messages"}
    assert [exchange.request_body for exchange in got][2] == b""
    assert got[0].library.startswith("python-httpx")


@pytest.mark.parametrize("name", HTTP_MODULES)
def test_a_reply_that_a_transport_made_itself_is_seen(name: str) -> None:
    module = importlib.import_module(name)
    transport = module.MockTransport(lambda request: module.Response(200, json=completion("Hi")))
    url = "http://test.example/v1/chat/completions"
    with captured() as got, module.Client(transport=transport) as client:
        with client.stream("POST", url, json=ASK) as response:
            assert response.read()
        client.post(url, json=ASK)
    assert [text_of(exchange) for exchange in got] == ["Hi", "Hi"]


def test_calls_without_a_token_are_ambient(provider: Provider, client: openai.OpenAI) -> None:
    ready, go = threading.Event(), threading.Event()

    def work() -> None:
        ready.set()
        go.wait(5)
        ask(client)

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait(5)
    with captured() as got:
        go.set()
        thread.join()
    assert [exchange.is_ambient for exchange in got] == [True]


def test_nothing_is_recorded_while_nothing_is_open(
    provider: Provider, client: openai.OpenAI
) -> None:
    ask(client)
    with captured() as got:
        pass
    ask(client)
    assert got == []
    assert len(provider.requests) == 2


# Failures of the call


def test_each_try_is_recorded_with_its_number(provider: Provider, client: openai.OpenAI) -> None:
    provider.script(error_reply(429, "slow down"), error_reply(500, "broken"))
    with captured() as got:
        assert ask(client).choices[0].message.content == "Hello."
    assert [(exchange.attempt, exchange.status) for exchange in got] == [
        (0, 429),
        (1, 500),
        (2, 200),
    ]
    assert b"slow down" in got[0].body()


def test_a_retried_stream_request_is_recorded_too(
    provider: Provider, client: openai.OpenAI
) -> None:
    provider.script(error_reply(500, "broken"))
    with captured() as got:
        list(ask(client, stream=True))
    assert [exchange.status for exchange in got] == [500, 200]
    assert text_of(got[1]) == "Hello."


def test_a_call_without_an_answer_is_recorded(provider: Provider) -> None:
    provider.script(json_reply(completion("late"), delay_s=0.4))
    with captured() as got, provider.client(max_retries=0, timeout=0.1) as client:
        with pytest.raises(openai.APITimeoutError):
            ask(client)
    with (
        captured() as refused,
        openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="k", max_retries=0) as client,
        pytest.raises(openai.APIConnectionError),
    ):
        ask(client)
    assert [(exchange.status, exchange.error[:11]) for exchange in got] == [(0, "ReadTimeout")]
    assert [(exchange.status, exchange.error[:12]) for exchange in refused] == [(0, "ConnectError")]


def test_a_cancelled_call_stays_cancelled_and_is_recorded(provider: Provider) -> None:
    provider.script(json_reply(completion("late"), delay_s=0.5))

    async def work(client: openai.AsyncOpenAI) -> None:
        task = asyncio.create_task(client.chat.completions.create(**ASK))
        while not provider.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with captured() as got:
        with_async_client(provider, work)
    assert [exchange.error for exchange in got] == ["CancelledError"]


@pytest.mark.parametrize("name", HTTP_MODULES)
def test_an_interrupt_passes_unchanged(name: str) -> None:
    module = importlib.import_module(name)
    interrupt = KeyboardInterrupt()

    def interrupted(_: Any) -> Iterator[bytes]:
        yield b"first"
        raise interrupt

    stream = type("Interrupted", (module.SyncByteStream,), {"__iter__": interrupted})

    def handle(request: Any) -> Any:
        if request.headers.get("x-early"):
            raise interrupt
        return module.Response(200, stream=stream())

    url = "http://test.example/v1/chat/completions"
    with captured() as got, module.Client(transport=module.MockTransport(handle)) as client:
        with pytest.raises(KeyboardInterrupt) as early:
            client.post(url, headers={"x-early": "1"})
        with pytest.raises(KeyboardInterrupt) as late, client.stream("POST", url) as response:
            list(response.iter_raw())
    assert early.value is interrupt and late.value is interrupt
    assert [exchange.error for exchange in got] == ["KeyboardInterrupt"] * 2
    assert got[1].chunks == [b"first"]


@pytest.mark.parametrize("name", HTTP_MODULES)
def test_headers_are_cut_out_of_what_an_exception_says(name: str) -> None:
    headers = {"authorization": "Bearer a-long-key", "x-api-key": "other-key", "x-n": "12"}
    request = importlib.import_module(name).Request("POST", "http://127.0.0.1/v1", headers=headers)
    said = OSError("12 keys at 127.0.0.1: Bearer a-long-key, a-long-key, other-key")
    assert one_line(said, request) == (
        "OSError: 12 keys at 127.0.0.1: [header], [header], [header]"
    )
    scope.faults.add("open", said, request)
    assert "key," not in scope.faults.last
