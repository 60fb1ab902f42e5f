"""What training is thought to cost: one dated table, a token estimate, an epoch rule.

Every figure here is an estimate. Sources disagree and prices change, so the table carries its date
and its source, and `override_price` puts a figure of your own in its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PRICES_AS_OF = "2025"
PRICES_SOURCE = "https://platform.openai.com/docs/pricing (fine-tuning), not checked since"

TRAINING_USD_PER_MILLION_TOKENS: dict[str, float] = {
    "gpt-4.1-nano": 1.50,
    "gpt-4.1-mini": 5.00,
    "gpt-4.1": 25.00,
    "gpt-4o-mini": 3.00,
    "gpt-4o": 25.00,
    "gpt-3.5-turbo": 8.00,
}
"""Supervised training at OpenAI, by model family; a dated snapshot costs what its family does."""

_overrides: dict[str, float] = {}


@dataclass(frozen=True)
class Estimate:
    """A cost that was worked out, and how.

    Attributes:
        cost_usd: None where no price is known.
        basis: How it was worked out, starting with the word 'estimate'.
    """

    cost_usd: float | None
    basis: str


def override_price(model: str, usd_per_million_tokens: float) -> None:
    """Use a price of your own for a model, in this process.

    Args:
        model: The model's name or the family's ('gpt-4.1-mini' covers its dated snapshots).
        usd_per_million_tokens: US dollars for a million trained tokens.
    """
    _overrides[model] = usd_per_million_tokens


def price_of(model: str) -> tuple[float, str] | None:
    """Find a model's training price.

    Args:
        model: A model's name; a tuned model 'ft:gpt-4.1-mini-...:org::id' costs what its base does.

    Returns:
        US dollars for a million tokens and where the figure comes from, or None.
    """
    base = model.removeprefix("ft:").split(":")[0]
    for table, source in (
        (_overrides, "your own price"),
        (TRAINING_USD_PER_MILLION_TOKENS, f"prices of {PRICES_AS_OF}, {PRICES_SOURCE}"),
    ):
        families = [name for name in table if base == name or _is_snapshot(base, name)]
        if families:
            return table[max(families, key=len)], source
    return None


def _is_snapshot(model: str, family: str) -> bool:
    rest = model.removeprefix(family + "-")
    return rest != model and rest[:1].isdigit()


def estimate_cost(model: str, n_tokens: int, n_rows: int, n_epochs: int | None) -> Estimate:
    """Estimate what OpenAI would charge for a training job.

    Args:
        model: The base model.
        n_tokens: Tokens of the training file, once through.
        n_rows: Training rows; they decide the epochs when `n_epochs` is None.
        n_epochs: As asked for.
    """
    price = price_of(model)
    if price is None:
        return Estimate(None, f"no price is known for {model!r}")
    epochs = n_epochs if n_epochs is not None else default_epochs(n_rows)
    chosen = "" if n_epochs is not None else " (OpenAI's default for so many rows)"
    basis = (
        f"estimate: {n_tokens:,} tokens x {epochs} epochs{chosen} x ${price[0]:.2f} a million; "
        f"{price[1]}"
    )
    return Estimate(n_tokens * epochs * price[0] / 1e6, basis)


def default_epochs(n_rows: int) -> int:
    """Guess the epochs that OpenAI picks: 3, more for fewer than 34 rows, fewer past 8,333.

    It gives the 7 epochs of 13 rows and the 3 epochs of 83 rows that real jobs reported.

    Source: OpenAI cookbook, "Data preparation and analysis for chat model fine-tuning".
    """
    if 0 < n_rows * 3 < 100:
        return min(25, 100 // n_rows)
    if n_rows * 3 > 25_000:
        return max(1, 25_000 // n_rows)
    return 3


def estimate_row_tokens(path: Path) -> Iterator[int]:
    """Estimate the tokens of each row of a training file: four characters a token, 4 a message.

    It is no tokenizer: text that is not English counts more in truth. Lines that are not JSON
    objects count by their length.
    """
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.strip():
                yield _line_tokens(line)


def _line_tokens(line: str) -> int:
    try:
        row = json.loads(line)
        messages = row["messages"]
        texts = [json.dumps(row["tools"], ensure_ascii=False)] if row.get("tools") else []
        texts += [_message_text(each) for each in messages]
        return sum(map(len, texts)) // 4 + 4 * len(messages)
    except (ValueError, TypeError, KeyError, AttributeError):
        return max(1, len(line) // 4)


def _message_text(chat_message: dict[str, object]) -> str:
    content = chat_message.get("content") or ""
    calls = chat_message.get("tool_calls")
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return text + (json.dumps(calls, ensure_ascii=False) if calls else "")
