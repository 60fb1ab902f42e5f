"""What a user sees of training: the quote with its buttons, and the job while it runs.

The live view is one display that a daemon thread updates, so it moves while other cells run; an
asyncio task would stand still in a busy cell, and a print would land in the wrong one. Nothing here
decides anything: `training` does.
"""

from __future__ import annotations

from typing import Any

from ftmagic import training
from ftmagic.engines import engine as find_engine
from ftmagic.engines.local import stop_server as stop_embedded_server
from ftmagic.errors import ConfigError, message
from ftmagic.training import Job, JobList, Preparation
from ftmagic.ui import consent
from ftmagic.ui.consent import confirm
from ftmagic.ui.engine_jobs import EngineJobs
from ftmagic.ui.live import LiveStatus, live, stop_all, wait

__all__ = [
    "LiveStatus",
    "confirm",
    "live",
    "show",
    "show_jobs",
    "stop_all",
    "stop_server",
    "train",
    "wait",
]


def train(
    dataset: str,
    *,
    is_confirmed: bool = False,
    is_waiting: bool = False,
    command: str = "",
    **options: Any,
) -> Job | None:
    """Show the quote, ask, start, and show the job live.

    In a notebook the question is a button, so the cell ends with the quote on display and the job
    starts when it is clicked; in a terminal, and with `is_waiting`, it is a typed yes.

    Args:
        dataset: Its name.
        is_confirmed: Do not ask.
        is_waiting: Stay until the job has ended.
        command: The line that was typed, to be repeated in an error.
        **options: As for `training.train`.

    Returns:
        The job; None while the button waits to be clicked, or after a no.

    Raises:
        ConfigError: Nobody can be asked: add `--yes`.
        FtmagicError: As `training.train` does.
    """
    prepared = training.prepare(dataset, **options)
    if prepared.existing is not None:
        note = f"the same rows and options: this job {_tense(prepared.existing)} (--again repeats)"
        return _follow(prepared.existing, is_waiting, note)
    prepared.require_sound()
    if is_confirmed:
        consent.show_quote(prepared.quote, prepared.rows.n_test, prepared.rows.note)
        return _follow(prepared.submit(), is_waiting)
    return _ask(prepared, is_waiting, command or f"%ft_train {dataset}")


def show(
    job_id: str | None = None,
    *,
    engine: str | None = None,
    base_url: str | None = None,
    dataset: str | None = None,
    is_waiting: bool = False,
    is_cancelling: bool = False,
    is_promoting: bool = False,
) -> Job | JobList | EngineJobs:
    """Show a job live, or all jobs and the newest one live.

    Args:
        job_id: A job; one that this machine does not know is adopted if `engine` is named.
        engine: Without a job: list what this engine has, known here or not.
        base_url: With 'openai': any server that speaks its dialect.
        dataset: With `engine`: the dataset that an adopted job answers for.
        is_waiting: Stay until the job has ended.
        is_cancelling: Stop the job.
        is_promoting: Let the job answer for its dataset.

    Raises:
        UnknownNameError: No job has that id.
        ConfigError: Something was asked of a job, and none is named.
        EngineError: The engine refuses or does not answer.
    """
    if job_id is None and engine is not None and dataset is None:
        return EngineJobs(find_engine(engine, base_url=base_url))
    if job_id is None:
        return _show_newest(dataset, is_waiting, is_asked=is_cancelling or is_promoting)
    if engine is None:
        job = training.job(job_id)
    else:
        job = training.adopt(job_id, engine, dataset or "", base_url=base_url)
    if is_cancelling:
        job.cancel()
    if is_promoting:
        job.promote()
    return _follow(job, is_waiting)


def show_jobs(jobs: JobList) -> None:
    """Display a table of jobs, as last known."""
    from IPython.display import display

    display(jobs)


def stop_server() -> str:
    """Stop the embedded server; say what was done."""
    if stop_embedded_server():
        return "the embedded server has stopped; unfinished jobs go on when it next starts"
    return "no embedded server was running"


def _ask(prepared: Preparation, is_waiting: bool, command: str) -> Job | None:
    def start(display: Any) -> Job:
        return _follow(prepared.submit(), False, display=display)

    quote, rows = prepared.quote, prepared.rows
    if consent.has_buttons() and not is_waiting:
        consent.ask_with_buttons(quote, rows.n_test, rows.note, start)
        return None
    if not consent.ask_in_words(quote, rows.n_test, rows.note, command=command):
        print("not started; nothing was sent")
        return None
    return _follow(prepared.submit(), is_waiting)


def _show_newest(dataset: str | None, is_waiting: bool, *, is_asked: bool) -> JobList:
    jobs = training.jobs(dataset)
    if is_asked:
        ids = ", ".join(each.id for each in jobs[:8]) or "none"
        step = f"%ft_status {jobs[0].id}" if jobs else "%ft_train NAME"
        raise ConfigError(message(f"which job? there are: {ids}", next_step=step))
    for job in reversed(jobs):  # oldest first: the first success is the one to promote
        job.refresh_quietly()
    if jobs:
        _follow(jobs[0], is_waiting)
    return training.jobs(dataset)


def _follow(job: Job, is_waiting: bool, note: str = "", *, display: Any = None) -> Job:
    view = live(job, note=note, display=display)
    return view.wait() if is_waiting else view.job


def _tense(job: Job) -> str:
    return "has trained on them" if job.info.is_final else "is training on them"
