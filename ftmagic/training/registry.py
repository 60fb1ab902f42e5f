"""Finds jobs again: by id, by dataset, or on an engine that this machine never asked before."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import overload

from ftmagic import engines, render
from ftmagic.engines.identity import HASH_KEY
from ftmagic.errors import UnknownNameError
from ftmagic.store import JobRecord, open_store
from ftmagic.training.handle import Job
from ftmagic.training.preparation import address_of, host_at
from ftmagic.training.submission import DATASET_KEY
from ftmagic.types import JobInfo, TrainSpec


class JobList(Sequence[Job]):
    """Jobs, newest first, as last known: `ft.jobs()[0]`."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        """Hold jobs."""
        self._jobs = tuple(jobs)

    @overload
    def __getitem__(self, index: int) -> Job: ...
    @overload
    def __getitem__(self, index: slice) -> JobList: ...
    def __getitem__(self, index: int | slice) -> Job | JobList:
        """One job, or some of them."""
        return JobList(self._jobs[index]) if isinstance(index, slice) else self._jobs[index]

    def __len__(self) -> int:
        """Number of jobs."""
        return len(self._jobs)

    def __repr__(self) -> str:
        """Show a table."""
        if not self._jobs:
            return "no jobs yet; start one with %ft_train NAME"
        return render.table_text(self._rows(), _COLUMNS)

    def _repr_html_(self) -> str:
        if not self._jobs:
            return f"<p>{render.text(repr(self))}</p>"
        return render.table(
            self._rows(), _COLUMNS, f"{len(self)} job{'' if len(self) == 1 else 's'}, as last known"
        )

    def _rows(self) -> list[list[object]]:
        return [_row(each) for each in self]


_COLUMNS = ("job", "dataset", "engine", "status", "tuned model", "created (UTC)", "")


def _row(job: Job) -> list[object]:
    created = time.strftime("%Y-%m-%d %H:%M", time.gmtime(job.record.created_at))
    promoted = "promoted" if job.record.is_promoted else ""
    model = job.info.fine_tuned_model or job.info.error
    return [job.id, job.dataset, job.record.engine, job.info.status, model, created, promoted]


def job(id: str) -> Job:
    """Return a job that this machine knows, also after a restart of the kernel.

    Args:
        id: The engine's job id.

    Raises:
        UnknownNameError: No job has that id; `adopt` attaches to one made elsewhere.
    """
    return Job(open_store().jobs.get(id))


def jobs(dataset: str | None = None) -> JobList:
    """List the jobs that this machine knows, newest first.

    Args:
        dataset: Only those of this dataset.

    Raises:
        UnknownNameError: There is no such dataset.
    """
    return JobList([Job(record) for record in open_store().jobs.list(dataset)])


def adopt(
    job_id: str,
    engine: str | engines.Engine = "local",
    dataset: str = "",
    *,
    base_url: str | None = None,
) -> Job:
    """Attach to a job by its id on an engine, also to one that was made elsewhere.

    Args:
        job_id: The engine's job id.
        engine: The engine's name, or an engine object.
        dataset: The dataset it shall answer for; by default the one it was made from, if its
            metadata says so.
        base_url: With 'openai': any server that speaks its dialect.

    Raises:
        EngineError: The engine does not know the job, or does not answer.
    """
    place = engines.engine(engine, base_url=base_url)
    store = open_store().jobs
    try:
        record = store.get(job_id)
    except UnknownNameError:
        info = place.retrieve(job_id)
        record = _record_of(info, place, dataset)
        store.put(record)
    found = Job(record, None if isinstance(engine, str) and not base_url else place)
    found.refresh()
    return found


def _record_of(info: JobInfo, place: engines.Engine, dataset: str) -> JobRecord:
    base_url = address_of(place)
    return JobRecord(
        id=info.id,
        engine=place.name,
        dataset=dataset or info.metadata.get(DATASET_KEY, ""),
        host=host_at(place),
        content_hash=info.metadata.get(HASH_KEY, ""),
        info=info,
        spec=TrainSpec(model=info.model, metadata=dict(info.metadata)),
        example_ids=[],
        created_at=info.created_at,
        base_url=base_url,
    )
