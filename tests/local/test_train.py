from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from ftmagic.errors import DataError
from ftmagic.local import train
from ftmagic.local.chat import ChatFormat, EncodedRow, load_chat_format
from ftmagic.local.encoding import count_targets, encode_rows
from ftmagic.local.generate import load_model
from ftmagic.local.loss import PASS_TOKENS, Arithmetic, evaluate, loss_of, passes
from ftmagic.local.probe import choose_arithmetic, is_slowed
from ftmagic.local.rows import Row, parse_rows, read_rows
from ftmagic.types import Json
from tests.local.tiny import make_row, write_rows


@pytest.fixture(scope="module")
def model(student: Path) -> Any:
    return load_model(student)


@pytest.fixture(scope="module")
def chat(student: Path) -> ChatFormat:
    from transformers import AutoTokenizer

    return load_chat_format(AutoTokenizer.from_pretrained(student))


def events_of(out: Path) -> list[Json]:
    return [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]


def metrics_of(out: Path) -> list[Json]:
    return [event["data"] for event in events_of(out) if event["type"] == "metrics"]


def run(out: Path, student: Path, rows: list[Json], **options: Any) -> Path:
    out.mkdir(parents=True)
    held_out = options.pop("held_out", None)
    path = write_rows(out / "train.jsonl", rows)
    if held_out is not None:
        options["validation_file"] = write_rows(out / "validation.jsonl", held_out)
    train.train(train.Options(student, path, out, threads=1, precision="float32", **options))
    return out


def test_padding_does_not_change_the_loss(model: Any, chat: ChatFormat) -> None:
    rows = [chat.encode_row(make_row(index)) for index in (0, 5, 123_456)]
    together = loss_of(model, rows)
    apart = [loss_of(model, [row]) for row in rows]
    assert len({len(row.token_ids) for row in rows}) > 1
    assert (
        together.n_tokens == sum(loss.n_tokens for loss in apart) == sum(map(count_targets, rows))
    )
    total = sum(loss.total.item() for loss in apart)
    assert together.total.item() == pytest.approx(total, rel=1e-5)


def test_loss_is_the_cross_entropy_of_the_answer_alone(model: Any, chat: ChatFormat) -> None:
    row = chat.encode_row(make_row(3))
    ids = torch.tensor([row.token_ids])
    log_p = model(input_ids=ids).logits[0].log_softmax(-1)
    expected = -sum(
        log_p[position, token].item()
        for position, (token, label) in enumerate(
            zip(row.token_ids[1:], row.labels[1:], strict=True)
        )
        if label != -100
    )
    assert loss_of(model, [row]).total.item() == pytest.approx(expected, rel=1e-5)


def test_untrained_model_guesses_evenly(model: Any, chat: ChatFormat) -> None:
    measured = evaluate(model, [chat.encode_row(make_row(index)) for index in range(4)])
    assert measured["valid_loss"] == pytest.approx(math.log(model.config.vocab_size), rel=0.05)
    assert measured["full_valid_loss"] == measured["valid_loss"]
    assert evaluate(model, []) == {}


def test_passes_hold_the_padded_size() -> None:
    rows = [EncodedRow([1] * length, [1] * length) for length in (10, PASS_TOKENS, 2000, 2000)]
    assert [[len(row.token_ids) for row in part] for part in passes(rows)] == [
        [PASS_TOKENS],
        [2000, 2000],
        [10],
    ]


def test_bfloat16_is_close_and_leaves_the_weights_alone(model: Any, chat: ChatFormat) -> None:
    rows = [chat.encode_row(make_row(index)) for index in range(4)]
    exact, rounded = loss_of(model, rows), loss_of(model, rows, is_bfloat16=True)
    assert rounded.total.item() == pytest.approx(exact.total.item(), rel=0.02)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_probe_tries_what_is_open_and_takes_what_is_set(model: Any, chat: ChatFormat) -> None:
    rows = [chat.encode_row(make_row(index)) for index in range(4)]
    assert choose_arithmetic(model, rows, 3, "bfloat16") == Arithmetic(3, True)
    chosen = choose_arithmetic(model, rows, None, "float32")
    assert chosen.n_threads in (1, os.cpu_count()) and not chosen.is_bfloat16
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_epoch_twice_as_long_as_the_first_shows_a_busy_machine() -> None:
    assert not is_slowed([3.0])
    assert not is_slowed([3.0, 9.0, 5.9])
    assert is_slowed([3.0, 3.1, 6.1])


def test_learning_rate_warms_up_and_falls() -> None:
    shares = [train.learning_rate_share(step, 100) for step in (1, 5, 10, 55, 100)]
    assert shares == pytest.approx([0.1, 0.5, 1.0, 0.525, 0.05])
    assert train.learning_rate_share(1, 1) == pytest.approx(0.05)


def test_same_seed_gives_the_same_weights(tmp_path: Path, student: Path) -> None:
    rows = [make_row(index) for index in range(6)]
    outs = [
        run(tmp_path / name, student, rows, n_epochs=2, batch_size=2, seed=seed)
        for name, seed in (("a", 7), ("b", 7), ("c", 8))
    ]
    weights = [(out / "checkpoints/step-6/model.safetensors").read_bytes() for out in outs]
    assert weights[0] == weights[1] != weights[2]


def test_training_learns_and_reports(tmp_path: Path, student: Path) -> None:
    rows = [make_row(index) for index in range(8)]
    out = run(tmp_path / "out", student, rows, n_epochs=6, learning_rate_multiplier=10)
    losses = [data["train_loss"] for data in metrics_of(out)]
    assert losses[-1] < 0.7 * losses[0]
    result = json.loads((out / "result.json").read_text())
    plan = json.loads((out / "plan.json").read_text())
    assert result["step"] == 12  # 8 rows in batches of 4: half of so few rows
    assert plan["hyperparameters"] == {
        "n_epochs": 6,
        "batch_size": 4,
        "learning_rate_multiplier": 10,
    }
    assert plan["grounded_fields"] == ["age", "name"]
    kept = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert kept == ["step-10", "step-12", "step-8"]


def test_training_stops_early_and_keeps_the_best(tmp_path: Path, student: Path) -> None:
    rows = [make_row(index) for index in range(8)]
    wrong = [make_row(index) for index in range(8, 12)]
    for row in wrong:  # what it learns makes these worse, soon
        row["messages"][1]["tool_calls"][0]["function"]["arguments"] = '{"name":"~~~~","age":-9}'
    out = run(
        tmp_path / "out",
        student,
        rows,
        held_out=wrong,
        n_epochs=60,
        learning_rate_multiplier=30,
    )
    losses = {data["step"]: data["valid_loss"] for data in metrics_of(out) if "valid_loss" in data}
    best = min(losses, key=lambda step: losses[step])
    assert json.loads((out / "result.json").read_text())["step"] == best
    assert len(losses) < 60
    assert list(losses).index(best) >= len(losses) - 1 - train.PATIENCE - 2
    assert "Stopped early" in events_of(out)[-1]["message"]
    assert (out / f"checkpoints/step-{best}/model.safetensors").exists()


def test_rows_that_would_lose_their_answer_are_left_out(tmp_path: Path, student: Path) -> None:
    long_row = make_row(9)
    long_row["messages"][0]["content"] = "Ada " * 600
    rows = [*(make_row(index) for index in range(4)), long_row]
    out = run(tmp_path / "out", student, rows, n_epochs=1)
    warnings = [event["message"] for event in events_of(out) if event["level"] == "warn"]
    assert len(warnings) == 1 and warnings[0].startswith("1 training rows are longer than 512")
    assert warnings[0].endswith("lines 5")
    with pytest.raises(DataError, match="3 of 4 training rows fit"):
        run(tmp_path / "few", student, rows[1:], n_epochs=1)


def test_too_high_a_learning_rate_is_explained(tmp_path: Path, student: Path) -> None:
    rows = [make_row(index) for index in range(4)]
    with pytest.raises(DataError, match="smaller learning_rate_multiplier"):
        run(tmp_path / "out", student, rows, n_epochs=20, learning_rate_multiplier=1e12)


def test_script_writes_its_refusal(tmp_path: Path, student: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{half\n")
    out = tmp_path / "out"
    options = ["--model", str(student), "--training-file", str(bad), "--out", str(out)]
    assert train.main(options) == 1
    error = json.loads((out / "error.json").read_text())
    assert error["code"] == "invalid_training_file"
    assert "line 1: " in error["message"]


def test_row_that_cannot_be_rendered_is_a_problem_by_line(chat: ChatFormat) -> None:
    row = make_row(0)
    row["tools"] = []
    encoded = encode_rows(chat, [Row(1, make_row(1)), Row(7, row)], 512)
    assert len(encoded.rows) == 1
    assert str(encoded.problems[0]).startswith("line 7: ")


def test_rows_file_survives_bom_and_blank_lines_and_names_bad_ones(tmp_path: Path) -> None:
    good = json.dumps(make_row(0)).encode()
    lines = [good, b"", b"\xff", b"[" * 100_000, b'{"messages": NaN}', b"[]", good]
    report = parse_rows(b"\xef\xbb\xbf" + b"\n".join(lines))
    assert [row.line for row in report.rows] == [1, 7]
    assert [problem.line for problem in report.problems] == [3, 4, 5, 6]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(good + b"\r\n" + good)
    assert len(read_rows(path).rows) == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"role": "user", "content": "q"}, "last message is not the assistant"),
        ({"role": "assistant", "content": None}, "neither content nor tool calls"),
        (
            {
                "role": "assistant",
                "tool_calls": [{"function": {"name": "Person", "arguments": "[1]"}}],
            },
            "not a JSON object",
        ),
    ],
)
def test_rows_without_an_answer_to_learn_are_refused(answer: Json, reason: str) -> None:
    row = make_row(0)
    row["messages"][1] = answer
    report = parse_rows(json.dumps(row).encode())
    assert reason in report.problems[0].message
