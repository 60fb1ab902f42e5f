"""The datasets of the store: a list to look at, and to rename, copy and delete from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

from ftmagic import render
from ftmagic.errors import unknown_name
from ftmagic.store import DatasetRow, open_store
from ftmagic.types import SPLITS


class DatasetList(Sequence[DatasetRow]):
    """The datasets by name, with their counts: `ft.datasets()["albums"].n_examples`."""

    def __init__(self, rows: Iterable[DatasetRow]) -> None:
        """Hold rows as the store lists them."""
        self._rows = tuple(rows)

    def rename(self, name: str, new_name: str) -> str:
        """Give a dataset another name; say what was done.

        Raises:
            DataError: There is no dataset of that name, or the new name is taken.
        """
        open_store().datasets.rename(name, new_name)
        return f"{name} is now named {new_name}"

    def copy(self, name: str, new_name: str) -> str:
        """Copy a dataset's examples, with reviews and splits; say what was done.

        Raises:
            DataError: There is no dataset of that name, or the new name is taken.
        """
        n_copied = open_store().datasets.copy(name, new_name)
        return f"{n_copied:,} examples of {name} copied to {new_name}"

    def delete(self, name: str) -> str:
        """Erase a dataset with its calls and training files; say what was erased and what was not.

        Raises:
            UnknownNameError: There is no dataset of that name.
        """
        erased = open_store().datasets.delete(name)
        calls, rows = _count(erased.n_calls, "call"), _count(erased.n_examples, "example")
        said = f"{name} erased: {calls}, {rows}"
        if erased.n_jobs:
            said += (
                f"; its {erased.n_jobs:,} jobs stay known. Not erased: what "
                f"{', '.join(erased.hosts)} was sent, the models made of it, and exported files"
            )
        return said

    @overload
    def __getitem__(self, index: int | str) -> DatasetRow: ...
    @overload
    def __getitem__(self, index: slice) -> DatasetList: ...
    def __getitem__(self, index: int | str | slice) -> DatasetRow | DatasetList:
        """A dataset's row by place or by name.

        Raises:
            UnknownNameError: No dataset has that name.
        """
        if isinstance(index, slice):
            return DatasetList(self._rows[index])
        if isinstance(index, int):
            return self._rows[index]
        for row in self._rows:
            if row.name == index:
                return row
        raise unknown_name("dataset", index, self.names(), next_step="%ft_datasets")

    def __len__(self) -> int:
        """Number of datasets."""
        return len(self._rows)

    def __repr__(self) -> str:
        """One line a dataset."""
        if not self._rows:
            return "no datasets yet; capture one with %%capture_ft NAME"
        return "\n".join(f"{row.name}: {_counts(row)}" for row in self._rows)

    def names(self) -> list[str]:
        """The names, sorted."""
        return [row.name for row in self._rows]

    def _repr_html_(self) -> str:
        columns = ("dataset", "calls", "examples", "approved", "rejected", "invalid", *SPLITS)
        rows = [
            (
                *(row.name, row.n_calls, row.n_examples),
                *(row.n_approved, row.n_rejected, row.n_invalid),
                *(row.n_by_split.get(split, 0) for split in SPLITS),
            )
            for row in self._rows
        ]
        caption = f"{len(self):,} datasets" if self._rows else repr(self)
        return render.table(rows, columns, caption)


def datasets() -> DatasetList:
    """List the datasets of the store, with counts."""
    return DatasetList(open_store().datasets.list())


def _counts(row: DatasetRow) -> str:
    splits = [f"{row.n_by_split[split]:,} {split}" for split in SPLITS if row.n_by_split.get(split)]
    states = (
        ("approved", row.n_approved),
        ("rejected", row.n_rejected),
        ("invalid", row.n_invalid),
    )
    parts = [_count(row.n_calls, "call"), _count(row.n_examples, "example")]
    parts += [f"{n:,} {state}" for state, n in states if n]
    return ", ".join(parts + splits)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
