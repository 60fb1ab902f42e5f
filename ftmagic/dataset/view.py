"""A dataset as an immutable sequence of examples, stored or not.

Filtering gives a new view and changes nothing in the store; `split`, `add_to`, `rename`, `copy`
and `delete` do, and say so.

Over 400 lines, most of them docstrings: it is the class that users meet first.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

from ftmagic import render
from ftmagic.checks import check
from ftmagic.dataset.selecting import select
from ftmagic.dataset.splitting import Shares, split_examples
from ftmagic.dataset.values import (
    Imported,
    TokenCount,
    answer_text,
    count_tokens,
    prompt_text,
    to_flat_record,
    to_record,
)
from ftmagic.engines import Engine, engine
from ftmagic.errors import DataError, MissingExtraError, message
from ftmagic.formats.training_files import Manifest, read_rows, write_rows
from ftmagic.splits import By
from ftmagic.store import Deleted, open_store
from ftmagic.types import REVIEWS, SPLITS, Example, Json, Limits, Problem, Review, Split

MIN_TRAIN = 10
"""Fewest training rows that `split` leaves: what OpenAI needs, the most of any engine we know."""

_SHOWN_ROWS = 10
_SHOWN_PROBLEMS = 5


class Dataset(Sequence[Example]):
    """Named rows: `len(ds)`, `ds[0]`, `for example in ds`.

    Attributes:
        name: The dataset's name; a name of its own for rows that are not stored.
        problems: What was odd about the file it was read from.
    """

    def __init__(
        self, name: str, examples: Iterable[Example] = (), *, problems: Sequence[Problem] = ()
    ) -> None:
        """Hold examples under a name; nothing is stored.

        Args:
            name: Any text.
            examples: The rows, in order.
            problems: What is odd about them.
        """
        self.name = name
        self.problems = tuple(problems)
        self._examples = tuple(examples)

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, name: str = "") -> Dataset:
        """Read a training file, with the schemas of its sidecar if there is one.

        All or nothing: one line that cannot be read refuses the file, and every such line is
        counted. Warnings are kept in `problems`.

        Args:
            path: OpenAI chat JSONL.
            name: Name of the dataset; the file's by default.

        Raises:
            DataError: The file is not there or empty, or lines cannot be read.
        """
        file = Path(path)
        result = read_rows(file)
        if result.errors:
            raise _unreadable(file, result.errors)
        if not result.examples:
            raise DataError(message(f"{file} has no rows.", next_step="%ft_export NAME FILE"))
        return cls(name or file.stem, result.examples, problems=result.problems)

    @property
    def is_stored(self) -> bool:
        """Whether all rows are rows of the stored dataset of this name."""
        return bool(self) and all(each.id and each.dataset == self.name for each in self)

    def filter(
        self,
        predicate: Callable[[Example], bool] | None = None,
        *,
        review: Review | None = None,
        split: Split | None = None,
        where: str = "",
        search: str = "",
    ) -> Dataset:
        """Keep the rows that meet all conditions.

        Args:
            predicate: Called with each example.
            review: 'pending', 'approved' or 'rejected'.
            split: 'train', 'validation' or 'test'.
            where: A condition over output fields, for example 'year > 1990'; a row with several
                outputs meets it if one of them does.
            search: Text that a message has, ignoring case.

        Raises:
            ConfigError: `where` is no condition.
            UnknownNameError: No such review state, split or output field.
        """
        rows = [each for each in self if predicate is None or predicate(each)]
        return self._with(select(rows, review=review, split=split, where=where, search=search))

    def dedupe(self) -> Dataset:
        """Keep the first of rows with the same content, whatever the ids of their tool calls."""
        first: dict[str, Example] = {}
        for each in self:
            first.setdefault(each.content_key(), each)
        return self._with(first.values())

    def split(
        self,
        validation: float | int = 0.1,
        test: float | int = 0.2,
        by: By = "tag:source",
        seed: int = 0,
        *,
        min_train: int = MIN_TRAIN,
    ) -> SplitDatasets:
        """Divide into train, validation and test; groups stay whole, counts are exact.

        For stored rows the assignment is stored and never changes: rows that have a split keep
        it, new rows of their group follow them.

        Args:
            validation: A fraction of the rows (a float), or a number of rows (an int).
            test: Likewise; nothing new is held out if test rows were captured apart.
            by: What keeps rows together besides equal inputs: 'tag:NAME', 'input' or a function.
            seed: Another seed chooses other groups.
            min_train: Fewest training rows; with fewer, nothing is held out.

        Returns:
            Three datasets to unpack, and a note in words.

        Raises:
            ConfigError: Shares that leave nothing to train on, or an unknown grouping.
        """
        rows, note = split_examples(
            self._examples,
            self.name,
            is_stored=self.is_stored,
            by=by,
            shares=Shares(validation, test, seed, min_train),
        )
        train_rows, validation_rows, test_rows = (
            self._with(each for each in rows if each.split == split) for split in SPLITS
        )
        return SplitDatasets(train_rows, validation_rows, test_rows, note)

    def check(self, engine_or_limits: str | Engine | Limits = "openai") -> list[Problem]:
        """List what stops an engine from training on these rows, and what is odd about them.

        Args:
            engine_or_limits: 'openai', 'local', an engine of your own, or limits.

        Returns:
            Errors first; [] when all is well.
        """
        if isinstance(engine_or_limits, Limits):
            return check(self._examples, engine_or_limits)
        chosen = engine(engine_or_limits)
        return check(self._examples, chosen.limits, engine_name=chosen.name)

    def write(
        self,
        path: str | os.PathLike[str],
        *,
        keeps_response_format: bool = False,
        keeps_untrainable: bool = False,
        keeps_test: bool = False,
    ) -> Manifest:
        """Write OpenAI fine-tuning JSONL, and its schemas into `NAME.schema.json` beside it.

        Args:
            path: The file; replaced only when the new one is whole.
            keeps_response_format: Write `response_format` into the lines, as the local engine
                reads it; OpenAI refuses such lines.
            keeps_untrainable: Write rejected and invalid rows too.
            keeps_test: Write test rows too, which no training may see.

        Raises:
            DataError: There is no row to write, or one cannot be written as JSON.
            StoreError: The folder cannot be written, or is full.
        """
        usable = [each for each in self if keeps_untrainable or each.is_trainable]
        rows = [each for each in usable if keeps_test or each.split != "test"]
        n_test = len(usable) - len(rows)
        if not rows:
            raise _nothing_to_write(self.name, len(self), n_test)
        manifest = write_rows(Path(path), rows, keeps_response_format=keeps_response_format)
        return replace(manifest, n_left_out=len(self) - len(usable), n_test_left_out=n_test)

    def add_to(self, name: str) -> Imported:
        """Store these rows in a dataset, which is made if it is new; duplicates are passed over.

        Raises:
            ConfigError: The name cannot name a dataset.
        """
        n_new, n_duplicates = open_store().examples.add(name, self._examples)
        n_invalid = sum(bool(each.problems) for each in self)
        return Imported(name, n_new, n_duplicates, n_invalid)

    def to_records(self) -> list[Json]:
        """One flat dict a row: bookkeeping, prompt, answer, parsed output and tags."""
        return [to_record(each) for each in self]

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame`, one row an example; output fields are columns `output.FIELD`.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as exc:
            text = message("pandas is not installed.", next_step="pip install pandas")
            raise MissingExtraError(text) from exc
        return pandas.DataFrame([to_flat_record(each) for each in self])

    def count_tokens(self) -> TokenCount:
        """Count tokens: the provider's numbers where all rows have them, else an estimate."""
        return count_tokens(self._examples)

    def approve(self, *, reviewer: str = "") -> Dataset:
        """Mark these stored rows as approved, and return them as they are now.

        Raises:
            DataError: They are not stored.
        """
        return self._decide("approved", reviewer)

    def reject(self, *, reviewer: str = "") -> Dataset:
        """Mark these stored rows as rejected: they are neither trained on nor exported.

        Raises:
            DataError: They are not stored.
        """
        return self._decide("rejected", reviewer)

    def rename(self, name: str) -> Dataset:
        """Give the stored dataset another name, and return it under that name."""
        open_store().datasets.rename(self.name, name)
        return examples(name)

    def copy(self, name: str) -> Dataset:
        """Copy the stored dataset, with reviews and splits, and return the copy."""
        open_store().datasets.copy(self.name, name)
        return examples(name)

    def delete(self) -> Deleted:
        """Erase the stored dataset with its calls; jobs stay known."""
        return open_store().datasets.delete(self.name)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> Example | Dataset:
        """One example, or a dataset of a slice of them."""
        if isinstance(index, slice):
            return self._with(self._examples[index])
        return self._examples[index]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._examples)

    def __repr__(self) -> str:
        """Say the name, the rows, and how they divide."""
        return f"<Dataset {self.name!r}: {self.summary()}>"

    def _repr_html_(self) -> str:
        rows = [
            (
                n,
                prompt_text(each),
                answer_text(each),
                each.split,
                each.review,
                "; ".join(each.problems),
            )
            for n, each in enumerate(self._examples[:_SHOWN_ROWS])
        ]
        columns = ("", "asked", "answered", "split", "review", "problems")
        return render.table(rows, columns, f"{self.name}: {self.summary()}")

    def summary(self) -> str:
        """Count the rows: '12 rows, 1 not trainable; 10 train, 2 test; 3 approved'."""
        n_left_out = sum(not each.is_trainable for each in self)
        first = f"{len(self):,} rows" + (f", {n_left_out:,} not trainable" if n_left_out else "")
        splits = Counter(each.split for each in self if each.split)
        reviews = Counter(each.review for each in self)
        parts = [f"{splits[split]:,} {split}" for split in SPLITS if splits[split]]
        decided = [f"{reviews[state]:,} {state}" for state in REVIEWS[1:] if reviews[state]]
        return "; ".join(each for each in (first, ", ".join(parts), ", ".join(decided)) if each)

    def _decide(self, state: Review, reviewer: str) -> Dataset:
        if self and not self.is_stored:
            raise DataError(
                message(
                    f"{self.name!r} is not stored, so nothing can be decided on its rows.",
                    next_step=f"ds.add_to({self.name!r}); ft.examples({self.name!r}).approve()",
                )
            )
        ids = [row.id for row in self]
        open_store().examples.set_review(ids, state, reviewer=reviewer)
        return self._with(replace(row, review=state) for row in self)

    def _with(self, rows: Iterable[Example]) -> Dataset:
        return Dataset(self.name, rows)


@dataclass(frozen=True)
class SplitDatasets:
    """Three datasets: `train, validation, test = ds.split()`.

    Attributes:
        train: To learn from.
        validation: To stop early with.
        test: Opened by comparisons only.
        note: How many rows went where, and what could not be done, in words.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    note: str = ""

    def __iter__(self) -> Iterator[Dataset]:
        """Unpack into the three datasets."""
        return iter((self.train, self.validation, self.test))


def examples(
    name: str,
    *,
    review: Review | None = None,
    split: Split | None = None,
    where: str = "",
    search: str = "",
) -> Dataset:
    """Read the current examples of a stored dataset; superseded ones are left out.

    Args:
        name: The dataset.
        review: Only those in this state.
        split: Only those of this split.
        where: A condition over output fields, for example 'year > 1990'.
        search: Text that a message has, ignoring case.

    Raises:
        UnknownNameError: There is no such dataset, review state, split or output field.
        ConfigError: `where` is no condition.
    """
    rows = Dataset(name, open_store().examples.select(name))
    return rows.filter(review=review, split=split, where=where, search=search)


def trainable(name: str, approved_only: bool = False) -> Dataset:
    """The rows that training takes: valid and not rejected, or only those that were approved.

    Raises:
        UnknownNameError: There is no such dataset.
    """
    review: Review | None = "approved" if approved_only else None
    return Dataset(name, open_store().examples.select(name, review=review, is_trainable=True))


def _nothing_to_write(name: str, n_rows: int, n_test: int) -> DataError:
    if n_test:
        return DataError(
            message(
                f"all that could be written of {name!r} are {n_test:,} test rows, which no "
                "training may see; nothing was written.",
                next_step="ds.write(FILE, keeps_test=True)",
            )
        )
    return DataError(
        message(
            f"{name!r} has no trainable row among {n_rows:,}; nothing was written.",
            next_step=f"ft.examples({name!r}).check()",
        )
    )


def _unreadable(path: Path, errors: Sequence[Problem]) -> DataError:
    lines = [f"  line {each.row}: {each.message}" for each in errors[:_SHOWN_PROBLEMS]]
    more = len(errors) - len(lines)
    if more > 0:
        lines.append(f"  and {more:,} more")
    noun = "line" if len(errors) == 1 else "lines"
    head = f"{len(errors):,} {noun} of {path} cannot be read; nothing was imported."
    return DataError(
        message("\n".join([head, *lines]), next_step="mend the lines, then read the file again")
    )
