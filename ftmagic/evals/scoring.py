"""Scorers: a produced structured output against the recorded one, field by field.

Pure functions over parsed JSON. They know nothing of models, HTTP or datasets, and they do not
validate: that an output fits its schema is another question (`ftmagic.formats.validation`).

The rules, each with a hand-computed test:

- A field is one leaf of the schema, named by its dotted path (`artist.name`, `songs[].title`).
  A field that is absent and one that is null are equal.
- Items of a list are paired one to one, whatever their order: those that agree in a key field
  (`KEY_FIELDS`) first, then so that most fields agree. Each field of a list counts once an item of
  the longer list, so a missing, an extra and a duplicated item are misses.
- An item is right when all of its fields are; precision and recall of a list count right items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftmagic.evals.assignment import pair_items
from ftmagic.evals.comparators import Comparator, comparator, is_equal, is_same
from ftmagic.types import Json, OutputSchema

Output = tuple[str, Any]
"""(schema name, parsed JSON), as `Example.outputs()` returns them."""

KEY_FIELDS = ("id", "key", "name", "title", "doi", "url")
"""Fields that say which item of a list this is."""

MAX_DEPTH = 32
"""Below this many levels a value is compared as a whole."""


@dataclass(frozen=True)
class FieldCount:
    """How often one field was right."""

    n_right: int = 0
    n: int = 0

    @property
    def share(self) -> float:
        """Share of right values, 0 to 1."""
        return self.n_right / self.n if self.n else 1.0


@dataclass(frozen=True)
class ListCount:
    """Items of one list: produced, expected, and right in every field."""

    n_right: int = 0
    n_output: int = 0
    n_target: int = 0

    @property
    def precision(self) -> float:
        """Share of the produced items that are right; 1 when none was produced, none expected."""
        return self.n_right / self.n_output if self.n_output else float(not self.n_target)

    @property
    def recall(self) -> float:
        """Share of the expected items that were produced right."""
        return self.n_right / self.n_target if self.n_target else float(not self.n_output)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.n_output + self.n_target
        return 2 * self.n_right / total if total else 1.0


@dataclass(frozen=True)
class Score:
    """One output against its target.

    Attributes:
        is_tool_right: The same tools were called, each as often (the order does not matter).
        fields: For each field path how often it was right.
        lists: For each list path its items.
    """

    is_tool_right: bool = True
    fields: Mapping[str, FieldCount] = field(default_factory=dict)
    lists: Mapping[str, ListCount] = field(default_factory=dict)

    @property
    def n_right(self) -> int:
        """Fields that are right."""
        return sum(count.n_right for count in self.fields.values())

    @property
    def n_fields(self) -> int:
        """Fields that were asked for, or produced without being asked for."""
        return sum(count.n for count in self.fields.values())

    @property
    def field_accuracy(self) -> float:
        """Share of right fields, 0 to 1; an empty record that should be empty is right."""
        return self.n_right / self.n_fields if self.n_fields else float(self.is_tool_right)

    @property
    def is_exact(self) -> bool:
        """Whether every field of the record is right, and nothing else was produced."""
        return self.is_tool_right and self.n_right == self.n_fields

    @property
    def list_count(self) -> ListCount | None:
        """The items of all lists together; None where the record has no list."""
        return add_lists(self.lists.values()) if self.lists else None


def add_lists(counts: Iterable[ListCount]) -> ListCount:
    """Add up the items of several lists."""
    counts = list(counts)
    return ListCount(
        sum(count.n_right for count in counts),
        sum(count.n_output for count in counts),
        sum(count.n_target for count in counts),
    )


def score_outputs(
    outputs: Sequence[Output] | None,
    targets: Sequence[Output],
    schemas: Sequence[OutputSchema] = (),
    *,
    comparators: Mapping[str, str | Comparator] | None = None,
    ordered: bool = False,
) -> Score:
    """Score the structured output of one reply.

    Args:
        outputs: What the model produced; None when the reply holds nothing that can be parsed,
            which is a miss of every field.
        targets: What was recorded.
        schemas: The schemas of the example, which say what the fields are.
        comparators: Field path, or last part of it, -> 'exact', 'equal', 'fuzzy' or a function of
            (output, target). The default is `comparators.is_equal`, and 'exact' for an enum.
        ordered: Items of a list must stand in the order of the target.

    Returns:
        The score. Field paths start with the schema's name when there are several schemas.

    Raises:
        UnknownNameError: A comparator's name is unknown.
    """
    rules = {path: comparator(rule) for path, rule in (comparators or {}).items()}
    by_name = {each.name: each.schema for each in schemas}
    names = list(dict.fromkeys(name for name, _ in [*targets, *(outputs or [])]))
    known = set(by_name) or {name for name, _ in targets}
    tallies = _Tally()
    for name in names:
        produced = [value for other, value in outputs or [] if other == name]
        expected = [value for other, value in targets if other == name]
        schema = by_name.get(name, {})
        walk = _Walk(schema, rules, ordered)
        prefix = "" if known == {name} else name
        tally = walk.items(produced, expected, schema, prefix)
        if len(produced) > 1 or len(expected) > 1:  # parallel calls of one tool are a list
            right = tally.n_right_items
            tallies.add_list(f"{prefix or name}()", right, len(produced), len(expected))
        tallies.merge(tally)
    is_tool_right = outputs is not None and Counter(name for name, _ in outputs) == Counter(
        name for name, _ in targets
    )
    return Score(is_tool_right, tallies.fields, tallies.lists)


class _Tally:
    """Counts that are being added up."""

    def __init__(self) -> None:
        """Start with nothing counted."""
        self.fields: dict[str, FieldCount] = {}
        self.lists: dict[str, ListCount] = {}
        self.n_right_items = 0

    def add_field(self, path: str, is_right: bool) -> _Tally:
        """Count one value of a field."""
        before = self.fields.get(path, FieldCount())
        self.fields[path] = FieldCount(before.n_right + is_right, before.n + 1)
        return self

    def add_list(self, path: str, n_right: int, n_output: int, n_target: int) -> None:
        """Count one list."""
        before = self.lists.get(path, ListCount())
        self.lists[path] = add_lists([before, ListCount(n_right, n_output, n_target)])

    def merge(self, other: _Tally) -> None:
        """Add another tally's counts."""
        for path, count in other.fields.items():
            before = self.fields.get(path, FieldCount())
            self.fields[path] = FieldCount(before.n_right + count.n_right, before.n + count.n)
        for path, items in other.lists.items():
            self.add_list(path, items.n_right, items.n_output, items.n_target)

    @property
    def n_right(self) -> int:
        """Right values so far."""
        return sum(count.n_right for count in self.fields.values())

    @property
    def is_all_right(self) -> bool:
        """Whether nothing was missed."""
        return all(count.n_right == count.n for count in self.fields.values())


_NOTHING = object()
"""Stands for a value where there is none to compare: never right, not even against null."""


@dataclass(frozen=True)
class _Walk:
    """One pass over output and target along the schema."""

    root: Json
    rules: Mapping[str, Comparator]
    ordered: bool

    def value(self, output: Any, target: Any, schema: Json, path: str) -> _Tally:
        """Compare two values of any kind."""
        schema = _resolve(schema, self.root, target if target is not _NOTHING else output)
        if path.count(".") + path.count("[]") > MAX_DEPTH:
            return _Tally().add_field(path, self._is_right(output, target, schema, path))
        if isinstance(target, Mapping) or (target is _NOTHING and isinstance(output, Mapping)):
            return self._record(output, target, schema, path)
        if isinstance(target, list) or (target is _NOTHING and isinstance(output, list)):
            return self._list(output, target, schema, path)
        return _Tally().add_field(path or "value", self._is_right(output, target, schema, path))

    def items(self, output: list[Any], target: list[Any], schema: Json, path: str) -> _Tally:
        """Pair the items of two lists and compare them; sets `n_right_items`."""
        total = _Tally()
        pairs = {
            (row, column): self.value(output[row], target[column], schema, path)
            for row in range(len(output))
            for column in range(len(target))
            if not self.ordered or row == column
        }
        chosen = sorted(pairs) if self.ordered else self._pair(output, target, pairs, schema)
        for pair in chosen:
            total.merge(pairs[pair])
            total.n_right_items += pairs[pair].is_all_right
        for row in sorted(set(range(len(output))) - {row for row, _ in chosen}):
            total.merge(self.value(output[row], _NOTHING, schema, path))
        for column in sorted(set(range(len(target))) - {column for _, column in chosen}):
            total.merge(self.value(_NOTHING, target[column], schema, path))
        return total

    def _record(self, output: Any, target: Any, schema: Json, path: str) -> _Tally:
        total = _Tally()
        produced = output if isinstance(output, Mapping) else {}
        expected = target if isinstance(target, Mapping) else {}
        properties = schema.get("properties", {})
        for name in dict.fromkeys([*properties, *expected, *produced]):
            total.merge(
                self.value(
                    produced.get(name) if isinstance(output, Mapping) else _NOTHING,
                    expected.get(name) if isinstance(target, Mapping) else _NOTHING,
                    properties.get(name, {}),
                    f"{path}.{name}" if path else name,
                )
            )
        return total

    def _list(self, output: Any, target: Any, schema: Json, path: str) -> _Tally:
        produced = output if isinstance(output, list) else []
        expected = target if isinstance(target, list) else []
        total = self.items(produced, expected, schema.get("items") or {}, f"{path}[]")
        total.add_list(path or "[]", total.n_right_items, len(produced), len(expected))
        if not produced and not expected:  # one question all the same: is it empty?
            total.add_field(f"{path}[]", isinstance(output, list) and isinstance(target, list))
        return total

    def _pair(
        self,
        output: list[Any],
        target: list[Any],
        pairs: Mapping[tuple[int, int], _Tally],
        schema: Json,
    ) -> list[tuple[int, int]]:
        def weight(row: int, column: int) -> float:
            tally = pairs[row, column]
            n_fields = sum(count.n for count in tally.fields.values())
            bonus = n_fields + 1 if self._shares_key(output[row], target[column], schema) else 0
            return tally.n_right + bonus

        return pair_items(
            [[weight(row, column) for column in range(len(target))] for row in range(len(output))]
        )

    def _shares_key(self, output: Any, target: Any, schema: Json) -> bool:
        if not (isinstance(output, Mapping) and isinstance(target, Mapping)):
            return False
        keys = [name for name in KEY_FIELDS if target.get(name) is not None]
        return any(self._is_right(output.get(name), target[name], {}, name) for name in keys)

    def _is_right(self, output: Any, target: Any, schema: Json, path: str) -> bool:
        if output is _NOTHING or target is _NOTHING:
            return False
        if output is None or target is None:
            return output is target
        by_default = is_same if "enum" in schema or "const" in schema else is_equal
        last = path.rpartition(".")[2].removesuffix("[]")
        rule = self.rules.get(path) or self.rules.get(last) or by_default
        return bool(rule(output, target))


def _resolve(schema: Any, root: Json, value: Any, depth: int = 0) -> Json:
    """Follow `$ref`, and choose the alternative of `anyOf` that fits the value's kind."""
    if not isinstance(schema, Mapping) or depth > 16:
        return {}
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return _resolve(_look_up(reference, root), root, value, depth + 1)
    for word in ("anyOf", "oneOf", "allOf"):
        if alternatives := schema.get(word):
            resolved = [_resolve(each, root, value, depth + 1) for each in alternatives]
            return next((each for each in resolved if _fits(each, value)), {})
    return dict(schema)


def _look_up(reference: str, root: Json) -> Any:
    here: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            name = part.replace("~1", "/").replace("~0", "~")
            here = here.get(name) if isinstance(here, Mapping) else None
    return here


def _fits(schema: Json, value: Any) -> bool:
    if isinstance(value, Mapping):
        return "properties" in schema or schema.get("type") == "object"
    if isinstance(value, list):
        return "items" in schema or schema.get("type") == "array"
    return schema.get("type") not in ("object", "array", "null")
