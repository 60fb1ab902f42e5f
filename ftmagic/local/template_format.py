"""Any Hugging Face chat template, with dict arguments and text content.

Templates differ in how they render a tool call; some never do. Nothing here trusts them: a call is
looked up in what was rendered, and a row whose target is missing is refused.

Source: facts measured on TRL's training templates: a string of arguments raises or is encoded twice
in most families, and Llama 3, Gemma and Phi 3 drop the call without a word.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from ftmagic.errors import DataError, message
from ftmagic.local.answers import (
    assistant_message,
    call_arguments,
    calls_tools,
    content_text,
    is_call_required,
    last_user_text,
    learned_messages,
    offered_answers,
    tool_call,
)
from ftmagic.local.grounding import json_rules
from ftmagic.local.schema import compact_json
from ftmagic.local.text_format import (
    IGNORED_LABEL,
    ChatFormat,
    EncodedRow,
    no_target,
    require_inside,
)
from ftmagic.types import Json, OutputSchema


class TemplateFormat(ChatFormat):
    """See the module's first lines."""

    def encode_prompt(self, request: Json) -> list[int]:
        """See `ChatFormat.encode_prompt`."""
        return self.text_ids(self._render(request, request["messages"], is_prompt=True))

    def encode_row(self, row: Json) -> EncodedRow:
        """See `ChatFormat.encode_row`."""
        messages = row["messages"]
        text, position = self._render(row, messages), 0
        token_ids: list[int] = []
        labels: list[int] = []
        for start, end in self._target_spans(row, text):
            prompt, target = self.text_ids(text[position:start]), self.text_ids(text[start:end])
            token_ids += prompt + target
            labels += [IGNORED_LABEL] * len(prompt) + target
            position = end
        return EncodedRow(token_ids, labels)

    def grammar(self, request: Json, grounded_fields: frozenset[str] = frozenset()) -> str | None:
        """See `ChatFormat.grammar`; tools are constrained where `tool_choice` demands a call."""
        answers = offered_answers(request)
        if not answers or (calls_tools(request) and not is_call_required(request)):
            return None
        text = last_user_text(request["messages"])
        lines = ["start: " + " | ".join(f"call_{i}" for i in range(len(answers)))]
        for index, answer in enumerate(answers):
            frame = self._call_frame(answer) if calls_tools(request) else _Frame("", "")
            if frame is None:
                return None
            parts = [*self._lark(frame.before), f"json_{index}", *self._lark(frame.after)]
            lines.append(f"call_{index}: {' '.join(parts)}")
            lines += json_rules(f"json_{index}", answer.schema, grounded_fields, text)
        return "\n".join(lines)

    def parse_reply(self, text: str, request: Json) -> Json:
        """See `ChatFormat.parse_reply`."""
        calls: list[tuple[int, Json]] = []
        for answer in offered_answers(request) if calls_tools(request) else []:
            frame = self._call_frame(answer)
            if frame is None:
                continue
            after = re.escape(frame.after.strip()) or "$"
            pattern = re.escape(frame.before.strip()) + r"\s*(\{.*?\})\s*" + after
            for match in re.finditer(pattern, text, re.DOTALL):
                calls.append((match.start(), tool_call(answer.name, match.group(1))))
        return assistant_message(text, [call for _, call in sorted(calls, key=lambda c: c[0])])

    def _render(self, request: Json, messages: list[Json], *, is_prompt: bool = False) -> str:
        tools = request.get("tools") or None
        return str(
            self.tokenizer.apply_chat_template(
                [_plain_message(turn) for turn in messages],
                tools=tools,
                tokenize=False,
                add_generation_prompt=is_prompt,
                enable_thinking=False,  # Qwen3: same empty <think> block in prompts and rows
            )
        )

    def _target_spans(self, row: Json, text: str) -> list[tuple[int, int]]:
        spans: list[tuple[int, int]] = []
        messages, learned = row["messages"], learned_messages(row)
        for index, turn in enumerate(messages):
            if not any(turn is candidate for candidate in learned):
                continue
            prompt = self._render(row, messages[:index], is_prompt=True)
            through = self._render(row, messages[: index + 1])
            if text.startswith(through) and through.startswith(prompt):
                self._prove(turn, through[len(prompt) :])
                spans.append((len(prompt), len(through)))
        if not learned:
            raise no_target(row)
        if not spans:
            raise DataError(
                message(
                    f"{self._name()} renders the answer differently after its own generation "
                    "prompt, so no loss mask is safe.",
                    next_step="choose another model= or give its tokenizer a training template",
                )
            )
        return spans

    def _prove(self, turn: Json, rendered: str) -> None:
        template = self._name()
        for call in turn.get("tool_calls") or []:
            require_inside(call["function"]["name"], rendered, template)
            for leaf in _string_leaves(call_arguments(call)):
                require_inside(leaf, rendered, template)
        require_inside(content_text(turn).strip(), rendered, template)

    def _name(self) -> str:
        return f"The chat template of {self.tokenizer.name_or_path!r}"

    def _call_frame(self, answer: OutputSchema) -> _Frame | None:
        """Render a probe call and return the text around its arguments, if they are JSON."""
        arguments = {"probe_field": "probe_value"}
        function = {"name": answer.name, "arguments": compact_json(arguments)}
        call = {"id": "probe", "type": "function", "function": function}
        tool = {"type": "function", "function": {"name": answer.name, "parameters": answer.schema}}
        request: Json = {"tools": [tool]}
        user = {"role": "user", "content": "probe"}
        reply = {"role": "assistant", "content": "", "tool_calls": [call]}
        prompt = self._render(request, [user], is_prompt=True)
        rendered = self._render(request, [user, reply]).removeprefix(prompt)
        for body in (json.dumps(arguments), compact_json(arguments)):
            before, found, after = rendered.partition(body)
            if found:
                return _Frame(before, after.split(self.tokenizer.eos_token)[0])
        return None

    def _lark(self, text: str) -> list[str]:
        """Split text into Lark terms: special tokens by id, the rest as literals."""
        special = self.tokenizer.all_special_tokens
        pattern = "(" + "|".join(re.escape(token) for token in special) + ")"
        parts = [part for part in re.split(pattern, text) if part] if special else [text]
        to_id = self.tokenizer.convert_tokens_to_ids
        terms = [f"<[{to_id(part)}]>" if part in special else json.dumps(part) for part in parts]
        return [term for term in terms if term != '""']


class _Frame(NamedTuple):
    before: str
    after: str


def _plain_message(turn: Json) -> Json:
    plain = {**turn, "content": content_text(turn)}
    plain.pop("weight", None)
    if turn.get("tool_calls"):
        plain["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": call_arguments(call)}}
            for call in turn["tool_calls"]
        ]
    return plain


def _string_leaves(value: object) -> list[str]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in _string_leaves(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in _string_leaves(item)]
    return [value] if isinstance(value, str) else []
