from __future__ import annotations

import json
from random import Random

import pytest

from ftmagic.data import read_rows
from ftmagic.data.citation_styles import SEEN_STYLES, UNSEEN_STYLES
from ftmagic.local.chat import load_chat_format
from ftmagic.local.student import STUDENT_DIR, corpus, tasks
from ftmagic.types import Json

UNSEEN: Json = {
    "type": "object",
    "properties": {
        "skipper": {"type": "string"},
        "crew": {"type": "integer"},
        "rig": {"enum": ["sloop", "ketch"]},
        "ports": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["skipper", "crew", "rig", "ports"],
    "additionalProperties": False,
}


def generated_text(n_tasks: int) -> str:
    rng = Random(0)
    rows = [tasks.sample_task(rng, rng.randrange(tasks.STAGES)) for _ in range(n_tasks)]
    return json.dumps(rows, ensure_ascii=False).lower()


def test_no_reference_of_the_demo_is_in_the_pretraining_text() -> None:
    prose = "\n".join(corpus.sentences()).lower() + generated_text(3000)
    titles = [row["title"].lower() for row in read_rows("references.jsonl")]
    long_titles = [title for title in titles if len(title.split()) > 2]
    assert len(long_titles) > 300
    assert [title for title in long_titles if title in prose] == []


def test_recipe_reads_neither_the_demos_data_nor_its_styles() -> None:
    recipe = "".join(path.read_text(encoding="utf-8") for path in STUDENT_DIR.glob("*.py"))
    assert "references.jsonl" not in recipe and "ftmagic.data" not in recipe
    names = [style.__name__ for style in (*SEEN_STYLES, *UNSEEN_STYLES)]
    assert not [name for name in names if f"def _{name}" in recipe]


def test_same_seed_gives_the_same_first_batch() -> None:
    from transformers import AutoTokenizer

    from ftmagic.local.student.pretrain import Recipe, batches

    chat = load_chat_format(AutoTokenizer.from_pretrained(STUDENT_DIR))
    recipe = Recipe(batch_tokens=500)
    first = next(batches(chat, recipe, rank=0))
    assert first == next(batches(chat, recipe, rank=0))
    assert first != next(batches(chat, recipe, rank=1))
    assert first != next(batches(chat, Recipe(batch_tokens=500, seed=2), rank=0))


def test_every_stage_makes_rows_whose_target_can_be_learned() -> None:
    from transformers import AutoTokenizer

    chat = load_chat_format(AutoTokenizer.from_pretrained(STUDENT_DIR))
    rng = Random(3)
    for index in range(80):
        encoded = chat.encode_row(tasks.sample_task(rng, index % tasks.STAGES))
        assert len(encoded.token_ids) == len(encoded.labels)
        assert any(label != -100 for label in encoded.labels)


def test_learning_rate_warms_up_holds_and_falls_to_its_end() -> None:
    from ftmagic.local.student.pretrain import Recipe

    recipe = Recipe(n_steps=1000, n_warmup=10, n_decay=500, final_lr=0.05)
    shares = [recipe.learning_rate(step) for step in (0, 9, 500, 750, 1000)]
    assert shares == pytest.approx([0.1, 1.0, 1.0, 0.525, 0.05])


def test_shipped_weights_are_small() -> None:
    assert (STUDENT_DIR / "model.safetensors").stat().st_size < 6_000_000


def test_shipped_weights_answer_an_unseen_schema_with_valid_json() -> None:
    from ftmagic.local.chat_request import Sampling
    from ftmagic.local.generate import LoadedModel

    spec = {"type": "json_schema", "json_schema": {"name": "Boat", "schema": UNSEEN}}
    text = "Skipper Ruth Novak sails a ketch with a crew of 4 from Oslo to Rome."
    request: Json = {"messages": [{"role": "user", "content": text}], "response_format": spec}
    model = LoadedModel(STUDENT_DIR)
    output = model.generate(
        model.format.encode_prompt(request),
        constraint=model.constraint(model.format.grammar(request)),
        sampling=Sampling(),
        max_tokens=200,
    )
    message = model.format.parse_reply(output.text, request)
    answer = json.loads(message["content"])
    assert output.is_finished
    assert list(answer) == ["skipper", "crew", "rig", "ports"]
    assert isinstance(answer["crew"], int) and answer["rig"] in ("sloop", "ketch")
