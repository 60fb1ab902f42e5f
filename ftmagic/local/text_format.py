"""What every text format offers: prompts, training rows, grammars, replies.

Owns the interface and the proof that a training target is inside its loss mask. Knows no format.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from ftmagic.errors import DataError, message
from ftmagic.types import Json

IGNORED_LABEL = -100
"""The label that torch's cross_entropy skips."""


@dataclass(frozen=True)
class EncodedRow:
    """One training line as numbers.

    Args:
        token_ids: The rendered conversation, shape (T,).
        labels: The same ids where the loss applies, -100 elsewhere, shape (T,).
    """

    token_ids: list[int]
    labels: list[int]


class ChatFormat(ABC):
    """The text format of one model; build it with `chat.load_chat_format`."""

    def __init__(self, tokenizer: Any) -> None:
        """Keep the tokenizer (transformers' `PreTrainedTokenizerFast`)."""
        self.tokenizer = tokenizer
        self.end_token_ids: list[int] = [tokenizer.eos_token_id]

    @abstractmethod
    def encode_prompt(self, request: Json) -> list[int]:
        """Render a chat-completions body up to and including the assistant marker.

        Args:
            request: `messages` and optionally `tools`, `tool_choice`, `response_format`.

        Returns:
            Token ids, shape (T,).
        """

    @abstractmethod
    def encode_row(self, row: Json) -> EncodedRow:
        """Render a training line with the loss on each assistant message whose weight is not 0.

        Raises:
            DataError: There is no such message, or its text is not inside the loss mask.
        """

    @abstractmethod
    def grammar(self, request: Json, grounded_fields: frozenset[str] = frozenset()) -> str | None:
        """Write the llguidance (Lark) grammar of the assistant turn.

        Args:
            request: As in `encode_prompt`.
            grounded_fields: String fields, as dotted paths (`title`, `citations[].title`), whose
                values must be spans of the last user message.

        Returns:
            The grammar, or None where the turn is free text.
        """

    @abstractmethod
    def parse_reply(self, text: str, request: Json) -> Json:
        """Read the generated text as an assistant message.

        Args:
            text: The new tokens without the end token, decoded with `skip_special_tokens=False`.
            request: The request that was answered.

        Returns:
            `{role, content}` and, where tools were called, `tool_calls` with string arguments.
        """

    def text_ids(self, text: str) -> list[int]:
        """Tokenize text that may contain a template's special tokens, shape (T,)."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def require_inside(text: str, rendered: str, template: str) -> None:
    """Prove that a target was rendered, as itself or as JSON spells it.

    Args:
        text: What the assistant should learn to write.
        rendered: The text under the loss mask.
        template: What rendered it, for the error.

    Raises:
        DataError: It is not there.
    """
    spellings = (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    if not any(spelling in rendered for spelling in spellings):
        raise DataError(
            message(
                f"{template} does not render the target {text[:60]!r}, so it would not be learned.",
                next_step="choose another model= (the built-in student renders tool calls)",
            )
        )


def no_target(row: Json) -> DataError:
    """Make the error for a row without an assistant message to learn."""
    return DataError(
        message(
            f"A row of {len(row['messages'])} messages has no assistant message to learn.",
            next_step="add the answer as the last message, or leave the row out",
        )
    )
