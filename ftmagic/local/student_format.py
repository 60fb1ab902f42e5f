"""The compact text format of the built-in student.

It reads `<|system|>..<|user|>text<|tool|>Name(field,field)<|assistant|>` and writes compact JSON up
to `<|end|>`: the arguments alone when one tool is offered, `Name{...}` when several are, parallel
calls joined by `<|call|>`. A past assistant turn is written exactly as it was asked for.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from ftmagic.local.answers import (
    answers_of_content,
    assistant_message,
    calls_tools,
    content_text,
    is_call_required,
    last_user_text,
    learned_messages,
    offered_answers,
    target_texts,
    tool_call,
)
from ftmagic.local.grounding import json_rules
from ftmagic.local.schema import fields_signature
from ftmagic.local.text_format import (
    IGNORED_LABEL,
    ChatFormat,
    EncodedRow,
    no_target,
    require_inside,
)
from ftmagic.types import Json, OutputSchema

PAD, END, SYSTEM, USER = "<|pad|>", "<|end|>", "<|system|>", "<|user|>"
TOOL, ASSISTANT, CALL, RESULT = "<|tool|>", "<|assistant|>", "<|call|>", "<|result|>"
SPECIAL_TOKENS = [PAD, END, SYSTEM, USER, TOOL, ASSISTANT, CALL, RESULT]
"""The student's markers, ids 0-7 in this order; a tokenizer that has them all is a student's."""
_FREE_TEXT = "/[^{]+/"  # cannot begin a call, so a call stays constrained once it has begun
_ROLE_MARKERS = {"system": SYSTEM, "developer": SYSTEM, "user": USER, "tool": RESULT}
_FREE_TEXT = "/[^{]+/"  # cannot begin a call, so a call stays constrained once it has begun


class StudentFormat(ChatFormat):
    """See the module's first lines."""

    def encode_prompt(self, request: Json) -> list[int]:
        """See `ChatFormat.encode_prompt`."""
        history = {**request, "tool_choice": None}  # a past turn may have called another tool
        turns = [self._turn(message, history) for message in request["messages"]]
        ids = [token for turn in turns for token in turn.prompt + turn.target]
        return ids + self._question_ids(offered_answers(request))

    def encode_row(self, row: Json) -> EncodedRow:
        """See `ChatFormat.encode_row`."""
        token_ids: list[int] = []
        labels: list[int] = []
        for message in row["messages"]:
            turn = self._turn(message, row)
            is_learned = message.get("weight", 1) != 0
            token_ids += turn.prompt + turn.target
            labels += [IGNORED_LABEL] * len(turn.prompt)
            labels += turn.target if is_learned else [IGNORED_LABEL] * len(turn.target)
        self._prove(row, labels)
        return EncodedRow(token_ids, labels)

    def grammar(self, request: Json, grounded_fields: frozenset[str] = frozenset()) -> str | None:
        """See `ChatFormat.grammar`."""
        answers = offered_answers(request)
        if not answers:
            return None
        text = last_user_text(request["messages"])
        lines = [_start_rule(request)]
        lines.append("call: " + " | ".join(f"call_{i}" for i in range(len(answers))))
        for index, answer in enumerate(answers):
            name = f"{json.dumps(answer.name)} " if len(answers) > 1 else ""
            lines.append(f"call_{index}: {name}json_{index}")
            lines += json_rules(f"json_{index}", answer.schema, grounded_fields, text)
        return "\n".join(lines)

    def parse_reply(self, text: str, request: Json) -> Json:
        """See `ChatFormat.parse_reply`."""
        if not calls_tools(request):
            return {"role": "assistant", "content": text}
        answers = offered_answers(request)
        calls = [_read_call(part, answers) for part in text.split(CALL)]
        return assistant_message(text, [call for call in calls if call is not None])

    def text_ids(self, text: str) -> list[int]:
        """Tokenize text as text, even where it spells one of the markers, shape (T,)."""
        output = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return list(output["input_ids"])

    def _id(self, marker: str) -> int:
        return int(self.tokenizer.convert_tokens_to_ids(marker))

    def _turn(self, message: Json, request: Json) -> _Turn:
        if message["role"] != "assistant":
            marker = self._id(_ROLE_MARKERS[message["role"]])
            return _Turn([marker, *self.text_ids(content_text(message))], [])
        answers = offered_answers(request) or answers_of_content(message)
        target = [*self._target_ids(message, answers), self._id(END)]
        return _Turn(self._question_ids(answers), target)

    def _question_ids(self, answers: list[OutputSchema]) -> list[int]:
        ids: list[int] = []
        for answer in answers:
            ids.append(self._id(TOOL))
            ids += self.text_ids(f"{answer.name}({fields_signature(answer.schema)})")
        return [*ids, self._id(ASSISTANT)]

    def _target_ids(self, message: Json, answers: list[OutputSchema]) -> list[int]:
        ids: list[int] = []
        for text in target_texts(message, answers):
            ids += ([self._id(CALL)] if ids else []) + self.text_ids(text)
        return ids

    def _prove(self, row: Json, labels: list[int]) -> None:
        learned = self.tokenizer.decode([label for label in labels if label != IGNORED_LABEL])
        messages = learned_messages(row)
        for message in messages:
            answers = offered_answers(row) or answers_of_content(message)
            for text in target_texts(message, answers):
                require_inside(text, learned, "The student's format")
        if not messages:
            raise no_target(row)


class _Turn(NamedTuple):
    """One message as token ids: what the model reads, and what it writes (assistant only)."""

    prompt: list[int]
    target: list[int]


def _start_rule(request: Json) -> str:
    if not calls_tools(request):
        return "start: call"
    calls = "call" if request.get("parallel_tool_calls") is False else f"call ({CALL} call)*"
    return f"start: {calls}" if is_call_required(request) else f"start: {calls} | {_FREE_TEXT}"


def _read_call(text: str, answers: list[OutputSchema]) -> Json | None:
    if len(answers) == 1:
        return tool_call(answers[0].name, text) if text.startswith("{") else None
    for answer in answers:
        if text.startswith(answer.name + "{"):
            return tool_call(answer.name, text.removeprefix(answer.name))
    return None
