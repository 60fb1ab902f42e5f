from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ftmagic
from ftmagic import training
from ftmagic.dataset import Dataset, datasets, examples
from ftmagic.engines.openai import OpenAIEngine
from ftmagic.errors import (
    ConfigError,
    DataError,
    EngineError,
    EngineUnreachable,
    JobFailed,
    TrainingUnavailable,
    UnknownNameError,
    UnknownOutcome,
)
from ftmagic.store import Store
from ftmagic.store.job_files import folder_of
from ftmagic.training import kept_events, turns
from ftmagic.training.measurements import Metric, read_metrics, read_progress
from ftmagic.types import Example, JobEvent, Quote, Split, TrainSpec
from tests.finetuning_provider import Fault, FineTuningProvider

JOBS = "/fine_tuning/jobs"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenAIEngine, "lookup_delays_s", (0.0, 0.01))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-key-0123456789")


@pytest.fixture
def provider() -> Iterator[FineTuningProvider]:
    with FineTuningProvider() as server:
        yield server


def row(number: int, answer: str = "yes", **fields: object) -> Example:
    messages = [
        {"role": "user", "content": f"Is {number} a number?"},
        {"role": "assistant", "content": answer},
    ]
    return dataclasses.replace(Example(messages=messages), **fields)  # type: ignore[arg-type]


def fill(store: Store, n_rows: int = 20, name: str = "numbers") -> str:
    store.datasets.create(name)
    store.examples.add(name, [row(number) for number in range(n_rows)])
    return name


def start(provider: FineTuningProvider, dataset: str | Dataset = "numbers") -> training.Job:
    return training.train(dataset, engine="openai", model="gpt-test", base_url=provider.base_url)


def test_train_splits_sends_no_test_row_and_stores_the_job(
    provider: FineTuningProvider, store: Store
) -> None:
    fill(store)
    job = start(provider)
    divided = examples("numbers")
    counts = [len(divided.filter(split=split)) for split in ("train", "validation", "test")]
    assert counts == [14, 2, 4]
    sent = [str(each["messages"]) for file in provider.files.values() for each in file["rows"]]
    assert len(sent) == 16
    assert not set(sent) & {str(each.messages) for each in divided.filter(split="test")}
    record = store.jobs.get(job.id)
    assert record.info is not None and record.info.status == "queued"
    assert (record.dataset, record.host, record.base_url) == (
        "numbers",
        "127.0.0.1",
        provider.base_url,
    )
    assert len(record.example_ids) == 14
    assert [each.messages for each in job.examples()] == [
        each.messages for each in divided.filter(split="train")
    ]


def test_the_same_dataset_and_spec_are_one_job_unless_again(
    provider: FineTuningProvider, store: Store
) -> None:
    fill(store)
    first = start(provider)
    assert start(provider).id == first.id
    provider.finish(first.id)
    assert start(provider).id == first.id
    second = training.train(
        "numbers", engine="openai", model="gpt-test", base_url=provider.base_url, again=True
    )
    assert second.id != first.id
    assert len(provider.files) == 2


def test_two_kernels_at_once_are_one_job(provider: FineTuningProvider, store: Store) -> None:
    fill(store)
    provider.faults.append(Fault("POST", JOBS, delay_s=0.2))
    found: list[str] = []

    def click() -> None:
        found.append(start(provider).id)
        store.close()

    threads = [threading.Thread(target=click) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["ftjob-1"] * 3
    assert len(provider.jobs) == 1
    assert len(store.jobs.list()) == 1


def test_a_new_row_is_a_new_job(provider: FineTuningProvider, store: Store) -> None:
    fill(store)
    first = start(provider)
    store.examples.add("numbers", [row(n) for n in range(100, 110)])
    assert start(provider).id != first.id


def test_a_lost_create_reply_makes_one_job(provider: FineTuningProvider, store: Store) -> None:
    fill(store)
    provider.faults.append(Fault("POST", JOBS, is_reset=True, is_done=True))
    assert start(provider).id == "ftjob-1"
    assert len(provider.jobs) == len(store.jobs.list()) == 1


def test_an_unanswered_create_stays_as_intent_and_is_found_later(
    provider: FineTuningProvider, store: Store
) -> None:
    fill(store)
    provider.faults.append(Fault("POST", JOBS, is_reset=True, is_done=True))

    provider.is_hiding_jobs = True
    with pytest.raises(UnknownOutcome, match="unknown whether the job was created"):
        start(provider)
    (intent,) = training.jobs("numbers")
    assert intent.id.startswith("intent-")
    assert intent.info.status == "unconfirmed"
    provider.is_hiding_jobs = False
    assert intent.status == "queued"
    assert intent.id == "ftjob-1"
    assert [each.id for each in training.jobs()] == ["ftjob-1"]
    assert start(provider).id == "ftjob-1"
    assert len(provider.jobs) == 1


def test_training_not_available_leaves_no_job_behind(
    provider: FineTuningProvider, store: Store
) -> None:
    fill(store)
    provider.faults.append(Fault("POST", JOBS, status=403, code="training_not_available"))
    with pytest.raises(TrainingUnavailable, match="--engine local"):
        start(provider)
    assert len(training.jobs()) == 0


def test_training_while_offline_leaves_no_job_behind(store: Store) -> None:
    fill(store)
    with FineTuningProvider() as provider:
        gone = OpenAIEngine(provider.base_url, max_retries=0)
    with pytest.raises(EngineUnreachable, match="did not answer"):
        training.train("numbers", engine=gone)
    assert len(training.jobs()) == 0


def test_confirm_sees_the_quote_and_may_stop(provider: FineTuningProvider, store: Store) -> None:
    fill(store)
    seen: list[Quote] = []

    def refuse(quote: Quote) -> bool:
        seen.append(quote)
        return False

    with pytest.raises(ConfigError, match="not confirmed"):
        training.train("numbers", engine="openai", base_url=provider.base_url, confirm=refuse)
    assert seen[0].n_train == 14
    assert provider.count("POST /files") == 0
    assert len(training.jobs()) == 0


def test_too_few_rows_says_the_counts(provider: FineTuningProvider, store: Store) -> None:
    store.datasets.create("triage")
    rows = [row(number) for number in range(8)]
    rows += [row(10 + number, problems=("no JSON",)) for number in range(2)]
    store.examples.add("triage", rows)
    extra = [row(20 + number) for number in range(3)]
    store.examples.add("triage", extra)
    ids = [each.id for each in examples("triage")][-3:]
    store.examples.set_review(ids, "rejected")
    with pytest.raises(DataError) as caught:
        start(provider, "triage")
    assert str(caught.value) == (
        "'triage' has 8 rows that may train (3 rejected, 2 invalid); engine 'openai' needs at "
        "least 10.\n  Next: ft.examples('triage').check()   "
        "(says what is wrong with each invalid row)"
    )
    assert provider.requests == []


def test_an_unknown_dataset_names_the_closest(store: Store, provider: FineTuningProvider) -> None:
    fill(store)
    with pytest.raises(UnknownNameError, match="did you mean 'numbers'"):
        start(provider, "numbres")


def test_a_credential_stays_on_this_machine(store: Store, provider: FineTuningProvider) -> None:
    fill(store)
    secret = "sk-proj-" + "aB3" * 20
    store.examples.add("numbers", [row(n, secret) for n in range(90, 110)])
    found = training.quote("numbers", engine="openai", base_url="https://api.example.com/v1")
    problem = next(each for each in found.problems if each.severity == "error")
    assert "credential (openai)" in problem.message
    chosen = eval(problem.fix.removesuffix(".reject()"), {"ft": ftmagic})
    assert [each.answer["content"] for each in chosen] == [secret]
    with pytest.raises(DataError, match="credential"):
        training.train("numbers", engine="openai", base_url="https://api.example.com/v1")
    assert start(provider).status == "queued"


def test_a_job_survives_the_kernel(provider: FineTuningProvider, store: Store) -> None:
    fill(store)
    job_id = start(provider).id
    provider.step(job_id, 1, 2, train_loss=2.0)
    provider.finish(job_id, n_tokens=321)
    store.close()
    again = training.job(job_id)
    assert again.status == "succeeded"
    assert again.info.trained_tokens == 321
    assert again.is_promoted
    assert [each.step for each in again.metrics()] == [1]
    with again.client() as client:
        reply = client.chat.completions.create(
            model=again.fine_tuned_model, messages=[{"role": "user", "content": "Hi"}]
        )
    assert reply.choices[0].message.content == f"Hello from {again.fine_tuned_model}"


def test_an_ended_job_is_readable_without_its_engine(store: Store) -> None:
    fill(store)
    with FineTuningProvider() as provider:
        job = start(provider)
        provider.step(job.id, 5, 5, train_loss=0.5, valid_loss=0.75)
        provider.finish(job.id)
        assert job.wait(timeout_s=5).status == "succeeded"
        assert job.metrics() == [Metric(5, 0.5, 0.75)]
    later = training.job(job.id)
    assert later.status == "succeeded"
    assert later.metrics() == [Metric(5, 0.5, 0.75)]


def test_status_away_is_labelled(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store)
    with FineTuningProvider() as provider:
        job = start(provider)
        engine = OpenAIEngine(provider.base_url, max_retries=0)
    away = training.Job(store.jobs.get(job.id), engine)
    assert away.status == "queued (last known; 127.0.0.1 does not answer)"
    assert away.is_away
    assert "queued" in repr(away)


def test_wait_goes_on_while_the_network_is_away(provider: FineTuningProvider, store: Store) -> None:
    fill(store)
    job_id = start(provider).id
    place = OpenAIEngine(provider.base_url, max_retries=0)
    job = training.Job(store.jobs.get(job_id), place)
    provider.faults += [Fault("GET", f"{JOBS}/{job_id}", is_reset=True)] * 3
    threading.Timer(0.3, provider.finish, [job_id]).start()
    assert job.wait(timeout_s=20, poll_s=0.05).info.status == "succeeded"


def test_wait_gives_up_in_time_and_the_job_goes_on(
    provider: FineTuningProvider, store: Store
) -> None:
    fill(store)
    job = start(provider)
    with pytest.raises(TimeoutError, match="still queued after 0.1 s"):
        job.wait(timeout_s=0.1, poll_s=0.02)


def test_an_unknown_status_is_shown_verbatim(provider: FineTuningProvider, store: Store) -> None:
    fill(store)
    job = start(provider)
    provider.set_status(job.id, "pausing")
    assert job.status == "pausing"


def test_models_of_unfinished_and_failed_jobs_are_told_apart(
    provider: FineTuningProvider, store: Store
) -> None:
    fill(store)
    job = start(provider)
    with pytest.raises(EngineError, match="has no model yet: it is queued"):
        _ = job.fine_tuned_model
    provider.fail(job.id, "invalid_training_file", "row 7 is odd")
    with pytest.raises(JobFailed, match="failed: invalid_training_file: row 7 is odd"):
        _ = job.fine_tuned_model
    assert start(provider).id != job.id


def test_first_success_is_promoted_and_later_ones_when_asked(
    provider: FineTuningProvider, store: Store
) -> None:
    fill(store)
    first = start(provider)
    provider.finish(first.id)
    first.refresh()
    second = training.train(
        "numbers", engine="openai", model="gpt-other", base_url=provider.base_url
    )
    provider.finish(second.id)
    second.refresh()
    assert (first.is_promoted, second.is_promoted) == (True, False)
    second.promote()
    assert (first.is_promoted, second.is_promoted) == (False, True)


def test_cancel(provider: FineTuningProvider, store: Store) -> None:
    fill(store)
    job = start(provider)
    assert job.cancel().status == "cancelled"
    assert store.jobs.get(job.id).info == job.info


def test_adopt_attaches_to_a_job_made_elsewhere(
    provider: FineTuningProvider, store: Store, tmp_path: Path
) -> None:
    fill(store)
    job_id = start(provider).id
    store.jobs.forget(job_id)
    provider.finish(job_id)
    job = training.adopt(job_id, "openai", "numbers", base_url=provider.base_url)
    assert job.info.status == "succeeded"
    assert training.job(job_id).dataset == "numbers"
    assert job.is_promoted
    with pytest.raises(EngineError, match="Could not find fine tune: ftjob-9"):
        training.adopt("ftjob-9", "openai", "numbers", base_url=provider.base_url)


def test_rows_of_a_file_train_too(provider: FineTuningProvider, store: Store) -> None:
    rows = Dataset("loose", [row(number) for number in range(20)])
    job = start(provider, rows)
    assert sorted(len(file["rows"]) for file in provider.files.values()) == [2, 18]
    assert job.dataset == "loose"


def test_given_splits_are_kept_and_test_rows_dropped(
    provider: FineTuningProvider, store: Store
) -> None:
    fill(store, 30)
    train, validation, test = examples("numbers").split(validation=5, test=5)
    everything = Dataset("numbers", [*train, *test])
    training.train(everything, validation, engine="openai", model="m", base_url=provider.base_url)
    assert sorted(len(file["rows"]) for file in provider.files.values()) == [5, 20]


def test_jobs_list_shows_escaped_text(provider: FineTuningProvider, store: Store) -> None:
    fill(store)
    job = start(provider)
    provider.fail(job.id, "bad", "<img src=x onerror=alert(1)>\x1b[31m")
    job.refresh()
    page = training.jobs()._repr_html_()
    assert "<img" not in page and "&lt;img" in page
    assert "\x1b" not in repr(training.jobs())
    assert job.id in repr(training.jobs("numbers"))


def test_metrics_join_what_is_said_of_one_step() -> None:
    events = [
        JobEvent("1", 0, "info", "Step 1/4", "metrics", {"step": 1, "train_loss": 2.0}),
        JobEvent("2", 0, "info", "validation", "metrics", {"step": 1, "valid_loss": 2.5}),
        JobEvent("3", 0, "info", "Step 2/4", "metrics", {"step": 2, "train_loss": float("nan")}),
        JobEvent("4", 0, "info", "hello"),
    ]
    assert read_metrics(events) == [Metric(1, 2.0, 2.5)]
    progress = read_progress(events)
    assert (progress.step, progress.total_steps, progress.fraction) == (2, 4, 0.5)


def about(source: str, number: int, split: Split | None = None) -> Example:
    return row(number, tags={"source": source}, split=split)


def sent_texts(provider: FineTuningProvider) -> set[str]:
    rows = [each for file in provider.files.values() for each in file["rows"]]
    return {each["messages"][0]["content"] for each in rows}


def test_rows_about_a_document_held_out_for_test_never_leave(
    provider: FineTuningProvider, store: Store
) -> None:
    store.datasets.create("numbers")
    rows = [about(f"doc{n}", n, split="test" if n < 2 else "train") for n in range(20)]
    store.examples.add("numbers", rows)
    store.examples.add("numbers", [about("doc0", 100), about("doc5", 105)])
    given = Dataset("watch", [about("doc1", 200), about("other", 201)])
    prepared = training.prepare(
        examples("numbers"), given, engine="openai", base_url=provider.base_url
    )
    assert "2 rows left out: test rows share their input or source" in prepared.rows.note
    prepared.submit()
    texts = sent_texts(provider)
    assert len(texts) == 18 + 1 + 1
    assert not {f"Is {number} a number?" for number in (0, 1, 100, 200)} & texts


def test_training_rows_whose_input_became_a_test_row_are_left_out(
    provider: FineTuningProvider, store: Store
) -> None:
    fill(store, 20)
    first = start(provider)
    provider.files.clear()
    learnt = [each for each in examples("numbers", split="train")][:3]
    again = [
        dataclasses.replace(
            each, messages=[*each.prompt, {"role": "assistant", "content": "no"}], split="test"
        )
        for each in learnt
    ]
    store.examples.add("numbers", again)
    assert start(provider).id != first.id
    assert not {str(each.prompt[0]["content"]) for each in learnt} & sent_texts(provider)


def test_rows_of_a_file_are_held_against_the_test_rows_of_their_dataset(
    provider: FineTuningProvider, store: Store
) -> None:
    store.examples.add("numbers", [row(number, split="test") for number in range(4)])
    start(provider, Dataset("numbers", [row(number, "two") for number in range(24)]))
    assert not {f"Is {number} a number?" for number in range(4)} & sent_texts(provider)


def test_too_few_rows_says_how_many_test_rows_give_away(
    provider: FineTuningProvider, store: Store
) -> None:
    store.examples.add("numbers", [about("one", n, split="test") for n in range(3)])
    store.examples.add("numbers", [about("one", n, split="train") for n in range(3, 20)])
    with pytest.raises(
        DataError, match="3 held out for test, 17 with the input or source of a test row"
    ):
        start(provider)


def test_a_quote_and_a_refusal_fix_no_split(provider: FineTuningProvider, store: Store) -> None:
    fill(store)
    found = training.quote("numbers", engine="openai", base_url=provider.base_url)
    assert found.n_train == 14
    fill(store, 5, "few")
    with pytest.raises(DataError, match="5 rows that may train"):
        training.quote("few", engine="openai", base_url=provider.base_url)
    for name in ("numbers", "few"):
        assert {each.split for each in examples(name)} == {None}
    start(provider)
    assert len(examples("numbers", split="test")) == 4


def test_a_division_that_another_kernel_changed_is_not_sent(
    provider: FineTuningProvider, store: Store
) -> None:
    fill(store, 40)
    prepared = training.prepare("numbers", engine="openai", base_url=provider.base_url)
    examples("numbers").split(seed=7)
    with pytest.raises(DataError, match="divided otherwise"):
        prepared.submit()
    assert provider.requests == []
    assert start(provider).status == "queued"


def test_a_credential_after_a_hard_space_is_found(
    provider: FineTuningProvider, store: Store
) -> None:
    fill(store)
    store.examples.add("numbers", [row(99, "key:\xa0sk-proj-" + "aB3" * 20, split="train")])
    found = training.quote("numbers", engine="openai", base_url="https://api.example.com/v1")
    assert any("credential (openai)" in each.message for each in found.problems)


class Elsewhere(OpenAIEngine):
    """A loopback provider that passes for a host on the network."""

    def quote(self, train: Path, validation: Path | None, spec: TrainSpec) -> Quote:
        return dataclasses.replace(super().quote(train, validation, spec), host="api.example.com")


def test_nothing_leaves_this_machine_without_consent(
    provider: FineTuningProvider, store: Store
) -> None:
    fill(store)
    place = Elsewhere(provider.base_url)
    with pytest.raises(ConfigError, match=r"14 rows to api.example.com") as caught:
        training.train("numbers", engine=place)
    assert "confirm=lambda quote: True" in str(caught.value)
    assert provider.requests == []
    assert training.train("numbers", engine=place, confirm=lambda quote: True).id == "ftjob-1"
    assert training.train("numbers", engine=place).id == "ftjob-1"  # it exists: nothing is sent


def test_a_renamed_dataset_keeps_its_job_and_its_promotion(
    provider: FineTuningProvider, store: Store
) -> None:
    fill(store)
    first = start(provider)
    provider.finish(first.id)
    first.refresh()
    running = training.train("numbers", engine="openai", model="m", base_url=provider.base_url)
    store.datasets.rename("numbers", "figures")
    provider.finish(running.id)
    running.refresh()
    assert store.datasets.names() == ["figures"]
    promoted = store.jobs.promoted("figures")
    assert promoted is not None and promoted.id == first.id
    assert [each.status for each in training.jobs("figures")] == ["succeeded"] * 2


def test_a_job_does_not_bring_its_deleted_dataset_back(
    provider: FineTuningProvider, store: Store
) -> None:
    fill(store)
    job = start(provider)
    store.datasets.delete("numbers")
    provider.finish(job.id)
    job.refresh()
    assert store.datasets.names() == []
    assert not job.is_promoted
    assert store.jobs.get(job.id).info == job.info


def test_adopt_takes_the_engine_as_the_readme_says(
    provider: FineTuningProvider, store: Store
) -> None:
    fill(store)
    job_id = start(provider).id
    store.jobs.forget(job_id)
    place = OpenAIEngine(provider.base_url)
    assert training.adopt(job_id, engine=place, dataset="numbers").id == job_id


def texts_on_disk(home: Path) -> list[str]:
    files = [each for each in home.rglob("*") if each.is_file()]
    return [each.name for each in files if b"Is 3 a number?" in each.read_bytes()]


def test_only_a_submitted_preparation_leaves_files_and_deleting_erases_them(
    provider: FineTuningProvider, store: Store, home: Path
) -> None:
    fill(store)
    training.quote("numbers", engine="openai", base_url=provider.base_url)
    assert texts_on_disk(home) == []
    job = start(provider)
    assert (job.folder / "train.jsonl").exists()
    assert [each.name for each in (home / "jobs").iterdir()] == [job.folder.name]
    provider.finish(job.id)
    job.wait(timeout_s=5)
    job.events()
    said = datasets().delete("numbers")
    assert texts_on_disk(home) == []
    assert "what 127.0.0.1 was sent" in said and "exported" in said
    assert training.job(job.id).events() == job.events()


def test_a_folder_that_only_holds_events_does_not_stop_training(
    provider: FineTuningProvider, store: Store
) -> None:
    fill(store)
    prepared = training.prepare("numbers", engine="openai", base_url=provider.base_url)
    shutil.rmtree(prepared.folder)
    kept_events.write(folder_of(prepared.content_hash), "ftjob-x", [])
    job = start(provider)
    assert len(job.examples()) == 14


def test_waiting_for_another_submission_heeds_an_interrupt(home: Path) -> None:
    code = (
        "import sqlite3, sys\n"
        "from ftmagic.training import turns\n"
        "print('waiting', flush=True)\n"
        "with turns.one_at_a_time(): pass\n"
    )
    with turns.one_at_a_time():
        waiting = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == b"waiting\n"
        time.sleep(0.5)
        waiting.send_signal(signal.SIGINT)
        _, errors = waiting.communicate(timeout=20)
    assert b"KeyboardInterrupt" in errors
