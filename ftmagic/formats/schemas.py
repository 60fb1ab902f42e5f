"""The output schemas that a request offers: its tools' parameters, or its response format."""

from __future__ import annotations

from collections.abc import Sequence

from ftmagic.types import Json, OutputSchema


def output_schemas(tools: Sequence[Json], response_format: Json | None) -> tuple[OutputSchema, ...]:
    """Read the output schemas off a chat request.

    Args:
        tools: Tools in the chat shape, `{"type": "function", "function": {...}}`.
        response_format: As in the request.

    Returns:
        One schema for each function tool; then the response format's, if it asks for JSON
        (`json_object` has the empty schema).
    """
    found = [
        OutputSchema(
            name=str(tool["function"].get("name", "")),
            kind="tool",
            schema=tool["function"].get("parameters") or {},
            is_strict=bool(tool["function"].get("strict")),
        )
        for tool in tools
        if isinstance(tool.get("function"), dict)
    ]
    kind = (response_format or {}).get("type")
    if kind == "json_object":
        found.append(OutputSchema("json_object", "response_format", {}))
    elif kind == "json_schema" and response_format is not None:
        described = response_format.get("json_schema") or {}
        found.append(
            OutputSchema(
                name=str(described.get("name", "")),
                kind="response_format",
                schema=described.get("schema") or {},
                is_strict=bool(described.get("strict")),
            )
        )
    return tuple(found)
