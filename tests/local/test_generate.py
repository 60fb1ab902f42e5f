from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ftmagic.errors import DataError
from ftmagic.local.chat_request import Sampling
from ftmagic.local.dialect import ApiError
from ftmagic.local.generate import LoadedModel, choose
from ftmagic.local.models import STUDENT, ModelRegistry, ServedModel, base_name
from ftmagic.local.pool import MAX_LOADED, ModelPool, ReplyDeltas
from ftmagic.types import Json
from tests.local.tiny import FORCED, TOOL, make_student

REQUEST: Json = {
    "messages": [{"role": "user", "content": "Flo is 45 years old."}],
    "tools": [TOOL],
    "tool_choice": FORCED,
    "parallel_tool_calls": False,
}
SAMPLED = Sampling(temperature=1.0, seed=5)


@pytest.fixture(scope="module")
def loaded(student: Path) -> LoadedModel:
    return LoadedModel(student)


def generate(loaded: LoadedModel, request: Json, sampling: Sampling, **options: Any) -> Any:
    grammar = loaded.format.grammar(request, options.pop("grounded", frozenset()))
    return loaded.generate(
        loaded.format.encode_prompt(request),
        constraint=loaded.constraint(grammar),
        sampling=sampling,
        max_tokens=options.pop("max_tokens", 400),
        **options,
    )


def test_cached_greedy_decoding_equals_whole_passes(loaded: LoadedModel) -> None:
    request: Json = {"messages": REQUEST["messages"]}
    ids = loaded.format.encode_prompt(request)
    expected: list[int] = []
    with torch.inference_mode():
        for _ in range(12):
            logits = loaded._model(input_ids=torch.tensor([ids + expected])).logits[0, -1]
            expected.append(int(logits.argmax()))
    output = generate(loaded, request, Sampling(), max_tokens=12)
    assert output.text == loaded._text(expected)
    assert output.n_tokens == 12 and not output.is_finished


def test_skipping_forced_tokens_changes_nothing(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loaded._skips_forced
    fast = generate(loaded, REQUEST, Sampling(), max_tokens=30)
    monkeypatch.setattr(loaded, "_skips_forced", False)
    slow = generate(loaded, REQUEST, Sampling(), max_tokens=30)
    assert fast == slow


@pytest.mark.parametrize("seed", range(8))
def test_random_walks_are_valid_records(loaded: LoadedModel, seed: int) -> None:
    output = generate(loaded, REQUEST, Sampling(temperature=1.5, seed=seed))
    if output.is_finished:
        record = json.loads(output.text)
        assert list(record) == ["name", "age"]
        assert isinstance(record["name"], str) and isinstance(record["age"], int)
    else:
        assert output.n_tokens == 400


def test_grounded_field_is_a_span_of_the_input(loaded: LoadedModel) -> None:
    for seed in range(5):
        sampling = Sampling(temperature=1.5, seed=seed)
        output = generate(loaded, REQUEST, sampling, grounded=frozenset({"name"}))
        if output.is_finished:
            assert json.loads(output.text)["name"] in REQUEST["messages"][0]["content"]


def test_same_seed_gives_the_same_answer(loaded: LoadedModel) -> None:
    assert generate(loaded, REQUEST, SAMPLED) == generate(loaded, REQUEST, SAMPLED)


def test_cancelled_generation_ends_at_once(loaded: LoadedModel) -> None:
    asked: list[bool] = []

    def is_cancelled() -> bool:
        asked.append(True)
        return len(asked) > 2

    output = generate(loaded, REQUEST, SAMPLED, is_cancelled=is_cancelled)
    assert not output.is_finished and len(asked) == 3


def test_stop_text_ends_the_answer_and_is_never_streamed(loaded: LoadedModel) -> None:
    whole = generate(loaded, REQUEST, SAMPLED).text
    seen: list[str] = []
    sampling = Sampling(temperature=1.0, seed=5, stop=('","age"',))
    output = generate(loaded, REQUEST, sampling, on_text=seen.append)
    assert output.text == whole[: whole.index('","age"')]
    assert output.is_finished
    assert all(output.text.startswith(text) for text in seen)


def test_streamed_text_never_shows_half_a_character(loaded: LoadedModel) -> None:
    seen: list[str] = []
    output = generate(loaded, REQUEST, SAMPLED, on_text=seen.append)
    assert seen[-1] == output.text
    assert all(output.text.startswith(text) for text in seen)


def test_schema_that_cannot_be_enforced_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(DataError, match="cannot be enforced"):
        loaded.constraint('start: %json {"type": "nonsense"}')


def test_choose_is_greedy_at_zero_and_keeps_to_the_nucleus() -> None:
    logits = torch.tensor([0.6, 0.3, 0.1]).log()
    assert choose(logits, Sampling()) == 0
    generator = torch.Generator().manual_seed(0)
    nucleus = Sampling(temperature=1.0, top_p=0.5)
    assert {choose(logits, nucleus, generator) for _ in range(50)} == {0}
    wider = Sampling(temperature=1.0, top_p=0.7)
    assert {choose(logits, wider, generator) for _ in range(50)} == {0, 1}
    everything = Sampling(temperature=1.0)
    assert {choose(logits, everything, generator) for _ in range(200)} == {0, 1, 2}


def test_pool_drops_the_least_recently_used(tmp_path: Path) -> None:
    pool = ModelPool()
    served = [ServedModel(name, make_student(tmp_path / name)) for name in ("a", "b", "c", "d")]
    for model in [*served[:MAX_LOADED], served[0], served[3]]:
        pool.prepare(model, REQUEST)
    assert [Path(key).name for key in pool._loaded] == ["c", "a", "d"]


def test_pool_refuses_what_the_format_cannot_say(student: Path) -> None:
    served = ServedModel("tiny", student)
    with pytest.raises(ApiError, match="ftmagic_grounded must be a list"):
        ModelPool().prepare(served, {**REQUEST, "ftmagic_grounded": "name"})


def test_deltas_hold_text_back_until_it_cannot_be_a_call() -> None:
    def parse(text: str) -> Json:
        if not text.startswith("{"):
            return {"content": text}
        function = {"name": "Person", "arguments": text}
        return {"content": None, "tool_calls": [{"id": f"call_{len(text)}", "function": function}]}

    text = ReplyDeltas(parse, has_tools=True)
    assert text.feed("hel") == []
    assert text.finish(parse("hello")) == [{"content": "hello"}]
    call = ReplyDeltas(parse, has_tools=True)
    pieces = [*call.feed("{"), *call.feed('{"a"'), *call.finish(parse('{"a":1}'))]
    deltas = [piece["tool_calls"][0] for piece in pieces]
    assert [delta.get("id") for delta in deltas] == ["call_1", None, None, None]
    assert "".join(delta["function"]["arguments"] for delta in deltas) == '{"a":1}'
    free = ReplyDeltas(parse, has_tools=False)
    assert [free.feed("he"), free.feed("hello"), free.feed("hello")] == [
        [{"content": "he"}],
        [{"content": "llo"}],
        [],
    ]


class NoJobs:
    """A queue without jobs."""

    def tuned_models(self) -> list[ServedModel]:
        return []


def test_registry_knows_paths_and_checks_them(student: Path, tmp_path: Path) -> None:
    registry = ModelRegistry(NoJobs())
    found = registry.get(str(student))
    assert found is not None and found.folder == student
    for name in (str(tmp_path), "no/such-model", "../secret", "relative", "ft:x"):
        assert registry.get(name) is None


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (STUDENT, STUDENT),
        ("Qwen/Qwen3-0.6B", "Qwen3-0.6B"),
        ("/home/me/my model/", "my-model"),
        ("ft:Qwen3-0.6B:people:abc", "Qwen3-0.6B"),
    ],
)
def test_tuned_models_are_named_after_their_base(model: str, name: str) -> None:
    assert base_name(model) == name
