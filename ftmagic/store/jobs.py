"""Fine-tuning jobs as this machine knows them; the engine stays the authority on their state."""

from __future__ import annotations

import builtins
import dataclasses
import json
import sqlite3
from dataclasses import dataclass

from ftmagic.errors import unknown_name
from ftmagic.store import bodies
from ftmagic.store.database import Database
from ftmagic.store.datasets import Datasets
from ftmagic.types import JobInfo, TrainSpec


@dataclass(frozen=True)
class JobRecord:
    """A job with what it was made of.

    Attributes:
        id: The engine's job id; 'intent-...' from before the submission until the engine answers.
        engine: The engine's name.
        dataset: Name of the dataset; '' when that was deleted.
        host: Where the rows were sent.
        content_hash: Of the training files and the spec: the same again is the same job.
        info: The last state that the engine reported; None before it answered.
        spec: What was asked for.
        example_ids: (example id, revision number) of each row it trains on.
        is_promoted: Whether it answers for its dataset.
        created_at: Unix seconds.
        base_url: Address of the engine where that is not fixed.
    """

    id: str
    engine: str
    dataset: str
    host: str
    content_hash: str
    info: JobInfo | None
    spec: TrainSpec
    example_ids: list[tuple[int, int]]
    is_promoted: bool = False
    created_at: float = 0.0
    base_url: str = ""


class Jobs:
    """The table `jobs`."""

    def __init__(self, database: Database, datasets: Datasets) -> None:
        """Work on an open database."""
        self._database = database
        self._datasets = datasets

    def put(self, record: JobRecord) -> None:
        """Store a new job, and its dataset if that is new; a job that is known stays as it is."""
        dataset_id = self._datasets.create(record.dataset) if record.dataset else None
        with self._database.write() as connection:
            connection.execute(
                "insert into jobs (id, engine, dataset_id, host, base_url, content_hash, spec, "
                "info, example_ids, is_promoted, created_at) "
                "values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict (id) do nothing",
                (
                    record.id,
                    record.engine,
                    dataset_id,
                    record.host,
                    record.base_url,
                    record.content_hash,
                    json.dumps(dataclasses.asdict(record.spec)),
                    _info_text(record.info),
                    bodies.encode(record.example_ids),
                    record.is_promoted,
                    record.created_at,
                ),
            )

    def update(self, job_id: str, info: JobInfo) -> None:
        """Store what the engine last said of a job, whatever became of its dataset."""
        with self._database.write() as connection:
            connection.execute("update jobs set info = ? where id = ?", (_info_text(info), job_id))

    def confirm(self, intent_id: str, job_id: str, info: JobInfo) -> None:
        """The engine answered: the intent becomes the job."""
        with self._database.write() as connection:
            connection.execute("delete from jobs where id = ? and id != ?", (job_id, intent_id))
            connection.execute(
                "update jobs set id = ?, info = ? where id = ?",
                (job_id, _info_text(info), intent_id),
            )

    def forget(self, job_id: str) -> None:
        """Drop a record, for example of an intent that the engine refused."""
        with self._database.write() as connection:
            connection.execute("delete from jobs where id = ?", (job_id,))

    def get(self, job_id: str) -> JobRecord:
        """Read one job.

        Raises:
            UnknownNameError: No job has that id.
        """
        found = self._select("where j.id = ?", (job_id,))
        if not found:
            known = [record.id for record in self.list()]
            raise unknown_name("job", job_id, known, next_step="%ft_status")
        return found[0]

    def list(self, dataset: str | None = None) -> builtins.list[JobRecord]:
        """List jobs, newest first; all, or those of one dataset.

        Raises:
            UnknownNameError: There is no such dataset.
        """
        if dataset is None:
            return self._select("", ())
        return self._select("where j.dataset_id = ?", (self._datasets.require(dataset),))

    def find(self, content_hash: str, engine: str) -> JobRecord | None:
        """Find the newest job made of the same files and spec."""
        found = self._select("where j.content_hash = ? and j.engine = ?", (content_hash, engine))
        return found[0] if found else None

    def promoted(self, dataset: str) -> JobRecord | None:
        """Find the job that answers for a dataset.

        Raises:
            UnknownNameError: There is no such dataset.
        """
        found = self._select(
            "where j.is_promoted and j.dataset_id = ?", (self._datasets.require(dataset),)
        )
        return found[0] if found else None

    def promote(self, job_id: str) -> None:
        """Let this job answer for its dataset, instead of the one before."""
        with self._database.write() as connection:
            connection.execute(
                "update jobs set is_promoted = 0 where dataset_id = "
                "(select dataset_id from jobs where id = ?)",
                (job_id,),
            )
            connection.execute("update jobs set is_promoted = 1 where id = ?", (job_id,))

    def promote_first(self, job_id: str) -> None:
        """Let this job answer for its dataset, if it has one and none does yet."""
        with self._database.write() as connection:
            connection.execute(
                "update jobs set is_promoted = 1 where id = ? and dataset_id is not null and not "
                "exists (select 1 from jobs other where other.dataset_id = jobs.dataset_id "
                "and other.is_promoted)",
                (job_id,),
            )

    def _select(self, condition: str, parameters: tuple[object, ...]) -> builtins.list[JobRecord]:
        rows = self._database.read().execute(
            "select j.*, coalesce(d.name, '') as dataset from jobs j left join datasets d "
            f"on d.id = j.dataset_id {condition} order by j.created_at desc, j.id",
            parameters,
        )
        return [_to_record(row) for row in rows.fetchall()]


def _info_text(info: JobInfo | None) -> str | None:
    return None if info is None else json.dumps(dataclasses.asdict(info))


def _to_record(row: sqlite3.Row) -> JobRecord:
    return JobRecord(
        id=row["id"],
        engine=row["engine"],
        dataset=row["dataset"],
        host=row["host"],
        content_hash=row["content_hash"],
        info=JobInfo(**json.loads(row["info"])) if row["info"] else None,
        spec=TrainSpec(**json.loads(row["spec"])),
        example_ids=[(first, second) for first, second in bodies.decode(row["example_ids"])],
        is_promoted=bool(row["is_promoted"]),
        created_at=row["created_at"],
        base_url=row["base_url"],
    )
