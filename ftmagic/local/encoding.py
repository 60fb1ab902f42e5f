"""Tokenises training rows for one model and says which of them it cannot learn whole.

The one judge of "too long" and "cannot be rendered": a quote counts with it, the trainer trains
with it. Knows the text format through `chat.py`; nothing about tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ftmagic.errors import DataError
from ftmagic.local.chat import ChatFormat, EncodedRow
from ftmagic.local.rows import Row, RowProblem

IGNORED_LABEL = -100
"""The label of a token without loss."""


@dataclass
class EncodedFile:
    """A training file as one model would read it.

    Attributes:
        rows: What can be trained on.
        too_long: Line numbers of rows that would lose their answer: longer than the model reads.
        problems: Rows that cannot be rendered with their answer in the loss.
    """

    rows: list[EncodedRow] = field(default_factory=list)
    too_long: list[int] = field(default_factory=list)
    problems: list[RowProblem] = field(default_factory=list)

    @property
    def n_tokens(self) -> int:
        """Tokens of all rows, once through."""
        return sum(len(row.token_ids) for row in self.rows)


def encode_rows(chat: ChatFormat, rows: list[Row], context_tokens: int) -> EncodedFile:
    """Tokenise rows.

    Args:
        chat: The model's text format.
        rows: Usable lines of a training file.
        context_tokens: Longest row that the model reads.
    """
    encoded = EncodedFile()
    for row in rows:
        try:
            numbers = chat.encode_row(row.body)
        except DataError as exc:
            encoded.problems.append(RowProblem(row.line, str(exc)))
            continue
        if len(numbers.token_ids) > context_tokens:
            encoded.too_long.append(row.line)
        else:
            encoded.rows.append(numbers)
    return encoded


def count_targets(row: EncodedRow) -> int:
    """Count the tokens of a row that have loss (the first token is never predicted)."""
    return sum(label != IGNORED_LABEL for label in row.labels[1:])
