"""Checks a chat-completions body before a model sees it, and says clearly what is wrong.

Parameters that change the shape of the reply and that no local model can honour are refused
(`n` > 1, `logprobs`, images, audio); those that only bias sampling are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ftmagic.local.dialect import ApiError
from ftmagic.types import Json

ROLES = ("system", "developer", "user", "assistant", "tool")

_TEXT_PARTS = ("text", "input_text", "refusal")


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        max_tokens: Most new tokens; None leaves it to the model.
        temperature: 0 is greedy.
        top_p: Nucleus sampling; 1 keeps every token.
        seed: Of the sampling; None is unseeded.
        stop: Texts that end the answer and are not part of it.
    """

    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


def check_request(body: Json) -> None:
    """Refuse a body that cannot be answered as it asks.

    Raises:
        ApiError: 400, naming the field.
    """
    check_messages(body.get("messages"))
    _check_tools(body)
    _check_response_format(body.get("response_format"))
    if body.get("n") not in (None, 1):
        raise _bad("n", f"n={body['n']!r}: the embedded engine writes one choice; send n=1.")
    for name in ("logprobs", "functions", "function_call", "audio"):
        if body.get(name):
            raise _bad(name, f"the embedded engine has no {name!r}; leave it out.")


def check_messages(messages: Any) -> None:
    """Refuse messages that are not in the OpenAI chat shape, or hold anything but text.

    Raises:
        ApiError: 400, naming the message.
    """
    if not isinstance(messages, list) or not messages:
        raise _bad("messages", "messages must be a list with at least one message.")
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise _bad(place, f"{place}.role must be one of {', '.join(ROLES)}.")
        _check_content(place, message.get("content"))
        _check_calls(place, message.get("tool_calls"))


def read_sampling(body: Json) -> Sampling:
    """Read how to sample.

    Without a temperature the answer is greedy: the local models are small, and a constrained
    record has one best reading.

    Raises:
        ApiError: 400, a value is out of its range.
    """
    max_tokens = body.get("max_completion_tokens") or body.get("max_tokens")
    if max_tokens is not None and (not _is_int(max_tokens) or max_tokens < 1):
        raise _bad("max_tokens", f"max_tokens={max_tokens!r} is not a positive whole number.")
    seed = body.get("seed")
    if seed is not None and not _is_int(seed):
        raise _bad("seed", f"seed={seed!r} is not a whole number.")
    return Sampling(
        max_tokens=max_tokens,
        temperature=_number(body, "temperature", default=0.0, highest=2.0),
        top_p=_number(body, "top_p", default=1.0, highest=1.0),
        seed=seed,
        stop=_read_stop(body.get("stop")),
    )


def _check_content(place: str, content: Any) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        raise _bad(place, f"{place}.content must be a text or a list of text parts.")
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in _TEXT_PARTS:
            raise _bad(place, f"{place}.content: the embedded engine reads text parts only.")


def _check_calls(place: str, calls: Any) -> None:
    if calls is None:
        return
    if not isinstance(calls, list):
        raise _bad(place, f"{place}.tool_calls must be a list.")
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _bad(place, f"{place}.tool_calls: each call needs a function with a name.")
        if not isinstance(function.get("arguments"), str | dict):
            raise _bad(place, f"{place}.tool_calls: arguments must be a JSON text.")


def _check_tools(body: Json) -> None:
    tools = body.get("tools") or []
    if not isinstance(tools, list):
        raise _bad("tools", "tools must be a list.")
    names = []
    for index, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _bad("tools", f"tools[{index}] must be a function with a name.")
        names.append(function["name"])
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        forced = (choice.get("function") or {}).get("name")
        if forced not in names:
            raise _bad("tool_choice", f"tool_choice names {forced!r}; the tools are {names}.")
    elif choice not in (None, "auto", "none", "required"):
        raise _bad("tool_choice", f"tool_choice={choice!r} is not auto, none, required or a tool.")
    elif choice == "required" and not names:
        raise _bad("tool_choice", "tool_choice='required' needs at least one tool.")


def _check_response_format(value: Any) -> None:
    if value is None:
        return
    kind = value.get("type") if isinstance(value, dict) else value
    if kind in ("text", "json_object"):
        return
    if kind != "json_schema":
        raise _bad(
            "response_format", f"response_format {kind!r} is not text, json_object or json_schema."
        )
    spec = value.get("json_schema")
    if not isinstance(spec, dict) or not isinstance(spec.get("schema"), dict):
        raise _bad("response_format", "response_format.json_schema needs a schema.")


def _number(body: Json, name: str, *, default: float, highest: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= highest:
        raise _bad(name, f"{name}={value!r} is not a number from 0 to {highest:g}.")
    return float(value)


def _read_stop(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else (value or [])
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise _bad("stop", "stop must be a text or a list of texts.")
    return tuple(texts)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _bad(param: str, text: str) -> ApiError:
    return ApiError(400, text, param=param, code="invalid_value")
