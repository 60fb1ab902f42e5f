"""The writer thread: work for the store, done in order, in batches, off the user's thread.

There is one a process. What the disk refuses stays in memory, up to a limit, and is tried again
with the next work; a piece of work that can never be done is given up, alone, and said at the next
flush. Knows nothing of HTTP, of calls or of cells.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ftmagic.errors import ConfigError, StoreError

BATCH_S = 0.02
"""How long to wait for more before writing: what a killed kernel may lose."""

MAX_BATCH = 500
"""Items written in one transaction."""

MAX_PENDING_BYTES = 256 * 2**20
"""What may wait in memory while the disk refuses; beyond that the oldest records are dropped."""


class Batch(Protocol):
    """Something that can do several pieces of its own work at once."""

    def write(self, items: Sequence[Any]) -> None:
        """Store some items, in order; all of them or, when this raises, none.

        Raises:
            StoreError: The disk refuses; the same items are tried again later.
            ConfigError: As above, of the home folder.
        """


class Work(NamedTuple):
    """One piece of work.

    Attributes:
        owner: Who does it; items of one owner that follow each other are done together.
        item: What to do, as the owner understands it.
        size_bytes: What it holds in memory; 0 for what may never be dropped.
    """

    owner: Batch
    item: object = None
    size_bytes: int = 0


class Writer:
    """The thread and what waits for it."""

    def __init__(self) -> None:
        """Make an empty queue; the thread starts with the first work."""
        self._queue: queue.SimpleQueue[Work | threading.Event] = queue.SimpleQueue()
        self._pending: list[Work] = []
        self._pending_bytes = 0
        self._failure = ""
        self._n_lost = 0
        self._why_lost = ""
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, work: Work) -> None:
        """Queue work; returns at once."""
        self._queue.put(work)
        if self._thread is None:
            self._start()

    def flush(self, timeout_s: float) -> str:
        """Wait until everything queued so far is stored.

        Returns:
            '' if it is; else what was not stored, and why.
        """
        if self._thread is None:
            return ""
        done = threading.Event()
        self._queue.put(done)
        if not done.wait(timeout_s):
            return f"ftmagic is still writing after {timeout_s:g} s; the rest waits in memory."
        return self._loss()

    def _loss(self) -> str:
        parts = []
        n_lost, self._n_lost = self._n_lost, 0  # said once
        if n_lost:
            records = "record is" if n_lost == 1 else "records are"
            parts.append(f"{n_lost:,} {records} lost: {self._why_lost.rstrip('.')}.")
        if self._failure:
            n_waiting = sum(work.size_bytes > 0 for work in self._pending)
            parts.append(
                f"{n_waiting:,} calls wait in memory and are tried again at the next capture. "
                f"{self._failure}"
            )
        return f"NOT STORED: {' '.join(parts)}" if parts else ""

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._loop, name="ftmagic-writer", daemon=True
                )
                self._thread.start()

    def _loop(self) -> None:
        while True:
            waiting = self._collect()
            self._write()
            for event in waiting:
                event.set()

    def _collect(self) -> list[threading.Event]:
        """Take one item and what follows within BATCH_S; return who waits for the result."""
        item = self._queue.get()
        if not isinstance(item, threading.Event):
            time.sleep(BATCH_S)  # waking for every item would take the GIL from the user's calls
        try:
            while not isinstance(item, threading.Event):
                self._keep(item)
                if len(self._pending) >= MAX_BATCH:
                    return []
                item = self._queue.get_nowait()
        except queue.Empty:
            return []
        return [item]

    def _keep(self, work: Work) -> None:
        self._pending.append(work)
        self._pending_bytes += work.size_bytes
        while self._pending_bytes > MAX_PENDING_BYTES:
            index = next(i for i, each in enumerate(self._pending) if each.size_bytes)
            self._pending_bytes -= self._pending.pop(index).size_bytes
            self._lose(f"more than {MAX_PENDING_BYTES >> 20} MiB were waiting")

    def _write(self) -> None:
        self._failure = ""
        longest = MAX_BATCH
        while self._pending:
            batch = _first_batch(self._pending, longest)
            try:
                batch[0].owner.write([work.item for work in batch])
            except (StoreError, ConfigError, OSError) as exc:  # the disk: keep it, try again later
                self._failure = str(exc)
                return
            except Exception as exc:  # one bad record, or a bug: it must not stop the thread
                if len(batch) > 1:  # find the bad one, store the others
                    longest = 1
                    continue
                self._lose(f"{type(exc).__name__}: {exc}")
                longest = MAX_BATCH
            self._pending_bytes -= sum(work.size_bytes for work in batch)
            del self._pending[: len(batch)]

    def _lose(self, reason: str) -> None:
        self._n_lost += 1
        self._why_lost = reason


def _first_batch(pending: list[Work], longest: int) -> list[Work]:
    batch = []
    for work in pending[:longest]:
        if work.owner is not pending[0].owner:
            break
        batch.append(work)
    return batch


_writer = Writer()


def put(work: Work) -> None:
    """Queue work for this process's writer."""
    _writer.put(work)


def flush(timeout_s: float) -> str:
    """Wait until everything queued so far is stored; '' or what was not stored, and why."""
    return _writer.flush(timeout_s)


def _start_anew() -> None:
    """A forked child has none of its parent's threads."""
    global _writer
    _writer = Writer()


os.register_at_fork(after_in_child=_start_anew)
atexit.register(flush, 5.0)
