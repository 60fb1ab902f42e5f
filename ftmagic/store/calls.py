"""Runs and calls: what was sent, when, from which cell. Written once, never edited."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ftmagic.errors import DataError
from ftmagic.store import bodies, examples
from ftmagic.store.database import Database
from ftmagic.store.datasets import Datasets
from ftmagic.types import Call, Example, Json, content_hash

_IDENTITY = ("messages", "tools", "tool_choice", "response_format")
_APART = {"messages", "tools", "response_format"}


@dataclass(frozen=True)
class RunRow:
    """One execution of a capturing cell.

    Attributes:
        id: Hex uuid.
        dataset: Where its examples go.
        number: 1 for the first run of this cell into this dataset.
        n_kept_examples: Examples of the earlier runs of this cell that are still there.
    """

    id: str
    dataset: str
    number: int
    n_kept_examples: int


@dataclass(frozen=True)
class CallRecord:
    """A call with what was made of it.

    Attributes:
        call: The call.
        examples: Examples made from it.
        skipped: Why none was made; '' when one was.
    """

    call: Call
    examples: list[Example] = field(default_factory=list)
    skipped: str = ""


@dataclass(frozen=True)
class Added:
    """What a write added.

    Attributes:
        n_calls: Calls stored.
        n_new: Examples that were not there before.
        n_duplicates: Examples whose content was already there.
        n_skipped: Calls of which no example was made, failed ones included.
        n_failed: Calls that failed.
        reasons: Why calls were skipped, counted.
    """

    n_calls: int = 0
    n_new: int = 0
    n_duplicates: int = 0
    n_skipped: int = 0
    n_failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Added) -> Added:
        """Add two reports up."""
        return Added(
            self.n_calls + other.n_calls,
            self.n_new + other.n_new,
            self.n_duplicates + other.n_duplicates,
            self.n_skipped + other.n_skipped,
            self.n_failed + other.n_failed,
            self.reasons + other.reasons,
        )


class Calls:
    """The tables `runs`, `calls` and `tags`."""

    def __init__(self, database: Database, datasets: Datasets) -> None:
        """Work on an open database."""
        self._database = database
        self._datasets = datasets

    def begin_run(
        self,
        dataset: str,
        *,
        run_id: str | None = None,
        cell: str = "",
        notebook: str = "",
        split: str | None = None,
    ) -> RunRow:
        """Note that a capturing cell starts; makes the dataset if it is new.

        Args:
            dataset: Name of the dataset.
            run_id: 32 hex digits; None makes one.
            cell: Identity of the cell; '' makes every run a first run.
            notebook: Path or name of the notebook, for provenance.
            split: Split of all examples of this run; None leaves it to the split.
        """
        dataset_id = self._datasets.create(dataset)
        run_id = run_id or uuid.uuid4().hex
        with self._database.write() as connection:
            number = 1
            if cell:
                number += connection.execute(
                    "select coalesce(max(number), 0) from runs where dataset_id = ? and cell = ?",
                    (dataset_id, cell),
                ).fetchone()[0]
            connection.execute(
                "insert into runs (id, dataset_id, cell, number, notebook, split, started_at) "
                "values (?, ?, ?, ?, ?, ?, ?)",
                (run_id, dataset_id, cell, number, notebook, split, time.time()),
            )
            n_kept = _count_earlier(connection, run_id)
        return RunRow(run_id, dataset, number, n_kept)

    def end_run(self, run_id: str, status: str) -> int:
        """Note how a run ended: 'ok', 'error' or 'interrupted'.

        Returns:
            How many examples of earlier runs of the same cell are still there.
        """
        with self._database.write() as connection:
            connection.execute(
                "update runs set ended_at = ?, status = ? where id = ?",
                (time.time(), status, run_id),
            )
            return _count_earlier(connection, run_id)

    def supersede_earlier(self, run_id: str) -> int:
        """Set aside what only earlier runs of the same cell have seen; return how many."""
        with self._database.write() as connection:
            cursor = connection.execute(
                "update examples set superseded_by = ? where superseded_by is null and id in "
                f"(select example_id from sightings where run_id in ({_EARLIER_RUNS})) "
                "and id not in "
                f"(select example_id from sightings where run_id not in ({_EARLIER_RUNS}))",
                (run_id, run_id, run_id),
            )
        return cursor.rowcount

    def add(self, records: Iterable[CallRecord]) -> Added:
        """Store calls and the examples made from them, in one transaction.

        An example whose content is already in the dataset counts as a duplicate: it is not stored
        again, but this run has seen it, so that superseding earlier runs keeps it.
        A call whose id is there is replaced: it is a stream of which more has arrived since.

        Raises:
            DataError: The run of a call was erased with its dataset, or a value cannot be stored.
        """
        added = Added()
        with self._database.write(is_durable=False) as connection:
            for record in records:
                added += self._add_one(connection, record)
        return added

    def select(self, dataset: str, *, run_id: str | None = None) -> Iterator[Call]:
        """Yield the calls of a dataset, or of one of its runs, in order of arrival.

        Raises:
            UnknownNameError: There is no such dataset.
        """
        dataset_id = self._datasets.require(dataset)
        connection = self._database.read()
        rows = connection.execute(
            "select c.* from calls c join runs r on r.id = c.run_id where r.dataset_id = ? "
            "and (? is null or c.run_id = ?) order by c.position",
            (dataset_id, run_id, run_id),
        )
        for row in rows:
            yield _to_call(connection, row)

    def _add_one(self, connection: sqlite3.Connection, record: CallRecord) -> Added:
        run = connection.execute(
            "select dataset_id, split from runs where id = ?", (record.call.run_id,)
        ).fetchone()
        if run is None:
            raise DataError("a call came late: the dataset of its cell was deleted.")
        _insert_call(connection, record)
        n_new = 0
        for example in record.examples:
            n_new += examples.insert(
                connection,
                run["dataset_id"],
                example,
                run_id=record.call.run_id,
                split=run["split"],
            )
        return Added(
            n_calls=1,
            n_new=n_new,
            n_duplicates=len(record.examples) - n_new,
            n_skipped=int(not record.examples),
            n_failed=int(record.call.outcome == "failed"),
            reasons=Counter([record.skipped] if record.skipped else []),
        )


_EARLIER_RUNS = (
    "select old.id from runs old join runs new on new.id = ? and old.dataset_id = new.dataset_id "
    "and old.cell = new.cell and old.number < new.number where new.cell != ''"
)


def _count_earlier(connection: sqlite3.Connection, run_id: str) -> int:
    row = connection.execute(
        "select count(*) from examples where superseded_by is null "
        f"and id in (select example_id from sightings where run_id in ({_EARLIER_RUNS}))",
        (run_id,),
    ).fetchone()
    return int(row[0])


def request_key(request: Json) -> bytes:
    """Identify what was asked: messages, tools, tool_choice and response_format, nothing else."""
    asked = {name: request[name] for name in _IDENTITY if request.get(name) is not None}
    return bytes.fromhex(content_hash(asked).partition(":")[2])


def _insert_call(connection: sqlite3.Connection, record: CallRecord) -> None:
    call, request = record.call, record.call.request
    messages = request.get("messages")
    values = {
        "id": call.id,
        "run_id": call.run_id,
        "api": call.api,
        "url": call.url,
        "model": call.model,
        "library": call.library,
        "request_key": request_key(request),
        "request_id": bodies.put(
            connection, {name: request[name] for name in request if name not in _apart(request)}
        ),
        "messages_id": bodies.put_messages(connection, messages)
        if isinstance(messages, list)
        else None,
        "tools_id": bodies.put_optional(connection, request.get("tools")),
        "format_id": bodies.put_optional(connection, request.get("response_format")),
        "reply_id": bodies.put_optional(connection, call.reply),
        "status": call.status,
        "outcome": call.outcome,
        "error": call.error,
        "skipped": record.skipped,
        "started_at": call.started_at,
        "latency_s": call.latency_s,
        "is_stream": call.is_stream,
        "is_ambient": call.is_ambient,
        "attempt": call.attempt,
        "n_tokens": call.n_tokens,
    }
    # A stream that was still open when its cell ended was stored with what had come until then.
    made_of_it = connection.execute("select id from examples where call_id = ?", (call.id,))
    example_ids = [row["id"] for row in made_of_it]
    connection.execute("delete from calls where id = ?", (call.id,))
    connection.execute(
        f"insert into calls ({', '.join(values)}) values ({', '.join('?' * len(values))})",
        tuple(values.values()),
    )
    connection.executemany(
        "update examples set call_id = ? where id = ?", [(call.id, each) for each in example_ids]
    )
    connection.executemany(
        "insert into tags (call_id, key, value) values (?, ?, ?)",
        [(call.id, key, value) for key, value in call.tags.items()],
    )


def _apart(request: Json) -> set[str]:
    """The parts of a request that are stored as bodies of their own."""
    return {
        name
        for name in _APART
        if request.get(name) and (name != "messages" or isinstance(request[name], list))
    }


def tags_of(connection: sqlite3.Connection, call_id: str) -> Mapping[str, str]:
    """Read the tags of a call."""
    rows = connection.execute("select key, value from tags where call_id = ?", (call_id,))
    return {row["key"]: row["value"] for row in rows}


def _to_call(connection: sqlite3.Connection, row: sqlite3.Row) -> Call:
    request: Json = bodies.get(connection, row["request_id"])
    if row["messages_id"] is not None:
        request["messages"] = bodies.get_messages(connection, row["messages_id"])
    for name, body_id in (("tools", row["tools_id"]), ("response_format", row["format_id"])):
        if body_id is not None:
            request[name] = bodies.get(connection, body_id)
    return Call(
        id=row["id"],
        run_id=row["run_id"],
        api=row["api"],
        url=row["url"],
        request=request,
        reply=bodies.get(connection, row["reply_id"]),
        status=row["status"],
        outcome=row["outcome"],
        error=row["error"],
        started_at=row["started_at"],
        latency_s=row["latency_s"],
        is_stream=bool(row["is_stream"]),
        is_ambient=bool(row["is_ambient"]),
        attempt=row["attempt"],
        tags=tags_of(connection, row["id"]),
        library=row["library"],
    )
