"""What a chat request offers to fill in, and how a message fills it in.

Reads and writes chat-completions JSON; knows nothing about tokens, templates or markers.
"""

from __future__ import annotations

import json
import secrets

from ftmagic.errors import DataError, message
from ftmagic.formats.schemas import output_schemas
from ftmagic.local.schema import compact_json, order_keys, schema_of_value
from ftmagic.types import Json, OutputSchema


def offered_answers(request: Json) -> list[OutputSchema]:
    """List what the assistant may fill in: the forced tool, else all tools, else the schema."""
    tools = list(output_schemas(request.get("tools") or [], None))
    choice = request.get("tool_choice")
    if isinstance(choice, dict):
        forced = choice.get("function", {}).get("name")
        tools = [tool for tool in tools if tool.name == forced]
    if tools and choice != "none":
        return tools
    return list(output_schemas([], request.get("response_format")))


def last_user_text(messages: list[Json]) -> str:
    """Return the text of the last user message, or an empty string."""
    texts = [content_text(turn) for turn in messages if turn["role"] == "user"]
    return texts[-1] if texts else ""


def target_texts(turn: Json, answers: list[OutputSchema]) -> list[str]:
    """Write an assistant message as the student does: one text per call, or its content.

    Args:
        turn: An assistant message; `arguments` may be a JSON string or a dict.
        answers: What was offered; a name is written only where there were several.

    Raises:
        DataError: A call names a tool that was not offered, or its arguments are not JSON.
    """
    schemas = {answer.name: answer.schema for answer in answers}
    texts = []
    for call in turn.get("tool_calls") or []:
        name = call["function"]["name"]
        if name not in schemas:
            raise DataError(
                message(
                    f"The assistant calls {name!r}, but the row offers {sorted(schemas)}.",
                    next_step="add the tool to the row's 'tools', or leave the row out",
                )
            )
        body = compact_json(order_keys(call_arguments(call), schemas[name]))
        texts.append(name + body if len(answers) > 1 else body)
    return texts or [_content_target(content_text(turn), answers)]


def _content_target(text: str, answers: list[OutputSchema]) -> str:
    value = _json_object(text)
    if value is None or len(answers) != 1:
        return text
    return compact_json(order_keys(value, answers[0].schema))


def answers_of_content(turn: Json) -> list[OutputSchema]:
    """Name the fields of an OpenAI upload, which has no schema, after its target's own keys."""
    value = _json_object(content_text(turn)) if not turn.get("tool_calls") else None
    return (
        []
        if value is None
        else [OutputSchema("json_object", "response_format", schema_of_value(value))]
    )


def calls_tools(request: Json) -> bool:
    """Return whether the assistant may call tools."""
    return bool(request.get("tools")) and request.get("tool_choice") != "none"


def is_call_required(request: Json) -> bool:
    """Return whether the assistant must call a tool."""
    choice = request.get("tool_choice")
    return isinstance(choice, dict) or choice == "required"


def tool_call(name: str, arguments: str) -> Json:
    """Make one call of a reply, with a fresh id."""
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(8)}", "type": "function", "function": function}


def assistant_message(text: str, calls: list[Json]) -> Json:
    """Make the reply's message: its calls, or its text where there are none."""
    if calls:
        return {"role": "assistant", "content": None, "tool_calls": calls}
    return {"role": "assistant", "content": text}


def call_arguments(call: Json) -> Json:
    """Read the arguments of a call, a JSON string or a dict."""
    arguments = call["function"]["arguments"]
    value = arguments if isinstance(arguments, dict) else _json_object(arguments or "{}")
    if value is None:
        name = call["function"]["name"]
        raise DataError(
            message(
                f"The arguments of {name!r} are not a JSON object.",
                next_step="repair the arguments, or leave the row out",
            )
        )
    return value


def content_text(turn: Json) -> str:
    """Return a message's text; a missing content is empty, parts are joined."""
    content = turn.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def _json_object(text: str) -> Json | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def learned_messages(row: Json) -> list[Json]:
    """List the assistant messages that training learns: those whose weight is not 0."""
    return [m for m in row["messages"] if m["role"] == "assistant" and m.get("weight", 1) != 0]


def answer_values(row: Json) -> list[Json]:
    """List the JSON objects that the learned messages of a row hold."""
    turns = learned_messages(row)
    calls = [call_arguments(call) for turn in turns for call in turn.get("tool_calls") or []]
    contents = [_json_object(content_text(turn)) for turn in turns]
    return calls + [value for value in contents if value is not None]
