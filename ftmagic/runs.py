"""One run of a capturing block: its exchanges become stored calls and examples, and are counted.

`receive` is called on the user's thread and only queues; everything else runs on the writer's.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from ftmagic import config, writer
from ftmagic.formats import detect_api, map_call
from ftmagic.store import Added, CallRecord, Store, open_store
from ftmagic.types import Call, Json
from ftmagic.wire.exchange import Exchange
from ftmagic.wire.streams import MergedReply, read_chat_reply


@dataclass(eq=False)
class Run:
    """One run, and its counts.

    Attributes:
        dataset: Where its examples go.
        cell: Identity of the cell.
        notebook: Where it stands.
        split: What `--split` said.
        is_replacing: Whether earlier runs of the cell are superseded at the end.
        records_all: Whether unstructured calls become examples, too.
        id: 32 hex digits.
        store_path: The store that it began with; a changed home folder does not tear it apart.
        number: 1 for the first run of this cell.
        added: Counts of what was stored; an attempt that the SDK repeated is not among them.
        n_retries: Failed attempts that the SDK repeated. They are stored as failed calls.
        n_ambient: Calls that carried no token of this run.
        n_kept: Examples of earlier runs that are still there.
        n_superseded: Examples of earlier runs that were set aside.
        is_new_store: Whether this is the first run of a new store file.
        other_datasets: The dataset names that existed before.
    """

    dataset: str
    cell: str = ""
    notebook: str = ""
    split: str | None = None
    is_replacing: bool = False
    records_all: bool = False
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    store_path: Path = field(default_factory=config.store_path)
    number: int = 1
    added: Added = field(default_factory=Added)
    n_retries: int = 0
    n_ambient: int = 0
    n_kept: int = 0
    n_superseded: int = 0
    is_new_store: bool = False
    other_datasets: list[str] = field(default_factory=list)
    _is_begun: bool = field(default=False, repr=False)
    _open_failures: dict[bytes, list[str]] = field(default_factory=dict, repr=False)

    @property
    def is_new_dataset(self) -> bool:
        """Whether this run made the dataset."""
        return self._is_begun and self.dataset not in self.other_datasets

    def receive(self, exchange: Exchange) -> None:
        """Take an ended exchange."""
        size_bytes = len(exchange.request_body) + sum(map(len, exchange.chunks)) + 1
        writer.put(writer.Work(self, exchange, size_bytes))

    def end(self, status: str) -> None:
        """Have the end of the run noted in the store."""
        writer.put(writer.Work(_Step(lambda: self._end(status))))

    def write(self, items: Sequence[Any]) -> None:
        """Store exchanges, in one transaction; called by the writer."""
        store = open_store(self.store_path)
        if not self._is_begun:  # a block without a call leaves no trace
            self._begin(store)
        records = [self._record(exchange) for exchange in items]
        self.added += store.calls.add(records)
        for exchange, record in zip(items, records, strict=True):
            self.n_ambient += exchange.is_ambient
            self._settle_attempt(exchange, record)

    def _begin(self, store: Store) -> None:
        self.is_new_store, store.is_new = store.is_new, False  # said once
        self.other_datasets = store.datasets.names()
        row = store.calls.begin_run(
            self.dataset, run_id=self.id, cell=self.cell, notebook=self.notebook, split=self.split
        )
        self.number = row.number
        self._is_begun = True

    def _end(self, status: str) -> None:
        if not self._is_begun:
            return
        store = open_store(self.store_path)
        if self.is_replacing and status == "ok":
            self.n_superseded = store.calls.supersede_earlier(self.id)
        self.n_kept = store.calls.end_run(self.id, status)

    def _record(self, exchange: Exchange) -> CallRecord:
        call = call_from_exchange(exchange, self.id)
        mapped = map_call(call, record_all=self.records_all)
        return CallRecord(call, mapped.examples, mapped.skipped)

    def _settle_attempt(self, exchange: Exchange, record: CallRecord) -> None:
        """Take a failed attempt out of the counts once the SDK has repeated it."""
        digest = blake2b(exchange.request_body, digest_size=16).digest()
        failures = self._open_failures.setdefault(digest, [])
        if exchange.attempt and failures:
            self.n_retries += 1
            reason = Counter({failures.pop(0): -1})
            self.added += Added(n_calls=-1, n_skipped=-1, n_failed=-1, reasons=reason)
        if record.call.outcome == "failed":
            failures.append(record.skipped)


@dataclass(frozen=True, eq=False)
class _Step:
    """A piece of the writer's work that stands alone: done whole, or tried again."""

    do: Callable[[], None]

    def write(self, items: Sequence[Any]) -> None:
        self.do()


def call_from_exchange(exchange: Exchange, run_id: str) -> Call:
    """Decode an exchange; the chunks of a stream are merged into one reply."""
    read = read_chat_reply(exchange)
    return Call(
        id=exchange.id,
        run_id=run_id,
        api=detect_api(exchange.url),
        url=exchange.url,
        request=_json_object(exchange.request_body),
        reply=read.reply,
        status=exchange.status,
        outcome=_outcome(exchange, read),
        error=exchange.error or read.problem,
        started_at=exchange.started_at,
        latency_s=exchange.latency_s,
        is_stream=exchange.is_event_stream,
        is_ambient=exchange.is_ambient,
        attempt=exchange.attempt,
        tags=exchange.tags,
        library=exchange.library,
    )


def _outcome(exchange: Exchange, read: MergedReply) -> Literal["ok", "failed", "partial"]:
    if not 200 <= exchange.status < 300:
        return "failed"
    return "ok" if read.is_complete else "partial"


def _json_object(data: bytes) -> Json:
    try:
        value = json.loads(data)
    except ValueError:  # a multipart body, for example: the call is kept, its mapping says why not
        return {}
    return value if isinstance(value, dict) else {}
