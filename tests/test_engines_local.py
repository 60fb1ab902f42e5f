"""The kernel's side of the embedded engine: find, start, stop, serve, quote, submit."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ftmagic import config
from ftmagic.engines import engine, local
from ftmagic.errors import ConfigError, DataError, EngineError, MissingExtraError
from ftmagic.local.rows import MIN_ROWS
from ftmagic.types import Json, TrainSpec
from tests.local.conftest import ROOT, wait_until
from tests.local.tiny import make_row, make_student, write_rows

MESSAGES: Json = {"messages": [{"role": "user", "content": "Rocky"}]}


@pytest.fixture(autouse=True)
def stopped(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No server outlives its test, even when the test fails."""
    monkeypatch.setenv("FTMAGIC_IDLE_TIMEOUT_S", "120")
    yield
    local.stop_server()


def write_recording(path: Path, answer: str) -> Path:
    reply = {"role": "assistant", "content": answer}
    path.write_text(json.dumps({"model": "gpt", "request": MESSAGES, "reply": reply}) + "\n")
    return path


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").read_text().split(")")[1].startswith(" Z")


def test_serve_starts_a_server_and_answers_from_the_recording(tmp_path: Path, home: Path) -> None:
    first = write_recording(tmp_path / "first.jsonl", "an answer")
    second = write_recording(tmp_path / "second.jsonl", "another")
    endpoint = local.serve({"answer-key": first, "other-key": str(second)})
    assert endpoint.model == "answer-key"
    assert "ftl-" not in repr(endpoint)
    assert (home / ".gitignore").exists()
    with endpoint.client(max_retries=0) as client:
        for model, text in (("answer-key", "an answer"), ("other-key", "another")):
            reply = client.chat.completions.create(model=model, **MESSAGES)
            assert reply.choices[0].message.content == text


def test_a_proxy_in_the_environment_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    endpoint = local.serve({"key": write_recording(tmp_path / "a.jsonl", "an answer")})
    with endpoint.client(max_retries=0) as client:
        assert client.models.retrieve("key").id == "key"


def test_start_finds_the_running_server() -> None:
    first = local.start()
    assert local.start() == first
    assert first.api_key not in repr(first)
    assert is_alive(first.pid)


def test_server_outlives_the_kernel_and_ignores_its_interrupt(home: Path) -> None:
    code = "from ftmagic.engines import local; print(local.start().pid)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), config.HOME_VARIABLE: str(home)}
    kernel = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    address = local.find()
    assert address is not None and address.pid == int(kernel.stdout)
    assert os.getpgid(address.pid) != os.getpgid(0)


def test_two_kernels_start_one_server() -> None:
    with ThreadPoolExecutor(3) as pool:
        addresses = list(pool.map(lambda _: local.start(), range(3)))
    assert len(set(addresses)) == 1


def test_remains_of_a_killed_server_are_no_server(home: Path) -> None:
    first = local.start()
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: local.find() is None, timeout_s=5)
    assert (home / "local" / "server.json").exists()
    second = local.start()
    assert second.pid != first.pid
    assert second.base_url == first.base_url  # a client made before goes on


def test_stop_server_says_whether_there_was_one() -> None:
    assert local.stop_server() is False
    local.start()
    assert local.stop_server() is True
    assert local.find() is None


def test_notebook_folder_cannot_shadow_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    assert local.start().pid


def test_start_that_fails_shows_the_end_of_the_log(home: Path) -> None:
    folder = home / "local"
    folder.mkdir(parents=True)
    (folder / "files").write_text("in the way")
    with pytest.raises(EngineError, match=r"ended with status 1(?s:.*)FileExistsError"):
        local.start()


def test_home_that_cannot_be_made_is_a_config_error(home: Path) -> None:
    home.write_text("in the way")
    with pytest.raises(ConfigError, match="cannot be used"):
        local.start()
    home.unlink()


def test_serve_refuses_nothing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no recording to serve"):
        local.serve({})
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{half\n")
    with pytest.raises(DataError, match="line 1: "):
        local.serve({"key": bad})


def test_missing_torch_is_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec

    def without_torch(name: str) -> object:
        return None if name == "torch" else find_spec(name)

    monkeypatch.setattr(importlib.util, "find_spec", without_torch)
    with pytest.raises(MissingExtraError, match=r"needs torch, .*\n.*ftmagic\[local\]"):
        engine("local").deploy("ftmagic-student")
    assert local.find() is None
    assert local.start().pid  # recordings do without


def test_listing_jobs_starts_nothing_where_there_are_none() -> None:
    assert engine("local").list() == []
    assert local.find() is None


def test_engine_quotes_submits_once_and_deploys(tmp_path: Path) -> None:
    student = str(make_student(tmp_path / "student"))
    rows = [make_row(index) for index in range(8)]
    long_row = make_row(8)
    long_row["messages"][0]["content"] = "Ada " * 600
    train = write_rows(tmp_path / "train.jsonl", [*rows, long_row])
    validation = write_rows(tmp_path / "validation.jsonl", rows[:2])
    spec = TrainSpec(model=student, n_epochs=1, seed=1, suffix="people")
    chosen = engine("local")
    assert chosen.limits.min_rows == MIN_ROWS

    quote = chosen.quote(train, validation, spec)
    assert (quote.n_train, quote.n_validation, quote.n_truncated) == (9, 2, 1)
    assert (quote.host, quote.cost_usd, quote.tokens_basis) == ("127.0.0.1", 0.0, "measured")
    assert [(problem.severity, problem.row) for problem in quote.problems] == [("warning", 9)]
    assert quote.n_tokens > 8 * 20

    few = write_rows(tmp_path / "few.jsonl", [make_row(0), {"messages": []}])
    problems = chosen.quote(few, None, spec).problems
    assert [(problem.severity, problem.row) for problem in problems] == [
        ("error", 2),
        ("error", None),
    ]
    assert "1 rows can be trained on; engine 'local' needs at least 4" in problems[1].message

    job = chosen.submit(train, validation, spec)
    assert chosen.submit(train, validation, spec).id == job.id
    wait_until(lambda: chosen.retrieve(job.id).is_final)
    job = chosen.retrieve(job.id)
    assert (job.status, job.error) == ("succeeded", "")
    assert job.fine_tuned_model is not None and ":people:" in job.fine_tuned_model
    events = chosen.events(job.id)
    assert events[0].message.startswith("Created") and "1 training rows are longer" in " ".join(
        event.message for event in events
    )
    assert chosen.events(job.id, after=events[-2].id) == events[-1:]
    assert [point.step_number for point in chosen.checkpoints(job.id)] == [2]
    assert [known.id for known in chosen.list()] == [job.id]
    with chosen.deploy(job.fine_tuned_model).client(max_retries=0) as client:
        assert client.models.retrieve(job.fine_tuned_model).owned_by == "you"
