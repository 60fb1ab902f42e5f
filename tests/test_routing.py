"""use() and client() over real HTTP: the user's own SDK client, two loopback providers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from ftmagic.errors import ConfigError, RoutingError, UnknownNameError
from ftmagic.routing import client, use
from ftmagic.store import Store
from ftmagic.types import Endpoint, JobInfo
from ftmagic.wire import scope, seam
from tests.citation_calls import CITATION, TOOL, promote_job, record, request_for, student
from tests.provider import Provider

PLAIN: dict[str, Any] = {"model": "gpt", "messages": [{"role": "user", "content": "passage 1"}]}
UNTRAINED: dict[str, Any] = {
    **PLAIN,
    "tools": [{"type": "function", "function": {"name": "Book", "parameters": CITATION}}],
}


@pytest.fixture
def teacher() -> Iterator[Provider]:
    with Provider() as server:
        yield server


@pytest.fixture
def tuned(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """The server of the promoted job of 'citations'."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-tuned-key")
    with Provider() as server:
        server.answer = student
        record(store, range(3), split="train")
        promote_job(store, server.base_url)
        yield server
    seam.uninstall()


def ask(api: openai.OpenAI, **body: Any) -> Any:
    return api.chat.completions.create(**{**request_for(1, "gpt"), **body})


def test_trained_schema_goes_to_the_tuned_model(teacher: Provider, tuned: Provider) -> None:
    with teacher.client() as api:
        with use("citations") as routed:
            reply = ask(api)
        ask(api)

    assert reply.choices[0].message.tool_calls[0].function.arguments.startswith('{"author"')
    sent = tuned.requests[0]
    assert sent.json == request_for(1, "ft:student:citations")
    assert sent.headers["authorization"] == "Bearer sk-tuned-key"
    assert len(teacher.requests) == 1  # the call after the block
    assert str(routed.summary()) == "1 call: 1 rerouted to ft:student:citations"


def test_calls_that_pass_are_counted_with_their_reasons(teacher: Provider, tuned: Provider) -> None:
    with teacher.client() as api, use("citations") as routed:
        ask(api)
        api.chat.completions.create(**PLAIN)
        api.chat.completions.create(**UNTRAINED)
        api.chat.completions.create(**UNTRAINED)
        api.responses.create(model="gpt", input="hello")
    summary = routed.summary()

    assert (summary.n_calls, summary.n_rerouted, summary.n_passed) == (5, 1, 4)
    assert summary.reasons == {
        "no tools and no response_format": 1,
        "schema not trained": 2,
        "not a chat completion": 1,
    }
    assert "2 schema not trained" in str(summary)
    assert len(tuned.requests) == 1


def test_one_reason_needs_no_count(teacher: Provider, tuned: Provider) -> None:
    with teacher.client() as api, use("citations") as routed:
        ask(api)
        api.chat.completions.create(**UNTRAINED)

    assert str(routed.summary()) == "2 calls: 1 rerouted, 1 passed through (schema not trained)"


def test_changed_schema_is_not_trained(teacher: Provider, tuned: Provider) -> None:
    wider = {**CITATION, "properties": {**CITATION["properties"], "doi": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "Citation", "parameters": wider}}
    with teacher.client() as api, use("citations") as routed:
        ask(api, tools=[tool])
        ask(api, tools=[TOOL, tool])

    assert routed.summary().reasons == {"schema not trained": 2}


def test_instead_of_restricts_to_one_model(teacher: Provider, tuned: Provider) -> None:
    with teacher.client() as api, use("citations", instead_of="gpt") as routed:
        ask(api)
        ask(api, model="other")

    assert routed.summary().reasons == {"model is not gpt": 1}
    assert [received.json["model"] for received in teacher.requests] == ["other"]


def test_strict_raises_to_the_user_and_sends_nothing(teacher: Provider, tuned: Provider) -> None:
    with teacher.client() as api, use("citations", strict=True):
        api.chat.completions.create(**PLAIN)
        with pytest.raises(RoutingError, match="'gpt'.*schema not trained"):
            api.chat.completions.create(**UNTRAINED)

    assert [received.json for received in teacher.requests] == [PLAIN]


def test_strict_leaves_other_models_alone(teacher: Provider, tuned: Provider) -> None:
    with teacher.client() as api, use("citations", instead_of="gpt", strict=True):
        api.chat.completions.create(**{**UNTRAINED, "model": "other"})

    assert len(teacher.requests) == 1


def test_streams_are_rerouted_as_streams(teacher: Provider, tuned: Provider) -> None:
    with teacher.client() as api, use("citations") as routed:
        chunks = list(ask(api, stream=True))

    assert chunks[-1].usage is not None or chunks[-1].choices[0].finish_reason == "tool_calls"
    assert routed.summary().n_rerouted == 1
    assert tuned.requests[0].json["stream"] is True


def test_threads_and_tasks_follow_the_route(teacher: Provider, tuned: Provider) -> None:
    async def ask_many() -> None:
        async with teacher.async_client() as api:
            await asyncio.gather(
                *(api.chat.completions.create(**request_for(n, "gpt")) for n in range(4))
            )

    with teacher.client() as api, use("citations") as routed:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda n: ask(api), range(4)))
        asyncio.run(ask_many())

    assert routed.summary().n_rerouted == 8
    assert teacher.requests == []


def test_users_own_broken_key_and_address_do_not_matter(tuned: Provider) -> None:
    with openai.OpenAI(api_key="wrong", base_url="http://127.0.0.1:9/v1") as api:
        with use("citations"):
            assert ask(api).model == "ft:student:citations"

    assert "wrong" not in str(tuned.requests[0].headers)


def test_endpoint_takes_every_structured_call(teacher: Provider, tuned: Provider) -> None:
    endpoint = Endpoint(tuned.base_url, "ft:any", api_key="k")
    with teacher.client() as api, use(endpoint) as routed:
        ask(api)
        api.chat.completions.create(**UNTRAINED)
        api.chat.completions.create(**PLAIN)

    assert (routed.summary().n_rerouted, routed.summary().n_passed) == (2, 1)


def test_job_and_job_id_are_targets(teacher: Provider, tuned: Provider) -> None:
    class Finished:
        info = JobInfo("ftjob-1", "openai", "student", "succeeded")
        endpoint = Endpoint(tuned.base_url, "ft:object", api_key="k")

    with teacher.client() as api:
        with use(Finished()):
            ask(api)
        with use("ftjob-1"):
            ask(api)

    assert [each.json["model"] for each in tuned.requests] == ["ft:object", "ft:student:citations"]


def test_nothing_is_patched_before_the_block(teacher: Provider, tuned: Provider) -> None:
    seam.uninstall()
    routed = use("citations")
    assert not seam.is_installed()
    with routed:
        assert scope.current_route() is routed
    assert scope.current_route() is None
    assert "no LLM call was seen" in str(routed.summary())


def test_no_finished_job_is_said_with_the_next_command(store: Store) -> None:
    record(store, range(2))
    with pytest.raises(RoutingError, match="it has no job.\n  Next: %ft_train citations"):
        use("citations")

    info = JobInfo("ftjob-2", "openai", "student", "failed", error="boom")
    job = promote_job(store, "http://127.0.0.1:9/v1", id="ftjob-2", info=info)
    with pytest.raises(RoutingError, match="it is failed"):
        use(job.id)


def test_unknown_target_offers_the_closest(tuned: Provider) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'citations'"):
        use("citation")


def test_missing_key_is_said_before_any_call(
    tuned: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        use(Endpoint(tuned.base_url, "m"))


def test_client_reaches_the_tuned_model(tuned: Provider) -> None:
    with client("citations", max_retries=0) as api:
        assert str(api.base_url).startswith(tuned.base_url)
        ask(api, model="ft:student:citations")

    assert len(tuned.requests) == 1


def test_job_without_known_rows_uses_the_schemas_of_its_dataset(
    store: Store, teacher: Provider, tuned: Provider
) -> None:
    promote_job(store, tuned.base_url, id="ftjob-adopted", example_ids=[])
    with teacher.client() as api, use("citations") as routed:
        ask(api)
        api.chat.completions.create(**UNTRAINED)

    assert (routed.summary().n_rerouted, routed.summary().n_passed) == (1, 1)


def test_a_key_that_vanishes_is_said_and_not_counted_as_rerouted(
    teacher: Provider, tuned: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with teacher.client() as api, use("citations") as routed:
        monkeypatch.delenv("OPENAI_API_KEY")
        ask(api)
    summary = str(routed.summary())

    assert summary.startswith("1 call: 0 rerouted, 1 passed through (no key for ")
    assert (len(teacher.requests), len(tuned.requests)) == (1, 0)


def test_strict_sends_nothing_elsewhere_when_the_key_vanishes(
    teacher: Provider, tuned: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with teacher.client() as api, use("citations", strict=True) as routed:
        monkeypatch.delenv("OPENAI_API_KEY")
        with pytest.raises(RoutingError, match="OPENAI_API_KEY is not set.\\n  Next: import os"):
            ask(api)

    assert (teacher.requests, tuned.requests) == ([], [])
    assert routed.summary().n_rerouted == 0


def test_faults_of_ours_are_said(teacher: Provider, tuned: Provider) -> None:
    with teacher.client() as api, use("citations") as routed:
        api.post("/chat/completions", content=b"not json", cast_to=object)

    assert "1 faults inside ftmagic, the last: route: JSONDecodeError" in str(routed.summary())
