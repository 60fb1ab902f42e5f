"""Who trains and who tests: train, validation and test, assigned by group and kept for ever.

Pure and deterministic; the order of the rows does not matter. Rows that share an input or a source
stay together, so that no test row was seen in training. Knows nothing of stores or engines.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ftmagic.errors import ConfigError, message
from ftmagic.types import SPLITS, Example, Split

By = str | Callable[[Example], str]
"""What keeps rows together besides equal inputs: 'tag:NAME', 'input' (nothing else), a function."""

_STRICTEST: tuple[Split, ...] = ("test", "validation", "train")
_LARGE_GROUP = 0.2


@dataclass(frozen=True)
class SplitRow:
    """One row to assign.

    Attributes:
        id: Its identity; row ids of a store, or positions.
        group: Rows of one group get the same split.
        size: What it counts for; 0 for a row that only holds its group's place.
        fixed: The split that it already has, or None.
    """

    id: int
    group: str
    size: int = 1
    fixed: Split | None = None


@dataclass(frozen=True)
class SplitPlan:
    """Who goes where.

    Attributes:
        assignment: The split of every row, by id.
        counts: Rows (their sizes) by split.
        note: What was done and what could not be, in words.
    """

    assignment: Mapping[int, Split]
    counts: Mapping[Split, int] = field(default_factory=dict)
    note: str = ""


def groups(examples: Sequence[Example], by: By = "tag:source") -> list[str]:
    """Name the group of each row: equal inputs and equal tags stay together.

    Args:
        examples: The rows.
        by: 'tag:NAME' also joins rows that share that tag; 'input' joins equal inputs only; a
            function returns a key for each row ('' joins it to nobody).

    Returns:
        One name a row; it does not depend on the order of the rows.

    Raises:
        ConfigError: `by` is none of these.
    """
    key_of = _key_function(by)
    joined = _UnionFind()
    for example in examples:
        key = key_of(example)
        joined.join(f"input:{example.input_key()}", f"by:{key}" if key else None)
    return [joined.find(f"input:{example.input_key()}") for example in examples]


def assign(
    rows: Sequence[SplitRow],
    *,
    validation: float | int = 0.1,
    test: float | int = 0.2,
    seed: int = 0,
    min_train: int = 1,
    grows_test: bool = False,
    dataset: str = "NAME",
) -> SplitPlan:
    """Assign every row to train, validation or test.

    Rows that have a split keep it, and the new rows of their group follow them. Where rows were
    already set apart for testing, no more are held out for it.

    Args:
        rows: All rows, with the split they already have.
        validation: A fraction of the rows (below 1), or a number of rows.
        test: Likewise.
        seed: Another seed chooses other groups.
        min_train: Fewest training rows: with fewer, nothing new is held out.
        grows_test: Top the test rows up although some are set apart already.
        dataset: Name to use in the note.

    Returns:
        The assignment; counts are met exactly wherever the groups' sizes allow, else the nearest
        below.

    Raises:
        ConfigError: A fraction or number is negative, or the fractions reach 1.
    """
    _check_shares(validation, test)
    plan = _Planner(rows, seed)
    keeps_test = plan.counts["test"] > 0 and not grows_test
    n_base = plan.n_rows - (plan.counts["test"] if keeps_test else 0)
    wanted_test = 0 if keeps_test else max(_count(test, n_base) - plan.counts["test"], 0)
    wanted_validation = max(_count(validation, n_base) - plan.counts["validation"], 0)
    notes = []
    n_left = plan.n_rows - plan.counts["test"] - plan.counts["validation"]
    if wanted_test + wanted_validation and n_left - wanted_test - wanted_validation < min_train:
        notes.append(_too_few(n_left, min_train, dataset))
    else:
        notes += plan.hold_out("test", wanted_test)
        notes += plan.hold_out("validation", wanted_validation)
    if keeps_test and test:
        notes.append(f"the {plan.counts['test']:,} rows already set apart for testing are the test")
    return plan.finish(notes)


class _Planner:
    """The groups, and which of them are taken."""

    def __init__(self, rows: Sequence[SplitRow], seed: int) -> None:
        self._rows = rows
        self._seed = seed
        self._size: Counter[str] = Counter()
        fixed: defaultdict[str, set[Split]] = defaultdict(set)
        for row in rows:
            self._size[row.group] += row.size
            if row.fixed is not None:
                fixed[row.group].add(row.fixed)
        self._split: dict[str, Split] = {
            group: next(each for each in _STRICTEST if each in splits)
            for group, splits in fixed.items()
        }
        self.n_rows = sum(row.size for row in rows)
        self.counts = self._count()

    def hold_out(self, split: Split, wanted: int) -> list[str]:
        """Give groups to a split until `wanted` rows are reached; say so if they cannot be."""
        free = sorted((g for g in self._size if g not in self._split), key=self._rank)
        chosen = choose([self._size[group] for group in free], wanted)
        for index in chosen:
            self._split[free[index]] = split
        self.counts = self._count()
        n_chosen = sum(self._size[free[index]] for index in chosen)
        if n_chosen == wanted:
            return []
        return [f"{n_chosen:,} of {wanted:,} rows for {split}: the groups do not add up to more"]

    def finish(self, notes: list[str]) -> SplitPlan:
        counts = ", ".join(f"{self.counts[split]:,} {split}" for split in SPLITS)
        assignment = {row.id: self._of(row) for row in self._rows}
        notes = [*notes, *self._largest_group()]
        return SplitPlan(assignment, dict(self.counts), "; ".join([counts, *notes]))

    def _of(self, row: SplitRow) -> Split:
        return row.fixed or self._split.get(row.group, "train")

    def _count(self) -> Counter[Split]:
        counts: Counter[Split] = Counter()
        for row in self._rows:
            counts[self._of(row)] += row.size
        return counts

    def _rank(self, group: str) -> tuple[bytes, str]:
        text = f"{self._seed}:{group}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, digest_size=8).digest(), group

    def _largest_group(self) -> list[str]:
        size = max(self._size.values(), default=0)
        if size < 2 or size <= _LARGE_GROUP * self.n_rows:
            return []
        return [f"the largest group has {size:,} rows, {size / self.n_rows:.0%}"]


def choose(sizes: Sequence[int], wanted: int) -> list[int]:
    """Choose groups whose sizes add up to `wanted`, or to the most that is possible below it.

    Args:
        sizes: Rows of each group, in the order of preference.
        wanted: Rows.

    Returns:
        Indices into `sizes`, ascending. Groups of size 0 are not chosen.
    """
    chosen: list[int] = []
    left = wanted
    for index, size in enumerate(sizes):
        if 0 < size <= left:
            chosen.append(index)
            left -= size
    return chosen if left == 0 else _choose_exactly(sizes, wanted)


def _choose_exactly(sizes: Sequence[int], wanted: int) -> list[int]:
    """Bounded subset sum over the distinct sizes; within one size the earlier groups are taken."""
    of_size: defaultdict[int, list[int]] = defaultdict(list)
    for index, size in enumerate(sizes):
        if 0 < size <= wanted:
            of_size[size].append(index)
    steps: list[tuple[int, list[int]]] = []
    reached = [True] + [False] * wanted
    for size, indices in of_size.items():
        # n_used[total]: how many groups of this size it takes at least; -1 if out of reach.
        n_used = [0 if is_reached else -1 for is_reached in reached]
        for total in range(size, wanted + 1):
            before = n_used[total - size]
            if n_used[total] < 0 and 0 <= before < len(indices):
                n_used[total] = before + 1
        steps.append((size, n_used))
        reached = [used >= 0 for used in n_used]
    total = max(index for index, is_reached in enumerate(reached) if is_reached)
    chosen: list[int] = []
    for size, n_used in reversed(steps):
        chosen += of_size[size][: n_used[total]]
        total -= size * n_used[total]
    return sorted(chosen)


class _UnionFind:
    """Keys that belong together; a set is named by its smallest key."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, key: str) -> str:
        parent = self._parent.setdefault(key, key)
        while parent != self._parent[parent]:
            self._parent[key] = self._parent[parent]
            key, parent = parent, self._parent[parent]
        return parent

    def join(self, one: str, other: str | None) -> None:
        first = self.find(one)
        second = first if other is None else self.find(other)
        self._parent[max(first, second)] = min(first, second)


def _key_function(by: By) -> Callable[[Example], str]:
    if not isinstance(by, str):
        return by
    if by == "input":
        return lambda example: ""
    if by.startswith("tag:") and len(by) > len("tag:"):
        tag = by.removeprefix("tag:")
        return lambda example: example.tags.get(tag, "")
    raise ConfigError(
        message(
            f"{by!r} cannot group rows: it must be 'input', 'tag:NAME' or a function.",
            next_step='ds.split(by="tag:source")',
        )
    )


def _check_shares(validation: float | int, test: float | int) -> None:
    fractions = [each for each in (validation, test) if isinstance(each, float)]
    if min(validation, test) >= 0 and sum(fractions) < 1:
        return
    raise ConfigError(
        message(
            f"validation={validation} and test={test} leave nothing to train on: fractions must "
            "be 0 or more and below 1 together; whole numbers are rows.",
            next_step="ds.split(validation=0.1, test=0.2)",
        )
    )


def _count(share: float | int, n_rows: int) -> int:
    return round(share * n_rows) if isinstance(share, float) else share


def _too_few(n_rows: int, min_train: int, dataset: str) -> str:
    return (
        f"{n_rows:,} rows: nothing held out, because the engine needs at least {min_train:,} to "
        f"train; capture test rows apart with %%capture_ft {dataset} --split test"
    )
