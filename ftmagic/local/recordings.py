"""Recorded answers served as a model: the same request gets the same reply, without a provider.

Owns the recording file (one `{model, request, reply}` a line) and what "the same request" means:
equal `messages`, `tools`, `tool_choice` and `response_format` as canonical JSON, with an absent
field equal to null; streaming and sampling do not matter. Knows nothing about HTTP.
"""

from __future__ import annotations

import difflib
import json
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftmagic.errors import DataError, RecordingMiss, message
from ftmagic.local.dialect import chat_completion, parse_json
from ftmagic.types import Json, content_hash

MATCHED_FIELDS = ("messages", "tools", "tool_choice", "response_format")
"""The request fields that decide whether two requests are the same."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHOWN_CHARS = 200
_COMPARED_CHARS = 400
_SHOWN_PROBLEMS = 5


@dataclass
class Recording:
    """One recording file in memory.

    Attributes:
        name: The model name under which it answers.
        path: Its file.
        requests: The distinct requests, in file order, by their key.
        replies: The `chat.completion` bodies of each request, in file order.
        n_served: How often each request was answered; several replies take turns.
    """

    name: str
    path: Path
    requests: dict[str, Json] = field(default_factory=dict)
    replies: dict[str, list[Json]] = field(default_factory=dict)
    n_served: dict[str, int] = field(default_factory=dict)

    def answer(self, request: Json) -> Json:
        """Return the recorded reply to a request.

        Raises:
            RecordingMiss: The recording holds no such request; the nearest one is named.
        """
        key = request_key(request)
        if key not in self.replies:
            raise RecordingMiss(self._explain_miss(request))
        turn = self.n_served.get(key, 0)
        self.n_served[key] = turn + 1
        return self.replies[key][turn % len(self.replies[key])]

    def _explain_miss(self, request: Json) -> str:
        nearest = self._nearest(last_user_text(request))
        asked = _matched(request)
        known = _matched(nearest)
        differing = [name for name in MATCHED_FIELDS if asked[name] != known[name]]
        asked_text, known_text = last_user_text(request), last_user_text(nearest)
        if asked_text == known_text:
            detail = f"one with the same user message differs in {', '.join(differing)}."
        else:
            detail = f"the nearest recorded request asks {_shorten(known_text)!r}."
        return message(
            f"the recording {self.name!r} ({len(self.replies)} requests, {self.path.name}) has no "
            f"answer to {_shorten(asked_text)!r}; {detail}",
            next_step="use the prompt, tools and schema it was recorded with, "
            "or send the call to a real model",
        )

    def _nearest(self, text: str) -> Json:
        texts = {
            last_user_text(request)[:_COMPARED_CHARS]: key
            for key, request in reversed(self.requests.items())
        }
        close = difflib.get_close_matches(text[:_COMPARED_CHARS], texts, n=1, cutoff=0.0)
        return self.requests[texts[close[0]]]


class RecordingShelf:
    """The recordings that a server answers from; they are found again after a restart.

    Args:
        index: A JSON file that keeps names and paths.
    """

    def __init__(self, index: Path) -> None:
        """Load the registered recordings whose files are still there and still valid."""
        self._index = index
        self._recordings: dict[str, Recording] = {}
        self._lock = threading.Lock()
        for name, path in _read_index(index).items():
            try:
                self._recordings[name] = read_recording(name, Path(path))
            except DataError:
                continue  # moved or damaged since: `ft.serve` will say so

    def register(self, name: str, path: Path) -> Recording:
        """Load a recording and serve it under a name, in place of an earlier one.

        Raises:
            DataError: The name cannot be used, or the file cannot be read; with line numbers.
        """
        if not _NAME.fullmatch(name) or name.startswith("ftmagic-"):
            raise DataError(
                message(
                    f"{name!r} cannot name a recording: 1 to 100 letters, digits, '_', '.', '-', "
                    "not starting with 'ftmagic-'.",
                    next_step='ft.serve(recordings={"answer-key": path})',
                )
            )
        recording = read_recording(name, path)
        with self._lock:
            self._recordings[name] = recording
            paths = {known.name: str(known.path) for known in self._recordings.values()}
            self._index.write_text(json.dumps(paths, indent=1), encoding="utf-8")
        return recording

    def names(self) -> list[str]:
        """List the recordings' names."""
        return sorted(self._recordings)

    def get(self, name: str) -> Recording | None:
        """Return a recording, or None."""
        return self._recordings.get(name)

    def answer(self, name: str, request: Json) -> Json:
        """Return the recorded reply; see `Recording.answer`."""
        with self._lock:
            return self._recordings[name].answer(request)


def read_recording(name: str, path: Path) -> Recording:
    """Read a recording file.

    Args:
        name: The model name under which it will answer.
        path: A JSON Lines file of `{model, request, reply}`; a reply is a `chat.completion` body
            or an assistant message.

    Raises:
        DataError: It cannot be read, is empty, or has lines that are not as above.
    """
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as exc:
        raise DataError(f"the recording {name!r} cannot be read: {path}: {exc.strerror}.") from exc
    recording = Recording(name, path)
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                _add_line(recording, parse_json(line))
            except ValueError as exc:
                problems.append(f"line {number}: {exc}")
    if problems or not recording.replies:
        raise _unusable(recording, problems)
    return recording


def request_key(request: Json) -> str:
    """Identify a request by what decides its answer; see the module's first lines."""
    return content_hash(_matched(request))


def last_user_text(request: Json) -> str:
    """Return the text of the last user message, '' without one."""
    for sent in reversed(request.get("messages") or []):
        if sent.get("role") == "user":
            content = sent.get("content") or ""
            if isinstance(content, str):
                return content
            return "".join(str(part.get("text") or "") for part in content)
    return ""


def _matched(request: Json) -> Json:
    fields = {name: _without_nulls(request.get(name)) for name in MATCHED_FIELDS}
    fields["tools"] = fields["tools"] or None
    if fields["tool_choice"] == ("auto" if fields["tools"] else "none"):
        fields["tool_choice"] = None  # what the API does when the field is absent
    return fields


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]
    return value


def _add_line(recording: Recording, line: Any) -> None:
    if not isinstance(line, dict) or not isinstance(line.get("request"), dict):
        raise ValueError("not an object with 'request' and 'reply'")
    request = line["request"]
    sent = request.get("messages")
    if not isinstance(sent, list) or not all(isinstance(part, dict) for part in sent):
        raise ValueError("'request' has no list of 'messages'")
    body = _completion_of(line.get("reply"), str(line.get("model") or recording.name))
    key = request_key(request)
    recording.requests.setdefault(key, request)
    recording.replies.setdefault(key, []).append(body)


def _completion_of(reply: Any, model: str) -> Json:
    if not isinstance(reply, dict):
        raise ValueError("'reply' is not an object")
    if "choices" not in reply:
        _check_message(reply)
        reason = "tool_calls" if reply.get("tool_calls") else "stop"
        return chat_completion(model, _with_call_ids(reply), reason)
    choices = reply["choices"]
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ValueError("'reply.choices' is empty")
    choice = choices[0]
    _check_message(choice.get("message"))
    reason = choice.get("finish_reason") or "stop"
    filled = chat_completion(model, _with_call_ids(choice["message"]), reason)
    return {**filled, **{key: value for key, value in reply.items() if key != "choices"}}


def _with_call_ids(sent: Json) -> Json:
    if not sent.get("tool_calls"):
        return {key: value for key, value in sent.items() if key != "tool_calls"}
    calls = [
        {"id": f"call_{content_hash([index, call])[3:19]}", "type": "function", **call}
        for index, call in enumerate(sent["tool_calls"])
    ]
    return {**sent, "tool_calls": calls}


def _check_message(sent: Any) -> None:
    if not isinstance(sent, dict) or sent.get("role", "assistant") != "assistant":
        raise ValueError("'reply' is neither a chat.completion body nor an assistant message")
    calls = sent.get("tool_calls") or []
    if not calls and not isinstance(sent.get("content") or sent.get("refusal"), str):
        raise ValueError("the reply has neither content nor tool calls")
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
            raise ValueError("a tool call of the reply has no function with string arguments")


def _unusable(recording: Recording, problems: list[str]) -> DataError:
    shown = "; ".join(problems[:_SHOWN_PROBLEMS]) or "it has no lines"
    more = (
        f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
    )
    return DataError(
        message(
            f"the recording {recording.name!r} ({recording.path}) cannot be served: {shown}{more}.",
            next_step="ft.calls(NAME).write_recording(path)",
        )
    )


def _read_index(index: Path) -> dict[str, str]:
    try:
        value = parse_json(index.read_bytes())
    except (OSError, ValueError):
        return {}  # none yet, or cut by a full disk: recordings are registered again when needed
    return {str(name): str(path) for name, path in value.items()}


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
