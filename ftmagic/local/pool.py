"""Turns chat requests into turns of a loaded model: loads on demand and keeps a few.

Owns which models are in memory and what a reply looks like; the tokens come from `generate.py`,
which (with torch) is imported on the first turn, in the worker thread that needs it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ftmagic.errors import DataError, EngineError
from ftmagic.local.chat_request import Sampling, read_sampling
from ftmagic.local.dialect import ApiError, chat_completion, continue_call, count_usage, open_call
from ftmagic.local.encoding import encode_rows
from ftmagic.local.models import ServedModel
from ftmagic.local.rows import parse_rows
from ftmagic.types import Json

if TYPE_CHECKING:
    from ftmagic.local.constraint import Constraint
    from ftmagic.local.generate import LoadedModel

MAX_LOADED = 3
DEFAULT_MAX_TOKENS = 1024
"""New tokens where the request sets no limit: a small model that loops must come to an end."""


@dataclass(frozen=True)
class Completion:
    """A finished turn.

    Attributes:
        model: As the request named it.
        message: The assistant message.
        finish_reason: 'stop', 'length' or 'tool_calls'.
        usage: Token counts.
    """

    model: str
    message: Json
    finish_reason: str
    usage: Json

    def body(self) -> Json:
        """The `chat.completion` body."""
        return chat_completion(self.model, self.message, self.finish_reason, self.usage)


class ModelPool:
    """Models in memory, the least recently used dropped first."""

    def __init__(self) -> None:
        """Start empty."""
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()
        self._lock = threading.Lock()

    def prepare(self, served: ServedModel, request: Json) -> Turn:
        """Load the model if needed and make the request ready for it.

        Raises:
            ApiError: 400, the request does not fit the model; 400, a package is missing.
        """
        sampling = read_sampling(request)
        loaded = self._load(served)
        try:
            prompt_ids = loaded.format.encode_prompt(request)
            grounded = _read_grounded(request, served)
            grammar = loaded.format.grammar(request, grounded)
            constraint = loaded.constraint(grammar)
        except DataError as exc:
            raise ApiError(400, str(exc), param="messages") from exc
        if len(prompt_ids) >= loaded.context_tokens:
            raise ApiError(
                400,
                f"the prompt has {len(prompt_ids)} tokens; {served.name!r} reads at most "
                f"{loaded.context_tokens - 1}.",
                code="context_length_exceeded",
                param="messages",
            )
        return Turn(served.name, loaded, request, prompt_ids, constraint, sampling)

    def count(self, served: ServedModel, content: bytes) -> Json:
        """Count the tokens of a training file, and the rows that would not be trained on.

        Args:
            served: The model to be trained.
            content: JSON Lines.

        Returns:
            n_rows, n_tokens, context_tokens, too_long (line numbers of rows that would lose their
            answer) and problems (line and message).

        Raises:
            ApiError: 400, a package is missing.
        """
        report = parse_rows(content)
        loaded = self._load(served)
        encoded = encode_rows(loaded.format, report.rows, loaded.context_tokens)
        return {
            "n_rows": len(report.rows) + len(report.problems),
            "n_tokens": encoded.n_tokens,
            "context_tokens": loaded.context_tokens,
            "too_long": encoded.too_long,
            "problems": [asdict(problem) for problem in report.problems + encoded.problems],
        }

    def _load(self, served: ServedModel) -> LoadedModel:
        key = str(served.folder)
        with self._lock:
            if key in self._loaded:
                self._loaded.move_to_end(key)
                return self._loaded[key]
            try:
                from ftmagic.local.generate import LoadedModel
            except ImportError as exc:
                raise ApiError(
                    400,
                    f"a local model needs {exc.name}, which is not installed here.\n"
                    "  Next: pip install 'ftmagic[local]'",
                    code="missing_extra",
                ) from exc
            self._loaded[key] = LoadedModel(served.folder)
            while len(self._loaded) > MAX_LOADED:
                self._loaded.popitem(last=False)
            return self._loaded[key]


def _read_grounded(request: Json, served: ServedModel) -> frozenset[str]:
    asked = request.get("ftmagic_grounded")
    if asked is None:
        return served.grounded_fields
    if not isinstance(asked, list) or not all(isinstance(path, str) for path in asked):
        text = "ftmagic_grounded must be a list of field paths."
        raise ApiError(400, text, param="ftmagic_grounded")
    return frozenset(asked)


class Turn:
    """One request, ready to be generated.

    Args:
        model: As the request named it.
        loaded: The model in memory.
        request: The chat-completions body.
        prompt_ids: The rendered prompt, shape (T,).
        constraint: Holds the answer to its grammar; None for free text.
        sampling: How to choose tokens.
    """

    def __init__(
        self,
        model: str,
        loaded: LoadedModel,
        request: Json,
        prompt_ids: list[int],
        constraint: Constraint | None,
        sampling: Sampling,
    ) -> None:
        """Keep the parts; see the class."""
        self._model = model
        self._loaded = loaded
        self._request = request
        self._prompt_ids = prompt_ids
        self._constraint = constraint
        self._sampling = sampling

    def run(
        self, on_delta: Callable[[Json], None] | None, is_cancelled: Callable[[], bool]
    ) -> Completion:
        """Generate the answer.

        Args:
            on_delta: Called with each piece of the message as a streamed delta; None for none.
            is_cancelled: Asked before each token; True ends the turn with what there is.

        Raises:
            ApiError: 500, the constraint failed in the middle of the answer.
        """
        deltas = ReplyDeltas(self._parse, has_tools=self._has_tools())

        def on_text(text: str) -> None:
            if on_delta is not None:
                for delta in deltas.feed(text):
                    on_delta(delta)

        room = self._loaded.context_tokens - len(self._prompt_ids)
        max_tokens = min(self._sampling.max_tokens or DEFAULT_MAX_TOKENS, room)
        try:
            output = self._loaded.generate(
                self._prompt_ids,
                constraint=self._constraint,
                sampling=self._sampling,
                max_tokens=max_tokens,
                on_text=on_text if on_delta else None,
                is_cancelled=is_cancelled,
            )
        except EngineError as exc:
            raise ApiError(500, str(exc)) from exc
        message = self._parse(output.text)
        if on_delta is not None:
            for delta in deltas.finish(message):
                on_delta(delta)
        usage = count_usage(len(self._prompt_ids), output.n_tokens)
        reason = self._finish_reason(message, is_finished=output.is_finished)
        return Completion(self._model, message, reason, usage)

    def _parse(self, text: str) -> Json:
        return self._loaded.format.parse_reply(text, self._request)

    def _has_tools(self) -> bool:
        return bool(self._request.get("tools")) and self._request.get("tool_choice") != "none"

    def _finish_reason(self, message: Json, *, is_finished: bool) -> str:
        if not is_finished:
            return "length"
        is_forced = isinstance(self._request.get("tool_choice"), dict)
        return "tool_calls" if message.get("tool_calls") and not is_forced else "stop"


class ReplyDeltas:
    """Cuts a growing answer into streamed deltas.

    Where tools are offered, text is held back until the end: it may still turn into a call.

    Args:
        parse: Reads the text so far as an assistant message.
        has_tools: Whether the answer may be a tool call.
    """

    def __init__(self, parse: Callable[[str], Json], *, has_tools: bool) -> None:
        """Start with nothing sent."""
        self._parse = parse
        self._has_tools = has_tools
        self._sent_content = ""
        self._sent_arguments: list[str] = []

    def feed(self, text: str) -> list[Json]:
        """Return the deltas that the text so far adds."""
        if not self._has_tools:
            return self._content(text)
        return self._calls(self._parse(text))

    def finish(self, message: Json) -> list[Json]:
        """Return the deltas that complete the final message."""
        if message.get("tool_calls"):
            return self._calls(message)
        return self._content(message.get("content") or "")

    def _content(self, text: str) -> list[Json]:
        if not text.startswith(self._sent_content) or text == self._sent_content:
            return []
        piece = text[len(self._sent_content) :]
        self._sent_content = text
        return [{"content": piece}]

    def _calls(self, message: Json) -> list[Json]:
        deltas: list[Json] = []
        for index, call in enumerate(message.get("tool_calls") or []):
            if index == len(self._sent_arguments):
                self._sent_arguments.append("")
                deltas.append({"tool_calls": [open_call(index, call)]})
            arguments, sent = call["function"]["arguments"], self._sent_arguments[index]
            if arguments.startswith(sent) and arguments != sent:
                deltas.append({"tool_calls": [continue_call(index, arguments[len(sent) :])]})
                self._sent_arguments[index] = arguments
        return deltas
