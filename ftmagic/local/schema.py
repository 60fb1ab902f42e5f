"""What the local engine reads off a JSON schema: field names, key order, a closed copy.

Knows JSON schema only; nothing about tokens, models or requests.
"""

from __future__ import annotations

import json
from typing import Any

from ftmagic.types import Json

_MAX_DEPTH = 4  # a recursive schema names its fields down to here
_SHORT_ENUM = 8  # a longer enum is left to the grammar


def compact_json(value: Any) -> str:
    """Write JSON without whitespace and without ASCII escapes, the student's spelling."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def follow(schema: Json, root: Json) -> Json:
    """Follow `$ref` to what it names.

    Args:
        schema: Any part of `root`.
        root: The whole schema, which holds `$defs`.
    """
    while "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].lstrip("#/").split("/"):
            target = target[part] if part else target
        schema = target
    return schema


def resolve(schema: Json, root: Json) -> Json:
    """Follow `$ref`, a single `allOf` and an optional (`anyOf` with null) to the real schema.

    Args:
        schema: Any part of `root`.
        root: The whole schema, which holds `$defs`.
    """
    schema = follow(schema, root)
    for key in ("anyOf", "oneOf", "allOf"):
        options = [option for option in schema.get(key, []) if option.get("type") != "null"]
        if options:
            return resolve(options[0], root)
    return schema


def fields_signature(schema: Json) -> str:
    """Flatten the field names: `author,priority:low|high,citations[author,title],tags[]`."""
    return _fields(resolve(schema, schema), schema, depth=0)


def order_keys(value: Any, schema: Json) -> Any:
    """Copy a value with its keys in the order of the schema; unknown keys go last."""
    return _ordered(value, schema, schema)


def close_objects(schema: Json) -> Json:
    """Copy a schema so that no object allows a key it does not name."""
    closed: Json = _closed(schema)
    return closed


def schema_of_value(value: Any) -> Json:
    """Describe the keys of one JSON value, for rows that came without a schema."""
    if isinstance(value, dict):
        properties = {key: schema_of_value(item) for key, item in value.items()}
        return {"type": "object", "properties": properties}
    if isinstance(value, list):
        return {"type": "array", "items": schema_of_value(value[0]) if value else {}}
    return {}


def _fields(schema: Json, root: Json, depth: int) -> str:
    properties = schema.get("properties", {})
    return ",".join(_field(name, part, root, depth) for name, part in properties.items())


def _field(name: str, schema: Json, root: Json, depth: int) -> str:
    schema = resolve(schema, root)
    values = schema.get("enum", [])
    if 0 < len(values) <= _SHORT_ENUM:
        return f"{name}:{'|'.join(str(value) for value in values)}"
    if depth >= _MAX_DEPTH:
        return name
    if schema.get("type") == "array" or "items" in schema:
        items = resolve(schema.get("items") or {}, root)
        return f"{name}[{_fields(items, root, depth + 1)}]"
    if "properties" in schema:
        return f"{name}{{{_fields(schema, root, depth + 1)}}}"
    return name


def _ordered(value: Any, schema: Json, root: Json) -> Any:
    schema = resolve(schema, root)
    if isinstance(value, list):
        return [_ordered(item, schema.get("items") or {}, root) for item in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    names = [name for name in properties if name in value]
    names += [name for name in value if name not in properties]
    return {name: _ordered(value[name], properties.get(name, {}), root) for name in names}


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(part) for key, part in schema.items()}
    if isinstance(closed.get("properties"), dict) and "type" in closed:
        closed.setdefault("additionalProperties", False)
    return closed
