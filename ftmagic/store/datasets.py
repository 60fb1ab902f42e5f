"""Datasets by name: make, list, rename, copy, delete; and the schema versions within each."""

from __future__ import annotations

import builtins
import contextlib
import sqlite3
import time
from dataclasses import dataclass
from typing import Literal

from ftmagic.config import check_dataset_name
from ftmagic.errors import DataError, message, unknown_name
from ftmagic.store import bodies
from ftmagic.store.database import Database
from ftmagic.store.job_files import erase_rows
from ftmagic.types import Json


@dataclass(frozen=True)
class DatasetRow:
    """A dataset with its counts; superseded examples are left out.

    Attributes:
        name: Its name.
        n_calls: Calls captured into it.
        n_examples: Examples.
        n_pending: Examples nobody has decided on.
        n_approved: Approved ones.
        n_rejected: Rejected ones.
        n_invalid: Examples whose output fails its schema.
        n_by_split: Examples by split; '' for those without one.
        created_at: Unix seconds.
    """

    name: str
    n_calls: int
    n_examples: int
    n_pending: int
    n_approved: int
    n_rejected: int
    n_invalid: int
    n_by_split: dict[str, int]
    created_at: float


@dataclass(frozen=True)
class SchemaRow:
    """One version of an output schema within a dataset.

    Attributes:
        name: The tool's or response format's name.
        kind: 'tool' or 'response_format'.
        version: 1 for the first schema of that name, counted up by each change.
        hash: `OutputSchema.hash`.
        is_strict: Whether strict mode was asked for.
        schema: The JSON Schema.
        n_examples: Examples that use it.
    """

    name: str
    kind: Literal["tool", "response_format"]
    version: int
    hash: str
    is_strict: bool
    schema: Json
    n_examples: int


@dataclass(frozen=True)
class Deleted:
    """What a deletion erased.

    Attributes:
        n_calls: Calls.
        n_examples: Examples.
        n_jobs: Jobs, which stay known; their training files are erased here.
        hosts: Where those jobs had sent rows: out of reach.
    """

    n_calls: int
    n_examples: int
    n_jobs: int
    hosts: tuple[str, ...] = ()


class Datasets:
    """The tables `datasets` and `schemas`."""

    def __init__(self, database: Database) -> None:
        """Work on an open database."""
        self._database = database

    def names(self) -> builtins.list[str]:
        """List the names, sorted."""
        rows = self._database.read().execute("select name from datasets order by name")
        return [row["name"] for row in rows]

    def require(self, name: str) -> int:
        """Return the id of a dataset.

        Raises:
            UnknownNameError: There is none of that name; the message names the closest.
        """
        row = (
            self._database.read()
            .execute("select id from datasets where name = ?", (name,))
            .fetchone()
        )
        if row is None:
            raise unknown_name("dataset", name, self.names(), next_step="%ft_datasets")
        return int(row["id"])

    def create(self, name: str) -> int:
        """Return the id of a dataset, making it if it is new.

        Raises:
            ConfigError: The name cannot name a dataset.
        """
        check_dataset_name(name)
        with self._database.write() as connection:
            connection.execute(
                "insert or ignore into datasets (name, created_at) values (?, ?)",
                (name, time.time()),
            )
        return self.require(name)

    def rename(self, name: str, new_name: str) -> None:
        """Give a dataset another name; jobs and splits stay with it.

        Raises:
            DataError: The new name is taken, or there is no dataset of the old one.
        """
        dataset_id = self.require(name)
        self._require_free(new_name)
        with self._database.write() as connection:
            connection.execute("update datasets set name = ? where id = ?", (new_name, dataset_id))

    def copy(self, name: str, new_name: str) -> int:
        """Copy the current examples, with reviews and splits, into a new dataset; return how many.

        Calls and earlier revisions stay with the original.

        Raises:
            DataError: The new name is taken, or there is no dataset of the old one.
        """
        dataset_id = self.require(name)
        self._require_free(new_name)
        copy_id = self.create(new_name)
        with self._database.write() as connection:
            return _copy_rows(connection, dataset_id, copy_id)

    def delete(self, name: str) -> Deleted:
        """Erase a dataset with its runs, calls, examples, revisions, reviews and training files.

        Jobs stay known, without a dataset: the models they trained still exist.
        """
        dataset_id = self.require(name)
        self._database.read().execute("pragma secure_delete = on")  # overwrite, not only forget
        with self._database.write() as connection:
            jobs = connection.execute(
                "select id, content_hash, host from jobs where dataset_id = ? order by host",
                (dataset_id,),
            ).fetchall()
            n_calls = _count(
                connection,
                "select count(*) from calls join runs r on r.id = run_id where r.dataset_id = ?",
                dataset_id,
            )
            n_examples = _count(
                connection, "select count(*) from examples where dataset_id = ?", dataset_id
            )
            connection.execute(
                "update jobs set is_promoted = 0 where dataset_id = ?", (dataset_id,)
            )
            connection.execute("delete from examples where dataset_id = ?", (dataset_id,))
            connection.execute("delete from datasets where id = ?", (dataset_id,))
            bodies.delete_unused(connection)
        with contextlib.suppress(sqlite3.OperationalError):  # somebody reads: the next one does it
            self._database.read().execute("pragma wal_checkpoint(truncate)").fetchall()
        for job in jobs:
            erase_rows(job["content_hash"] or job["id"])
        hosts = tuple(dict.fromkeys(job["host"] for job in jobs))
        return Deleted(n_calls, n_examples, len(jobs), hosts)

    def list(self) -> builtins.list[DatasetRow]:
        """List the datasets by name, with counts."""
        connection = self._database.read()
        rows = connection.execute("select id, name, created_at from datasets order by name")
        return [_to_row(connection, row) for row in rows.fetchall()]

    def schemas(self, name: str) -> builtins.list[SchemaRow]:
        """List the schema versions of a dataset, by name and version."""
        connection = self._database.read()
        rows = connection.execute(
            "select s.*, (select count(*) from examples e where e.schema_id = s.id "
            "and e.superseded_by is null) as n_examples from schemas s where dataset_id = ? "
            "order by name, version",
            (self.require(name),),
        )
        return [
            SchemaRow(
                row["name"],
                row["kind"],
                row["version"],
                row["hash"],
                bool(row["is_strict"]),
                bodies.get(connection, row["body_id"]),
                row["n_examples"],
            )
            for row in rows.fetchall()
        ]

    def _require_free(self, name: str) -> None:
        check_dataset_name(name)
        if name in self.names():
            raise DataError(
                message(
                    f"there is already a dataset named {name!r}; nothing was changed.",
                    next_step="%ft_datasets",
                )
            )


def _copy_rows(connection: sqlite3.Connection, dataset_id: int, copy_id: int) -> int:
    connection.execute(
        "insert into schemas (dataset_id, hash, name, kind, is_strict, version, body_id) "
        "select ?, hash, name, kind, is_strict, version, body_id from schemas "
        "where dataset_id = ?",
        (copy_id, dataset_id),
    )
    originals = connection.execute(
        "select * from examples where dataset_id = ? and superseded_by is null order by id",
        (dataset_id,),
    ).fetchall()
    for row in originals:
        _copy_example(connection, row, copy_id)
    return len(originals)


def _copy_example(connection: sqlite3.Connection, row: sqlite3.Row, copy_id: int) -> None:
    example_id = connection.execute(
        f"insert into examples (dataset_id, {', '.join(_COPIED)}, schema_id) "
        f"values (?, {', '.join('?' * len(_COPIED))}, (select new.id "
        "from schemas new join schemas old on old.hash = new.hash "
        "where old.id = ? and new.dataset_id = ?))",
        (
            copy_id,
            *(row[name] for name in _COPIED),
            row["schema_id"],
            copy_id,
        ),
    ).lastrowid
    revision_id = connection.execute(
        "insert into revisions (example_id, number, messages_id, answer_id, settings_id, tools_id, "
        "format_id, problems, author, created_at) select ?, 0, messages_id, answer_id, "
        "settings_id, tools_id, format_id, problems, author, created_at from revisions "
        "where id = ?",
        (example_id, row["revision_id"]),
    ).lastrowid
    connection.execute(
        "update examples set revision_id = ? where id = ?", (revision_id, example_id)
    )


_COPIED = (
    "call_id",
    "content_key",
    "input_key",
    "review",
    "split",
    "source",
    "tags",
    "is_valid",
    "model",
    "n_tokens",
    "created_at",
)


def _count(connection: sqlite3.Connection, query: str, dataset_id: int) -> int:
    return int(connection.execute(query, (dataset_id,)).fetchone()[0])


def _to_row(connection: sqlite3.Connection, row: sqlite3.Row) -> DatasetRow:
    counts = connection.execute(
        "select count(*) as n_examples, coalesce(sum(review = 'pending'), 0) as n_pending, "
        "coalesce(sum(review = 'approved'), 0) as n_approved, "
        "coalesce(sum(review = 'rejected'), 0) as n_rejected, "
        "coalesce(sum(not is_valid), 0) as n_invalid "
        "from examples where dataset_id = ? and superseded_by is null",
        (row["id"],),
    ).fetchone()
    splits = connection.execute(
        "select coalesce(split, '') as split, count(*) as n from examples where dataset_id = ? "
        "and superseded_by is null group by 1",
        (row["id"],),
    )
    return DatasetRow(
        name=row["name"],
        n_calls=_count(
            connection,
            "select count(*) from calls join runs r on r.id = run_id where r.dataset_id = ?",
            row["id"],
        ),
        **dict(counts),
        n_by_split={each["split"]: each["n"] for each in splits},
        created_at=row["created_at"],
    )
