from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ftmagic import training
from ftmagic.engines.openai import OpenAIEngine
from ftmagic.errors import ConfigError
from ftmagic.store import Store
from ftmagic.training import Metric, Progress
from ftmagic.types import Example, JobEvent, JobInfo
from ftmagic.ui import consent, live, status
from ftmagic.ui.job_card import JobView, card_html, card_text, clock
from tests.finetuning_provider import Fault, FineTuningProvider

JOBS = "/fine_tuning/jobs"
HOSTILE = "<img src=x onerror=alert(1)>\x1b[31m\u202e"
HTML = "text/html"


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[FineTuningProvider]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-key-0123456789")
    with FineTuningProvider() as server:
        yield server
    status.stop_all()


def fill(store: Store) -> None:
    store.datasets.create("numbers")
    rows = [
        Example(
            messages=[
                {"role": "user", "content": f"Is {number} a number?"},
                {"role": "assistant", "content": "yes"},
            ]
        )
        for number in range(20)
    ]
    store.examples.add("numbers", rows)


def info(**fields: Any) -> JobInfo:
    values = {"id": "ftjob-1", "engine": "local", "model": "student", "status": "running"}
    return JobInfo(**{**values, **fields})


def test_a_card_escapes_everything_an_engine_says() -> None:
    view = JobView(
        info(status=HOSTILE, model=HOSTILE, error=HOSTILE, id=HOSTILE, fine_tuned_model=HOSTILE),
        dataset=HOSTILE,
        events=(JobEvent("1", 0, "info", HOSTILE),),
        note=HOSTILE,
    )
    page = card_html(view)
    assert "<img" not in page and "\x1b" not in page and "\u202e" not in page
    assert "&lt;img" in page and "[U+202E]" in page
    assert "\x1b" not in card_text(view)


def test_a_card_shows_progress_losses_tokens_and_time() -> None:
    view = JobView(
        info(created_at=1000.0, trained_tokens=22_834, hyperparameters={"n_epochs": 7}),
        dataset="albums",
        host="127.0.0.1",
        progress=Progress(30, 60, 3.5),
        metrics=(Metric(10, 2.0, None), Metric(30, 1.0, 1.5)),
        now=1097.0,
    )
    page = card_html(view)
    assert (
        "step 30 of 60 · epoch 3.5 of 7 · 1:37 · 22,834 trained tokens · local (127.0.0.1)" in page
    )
    assert "training loss 2 at step 10, 1 at step 30" in page
    assert 'aria-valuenow="50"' in page
    assert "albums → student" in card_text(view)


def test_a_card_names_the_next_step_of_a_promoted_job() -> None:
    done = info(status="succeeded", fine_tuned_model="ft:x", finished_at=3.0, created_at=1.0)
    assert "%%use_ft albums" in card_html(JobView(done, dataset="albums", is_promoted=True))
    assert "%%use_ft ftjob-1" in card_html(JobView(done, dataset="albums"))


def test_of_measurements_only_the_newest_is_among_the_last_events() -> None:
    events = [JobEvent("0", 0, "info", "Created")]
    events += [JobEvent(str(n), 0, "info", f"Step {n}/9", "metrics") for n in range(1, 10)]
    text = card_text(JobView(info(), events=tuple(events)))
    assert "Created" in text and "Step 9/9" in text and "Step 8/9" not in text


@pytest.mark.parametrize(("seconds", "shown"), [(7, "0:07"), (750, "12:30"), (3723, "1:02:03")])
def test_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_without_input_training_asks_for_yes(
    provider: FineTuningProvider, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    with pytest.raises(ConfigError, match="%ft_train numbers --yes"):
        status.train("numbers", engine="openai", model="m", base_url=provider.base_url)
    assert provider.count("POST /files") == 0


def test_train_and_status_in_a_console(
    provider: FineTuningProvider, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(store)
    options: dict[str, Any] = {"engine": "openai", "model": "m", "base_url": provider.base_url}
    job = status.train("numbers", is_confirmed=True, **options)
    assert job is not None
    shown = capsys.readouterr().out
    assert "14 train, 2 validation; 4 test rows stay here" in shown
    assert "queued" in shown and job.id in shown
    same = status.train("numbers", **options)
    assert same is not None and same.id == job.id
    assert "is training on them" in capsys.readouterr().out
    assert [each.id for each in status.show()] == [job.id]  # type: ignore[union-attr]
    cancelled = status.show(job.id, is_cancelling=True)
    assert isinstance(cancelled, training.Job) and cancelled.info.status == "cancelled"
    listed = status.show(engine="openai", base_url=provider.base_url)
    assert "attach to one: %ft_status JOB --engine openai" in repr(listed)
    assert "ftjob-1" in listed._repr_html_()
    with pytest.raises(ConfigError, match="which job"):
        status.show(is_cancelling=True)


def test_wait_survives_a_lost_network_and_shows_the_end(
    provider: FineTuningProvider, store: Store
) -> None:
    fill(store)
    job_id = training.train("numbers", engine="openai", model="m", base_url=provider.base_url).id
    place = OpenAIEngine(provider.base_url, max_retries=0)
    job = training.Job(store.jobs.get(job_id), place)
    view = live.LiveStatus(job, poll_s=0.02)
    provider.faults.append(Fault("GET", f"{JOBS}/{job_id}", is_reset=True))
    assert not view.update()
    assert "did not answer" in repr(view._card())
    provider.step(job_id, 3, 3, train_loss=0.5)
    provider.finish(job_id)
    assert view.wait().info.status == "succeeded"
    card = repr(view._card())
    assert "Step 3/3" in card and "did not answer" not in card


class Kernel:
    """A real kernel; `run` returns what one cell put out."""

    def __init__(self) -> None:
        jupyter_client = pytest.importorskip("jupyter_client.manager")
        self.manager, self.client = jupyter_client.start_new_kernel(kernel_name="python3")

    def run(self, code: str, *, allow_stdin: bool = True, timeout_s: float = 60) -> list[Any]:
        found: list[Any] = []
        reply = self.client.execute_interactive(
            code, allow_stdin=allow_stdin, timeout=timeout_s, output_hook=found.append
        )
        if reply["content"]["status"] != "ok":
            found.append(reply)
        return found

    def stop(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@pytest.fixture
def kernel(provider: FineTuningProvider, store: Store) -> Iterator[Kernel]:
    fill(store)
    started = Kernel()
    started.run(
        "from ftmagic.ui import status\n"
        f"options = dict(engine='openai', model='m', base_url={provider.base_url!r})"
    )
    yield started
    started.stop()


def cards(messages: list[Any], kind: str = "update_display_data") -> list[str]:
    return [
        message["content"]["data"].get(HTML, "")
        for message in messages
        if message["msg_type"] == kind
    ]


def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def test_the_view_moves_while_another_cell_runs(
    kernel: Kernel, provider: FineTuningProvider
) -> None:
    shown = kernel.run("job = status.train('numbers', is_confirmed=True, **options)")
    assert any("queued" in card for card in cards(shown, "display_data"))
    provider.step("ftjob-1", 1, 2, train_loss=2.0)
    provider.finish("ftjob-1")
    updates = kernel.run(
        "import time\n"
        "for _ in range(200):\n"
        "    time.sleep(0.05)\n"
        "    if job.info.is_final: break\n"
        "time.sleep(0.5)"
    )
    assert any("succeeded" in card and "<svg" in card for card in cards(updates))
    assert not [message for message in updates if message["msg_type"] == "stream"]


def test_the_view_moves_while_nothing_runs_and_stops_at_the_end(
    kernel: Kernel, provider: FineTuningProvider
) -> None:
    kernel.run("job = status.train('numbers', is_confirmed=True, **options)")
    provider.finish("ftjob-1")
    found: list[str] = []

    def is_over() -> bool:
        message = kernel.client.get_iopub_msg(timeout=20)
        found.extend(cards([message]))
        return any("succeeded" in card for card in found)

    until(is_over)
    (last,) = kernel.run("[job.is_promoted, status.live(job).is_running]")[-2:-1]
    assert last["content"]["data"]["text/plain"] == "[True, False]"


def test_waiting_in_a_batch_run_shows_the_end(kernel: Kernel, provider: FineTuningProvider) -> None:
    refused = kernel.run("status.train('numbers', **options)", allow_stdin=False)
    assert "--yes" in str(refused[-1])
    provider.faults.append(Fault("GET", f"{JOBS}/ftjob-1", delay_s=0.1))

    def finish() -> None:
        until(lambda: "ftjob-1" in provider.jobs)
        time.sleep(0.5)
        provider.finish("ftjob-1")

    thread = threading.Thread(target=finish)
    thread.start()
    shown = kernel.run(
        "job = status.train('numbers', is_confirmed=True, is_waiting=True, **options); job.info",
        allow_stdin=False,
    )
    thread.join()
    assert "succeeded" in cards(shown)[-1]


def test_an_interrupt_detaches_and_says_so(kernel: Kernel, provider: FineTuningProvider) -> None:
    message_id = kernel.client.execute(
        "job = status.train('numbers', is_confirmed=True, is_waiting=True, **options)"
    )
    until(lambda: provider.count(f"GET {JOBS}/ftjob-1") >= 5)
    kernel.manager.interrupt_kernel()
    reply = kernel.client.get_shell_msg(timeout=20)
    while reply["parent_header"].get("msg_id") != message_id:
        reply = kernel.client.get_shell_msg(timeout=20)
    assert reply["content"]["status"] == "ok"
    found: list[str] = []

    def is_told() -> bool:
        found.extend(cards([kernel.client.get_iopub_msg(timeout=20)]))
        return any("detached: the job goes on" in card for card in found)

    until(is_told)
    assert provider.jobs["ftjob-1"]["status"] == "queued"


def test_the_button_starts_the_job_in_the_quotes_cell(
    kernel: Kernel, provider: FineTuningProvider
) -> None:
    shown = kernel.run("status.train('numbers', **options)")
    page = "".join(cards(shown, "display_data"))
    assert "test rows stay here" in page
    assert provider.count(f"POST {JOBS}") == 0
    clicked = kernel.run(
        "import gc, ipywidgets\n"
        "(button,) = [each for each in gc.get_objects() if isinstance(each, ipywidgets.Button)"
        " and each.description == 'Train']\n"
        "button.click(); button.click()"
    )
    assert provider.count(f"POST {JOBS}") == 1
    assert any("queued" in card for card in cards(clicked))


def test_a_refusal_after_a_click_is_shown(kernel: Kernel, provider: FineTuningProvider) -> None:
    kernel.run("status.train('numbers', **options)")
    provider.faults.append(Fault("POST", JOBS, status=403, code="training_not_available"))
    clicked = kernel.run(
        "import gc, ipywidgets\n"
        "[each.click() for each in gc.get_objects() if isinstance(each, ipywidgets.Button)"
        " and each.description == 'Train']"
    )
    assert any("%ft_train NAME --engine local" in card for card in cards(clicked))


def test_a_typed_answer_counts(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    fill(store)
    quote = training.quote("numbers", engine="openai", base_url="http://127.0.0.1:9/v1")
    monkeypatch.setattr("sys.stdin", _Terminal())
    for typed, meant in (("y", True), ("YES ", True), ("", False), ("n", False)):
        monkeypatch.setattr("builtins.input", lambda prompt, typed=typed: typed)
        assert consent.confirm(quote) is meant


class _Terminal:
    def isatty(self) -> bool:
        return True
