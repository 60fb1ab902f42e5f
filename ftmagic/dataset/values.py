"""What datasets answer with, and what can be read off one example. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ftmagic.checks import CHARACTERS_PER_TOKEN, count_characters
from ftmagic.types import Example, Json


@dataclass(frozen=True)
class TokenCount:
    """How many tokens rows have, and where the number comes from.

    Attributes:
        n_tokens: Tokens, once through the rows.
        basis: 'provider' when every row carries its provider's count, else 'estimate'.
        n_estimated: Rows whose tokens were estimated from their characters.
    """

    n_tokens: int
    basis: Literal["provider", "estimate"]
    n_estimated: int = 0

    def __str__(self) -> str:
        """Say the number and what it is."""
        if self.basis == "provider":
            return f"{self.n_tokens:,} tokens (the provider's count)"
        return f"about {self.n_tokens:,} tokens (estimate for {self.n_estimated:,} rows)"


@dataclass(frozen=True)
class Imported:
    """What adding rows to a dataset did.

    Attributes:
        dataset: Where they went.
        n_new: Rows that were not there before.
        n_duplicates: Rows whose content was already there.
        n_invalid: Rows among all of them whose answer breaks its schema; kept, not trainable.
    """

    dataset: str
    n_new: int
    n_duplicates: int
    n_invalid: int = 0

    def __str__(self) -> str:
        """Say it in one line."""
        text = f"{self.dataset}: {self.n_new:,} new examples, {self.n_duplicates:,} duplicates"
        return text + (f", {self.n_invalid:,} invalid" if self.n_invalid else "")


def count_tokens(examples: Sequence[Example]) -> TokenCount:
    """Count tokens: the provider's numbers where rows have them, else an estimate.

    The rows that have a count calibrate the estimate of the others; without any, a token is
    taken to be four characters.
    """
    counted = [each for each in examples if each.n_tokens is not None]
    n_counted = sum(each.n_tokens or 0 for each in counted)
    others = [each for each in examples if each.n_tokens is None]
    if not others:
        return TokenCount(n_counted, "provider")
    ratio = float(CHARACTERS_PER_TOKEN)
    if n_counted:
        ratio = sum(count_characters(each) for each in counted) / n_counted
    n_estimated = round(sum(count_characters(each) for each in others) / ratio)
    return TokenCount(n_counted + n_estimated, "estimate", len(others))


def output_objects(example: Example) -> list[Json]:
    """The structured outputs that are objects; [] for an answer in words."""
    try:
        outputs = example.outputs()
    except ValueError:
        return []
    return [value for _, value in outputs if isinstance(value, dict)]


def contains_text(example: Example, text: str) -> bool:
    """Whether any message has this text, ignoring case; tool arguments count."""
    wanted = text.casefold()
    return any(wanted in part.casefold() for part in _texts(example.messages))


def prompt_text(example: Example) -> str:
    """What was asked, for display: the text of the last message before the answer."""
    return " ".join(_texts(example.prompt[-1:]))


def answer_text(example: Example) -> str:
    """What was answered, for display: the content, or the arguments of the tool calls."""
    return " ".join(_texts([example.answer]))


def to_record(example: Example) -> Json:
    """Flatten an example for a table: bookkeeping, prompt, answer, and tags as `tag.NAME`."""
    outputs = output_objects(example)
    record: Json = {
        "id": example.id,
        "dataset": example.dataset,
        "split": example.split,
        "review": example.review,
        "is_trainable": example.is_trainable,
        "problems": list(example.problems),
        "model": example.model,
        "n_tokens": example.n_tokens,
        "created_at": example.created_at,
        "prompt": prompt_text(example),
        "answer": answer_text(example),
        "output": outputs[0] if outputs else None,
    }
    return record | {f"tag.{name}": value for name, value in example.tags.items()}


def to_flat_record(example: Example) -> Json:
    """Like `to_record`, with the fields of the output side by side as `output.FIELD`."""
    record = to_record(example)
    output = record.pop("output") or {}
    return record | {f"output.{name}": value for name, value in output.items()}


def _texts(messages: Iterable[Json]) -> list[str]:
    texts = []
    for message in messages:
        texts += _content_texts(message.get("content"))
        for call in message.get("tool_calls") or []:
            texts.append(call["function"]["arguments"])
    return texts


def _content_texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content or [] if part.get("type") == "text"]
