"""One SQLite file, opened safely: mode, journal, connections, transactions.

Knows nothing of calls or examples. Every thread and every forked child has a connection of its
own; writers of one process take turns on a lock, because two tight writers starve each other
inside SQLite's own busy loop.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from ftmagic.errors import DataError, StoreError, message
from ftmagic.store.migrations import migrate

BUSY_TIMEOUT_S = 30.0

_BAD_RECORD = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.DataError,
)
"""What SQLite raises for values that it will never take, whatever the disk does."""


class Database:
    """A store file: `read()` gives a connection, `write()` a transaction."""

    def __init__(self, path: Path) -> None:
        """Open or make the file (mode 0600) and bring it to the newest format.

        Args:
            path: The file; its folder must exist.

        Raises:
            StoreError: It cannot be opened, is not a database, or is newer than this ftmagic.
        """
        self.path = path
        self._local = threading.local()
        self._lock = threading.RLock()
        self._pid = os.getpid()
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            migrate(self.read(), str(path))
        except (OSError, sqlite3.Error) as exc:
            if isinstance(exc, StoreError):
                raise
            raise self._failure("cannot be opened", exc) from exc

    def read(self) -> sqlite3.Connection:
        """Return this thread's connection.

        Raises:
            StoreError: The file cannot be opened.
        """
        if self._pid != os.getpid():  # a forked child must not share its parent's connections
            self._local, self._lock, self._pid = threading.local(), threading.RLock(), os.getpid()
        held: _Held | None = vars(self._local).get("held")
        if held is None:
            try:
                held = self._local.held = _Held(self._connect())
            except sqlite3.Error as exc:
                raise self._failure("cannot be opened", exc) from exc
        return held.connection

    @contextlib.contextmanager
    def write(self, *, is_durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Run one transaction: all of it is stored, or nothing.

        Args:
            is_durable: Survive a power cut (reviews, jobs); False survives a killed process only,
                which is what captured calls get, for speed.

        Raises:
            StoreError: The disk is full, the file is read-only, locked for too long, or gone.
            DataError: A record is wrong; another try would end the same.
        """
        with self._lock:
            connection = self.read()
            self._check_still_there()
            try:
                connection.execute(f"pragma synchronous = {'full' if is_durable else 'normal'}")
                connection.execute("begin immediate")
                yield connection
                connection.execute("commit")
            except _BAD_RECORD as exc:
                self._rollback(connection)
                raise DataError(f"the store {self.path} cannot hold this record: {exc}.") from exc
            except sqlite3.Error as exc:
                self._rollback(connection)
                raise self._failure("could not be written", exc) from exc
            except BaseException:
                self._rollback(connection)
                raise

    def close(self) -> None:
        """Close this thread's connection."""
        vars(self._local).pop("held", None)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        try:
            connection.execute("pragma foreign_keys = on")
            mode = connection.execute("pragma journal_mode = wal").fetchone()[0]
            if mode != "wal":  # a file system without shared memory, such as some network homes
                connection.execute("pragma journal_mode = delete")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _check_still_there(self) -> None:
        # SQLite goes on writing into an unlinked file, and all of it is lost at exit.
        if not self.path.exists():
            raise StoreError(
                message(
                    f"the store {self.path} was deleted while in use.",
                    next_step="restart the kernel; a new store is made at the next capture",
                )
            )

    def _failure(self, what: str, exc: Exception) -> StoreError:
        return StoreError(
            message(
                f"the store {self.path} {what}: {exc}.",
                next_step=f"free space or check the permissions of {self.path.parent}, "
                "or ft.home('/another/folder')",
            )
        )

    @staticmethod
    def _rollback(connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # the first error is the one to report
                connection.execute("rollback")


class _Held:
    """A thread's connection, closed when its thread ends or its database is dropped."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()
