"""Examples, their revisions, reviews and splits.

An example's content never changes: an edit is a new revision that points at its parent, and the
example points at its current revision. A decision is an event in `reviews`; one bulk decision
shares one action, so that it can be undone as one.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from ftmagic.formats.schemas import output_schemas
from ftmagic.store import bodies
from ftmagic.store.database import Database
from ftmagic.store.datasets import Datasets
from ftmagic.types import Example, OutputSchema, Review, Split

_CURRENT = """
select e.*, d.name as dataset, r.number, r.messages_id, r.answer_id, r.settings_id, r.tools_id,
  r.format_id, r.problems, s.version as schema_version
from examples e
join datasets d on d.id = e.dataset_id
join revisions r on r.id = e.revision_id
left join schemas s on s.id = e.schema_id
where e.dataset_id = ? and e.superseded_by is null
"""


class _Assigns(Protocol):
    @property
    def assignment(self) -> Mapping[int, Split]:
        """Split by example id."""


PlanOfSplits = TypeVar("PlanOfSplits", bound=_Assigns)


class Examples:
    """The tables `examples`, `revisions` and `reviews`."""

    def __init__(self, database: Database, datasets: Datasets) -> None:
        """Work on an open database."""
        self._database = database
        self._datasets = datasets

    def select(
        self,
        dataset: str,
        *,
        review: Review | None = None,
        split: Split | None = None,
        ids: Sequence[int] | None = None,
        is_trainable: bool | None = None,
        where: str = "",
        parameters: Sequence[Any] = (),
        limit: int | None = None,
    ) -> list[Example]:
        """Read the current revisions of a dataset's examples, in captured order.

        Args:
            dataset: Its name.
            review: Only those in this state.
            split: Only those of this split.
            ids: Only these example ids.
            is_trainable: Only those that are (or are not) valid and not rejected.
            where: More SQL over the columns of `examples` (alias `e`), with `?` for parameters.
            parameters: Values of those.
            limit: At most this many.

        Raises:
            UnknownNameError: There is no such dataset.
        """
        conditions: list[tuple[str, list[Any]]] = [("", [self._datasets.require(dataset)])]
        if review is not None:
            conditions.append(("e.review = ?", [review]))
        if split is not None:
            conditions.append(("e.split = ?", [split]))
        if ids is not None:
            conditions.append(("e.id in (select value from json_each(?))", [json.dumps(list(ids))]))
        if is_trainable is not None:
            conditions.append(("(e.is_valid and e.review != 'rejected') = ?", [is_trainable]))
        if where:
            conditions.append((f"({where})", list(parameters)))
        query = " and ".join([_CURRENT, *(text for text, _ in conditions[1:])])
        query += " order by e.id" + (f" limit {int(limit)}" if limit is not None else "")
        values = [value for _, group in conditions for value in group]
        connection = self._database.read()
        return [_to_example(connection, row) for row in connection.execute(query, values)]

    def add(self, dataset: str, examples: Iterable[Example]) -> tuple[int, int]:
        """Store imported rows, which have no call, in one transaction.

        Args:
            dataset: Its name; made if it is new.
            examples: The rows, with their tags, reviews and splits.

        Returns:
            (new rows, rows whose content was already there).
        """
        dataset_id = self._datasets.create(dataset)
        n_new = n_all = 0
        with self._database.write() as connection:
            for example in examples:
                n_new += insert(connection, dataset_id, example, split=example.split)
                n_all += 1
        return n_new, n_all - n_new

    def add_revision(self, example_id: int, example: Example, *, author: str = "") -> int:
        """Store an edit as the example's new current revision and return its number."""
        with self._database.write() as connection:
            row = connection.execute(
                "select revision_id, (select max(number) from revisions where example_id = e.id) "
                "as number from examples e where id = ?",
                (example_id,),
            ).fetchone()
            number = int(row["number"]) + 1
            revision_id = _insert_revision(
                connection, example_id, example, number, row["revision_id"], author
            )
            connection.execute(
                "update examples set revision_id = ?, is_valid = ?, content_key = ?, input_key = ? "
                "where id = ?",
                (
                    revision_id,
                    not example.problems,
                    example.content_key(),
                    example.input_key(),
                    example_id,
                ),
            )
        return number

    def set_review(self, ids: Sequence[int], state: Review, *, reviewer: str = "") -> str:
        """Decide on examples; returns the action's id, under which it can be undone."""
        action = uuid.uuid4().hex
        chosen = json.dumps(list(ids))
        with self._database.write() as connection:
            connection.execute(
                "insert into reviews (action, example_id, revision_id, state, previous, reviewer, "
                "created_at) select ?, id, revision_id, ?, review, ?, ? from examples "
                "where id in (select value from json_each(?))",
                (action, state, reviewer, time.time(), chosen),
            )
            connection.execute(
                "update examples set review = ? where id in (select value from json_each(?))",
                (state, chosen),
            )
        return action

    def assign_splits(
        self, dataset: str, plan: Callable[[list[Example]], PlanOfSplits]
    ) -> PlanOfSplits:
        """Read, plan and store splits as one: no other notebook can come between.

        Args:
            dataset: Its name.
            plan: Called with all current rows; what it assigns is stored, but a row that has a
                split keeps it for ever. If it raises, nothing is stored.

        Returns:
            The plan.
        """
        with self._database.write() as connection:
            planned = plan(self.select(dataset))
            connection.executemany(
                "update examples set split = ? where id = ? and split is null",
                [(split, example_id) for example_id, split in planned.assignment.items()],
            )
        return planned

    def keys_of(self, ids: Sequence[int]) -> list[tuple[str, str]]:
        """Read (input key, source or '') of examples by id, superseded ones among them."""
        rows = self._database.read().execute(
            "select input_key, source from examples where id in (select value from json_each(?)) "
            "order by id",
            (json.dumps(list(ids)),),
        )
        return [(row["input_key"], row["source"]) for row in rows]


def insert(
    connection: sqlite3.Connection,
    dataset_id: int,
    example: Example,
    *,
    run_id: str | None = None,
    split: str | None = None,
) -> bool:
    """Insert an example inside a transaction; False if its content is already there.

    Either way the run has seen it: superseding the runs before it leaves the example alone.
    """
    content_key = example.content_key()
    same = connection.execute(
        "select id from examples where dataset_id = ? and content_key = ? "
        "and superseded_by is null",
        (dataset_id, content_key),
    ).fetchone()
    if same is not None:
        if run_id is not None:
            _note_sighting(connection, run_id, same["id"])
        return False
    values = {
        "dataset_id": dataset_id,
        "run_id": run_id,
        "call_id": example.call_id or None,
        "content_key": content_key,
        "input_key": example.input_key(),
        "schema_id": _schema_id(connection, dataset_id, example),
        "review": example.review,
        "split": split,
        "source": example.tags.get("source", ""),
        "tags": json.dumps(dict(example.tags)),
        "is_valid": not example.problems,
        "model": example.model,
        "n_tokens": example.n_tokens,
        "created_at": example.created_at or time.time(),
    }
    example_id = connection.execute(
        f"insert into examples ({', '.join(values)}) values ({', '.join('?' * len(values))})",
        tuple(values.values()),
    ).lastrowid
    revision_id = _insert_revision(connection, int(example_id or 0), example, 0, None, "")
    connection.execute(
        "update examples set revision_id = ? where id = ?", (revision_id, example_id)
    )
    if run_id is not None:
        _note_sighting(connection, run_id, int(example_id or 0))
    return True


def _note_sighting(connection: sqlite3.Connection, run_id: str, example_id: int) -> None:
    connection.execute("insert or ignore into sightings values (?, ?)", (run_id, example_id))


def _insert_revision(
    connection: sqlite3.Connection,
    example_id: int,
    example: Example,
    number: int,
    parent_id: int | None,
    author: str,
) -> int:
    settings = {
        "tool_choice": example.tool_choice,
        "parallel_tool_calls": example.parallel_tool_calls,
    }
    cursor = connection.execute(
        "insert into revisions (example_id, number, parent_id, messages_id, answer_id, "
        "settings_id, tools_id, format_id, problems, author, created_at) "
        "values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            example_id,
            number,
            parent_id,
            bodies.put_messages(connection, example.prompt),
            bodies.put(connection, example.answer),
            bodies.put(connection, settings),
            bodies.put_optional(connection, example.tools),
            bodies.put_optional(connection, example.response_format),
            json.dumps(example.problems),
            author,
            time.time(),
        ),
    )
    return int(cursor.lastrowid or 0)


def _schema_id(connection: sqlite3.Connection, dataset_id: int, example: Example) -> int | None:
    """Register all schemas of an example; return the id of the one that its answer uses."""
    ids = {
        schema.name: _register_schema(connection, dataset_id, schema) for schema in example.schemas
    }
    calls = example.answer.get("tool_calls") or []
    used = calls[0]["function"]["name"] if calls else ""
    return ids.get(used, next(iter(ids.values()), None))


def _register_schema(connection: sqlite3.Connection, dataset_id: int, schema: OutputSchema) -> int:
    known = connection.execute(
        "select id from schemas where dataset_id = ? and hash = ?", (dataset_id, schema.hash)
    ).fetchone()
    if known is not None:
        return int(known["id"])
    cursor = connection.execute(
        "insert into schemas (dataset_id, hash, name, kind, is_strict, version, body_id) values "
        "(?, ?, ?, ?, ?, (select coalesce(max(version), 0) + 1 from schemas where dataset_id = ? "
        "and name = ?), ?)",
        (
            dataset_id,
            schema.hash,
            schema.name,
            schema.kind,
            schema.is_strict,
            dataset_id,
            schema.name,
            bodies.put(connection, schema.schema),
        ),
    )
    return int(cursor.lastrowid or 0)


def _to_example(connection: sqlite3.Connection, row: sqlite3.Row) -> Example:
    settings = bodies.get(connection, row["settings_id"])
    tools = bodies.get(connection, row["tools_id"]) or []
    response_format = bodies.get(connection, row["format_id"])
    return Example(
        messages=[
            *bodies.get_messages(connection, row["messages_id"]),
            bodies.get(connection, row["answer_id"]),
        ],
        tools=tools,
        parallel_tool_calls=settings["parallel_tool_calls"],
        tool_choice=settings["tool_choice"],
        response_format=response_format,
        schemas=output_schemas(tools, response_format),
        id=row["id"],
        call_id=row["call_id"] or "",
        dataset=row["dataset"],
        revision=row["number"],
        review=row["review"],
        split=row["split"],
        schema_version=row["schema_version"] or 1,
        problems=tuple(json.loads(row["problems"])),
        tags=json.loads(row["tags"]),
        model=row["model"],
        n_tokens=row["n_tokens"],
        created_at=row["created_at"],
    )
