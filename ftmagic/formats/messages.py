"""Chat messages and tools as a training row holds them, whatever the request looked like.

Owns the normalisation: `developer` becomes `system`, arrays of text parts become text, legacy
functions become tools, fields that no training row has are dropped. Knows nothing of replies.
"""

from __future__ import annotations

import json
from typing import Any

from ftmagic.types import Json

_MESSAGE_FIELDS = ("role", "content", "name", "tool_call_id", "weight")
_ROLES = {"developer": "system", "function": "tool"}
_KEPT_PARTS = ("text", "image_url")


class Unmappable(Exception):
    """A part of a call that no training row can hold; its text is the reason that is shown."""


def prompt_from_request(request: Json) -> list[Json]:
    """Normalise the messages of a chat request.

    Raises:
        Unmappable: A part that no training row can hold.
    """
    messages: list[Json] = []
    for each in request["messages"]:
        messages.append(_normalise(each, earlier=messages))
    return messages


def tools_from_request(request: Json) -> list[Json]:
    """List the offered tools in today's shape; legacy `functions` are wrapped.

    Raises:
        Unmappable: A built-in or custom tool, which has no schema.
    """
    tools = list(request.get("tools") or [])
    for tool in tools:
        if tool["type"] != "function":
            raise Unmappable(f"a tool of type {tool['type']!r}")
    legacy = request.get("functions") or []
    return tools + [{"type": "function", "function": function} for function in legacy]


def tool_choice_from_request(request: Json) -> Any:
    """Return `tool_choice`, made from legacy `function_call` where only that was given."""
    legacy = request.get("function_call")
    if request.get("tool_choice") is not None or legacy is None:
        return request.get("tool_choice")
    if isinstance(legacy, str):
        return legacy
    return {"type": "function", "function": {"name": legacy["name"]}}


def assistant_message(message: Json, *, n_earlier: int = 0) -> Json:
    """Normalise one assistant message: `tool_calls`, or `content`, or both.

    Args:
        message: From a request or a reply.
        n_earlier: Messages before it; makes the ids of legacy calls unique.

    Raises:
        Unmappable: Audio, a refusal, or calls of custom tools.
    """
    if message.get("audio"):
        raise Unmappable("file or audio parts (audio)")
    kept = {name: message[name] for name in ("name", "weight") if message.get(name) is not None}
    calls = _tool_calls(message, n_earlier)
    content = flat_content(message.get("content"))
    normal: Json = {"role": "assistant"}
    if content or not calls:
        normal["content"] = content or ""
    if calls:
        normal["tool_calls"] = calls
    return normal | kept


def flat_content(content: Any) -> Any:
    """Join text parts with line ends; keep a list only where it holds images.

    Raises:
        Unmappable: File, audio or unknown parts.

    Source: vLLM's `chat_utils.py` joins text parts with line ends for models that take text only.
    """
    if content is None or isinstance(content, str):
        return content
    for part in content:
        if part["type"] not in _KEPT_PARTS:
            raise Unmappable(_part_reason(part["type"]))
    if all(part["type"] == "text" for part in content):
        return "\n".join(part["text"] for part in content)
    return list(content)


def _normalise(message: Json, *, earlier: list[Json]) -> Json:
    if message["role"] == "assistant":
        return assistant_message(message, n_earlier=len(earlier))
    normal = {name: message[name] for name in _MESSAGE_FIELDS if message.get(name) is not None}
    normal["role"] = _ROLES.get(message["role"], message["role"])
    normal["content"] = flat_content(message.get("content")) or ""
    if message["role"] == "function":
        del normal["name"]
        normal["tool_call_id"] = _last_call_id(earlier)
    return normal


def _last_call_id(earlier: list[Json]) -> str:
    """The id given to the legacy call that a legacy function message answers."""
    for each in reversed(earlier):
        if each.get("tool_calls"):
            return str(each["tool_calls"][0]["id"])
    raise Unmappable("a function result without its function call")


def _tool_calls(message: Json, n_earlier: int) -> list[Json]:
    calls = [_tool_call(each) for each in message.get("tool_calls") or []]
    legacy = message.get("function_call")
    if legacy:
        calls.append(_tool_call({"id": f"call_{n_earlier}", "function": legacy}))
    return calls


def _tool_call(call: Json) -> Json:
    if call.get("type", "function") != "function":
        raise Unmappable(f"a call of a tool of type {call['type']!r}")
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    if not isinstance(arguments, str):  # some servers send the parsed object
        arguments = json.dumps(arguments, ensure_ascii=False)
    function = {"name": name, "arguments": arguments}
    return {"id": call.get("id") or "call_0", "type": "function", "function": function}


def _part_reason(part_type: str) -> str:
    if part_type == "refusal":
        return "an earlier refusal among the messages"
    return f"file or audio parts ({part_type})"
