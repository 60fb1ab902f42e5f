"""OpenAI chat completions -> Example: pure functions, no I/O.

Owns what the dialect's fields mean. What it cannot map it skips with a reason in words; a reply
that breaks its schema is kept, with the problems beside it. Knows nothing of HTTP or of the store.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ftmagic.formats import strict_json
from ftmagic.formats.messages import (
    Unmappable,
    assistant_message,
    prompt_from_request,
    tool_choice_from_request,
    tools_from_request,
)
from ftmagic.formats.schemas import output_schemas
from ftmagic.formats.strict_json import StrictJsonError
from ftmagic.formats.validation import answer_problems
from ftmagic.types import Call, Example, Json, OutputSchema

STRUCTURED_FORMATS = ("json_schema", "json_object")
_CUT_STREAM = "stream ended before finish_reason"
_UNFINISHED = {
    "length": "the reply was cut off (finish_reason length)",
    "content_filter": "the reply was filtered (finish_reason content_filter)",
}
_MAX_ERROR = 160


@dataclass(frozen=True)
class Mapped:
    """What a call became.

    Attributes:
        examples: One for each usable choice.
        skipped: Why there is nothing, in words; with examples, which choices are missing and why.
    """

    examples: list[Example] = field(default_factory=list)
    skipped: str = ""


@dataclass(frozen=True)
class _Frame:
    """What all choices of one call share."""

    prompt: list[Json]
    tools: list[Json]
    parallel_tool_calls: bool | None
    tool_choice: Any
    response_format: Json | None
    schemas: tuple[OutputSchema, ...]


def examples_from_call(call: Call, *, record_all: bool = False) -> Mapped:
    """Make training rows from one chat-completions call.

    Args:
        call: As recorded; also failed and partial ones.
        record_all: Take answers in plain words too.

    Returns:
        One example a choice, or the reason why there is none.
    """
    if call.status >= 400 or call.outcome == "failed":
        return Mapped(skipped=failure_reason(call))
    if not record_all and not is_structured(call.request):
        return Mapped(skipped="no tools and no response_format")
    try:
        return _map_choices(call, _frame(call.request), takes_words=record_all)
    except Unmappable as exc:
        return Mapped(skipped=str(exc))
    except (KeyError, IndexError, TypeError, AttributeError):
        # A body of some other shape: reported in words, because recording must never raise.
        return Mapped(skipped="the request or the reply is not shaped like a chat completion")


def is_structured(request: Json) -> bool:
    """Whether a chat request asks for structured output: tools, functions or a JSON format."""
    if request.get("tools") or request.get("functions"):
        return True
    response_format = request.get("response_format")
    return isinstance(response_format, dict) and response_format.get("type") in STRUCTURED_FORMATS


def failure_reason(call: Call) -> str:
    """Say in one line why a call has no reply: 'HTTP 429: Rate limit reached ...'."""
    # Bodies come from anywhere: a gateway may answer with a list or a text.
    error = call.reply.get("error") if isinstance(call.reply, dict) else None
    said = error.get("message") if isinstance(error, dict) else error
    text = " ".join(str(said or call.error or "no reason given").split())
    text = text if len(text) <= _MAX_ERROR else text[: _MAX_ERROR - 3] + "..."
    if text.startswith("HTTP "):
        return text
    return f"HTTP {call.status}: {text}" if call.status else f"no response: {text}"


def unwritable_problems(messages: list[Json]) -> tuple[str, ...]:
    """Say so where a text holds half a surrogate pair, which no UTF-8 file can hold."""
    if strict_json.has_lone_surrogate(json.dumps(messages, ensure_ascii=False)):
        return ("a text holds half a surrogate pair, which UTF-8 cannot spell",)
    return ()


def _frame(request: Json) -> _Frame:
    tools = tools_from_request(request)
    response_format = request.get("response_format") or None
    if response_format is not None and response_format["type"] not in STRUCTURED_FORMATS:
        response_format = None
    parallel = request.get("parallel_tool_calls")
    return _Frame(
        prompt=prompt_from_request(request),
        tools=tools,
        parallel_tool_calls=parallel if isinstance(parallel, bool) else None,
        tool_choice=tool_choice_from_request(request),
        response_format=response_format,
        schemas=output_schemas(tools, response_format),
    )


def _map_choices(call: Call, frame: _Frame, *, takes_words: bool) -> Mapped:
    choices = call.reply["choices"] if call.reply is not None else []
    if not choices:
        is_cut = call.is_stream or call.outcome == "partial"
        raise Unmappable(_CUT_STREAM if is_cut else "the reply has no choices")
    examples: list[Example] = []
    reasons: list[str] = []
    for choice in choices:
        try:
            _refuse_unfinished(choice, call)
            answer = _answer(choice["message"], frame, takes_words=takes_words)
            examples.append(_example(call, frame, answer, is_only=len(choices) == 1))
        except Unmappable as exc:
            reasons.append(str(exc))
    if not examples:
        raise Unmappable(reasons[0])
    lost = f"{len(reasons)} of {len(choices)} choices: {reasons[0]}" if reasons else ""
    return Mapped(examples, lost)


def _refuse_unfinished(choice: Json, call: Call) -> None:
    """Completeness is decided by finish_reason: the SDK returns a cut stream as success."""
    reason = choice.get("finish_reason")
    if reason in _UNFINISHED:
        raise Unmappable(_UNFINISHED[reason])
    if reason is None and (call.is_stream or call.outcome == "partial"):
        raise Unmappable(_CUT_STREAM)


def _answer(reply: Json, frame: _Frame, *, takes_words: bool) -> Json:
    """Make the message to learn; Unmappable names what is wrong with it."""
    if reply.get("refusal"):
        raise Unmappable("refusal")
    answer = assistant_message(reply, n_earlier=len(frame.prompt))
    if "tool_calls" in answer:
        for each in answer["tool_calls"]:
            _refuse_unparsable(each["function"]["arguments"], "arguments are not JSON")
    elif not answer["content"]:
        raise Unmappable("the reply is empty")
    elif frame.response_format is not None:
        _refuse_unparsable(answer["content"], "the answer is not JSON")
    elif not takes_words:
        raise Unmappable("the model answered in words, no tool call")
    return answer


def _refuse_unparsable(text: str, reason: str) -> None:
    try:
        strict_json.loads(text, unique_keys=False)
    except StrictJsonError:
        raise Unmappable(reason) from None


def _example(call: Call, frame: _Frame, answer: Json, *, is_only: bool) -> Example:
    reply = call.reply or {}
    messages = [*frame.prompt, answer]
    return Example(
        messages=messages,
        tools=frame.tools,
        parallel_tool_calls=frame.parallel_tool_calls,
        tool_choice=frame.tool_choice,
        response_format=frame.response_format,
        schemas=frame.schemas,
        call_id=call.id,
        problems=answer_problems(answer, frame.schemas) + unwritable_problems(messages),
        tags=dict(call.tags),
        model=str(reply.get("model") or call.model),
        # The provider counts all choices together.
        n_tokens=call.n_tokens if is_only else None,
        created_at=call.started_at,
    )
