"""The store: one SQLite file with calls, examples, revisions, reviews, splits and jobs.

`open_store()` gives the store of the home folder. Its parts own a table or two each:
`datasets`, `calls`, `examples`, `jobs`. The store knows nothing of networks, cells or engines.
"""

from __future__ import annotations

import threading
from pathlib import Path

from ftmagic.config import make_home, store_path
from ftmagic.store.calls import Added, CallRecord, Calls, RunRow
from ftmagic.store.database import Database
from ftmagic.store.datasets import DatasetRow, Datasets, Deleted, SchemaRow
from ftmagic.store.examples import Examples
from ftmagic.store.jobs import JobRecord, Jobs

__all__ = [
    "Added",
    "CallRecord",
    "DatasetRow",
    "Deleted",
    "JobRecord",
    "RunRow",
    "SchemaRow",
    "Store",
    "open_store",
]


class Store:
    """An open store file."""

    def __init__(self, path: Path) -> None:
        """Open or make the file.

        Args:
            path: The file; its folder must exist.

        Raises:
            StoreError: It cannot be opened, is not a database, or is newer than this ftmagic.
        """
        self.path = path
        self.is_new = not path.exists()
        self._database = Database(path)
        self.datasets = Datasets(self._database)
        self.calls = Calls(self._database, self.datasets)
        self.examples = Examples(self._database, self.datasets)
        self.jobs = Jobs(self._database, self.datasets)

    def schemas(self, dataset: str) -> list[SchemaRow]:
        """List the schema versions of a dataset."""
        return self.datasets.schemas(dataset)

    def close(self) -> None:
        """Close this thread's connection."""
        self._database.close()


_open_stores: dict[Path, Store] = {}
_opening = threading.Lock()


def open_store(path: Path | None = None) -> Store:
    """Return an open store, making its folder and its file if they are not there.

    Args:
        path: The file; the home folder's by default.

    Raises:
        ConfigError: The folder cannot be used.
        StoreError: The file cannot be opened.
    """
    path = path or store_path()
    with _opening:
        store = _open_stores.get(path)
        if store is None or not path.exists():
            make_home(path.parent)
            store = _open_stores[path] = Store(path)
    return store
