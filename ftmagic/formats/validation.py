"""Is this JSON what its schema says? Short messages with the path of the field.

Owns the compiled validators. Never fetches anything: a schema that points to another address is
reported as unusable. Knows nothing of providers or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jsonschema_rs

from ftmagic.formats import strict_json
from ftmagic.formats.strict_json import StrictJsonError
from ftmagic.types import Json, OutputSchema, canonical_json

MAX_MESSAGES = 5
"""Problems that are spelled out for one answer; the rest are counted."""

_MAX_MESSAGE = 200


class SchemaValidator:
    """One compiled JSON Schema: make it once, use it for many rows.

    Attributes:
        unusable: Why the schema itself cannot be used; '' when it can.
    """

    def __init__(self, schema: Json) -> None:
        """Compile a schema; one that is broken makes every instance fail with the reason."""
        self.unusable = ""
        try:
            self._validator = jsonschema_rs.validator_for(schema, retriever=_refuse_to_fetch)
        except (ValueError, TypeError) as exc:
            # ValidationError is a ValueError; its first line is the reason, the rest the schema.
            self.unusable = f"the schema cannot be used: {_clip(_first_line(exc))}"

    def problems(self, instance: Any) -> list[str]:
        """List what is wrong, as 'songs[2].length_seconds: "x" is not of type "integer"'."""
        if self.unusable:
            return [self.unusable]
        try:
            found = sorted(
                (format_path(error.instance_path), _clip(error.message))
                for error in self._validator.iter_errors(instance)
            )
        except ValueError as exc:
            # Older jsonschema-rs cannot take huge integers and lone surrogates.
            return [f"cannot be checked: {_clip(_first_line(exc))}"]
        return _shortened([f"{path}: {text}" if path else text for path, text in found])


def compile_schema(schema: Json) -> SchemaValidator:
    """Return the compiled validator of a schema; equal schemas share one."""
    return _compiled(canonical_json(schema))


def schema_problems(schema: Json, instance: Any) -> list[str]:
    """List where `instance` breaks `schema`; [] when it is valid.

    Args:
        schema: JSON Schema; {} accepts everything.
        instance: A parsed JSON value.

    Returns:
        At most `MAX_MESSAGES` short messages with field paths, then how many more there are.
    """
    return compile_schema(schema).problems(instance) if schema else []


def answer_problems(answer: Json, schemas: Sequence[OutputSchema]) -> tuple[str, ...]:
    """Say why an assistant message is not a valid answer; () when it is.

    Args:
        answer: The message to learn, with `tool_calls` or `content`.
        schemas: What was asked for; with none, any text will do.
    """
    calls = answer.get("tool_calls") or []
    if calls:
        return _tool_call_problems(calls, [each for each in schemas if each.kind == "tool"])
    formats = [each for each in schemas if each.kind == "response_format"]
    return tuple(_text_problems(answer.get("content"), formats[0])) if formats else ()


def format_path(path: Sequence[str | int]) -> str:
    """Write a field path as a person would: songs[2].length_seconds."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def _tool_call_problems(calls: Sequence[Json], schemas: Sequence[OutputSchema]) -> tuple[str, ...]:
    by_name = {each.name: each for each in schemas}
    problems: list[str] = []
    for number, call in enumerate(calls, start=1):
        name = call["function"]["name"]
        where = f"call {number} ({name}): " if len(calls) > 1 else ""
        if name not in by_name:
            found = [f"the tool {_clip(repr(name))} was not offered"]
        else:
            found = _text_problems(call["function"]["arguments"], by_name[name])
        problems += [where + each for each in found]
    return tuple(_shortened(problems))


def _text_problems(text: Any, schema: OutputSchema) -> list[str]:
    if not isinstance(text, str):
        return ["the answer is empty"]
    try:
        value = strict_json.loads(text, unique_keys=False)
    except StrictJsonError as exc:
        return [f"the answer is not JSON: {exc}"]
    if not schema.schema and not isinstance(value, dict):
        return ["the answer is not a JSON object"]
    return schema_problems(schema.schema, value)


@lru_cache(maxsize=256)
def _compiled(canonical_schema: str) -> SchemaValidator:
    return SchemaValidator(strict_json.loads(canonical_schema))


def _refuse_to_fetch(uri: str) -> Any:
    raise ValueError(f"{uri} is elsewhere, and schemas are never fetched")


def _shortened(messages: list[str]) -> list[str]:
    more = len(messages) - MAX_MESSAGES
    return messages if more <= 0 else [*messages[:MAX_MESSAGES], f"and {more} more problems"]


def _first_line(exc: BaseException) -> str:
    return str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__


def _clip(text: str) -> str:
    return text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 3] + "..."
