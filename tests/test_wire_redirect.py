from __future__ import annotations

import asyncio
import importlib
import json
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import openai
import pytest

from ftmagic.errors import ConfigError, DataError, RoutingError
from ftmagic.types import Endpoint, Json
from ftmagic.wire import redirect, scope, seam
from tests.provider import Provider, completion, error_reply
from tests.wire_parts import ASK, HTTP_MODULES, TOOL, captured


class Elsewhere:
    """A route that sends every call to one endpoint, or raises what it was given."""

    def __init__(self, answer: Endpoint | Exception | None) -> None:
        self._answer = answer
        self.asked: list[tuple[str, Json]] = []

    def decide(self, url: str, body: Json, rewrite: Callable[[Endpoint], Any]) -> Any:
        self.asked.append((url, body))
        if isinstance(self._answer, Exception):
            raise self._answer
        return None if self._answer is None else rewrite(self._answer)


@contextmanager
def routed(route: scope.Route) -> Iterator[None]:
    token = scope.push_route(route)
    try:
        yield
    finally:
        scope.pop_route(token)


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    seam.install()
    yield
    seam.uninstall()


@pytest.fixture
def teacher() -> Iterator[Provider]:
    with Provider() as running:
        yield running


@pytest.fixture
def student() -> Iterator[Provider]:
    with Provider() as running:
        running.answer = lambda request: completion("from the student", model=request["model"])
        yield running


@pytest.fixture
def endpoint(student: Provider) -> Endpoint:
    return Endpoint(base_url=student.base_url, model="ft:student", api_key="student-key")


def ask(client: Any, **more: Any) -> Any:
    return client.chat.completions.create(**ASK, **more)


@pytest.mark.parametrize("name", HTTP_MODULES)
def test_the_body_keeps_all_but_the_model_and_only_public_headers_travel(name: str) -> None:
    module = importlib.import_module(name)
    body = {**ASK, "stream": True, "tools": [TOOL], "messages": [{"content": "ü\u2028"}]}
    request = module.Request(
        "POST",
        "https://me:pw@api.example/openai/deployments/d/chat/completions?api-version=1",
        json=body,
        headers=[
            ("Authorization", "Bearer teacher"), ("api-key", "azure"), ("x-api-key", "other"),
            ("OpenAI-Organization", "org"), ("Cookie", "c=1"), ("x-stainless-retry-count", "2"),
            ("accept", "text/event-stream"), ("Accept-Encoding", "gzip"), ("User-Agent", "me/1"),
            ("Idempotency-Key", "i-1"), ("Helicone-Auth", "Bearer a"), ("x-portkey-api-key", "b"),
            ("cf-aig-authorization", "Bearer c"), ("x-mine", "d"),
        ],
        extensions={"timeout": {"read": 3.0}},
    )  # fmt: skip
    sent = redirect.rewrite(request, Endpoint("http://127.0.0.1:8/v1/", "ft:m", "new"))
    assert type(sent) is module.Request
    assert str(sent.url) == "http://127.0.0.1:8/v1/chat/completions"
    assert json.loads(sent.content) == {**body, "model": "ft:m"}
    assert sorted(sent.headers.multi_items()) == [
        ("accept", "text/event-stream"),
        ("accept-encoding", "gzip"),
        ("authorization", "Bearer new"),
        ("content-length", str(len(sent.content))),
        ("content-type", "application/json"),
        ("host", "127.0.0.1:8"),
        ("idempotency-key", "i-1"),
        ("user-agent", "me/1"),
        ("x-stainless-retry-count", "2"),
    ]
    assert sent.extensions == {"timeout": {"read": 3.0}}
    assert request.headers["authorization"] == "Bearer teacher"


@pytest.mark.parametrize("name", HTTP_MODULES)
def test_what_cannot_be_sent_elsewhere_is_refused(name: str) -> None:
    module = importlib.import_module(name)
    endpoint = Endpoint("http://127.0.0.1:8/v1", "x", "key")
    with pytest.raises(DataError, match="a call to /v1/files cannot be sent"):
        redirect.rewrite(module.Request("POST", "http://x/v1/files", json={}), endpoint)
    chat = module.Request("POST", "http://x/v1/chat/completions", json=[])
    with pytest.raises(DataError):
        redirect.rewrite(chat, endpoint)
    chat = module.Request("POST", "http://x/v1/chat/completions", json={})
    with pytest.raises(ConfigError):
        redirect.rewrite(chat, Endpoint("http://127.0.0.1:8/v1", "x"))


def test_the_unchanged_code_of_the_user_reaches_the_student(
    teacher: Provider, student: Provider, endpoint: Endpoint
) -> None:
    route = Elsewhere(endpoint)
    with teacher.client() as client, captured() as got, routed(route):
        reply = ask(client, tools=[TOOL], timeout=7, extra_query={"k": "v"})
        text = "".join(
            chunk.choices[0].delta.content or ""
            for chunk in ask(client, stream=True)
            if chunk.choices
        )
    assert reply.choices[0].message.content == text == "from the student"
    assert reply.model == "ft:student"
    assert teacher.requests == []
    assert [request.path for request in student.requests] == ["/v1/chat/completions"] * 2
    assert student.requests[0].headers["authorization"] == "Bearer student-key"
    assert student.requests[0].json == {**ASK, "tools": [TOOL], "model": "ft:student"}
    assert route.asked[0] == (f"{teacher.base_url}/chat/completions", {**ASK, "tools": [TOOL]})
    assert [exchange.url for exchange in got] == [f"{student.base_url}/chat/completions"] * 2
    assert got[0].request_body == student.requests[0].body


def test_async_calls_streams_and_pools_are_sent_too(
    teacher: Provider, student: Provider, endpoint: Endpoint
) -> None:
    async def main() -> None:
        async with teacher.async_client() as client:
            await asyncio.gather(ask(client), ask(client))
            async for _ in await ask(client, stream=True):
                pass

    with routed(Elsewhere(endpoint)):
        asyncio.run(main())
        with ThreadPoolExecutor(1) as pool, teacher.client() as client:
            pool.submit(ask, client).result()
    assert (len(teacher.requests), len(student.requests)) == (0, 4)


def test_each_retry_is_sent_to_the_student_as_well(
    teacher: Provider, student: Provider, endpoint: Endpoint
) -> None:
    student.script(error_reply(429, "slow down"))
    route = Elsewhere(endpoint)
    with teacher.client() as client, captured() as got, routed(route):
        assert ask(client).choices[0].message.content == "from the student"
    assert [(exchange.attempt, exchange.status) for exchange in got] == [(0, 429), (1, 200)]
    assert len(route.asked) == 2


def test_azure_calls_lose_their_deployment_version_and_key(
    teacher: Provider, student: Provider, endpoint: Endpoint
) -> None:
    azure = openai.AzureOpenAI(
        azure_endpoint=teacher.origin, api_key="azure-key", api_version="2024-10-21"
    )
    with azure as client, routed(Elsewhere(endpoint)):
        ask(client)
    [request] = student.requests
    assert request.path == "/v1/chat/completions"
    assert "azure-key" not in str(request.headers)


@pytest.mark.parametrize("name", HTTP_MODULES)
def test_a_clients_own_login_does_not_reach_the_student(
    name: str, teacher: Provider, student: Provider, endpoint: Endpoint
) -> None:
    module = importlib.import_module(name)
    with module.Client(auth=("me", "password")) as client, routed(Elsewhere(endpoint)):
        client.post(f"{teacher.base_url}/chat/completions", json=ASK)
    assert student.requests[0].headers["authorization"] == "Bearer student-key"


def test_a_route_lets_calls_pass_untouched_and_ends(teacher: Provider) -> None:
    with teacher.client() as client:
        with routed(Elsewhere(None)):
            ask(client)
        ask(client)
    assert teacher.requests[0].body == teacher.requests[1].body
    assert teacher.requests[0].headers["authorization"] == "Bearer sk-test-key"


def test_a_strict_route_reaches_the_user_at_once(teacher: Provider) -> None:
    route = Elsewhere(RoutingError("this schema is not trained."))
    with teacher.client(max_retries=5) as client, captured() as got, routed(route):
        with pytest.raises(RoutingError, match="this schema is not trained") as raised:
            ask(client)
        with pytest.raises(openai.OpenAIError):
            ask(client, stream=True)
    assert (len(route.asked), len(teacher.requests), len(got)) == (2, 0, 0)
    assert type(pickle.loads(pickle.dumps(raised.value))) is RoutingError

    async def main() -> None:
        async with teacher.async_client() as client:
            with pytest.raises(RoutingError):
                await ask(client)

    with routed(route):
        asyncio.run(main())
    assert len(route.asked) == 3


@pytest.mark.parametrize("fault", [ZeroDivisionError("injected"), DataError("injected")])
def test_a_fault_in_routing_lets_the_call_pass(fault: Exception, teacher: Provider) -> None:
    before = scope.faults.by_hook.get("route", 0)
    with teacher.client() as client, captured() as got, routed(Elsewhere(fault)):
        assert ask(client).choices[0].message.content == "Hello."
    assert (len(teacher.requests), len(got)) == (1, 1)
    assert scope.faults.by_hook["route"] == before + 1


def test_our_own_calls_are_not_sent_elsewhere(teacher: Provider, endpoint: Endpoint) -> None:
    with teacher.client() as client, routed(Elsewhere(endpoint)), scope.ignore_calls():
        ask(client)
    assert len(teacher.requests) == 1
