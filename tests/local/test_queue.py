"""Jobs over HTTP with the official SDK and real trainer processes, and how they end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob
from pydantic import BaseModel

from ftmagic.local.files import FileStore
from ftmagic.local.job_folder import EVENTS, RESULT, JobFolder, append_event, write_json
from ftmagic.local.models import ModelRegistry
from ftmagic.local.queue import JobQueue, NewJob
from ftmagic.types import FINAL_STATUSES, Json
from tests.local.conftest import Server, wait_until
from tests.local.tiny import FORCED, TOOL, make_row, write_rows

ASK: Json = {"messages": [{"role": "user", "content": "Flo is 45 years old."}]}
PERSON: Any = {
    "type": "json_schema",
    "json_schema": {"name": "Person", "schema": TOOL["function"]["parameters"]},
}
SHORT: Json = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 10}


class Person(BaseModel):
    name: str
    age: int


def upload(client: openai.OpenAI, path: Path) -> str:
    with path.open("rb") as file:
        return client.files.create(file=file, purpose="fine-tune").id


def create(client: openai.OpenAI, model: Path, rows: Path, **options: Any) -> FineTuningJob:
    hyperparameters = options.pop("hyperparameters", {"n_epochs": 200})
    return client.fine_tuning.jobs.create(
        model=str(model),
        training_file=upload(client, rows),
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        seed=1,
        **options,
    )


def wait_for(client: openai.OpenAI, job_id: str, statuses: frozenset[str] = FINAL_STATUSES) -> str:
    jobs = client.fine_tuning.jobs
    wait_until(lambda: jobs.retrieve(job_id).status in statuses, timeout_s=120)
    return jobs.retrieve(job_id).status


def messages_of(client: openai.OpenAI, job_id: str) -> str:
    events = client.fine_tuning.jobs.list_events(job_id, limit=100)
    return "\n".join(event.message for event in events)


def trainer_of(server: Server) -> int:
    children = Path(f"/proc/{server.process.pid}/task")
    if not children.exists():
        pytest.skip("needs /proc")
    found = [pid for task in children.iterdir() for pid in (task / "children").read_text().split()]
    assert len(found) == 1
    return int(found[0])


@pytest.fixture(scope="module")
def trained(
    server: Server, student: Path, rows_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> FineTuningJob:
    """A job that succeeded, with validation rows."""
    held_out = tmp_path_factory.mktemp("held_out") / "validation.jsonl"
    write_rows(held_out, [make_row(index) for index in range(20, 24)])
    with server.client() as client:
        job = create(
            client,
            student,
            rows_file,
            validation_file=upload(client, held_out),
            suffix="my people",
            metadata={"ftmagic_hash": "b2:1"},
            hyperparameters=SHORT,
        )
        assert job.status == "validating_files"
        assert wait_for(client, job.id) == "succeeded", messages_of(client, job.id)
        return client.fine_tuning.jobs.retrieve(job.id)


def test_finished_job_tells_its_model_and_hyperparameters(trained: FineTuningJob) -> None:
    assert trained.fine_tuned_model is not None
    assert trained.fine_tuned_model.split(":")[:1] == ["ft"]
    assert trained.fine_tuned_model.split(":")[2:] == ["my-people", trained.id[-8:]]
    assert trained.trained_tokens is not None and trained.trained_tokens > 2 * 12 * 20
    assert trained.finished_at is not None and trained.finished_at >= trained.created_at
    assert trained.hyperparameters.n_epochs == 2
    assert trained.hyperparameters.learning_rate_multiplier == 10
    assert trained.seed == 1 and trained.error is None


def test_events_come_newest_first_with_measurements(
    client: openai.OpenAI, trained: FineTuningJob
) -> None:
    events = list(client.fine_tuning.jobs.list_events(trained.id, limit=3))  # by pages of three
    assert events[-1].message == f"Created fine-tuning job: {trained.id}"
    assert events[0].message == "The job has successfully completed"
    assert len({event.id for event in events}) == len(events)
    metrics: list[Any] = [event.data for event in reversed(events) if event.type == "metrics"]
    assert [data["step"] for data in metrics] == [1, 2, 3, 4, 5, 6]
    assert {data["total_steps"] for data in metrics} == {6}
    assert all(0 < data["train_loss"] < 7 for data in metrics)
    assert ["valid_loss" in data for data in metrics] == [False, False, True] * 2
    assert metrics[-1]["valid_loss"] < metrics[2]["valid_loss"]


def test_checkpoints_answer_under_their_names(
    client: openai.OpenAI, trained: FineTuningJob
) -> None:
    checkpoints = client.fine_tuning.jobs.checkpoints.list(trained.id).data
    assert [point.step_number for point in checkpoints] == [6, 3]
    name = checkpoints[1].fine_tuned_model_checkpoint
    assert name == f"{trained.fine_tuned_model}:ckpt-step-3"
    assert checkpoints[1].metrics.full_valid_loss is not None
    assert {name, trained.fine_tuned_model} <= {model.id for model in client.models.list()}


def test_tuned_model_is_held_to_the_forced_tool(
    client: openai.OpenAI, trained: FineTuningJob
) -> None:
    request: Json = {
        "model": trained.fine_tuned_model,
        "tools": [TOOL],
        "tool_choice": FORCED,
        "parallel_tool_calls": False,
        "max_tokens": 200,
        "temperature": 1.0,
        "seed": 5,
        **ASK,
    }
    reply: Any = client.chat.completions.create(**request)
    choice = reply.choices[0]
    assert choice.finish_reason == "stop"  # as OpenAI says it where the tool was forced
    assert choice.message.content is None and choice.message.tool_calls is not None
    call = choice.message.tool_calls[0]
    assert call.function.name == "Person"
    Person.model_validate_json(call.function.arguments)
    assert reply.usage is not None and reply.usage.prompt_tokens > 10
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_streamed_call_adds_up_to_the_whole_one(
    client: openai.OpenAI, trained: FineTuningJob
) -> None:
    request: Json = {
        "model": trained.fine_tuned_model,
        "tools": [TOOL],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "temperature": 1.0,
        "seed": 5,
        **ASK,
    }
    whole: Any = client.chat.completions.create(**request).choices[0]
    with client.chat.completions.create(
        stream=True, stream_options={"include_usage": True}, **request
    ) as stream:
        chunks: list[Any] = list(stream)
    calls = [c.choices[0].delta.tool_calls[0] for c in chunks if _has_call(c)]
    assert calls[0].id and calls[0].function.name == "Person"
    arguments = "".join(call.function.arguments for call in calls)
    assert arguments == whole.message.tool_calls[0].function.arguments
    assert len(calls) > 3
    assert chunks[-2].choices[0].finish_reason == whole.finish_reason == "tool_calls"
    assert chunks[-1].usage.completion_tokens > 5


def _has_call(chunk: Any) -> bool:
    return bool(chunk.choices and chunk.choices[0].delta.tool_calls)


def test_parse_returns_the_pydantic_object(client: openai.OpenAI, trained: FineTuningJob) -> None:
    parsed = client.chat.completions.parse(
        model=trained.fine_tuned_model or "",
        response_format=Person,
        temperature=1.0,
        seed=5,
        max_tokens=300,
        **ASK,
    )
    assert isinstance(parsed.choices[0].message.parsed, Person)


def test_a_crowd_of_requests_is_answered_and_does_not_block_the_rest(
    server: Server, client: openai.OpenAI, trained: FineTuningJob
) -> None:
    request: Json = {"model": trained.fine_tuned_model, "max_tokens": 40, **ASK}
    with ThreadPoolExecutor(30) as crowd:
        ask: Any = client.chat.completions.create
        replies = [crowd.submit(ask, response_format=PERSON, **request) for _ in range(30)]
        with server.client(timeout=5) as other:
            other.files.create(file=("a", b"x"), purpose="batch")
        texts = {reply.result().choices[0].message.content for reply in replies}
    assert len(texts) == 1  # greedy: the same answer to all


def test_client_that_hangs_up_frees_the_model(
    server: Server, client: openai.OpenAI, trained: FineTuningJob
) -> None:
    request: Json = {"model": trained.fine_tuned_model, **ASK}
    with client.chat.completions.create(stream=True, temperature=1, **request) as stream:
        next(iter(stream))
    with server.client(timeout=0.005) as hasty, contextlib.suppress(openai.APITimeoutError):
        hasty.chat.completions.create(max_tokens=490, temperature=1, **request)
    assert client.chat.completions.create(max_tokens=2, **request).usage is not None


def test_tuned_model_says_which_fields_it_grounds(
    client: openai.OpenAI, trained: FineTuningJob
) -> None:
    described = client.models.retrieve(trained.fine_tuned_model or "").to_dict()
    assert isinstance(described["ftmagic_grounded"], list)


def test_answer_cut_by_max_tokens_says_length(
    client: openai.OpenAI, trained: FineTuningJob
) -> None:
    model = trained.fine_tuned_model or ""
    cut = client.chat.completions.create(
        model=model, response_format={"type": "json_object"}, max_completion_tokens=1, **ASK
    )
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage is not None and cut.usage.completion_tokens == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"n": 2}, "n=2"),
        ({"logprobs": True}, "no 'logprobs'"),
        ({"temperature": 9}, "temperature=9"),
        ({"tools": [TOOL], "tool_choice": {**FORCED, "function": {"name": "Pet"}}}, "names 'Pet'"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "text parts only"),
        ({"messages": [{"role": "user", "content": "word " * 600}]}, "reads at most 511"),
    ],
)
def test_requests_it_cannot_answer_are_400(
    client: openai.OpenAI, trained: FineTuningJob, options: Json, reason: str
) -> None:
    request = {"model": trained.fine_tuned_model, **ASK, **options}
    with pytest.raises(openai.BadRequestError, match=reason):
        client.chat.completions.create(**request)


def test_jobs_are_listed_newest_first_and_by_metadata(
    client: openai.OpenAI, trained: FineTuningJob, student: Path, tmp_path: Path
) -> None:
    few = write_rows(tmp_path / "few.jsonl", [make_row(0)])
    newer = create(client, student, few)
    assert [job.id for job in client.fine_tuning.jobs.list(limit=1)][:2] == [newer.id, trained.id]
    found = client.fine_tuning.jobs.list(metadata={"ftmagic_hash": "b2:1"})
    assert [job.id for job in found] == [trained.id]


def test_too_few_rows_fail_as_openai_says_it(
    client: openai.OpenAI, student: Path, tmp_path: Path
) -> None:
    job = create(client, student, write_rows(tmp_path / "few.jsonl", [make_row(0)] * 3))
    assert wait_for(client, job.id) == "failed"
    error = client.fine_tuning.jobs.retrieve(job.id).error
    assert error is not None and (error.code, error.param) == (
        "invalid_n_examples",
        "training_file",
    )
    assert error.message.startswith("Training file has 3 example(s), but must have at least 4")


def test_damaged_rows_fail_by_line(client: openai.OpenAI, student: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "bad.jsonl", [make_row(index) for index in range(5)])
    cut = make_row(6)
    cut["messages"][1]["tool_calls"][0]["function"]["arguments"] = '{"name": '
    with path.open("a") as file:
        file.write("{half\n" + json.dumps(cut) + "\n" + json.dumps({"messages": [{}]}) + "\n")
    job = create(client, student, path)
    assert wait_for(client, job.id) == "failed"
    error = client.fine_tuning.jobs.retrieve(job.id).error
    assert error is not None and error.code == "invalid_training_file"
    assert "line 6: " in error.message
    assert "line 7: the arguments of 'Person' are not JSON" in error.message
    assert "line 8: messages[0].role must be one of" in error.message


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "ftmagic-studnt"}, "ftmagic-studnt"),
        ({"training_file": "file-none"}, "invalid training_file"),
        ({"seed": -1}, "seed=-1"),
        ({"suffix": "x" * 65}, "64 characters"),
        ({"metadata": {"k": "v" * 513}}, "metadata must be"),
        ({"method": {"type": "dpo"}}, "'supervised' only"),
        ({"hyperparameters": {"n_epochs": 0}}, "n_epochs=0"),
        ({"hyperparameters": {"batch_size": 1.5}}, "batch_size=1.5"),
    ],
)
def test_jobs_that_cannot_be_are_refused_at_once(
    client: openai.OpenAI, student: Path, rows_file: Path, changes: Json, reason: str
) -> None:
    n_jobs = len(list(client.fine_tuning.jobs.list()))
    body = {"model": str(student), "training_file": upload(client, rows_file), **changes}
    with pytest.raises((openai.BadRequestError, openai.NotFoundError), match=reason):
        client.fine_tuning.jobs.create(**body)
    assert len(list(client.fine_tuning.jobs.list())) == n_jobs


def test_cancel_ends_the_trainer(
    server: Server, client: openai.OpenAI, student: Path, rows_file: Path
) -> None:
    job = create(client, student, rows_file)
    wait_for(client, job.id, frozenset({"running"}))
    pid = trainer_of(server)
    waiting = create(client, student, rows_file)
    wait_for(client, waiting.id, frozenset({"queued"}))
    assert client.fine_tuning.jobs.cancel(waiting.id).status == "cancelled"
    cancelled = client.fine_tuning.jobs.cancel(job.id)
    assert cancelled.status == "cancelled" and cancelled.finished_at is not None
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), timeout_s=10)
    assert client.fine_tuning.jobs.retrieve(job.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="already been cancelled"):
        client.fine_tuning.jobs.cancel(job.id)


def test_killed_trainer_is_a_failed_job_with_the_reason(
    server: Server, client: openai.OpenAI, student: Path, rows_file: Path
) -> None:
    job = create(client, student, rows_file)
    wait_for(client, job.id, frozenset({"running"}))
    os.kill(trainer_of(server), signal.SIGKILL)
    assert wait_for(client, job.id) == "failed"
    failed = client.fine_tuning.jobs.retrieve(job.id)
    assert failed.error is not None and failed.error.code == "trainer_killed"
    assert "killed by SIGKILL (often: the machine ran out of memory)" in failed.error.message
    assert failed.fine_tuned_model is None


@pytest.fixture
def own_home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "own"


def test_stopped_server_leaves_its_job_for_the_next(
    own_home: Path, student: Path, rows_file: Path
) -> None:
    first = Server(own_home)
    with first.client() as client:
        job = create(client, student, rows_file)
        wait_for(client, job.id, frozenset({"running"}))
        pid = trainer_of(first)
    first.stop()
    assert not Path(f"/proc/{pid}").exists()
    assert JobFolder(own_home / "jobs" / job.id).status == "queued"
    second = Server(own_home)
    with second.client() as client:
        wait_for(client, job.id, frozenset({"running"}))
        assert "the job starts again with it" in messages_of(client, job.id)
    second.stop()


def test_job_of_a_killed_server_starts_again_once_then_fails(
    own_home: Path, student: Path, rows_file: Path
) -> None:
    for attempt in range(2):
        running = Server(own_home)
        with running.client() as client:
            if attempt == 0:
                job = create(client, student, rows_file, metadata={"k": "v"})
            wait_for(client, job.id, frozenset({"running"}))
            pid = trainer_of(running)
        running.stop(signal.SIGKILL)
        wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists())  # type: ignore[misc]
    last = Server(own_home)
    with last.client() as client:
        kept = client.fine_tuning.jobs.retrieve(job.id)
        assert (kept.status, kept.metadata) == ("failed", {"k": "v"})
        assert kept.error is not None and "died twice" in kept.error.message
        assert "starts again from the first step" in messages_of(client, job.id)
    last.stop()


def test_finished_training_of_a_killed_server_is_a_success(own_home: Path, student: Path) -> None:
    body = NewJob(model=str(student), training_file="file-1").body()
    (own_home / "jobs").mkdir(parents=True)
    job = JobFolder.make(own_home / "jobs" / body["id"], {**body, "status": "running"})
    write_json(job.path / RESULT, {"step": 3, "trained_tokens": 99})
    queue = JobQueue(own_home / "jobs", FileStore(own_home / "files"))
    queue.start(ModelRegistry(queue))
    queue.close()
    assert queue.get(job.id).status == "succeeded"
    assert queue.get(job.id).value("trained_tokens") == 99


def test_half_a_line_in_the_log_is_skipped_and_ended(tmp_path: Path) -> None:
    body = NewJob(model="m", training_file="file-1").body()
    job = JobFolder.make(tmp_path / "job", body)
    job.note("one")
    with (job.path / EVENTS).open("ab") as log:
        log.write(b'{"created_at": 1, "mess')
    append_event(job.path, "two", data={"step": 1})
    events = job.events()
    assert [event["message"] for event in events] == ["two", "one"]
    assert [event["id"].rsplit("-", 1)[1] for event in events] == ["2", "0"]
    assert [event["type"] for event in events] == ["metrics", "message"]
