"""`Job`: one fine-tuning job, wherever it runs.

Its state lives with the engine and in the store, never only here: a Job made from the store after a
restart is the same job. It asks the engine afresh, and says so where it could not.
"""

from __future__ import annotations

import dataclasses
import html
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftmagic.dataset import Dataset, examples
from ftmagic.engines import Engine, engine
from ftmagic.engines.addresses import is_loopback
from ftmagic.engines.identity import INTENT_KEY
from ftmagic.errors import (
    EngineError,
    EngineUnreachable,
    JobFailed,
    UnknownNameError,
    message,
)
from ftmagic.formats.training_files import read_rows
from ftmagic.store import JobRecord, open_store
from ftmagic.store.job_files import folder_of
from ftmagic.training import kept_events
from ftmagic.training.measurements import Metric, Progress, read_metrics, read_progress
from ftmagic.types import Checkpoint, Endpoint, JobEvent, JobInfo

if TYPE_CHECKING:
    import openai

INTENT_PREFIX = "intent-"
"""Ids of jobs that no engine has confirmed yet."""

UNCONFIRMED = "unconfirmed"
"""Status of those."""

_LONGEST_PAUSE_S = 30.0


class Job:
    """A fine-tuning job: `job.status`, `job.wait()`, `job.events()`, `job.client()`."""

    def __init__(self, record: JobRecord, place: Engine | None = None) -> None:
        """Hold a stored job.

        Args:
            record: As the store has it.
            place: Its engine; None finds it by name when it is needed.
        """
        self._record = record
        self._place = place
        self._events: list[JobEvent] = []
        self._has_all_events = False
        self._is_away = False
        self._lock = threading.RLock()

    @property
    def id(self) -> str:
        """The engine's job id; 'intent-...' as long as the engine has not confirmed it."""
        return self._record.id

    @property
    def dataset(self) -> str:
        """Name of the dataset; '' for an adopted job without one."""
        return self._record.dataset

    @property
    def record(self) -> JobRecord:
        """The job as the store has it."""
        return self._record

    @property
    def engine(self) -> Engine:
        """The engine that runs it.

        Raises:
            UnknownNameError: It ran on an engine object that this process does not have.
        """
        if self._place is None:
            self._place = engine(self._record.engine, base_url=self._record.base_url or None)
        return self._place

    @property
    def info(self) -> JobInfo:
        """The last known state, without asking."""
        return self._record.info or JobInfo(
            id=self.id,
            engine=self._record.engine,
            model=self._record.spec.model,
            status=UNCONFIRMED,
            created_at=self._record.created_at,
        )

    @property
    def is_away(self) -> bool:
        """Whether the engine did not answer when it was last asked."""
        return self._is_away

    @property
    def is_promoted(self) -> bool:
        """Whether this job answers for its dataset."""
        try:
            return open_store().jobs.get(self.id).is_promoted
        except UnknownNameError:
            return False

    @property
    def status(self) -> str:
        """The engine's word for the present state; '... (last known)' where it does not answer."""
        try:
            return self.refresh().status
        except EngineUnreachable:
            return f"{self.info.status} (last known; {self._record.host} does not answer)"

    def refresh(self) -> JobInfo:
        """Ask the engine for the present state and store it; an ended job is not asked again.

        The first job of a dataset that succeeds is promoted here.

        Raises:
            EngineUnreachable: The engine does not answer.
            EngineError: It does not know the job, or refuses.
        """
        with self._lock:
            if not self.info.is_final:
                try:
                    self._take(self._ask())
                except EngineUnreachable:
                    self._is_away = True
                    raise
                self._is_away = False
            self._promote_first()
            return self.info

    def refresh_quietly(self) -> JobInfo:
        """Refresh, or return the last known state where the engine does not answer or refuses."""
        try:
            return self.refresh()
        except EngineError:
            return self.info

    def events(self, after: str | None = None) -> list[JobEvent]:
        """List what the job logged, oldest first; with `after`, only what came later.

        Events of an ended job are kept on this machine.

        Raises:
            EngineUnreachable: The engine does not answer, and nothing is kept.
        """
        with self._lock:
            if not self._has_all_events:
                self._read_events()
            ids = [event.id for event in self._events]
            start = ids.index(after) + 1 if after in ids else 0
            return self._events[start:]

    def checkpoints(self) -> list[Checkpoint]:
        """List the models that were saved on the way, oldest first."""
        return self.engine.checkpoints(self.id)

    def metrics(self) -> list[Metric]:
        """List the losses that the engine measured, by step."""
        return read_metrics(self.events())

    @property
    def progress(self) -> Progress:
        """How far it has come, by the events read so far; asks nothing."""
        return read_progress(self._events)

    @property
    def seen_events(self) -> list[JobEvent]:
        """The events read so far, oldest first; asks nothing."""
        return list(self._events)

    @property
    def poll_s(self) -> float:
        """How often it is decent to ask: often on this machine, rarely elsewhere."""
        return 0.5 if is_loopback(self._record.host) else 5.0

    def wait(self, timeout_s: float | None = None, poll_s: float | None = None) -> Job:
        """Wait until the job has ended, in success or not.

        While the engine does not answer it is asked less and less often, half a minute apart at
        most.

        Args:
            timeout_s: Give up after so long; None waits for ever. The job goes on.
            poll_s: Pause between two questions; None is half a second on this machine and five
                seconds elsewhere.

        Returns:
            This job.

        Raises:
            TimeoutError: It had not ended in time.
        """
        step_s = self.poll_s if poll_s is None else poll_s
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        pause_s = step_s
        while not self.info.is_final:
            try:
                self.refresh()
                pause_s = step_s
            except EngineUnreachable:
                pause_s = min(max(pause_s, 0.1) * 2, _LONGEST_PAUSE_S)
            if self.info.is_final:
                break
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise TimeoutError(
                    message(
                        f"job {self.id} is still {self.info.status} after {timeout_s:g} s.",
                        next_step=f"ft.job({self.id!r}).wait()",
                    )
                )
            time.sleep(pause_s if left_s is None else min(pause_s, left_s))
        self.refresh()
        return self

    def cancel(self) -> JobInfo:
        """Stop the job.

        Raises:
            EngineError: It has ended already, or the engine refuses.
        """
        with self._lock:
            self._require_confirmed()
            self._take(self.engine.cancel(self.id))
            return self.info

    def promote(self) -> None:
        """Let this job answer for its dataset, instead of the one before.

        Raises:
            JobFailed: It did not succeed.
            EngineError: It has not ended.
        """
        assert self.fine_tuned_model
        open_store().jobs.promote(self.id)

    @property
    def fine_tuned_model(self) -> str:
        """The tuned model's name.

        Raises:
            JobFailed: The job failed or was cancelled; with its own error.
            EngineError: The job has not ended.
        """
        info = self.info if self.info.fine_tuned_model else self.refresh()
        if info.fine_tuned_model:
            return info.fine_tuned_model
        if info.is_final:
            reason = f": {info.error}" if info.error else "."
            again = f"%ft_train {self.dataset or 'NAME'} --again"
            raise JobFailed(
                message(f"job {self.id} has no model, it is {info.status}{reason}", next_step=again)
            )
        raise EngineError(
            message(
                f"job {self.id} has no model yet: it is {info.status}.",
                next_step=f"%ft_status {self.id} --wait",
            )
        )

    @property
    def endpoint(self) -> Endpoint:
        """Where the tuned model answers; see `fine_tuned_model` for what is raised."""
        return self.engine.deploy(self.fine_tuned_model)

    def client(self, **options: Any) -> openai.OpenAI:
        """Make an official SDK client that talks to the tuned model's server.

        Args:
            **options: Passed on to `openai.OpenAI`.
        """
        return self.endpoint.client(**options)

    def examples(self) -> Dataset:
        """Return the rows that it was trained on, as they were then.

        Raises:
            UnknownNameError: Neither the training file nor the dataset is there any more.
        """
        file = self.folder / "train.jsonl"
        if self._record.content_hash and file.exists():
            return Dataset(self.dataset or self.id, read_rows(file).examples)
        ids = {example_id for example_id, _ in self._record.example_ids}
        return examples(self.dataset).filter(lambda each: each.id in ids)

    @property
    def folder(self) -> Path:
        """Where its training files and events are kept."""
        return folder_of(self._record.content_hash or self.id)

    def __repr__(self) -> str:
        """Say the last known state, without asking."""
        return f"<Job {self._summary()}>"

    def _repr_html_(self) -> str:
        # The view beside it shows the curve; this line is what a saved notebook keeps of `job`.
        return f"<code>{html.escape(repr(self))}</code>"

    def _summary(self) -> str:
        model = f", model {self.info.fine_tuned_model}" if self.info.fine_tuned_model else ""
        of_dataset = f" of {self.dataset!r}" if self.dataset else ""
        return f"{self.id}{of_dataset} on {self._record.engine}: {self.info.status}{model}"

    def _ask(self) -> JobInfo:
        if not self.id.startswith(INTENT_PREFIX):
            return self.engine.retrieve(self.id)
        intent = self._record.spec.metadata.get(INTENT_KEY)
        for info in self.engine.list():
            if intent and info.metadata.get(INTENT_KEY) == intent:
                return info
        return self.info

    def _take(self, info: JobInfo) -> None:
        """Keep what the engine said, in the store first."""
        if info == self._record.info or info.status == UNCONFIRMED:
            return
        store = open_store().jobs
        if info.id != self.id:
            store.confirm(self.id, info.id, info)
        self._record = dataclasses.replace(self._record, id=info.id, info=info)
        store.update(info.id, info)

    def _promote_first(self) -> None:
        if self.info.status == "succeeded" and self.dataset:
            open_store().jobs.promote_first(self.id)

    def _read_events(self) -> None:
        kept = kept_events.read(self.folder, self.id)
        if kept is not None:
            self._events, self._has_all_events = kept, True
            return
        if self.id.startswith(INTENT_PREFIX):
            return
        was_final = self.info.is_final
        last = self._events[-1].id if self._events else None
        self._events += self.engine.events(self.id, after=last)
        if was_final:
            self._has_all_events = True
            kept_events.write(self.folder, self.id, self._events)

    def _require_confirmed(self) -> None:
        if self.id.startswith(INTENT_PREFIX):
            self.refresh()
        if self.id.startswith(INTENT_PREFIX):
            raise EngineError(
                message(
                    f"unknown whether {self.id} was ever created: {self._record.host} lists no "
                    "such job.",
                    next_step=f"%ft_status --engine {self._record.engine}",
                )
            )
