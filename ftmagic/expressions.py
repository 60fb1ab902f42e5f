"""Tiny conditions over the fields of an output: `year > 1990 and artist in ["Queen", "ABBA"]`.

Read with Python's own parser and evaluated by hand: comparisons, `and`, `or`, `not`, `in`, names,
constants, lists, `songs[0].title` and `len(...)`. Nothing else, so that nothing can be executed.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ftmagic.errors import ConfigError, message, unknown_name

_EXAMPLE = "ft.examples(\"albums\", where=\"year > 1990 and artist in ['Queen', 'ABBA']\")"
_MAX_LENGTH = 1_000
_MAX_DEPTH = 30
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: lambda left, right: left is right,
    ast.IsNot: lambda left, right: left is not right,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
# JSON's own spellings, beside Python's.
_CONSTANTS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class Condition:
    """A parsed condition.

    Attributes:
        text: As it was written.
        names: The fields that it reads.
    """

    text: str
    names: frozenset[str]
    _tree: ast.expr

    def matches(self, fields: Mapping[str, Any]) -> bool:
        """Whether the fields meet the condition; a missing field is None.

        Values that cannot be compared (None > 1990, "a" < 1) do not match.
        """
        return bool(_value(self._tree, fields))

    def require_known(self, known: Iterable[str]) -> None:
        """Refuse a name that no output has.

        Raises:
            UnknownNameError: With the closest field.
        """
        fields = set(known)
        for name in sorted(self.names - fields):
            raise unknown_name("output field", name, fields, next_step=_EXAMPLE)


def parse_condition(text: str) -> Condition:
    """Parse a condition.

    Raises:
        ConfigError: It is not Python syntax, or uses more than fields, constants and comparisons.
    """
    if len(text) > _MAX_LENGTH:
        raise _refused(text, f"it is longer than {_MAX_LENGTH} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as exc:
        raise _refused(text, f"{exc.msg} at character {exc.offset}") from None
    except (ValueError, RecursionError, MemoryError):
        # NUL bytes, or brackets nested too deep for the parser.
        raise _refused(text, "it cannot be parsed") from None
    _check(tree, text, depth=0)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return Condition(text, frozenset(names - set(_CONSTANTS) - {"len"}), tree)


def _check(node: ast.AST, text: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise _refused(text, f"it is nested deeper than {_MAX_DEPTH} levels")
    if isinstance(node, ast.Call):
        is_len = isinstance(node.func, ast.Name) and node.func.id == "len"
        if not is_len or len(node.args) != 1 or node.keywords:
            raise _refused(text, "the only function is len(field)")
    elif not isinstance(node, _ALLOWED):
        raise _refused(text, f"{type(node).__name__} is not allowed")
    for child in ast.iter_child_nodes(node):
        _check(child, text, depth + 1)


_ALLOWED = (
    *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Compare, ast.cmpop),
    *(ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple, ast.Attribute, ast.Subscript),
)


def _value(node: ast.expr, fields: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return _CONSTANTS[node.id] if node.id in _CONSTANTS else fields.get(node.id)
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(each, fields) for each in node.elts]
    if isinstance(node, ast.BoolOp):
        test = all if isinstance(node.op, ast.And) else any
        return test(_value(each, fields) for each in node.values)
    if isinstance(node, ast.Compare):
        return _compare(node, fields)
    if isinstance(node, ast.UnaryOp):
        return _unary(node.op, _value(node.operand, fields))
    if isinstance(node, ast.Call):
        value = _value(node.args[0], fields)
        return len(value) if isinstance(value, (str, list, dict)) else None
    return _part(node, fields)


def _unary(operation: ast.unaryop, value: Any) -> Any:
    if isinstance(operation, ast.Not):
        return not value
    return -value if isinstance(value, (int, float)) else None


def _part(node: ast.expr, fields: Mapping[str, Any]) -> Any:
    """`song.title`, `song["title"]` and `songs[0]`; None where there is no such part."""
    if isinstance(node, ast.Attribute):
        whole, key = _value(node.value, fields), node.attr
    elif isinstance(node, ast.Subscript):
        whole, key = _value(node.value, fields), _value(node.slice, fields)
    else:
        raise TypeError(f"unchecked node {type(node).__name__}")
    try:
        return whole[key]
    except (KeyError, IndexError, TypeError):
        return None


def _compare(node: ast.Compare, fields: Mapping[str, Any]) -> bool:
    left = _value(node.left, fields)
    for operation, right_node in zip(node.ops, node.comparators, strict=True):
        right = _value(right_node, fields)
        try:
            is_true = bool(_COMPARISONS[type(operation)](left, right))
        except TypeError:
            return False
        if not is_true:
            return False
        left = right
    return True


def _refused(text: str, reason: str) -> ConfigError:
    shown = text if len(text) <= 80 else text[:77] + "..."
    return ConfigError(message(f"where={shown!r} is no condition: {reason}.", next_step=_EXAMPLE))
