from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

import ftmagic as ft
from ftmagic import config, writer
from ftmagic.errors import ConfigError
from ftmagic.recorder import RecordingWarning
from ftmagic.store import Store
from ftmagic.wire import seam
from tests.disk import full_disk
from tests.provider import Provider, completion, error_reply, json_reply, stream_reply, tool_call


class Album(BaseModel):
    name: str
    year: int


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as running:
        yield running
    seam.uninstall()


def ask(client: Any, film: str = "Jaws", **options: Any) -> Any:
    return client.chat.completions.parse(
        model="gpt-test",
        messages=[{"role": "user", "content": f"An album for {film}"}],
        response_format=Album,
        **options,
    )


def test_counts_new_duplicate_and_skipped_with_reasons(provider: Provider, store: Store) -> None:
    client = provider.client()
    with ft.capture("albums") as seen:
        for film in ("Jaws", "Alien", "Jaws"):
            ask(client, film)
        client.chat.completions.create(
            model="gpt-test", messages=[{"role": "user", "content": "just words"}]
        )
    assert seen.summary().splitlines()[:2] == [
        "4 calls, 2 new examples, 1 duplicate, 1 skipped",
        "  skipped 1: no tools and no response_format",
    ]
    example = store.examples.select("albums")[0]
    assert json.loads(example.answer["content"]) == {"name": "text", "year": 1}
    assert [schema.name for schema in example.schemas] == ["Album"]
    assert example.n_tokens == 8


def test_sync_async_streamed_parse_and_tools_are_recorded(provider: Provider, store: Store) -> None:
    client = provider.client()
    tool = {"type": "function", "function": {"name": "album", "parameters": {"type": "object"}}}
    body: Any = {"model": "gpt-test", "tools": [tool]}

    def messages(text: str) -> list[Any]:
        return [{"role": "user", "content": text}]

    async def asynchronous() -> None:
        async with provider.async_client() as client:
            await client.chat.completions.create(messages=messages("async"), **body)
            async for _ in await client.chat.completions.create(
                messages=messages("async stream"), stream=True, **body
            ):
                pass

    with ft.capture("albums") as seen:
        client.chat.completions.create(messages=messages("sync"), **body)
        for _ in client.chat.completions.create(messages=messages("stream"), stream=True, **body):
            pass
        client.chat.completions.create(
            messages=messages("forced"),
            tool_choice={"type": "function", "function": {"name": "album"}},
            **body,
        )
        provider.script(
            json_reply(
                completion(
                    tool_calls=[tool_call("album", "{}", "a"), tool_call("album", '{"x":1}', "b")]
                )
            )
        )
        client.chat.completions.create(
            messages=messages("parallel"), parallel_tool_calls=True, **body
        )
        ask(client)
        asyncio.run(asynchronous())
    assert (seen.added.n_calls, seen.added.n_new) == (7, 7)
    rows = {row.prompt[-1]["content"]: row for row in store.examples.select("albums")}
    assert len(rows["parallel"].answer["tool_calls"]) == 2
    assert rows["parallel"].parallel_tool_calls is True
    assert rows["forced"].tool_choice["function"]["name"] == "album"
    assert rows["async stream"].answer["tool_calls"][0]["function"]["arguments"] == "{}"
    assert [call.is_stream for call in store.calls.select("albums")].count(True) == 2


def test_retried_attempt_is_kept_but_counts_as_one_call(provider: Provider, store: Store) -> None:
    provider.script(error_reply(429, "slow down"), error_reply(500, "oops"))
    with ft.capture("albums") as seen:
        ask(provider.client())
    assert seen.summary().splitlines()[0] == (
        "1 call, 1 new example, 0 duplicates, 0 skipped, 2 retries"
    )
    assert [call.outcome for call in store.calls.select("albums")] == ["failed", "failed", "ok"]


def test_failed_call_is_stored_as_failed_and_the_error_is_the_users_own(
    provider: Provider, store: Store
) -> None:
    import openai

    provider.script(error_reply(400, "no such model"))
    with ft.capture("albums") as seen, pytest.raises(openai.BadRequestError):
        ask(provider.client())
    assert seen.added.n_failed == 1
    (call,) = store.calls.select("albums")
    assert (call.outcome, call.status) == ("failed", 400)
    assert "no such model" in seen.summary()


def test_tags_and_split_reach_the_examples(provider: Provider, store: Store) -> None:
    with ft.capture("albums", split="test", tags={"kind": "seen"}), ft.tag(id=7, source="imdb"):
        ask(provider.client())
    (example,) = store.examples.select("albums", split="test")
    assert example.tags == {"kind": "seen", "id": "7", "source": "imdb"}


def test_threads_of_the_block_are_its_own(provider: Provider, store: Store) -> None:
    client = provider.client()
    with ThreadPoolExecutor(4) as pool, ft.capture("albums") as seen:
        list(pool.map(lambda film: ask(client, film), ("a", "b", "c")))
        thread = threading.Thread(target=ask, args=(client, "d"))
        thread.start()
        thread.join()
    assert (seen.added.n_new, seen.run.n_ambient) == (4, 0)


def test_rerun_says_what_is_kept_and_replace_supersedes(provider: Provider, store: Store) -> None:
    client = provider.client()
    for film in ("a", "b"):
        with ft.capture("albums", cell="c1") as seen:
            ask(client, film)
    assert seen.summary().splitlines()[1] == (
        "  run 2; 1 example of run 1 kept (--replace supersedes them)"
    )
    with ft.capture("albums", cell="c1", replace=True) as seen:
        ask(client, "b")
        ask(client, "c")
    assert seen.summary().splitlines()[1] == "  run 3; 1 example of runs 1-2 superseded"
    films = [row.prompt[-1]["content"][-1] for row in store.examples.select("albums")]
    assert films == ["b", "c"]


def test_block_without_a_call_says_so(store: Store) -> None:
    with ft.capture("albums") as seen:
        pass
    assert "no call to an LLM API went through httpx or httpx2" in seen.summary()
    assert store.datasets.names() == []


def test_new_name_close_to_an_old_one_is_pointed_out(provider: Provider) -> None:
    client = provider.client()
    with ft.capture("albums") as first:
        ask(client)
    assert "did you mean" not in first.summary()
    assert f"stored in {ft.home()}" in first.summary()
    with ft.capture("album") as second:
        ask(client)
    assert "'album' is new; did you mean 'albums'?" in second.summary()


def test_bad_name_is_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="cannot name a dataset"):
        ft.capture("../albums")


def test_full_disk_never_reaches_the_call_and_loses_nothing(
    provider: Provider, store: Store
) -> None:
    client = provider.client()
    with ft.capture("albums"):
        ask(client, "before")
    with full_disk(store.path.stat().st_size + 4096):
        with pytest.warns(RecordingWarning, match="NOT STORED: 40 calls wait in memory"):
            with ft.capture("albums"):
                replies = [ask(client, os.urandom(9000).hex()) for _ in range(40)]
    assert len(replies) == 40
    with ft.capture("albums"):  # there is space again: what waited is stored, too
        pass
    assert len(store.examples.select("albums")) == 41


def test_flush_after_fork_uses_a_writer_of_the_child(provider: Provider, store: Store) -> None:
    with ft.capture("albums"):
        child = os.fork()
        if child == 0:
            os._exit(0 if _records_in_child(provider) else 1)
        assert os.waitpid(child, 0)[1] == 0
    (example,) = store.examples.select("albums")
    assert example.prompt[-1]["content"] == "An album for child"


def _records_in_child(provider: Provider) -> bool:
    ask(provider.client(), "child")
    return writer.flush(10) == ""


def post(provider: Provider, **body: Any) -> None:
    """Send a body that no SDK would send."""
    messages = [{"role": "user", "content": "Hi"}]
    whole = {"messages": messages, "response_format": {"type": "json_object"}, **body}
    url = f"{provider.base_url}/chat/completions"
    httpx.post(url, content=json.dumps(whole).encode(), trust_env=False)


def test_stream_left_at_its_last_event_is_stored_once_and_blocks_nothing(
    provider: Provider, store: Store
) -> None:
    client = provider.client()
    provider.script(stream_reply(completion('{"name":"x","year":1}')))
    with ft.capture("albums"):
        stream = client.chat.completions.create(
            model="gpt-test",
            messages=[{"role": "user", "content": "An album"}],
            response_format={"type": "json_object"},
            stream=True,
        )
        for chunk in stream:
            if chunk.choices[0].finish_reason:
                break
    (first,) = store.calls.select("albums")
    assert first.outcome == "ok"
    stream.close()  # as a variable that is bound anew does
    with ft.capture("albums") as seen:
        ask(client)
    assert seen.summary().splitlines()[0].startswith("1 call, 1 new example")
    assert [call.outcome for call in store.calls.select("albums")] == ["ok", "ok"]
    assert first.id in {example.call_id for example in store.examples.select("albums")}


def test_late_call_of_an_erased_dataset_is_lost_alone_and_said_once(
    provider: Provider, store: Store
) -> None:
    client = provider.client()
    is_erased = threading.Event()
    with ft.capture("albums"):
        ask(client)
        late = threading.Thread(target=lambda: is_erased.wait(10) and ask(client, "late"))
        late.start()
    store.datasets.delete("albums")
    is_erased.set()
    late.join()
    with pytest.warns(RecordingWarning, match="1 record is lost: .*dataset of its cell was delete"):
        with ft.capture("others") as seen:
            ask(client)
    assert "1 call, 1 new example" in seen.summary() and "is lost" in seen.summary()
    with ft.capture("others") as seen:
        pass
    assert "is lost" not in seen.summary()
    assert store.datasets.names() == ["others"]


def test_usage_that_is_no_number_does_not_matter(provider: Provider, store: Store) -> None:
    usages: list[Any] = [{"total_tokens": [5]}, [5], {"total_tokens": 2**70}, {"total_tokens": 7}]
    for number, usage in enumerate(usages):
        provider.script(json_reply({**completion(f'{{"a": {number}}}'), "usage": usage}))
    with ft.capture("albums") as seen:
        for _ in usages:
            post(provider, model="m")
    assert seen.added.n_new == 4
    assert [row.n_tokens for row in store.examples.select("albums")] == [None, None, None, 7]


def test_one_bad_record_does_not_take_its_batch_along(provider: Provider, store: Store) -> None:
    with pytest.warns(RecordingWarning, match="NOT STORED: 1 record is lost"):
        with ft.capture("albums") as seen:
            for number in range(12):
                post(provider, model="\udce9" if number == 5 else f"m-{number}")
    assert (seen.added.n_calls, len(list(store.calls.select("albums")))) == (11, 11)


def test_capture_of_which_all_was_lost_does_not_say_that_nothing_was_seen(
    provider: Provider,
) -> None:
    with pytest.warns(RecordingWarning):
        with ft.capture("albums") as seen:
            post(provider, model="\udce9")
    assert "NOT STORED: 1 record is lost" in seen.summary()
    assert "no call to an LLM API" not in seen.summary()


def test_tag_that_is_no_text_is_stored_with_question_marks(
    provider: Provider, store: Store
) -> None:
    with ft.capture("albums"), ft.tag(source="caf\udce9.pdf"):
        ask(provider.client())
    (example,) = store.examples.select("albums")
    assert example.tags == {"source": "caf?.pdf"}


def test_changed_folder_in_a_cell_does_not_move_the_store(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(config.HOME_VARIABLE)
    monkeypatch.chdir(tmp_path)
    config._resolved_once.cache_clear()
    (tmp_path / "data").mkdir()
    client = provider.client()
    with ft.capture("albums"):
        monkeypatch.chdir(tmp_path / "data")
        ask(client, "a")
    with ft.capture("albums"):
        ask(client, "b")
    assert ft.home() == tmp_path / ".ftmagic"
    assert len(ft.examples("albums")) == 2
    config._resolved_once.cache_clear()


def test_home_set_in_a_cell_counts_from_the_next_cell_on(
    provider: Provider, store: Store, tmp_path: Path
) -> None:
    client = provider.client()
    with ft.capture("albums"):
        ask(client, "a")
        time.sleep(4 * writer.BATCH_S)
        ft.home(tmp_path / "other")
        ask(client, "b")
    assert list(ft.datasets()) == []
    assert len(store.examples.select("albums")) == 2


def test_providers_escape_sequences_do_not_reach_the_console(provider: Provider) -> None:
    import openai

    provider.script(error_reply(400, "no \x1b]0;pwned\x07\x1b[2J\u202emodel"))
    with ft.capture("albums") as seen, pytest.raises(openai.BadRequestError):
        ask(provider.client())
    assert "no [U+202E]model" in seen.summary()
    assert "\x1b" not in seen.summary()


def test_key_with_a_line_end_is_neither_stored_nor_shown(provider: Provider, store: Store) -> None:
    import openai

    key = "sk-proj-SECRETSECRETSECRET1234\n"
    with ft.capture("albums") as seen, pytest.raises(openai.APIConnectionError):
        ask(openai.OpenAI(base_url=provider.base_url, api_key=key, max_retries=0))
    (call,) = store.calls.select("albums")
    assert call.error == (
        "LocalProtocolError: a header has an illegal value (a line end in the key?)"
    )
    assert "SECRET" not in seen.summary()


def test_colab_is_told_that_its_disk_vanishes(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    with ft.capture("albums") as seen:
        ask(provider.client())
    assert "this disk vanishes with the Colab machine" in seen.summary()
