"""What a chat training row must look like, whoever trains on it.

Owns the rules about roles, tool calls and their answers. Knows nothing of files, engines' limits
or schemas of outputs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ftmagic.formats import strict_json
from ftmagic.formats.strict_json import StrictJsonError
from ftmagic.types import Json

ROLES = ("system", "user", "assistant", "tool")
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def row_problems(messages: Sequence[Json], tools: Sequence[Json] = ()) -> list[str]:
    """List what is wrong with the shape of a row; [] when nothing is.

    Args:
        messages: Normalised chat messages; the last one is the answer to learn.
        tools: Tools offered.

    Source: OpenAI's fine-tuning guide, "Example format"; the chat API's rule that each tool call
    is answered by a tool message before anyone else speaks.
    """
    if not messages:
        return ["there are no messages"]
    problems = [each for tool in tools for each in _tool_problems(tool)]
    for number, message in enumerate(messages, start=1):
        problems += [f"message {number}: {each}" for each in _message_problems(message)]
    problems += _unanswered(messages)
    if messages[-1].get("role") != "assistant":
        problems.append(
            f"the last message is from {messages[-1].get('role')!r}; it must be the assistant's "
            "answer"
        )
    return problems


def _message_problems(message: Json) -> list[str]:
    role = message.get("role")
    if role not in ROLES:
        return [f"the role {str(role)[:40]!r} is not one of {', '.join(ROLES)}"]
    problems = []
    if not message.get("tool_calls") and not _is_content(message.get("content")):
        problems.append("there is no content")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        problems.append("a tool message needs a tool_call_id")
    if message.get("weight", 1) not in (0, 1):
        problems.append(f"the weight is {str(message['weight'])[:40]}; it must be 0 or 1")
    if message.get("tool_calls") and role != "assistant":
        problems.append("only the assistant has tool_calls")
    for call in message.get("tool_calls") or []:
        problems += _call_problems(call)
    return problems


def _is_content(content: Any) -> bool:
    return isinstance(content, str) or (isinstance(content, list) and bool(content))


def _call_problems(call: Json) -> list[str]:
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    problems = _name_problems(name)
    try:
        if not isinstance(strict_json.loads(arguments, unique_keys=False), dict):
            problems.append(f"the arguments of {str(name)[:64]!r} are not a JSON object")
    except StrictJsonError as exc:
        problems.append(f"the arguments of {str(name)[:64]!r} are not JSON: {exc}")
    return problems


def _tool_problems(tool: Json) -> list[str]:
    problems = _name_problems(tool["function"].get("name"))
    if not isinstance(tool["function"].get("parameters", {}), dict):
        problems.append("the parameters of a tool are not a JSON Schema object")
    return problems


def _name_problems(name: Any) -> list[str]:
    if isinstance(name, str) and _TOOL_NAME.fullmatch(name):
        return []
    return [f"{str(name)[:70]!r} cannot name a tool: 1 to 64 letters, digits, '_' or '-'"]


def _unanswered(messages: Sequence[Json]) -> list[str]:
    """Each call needs its tool message before the next turn; the last message's calls do not."""
    problems: list[str] = []
    open_ids: set[Any] = set()
    for number, message in enumerate(messages, start=1):
        if message.get("role") == "tool":
            if message.get("tool_call_id") not in open_ids:
                problems.append(f"message {number}: answers no tool call before it")
            open_ids.discard(message.get("tool_call_id"))
            continue
        if open_ids:
            problems.append(f"message {number}: a tool call before it has no tool message")
        open_ids = {call.get("id") for call in message.get("tool_calls") or []}
    return problems
