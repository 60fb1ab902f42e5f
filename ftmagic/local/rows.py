"""Reads training files in the OpenAI chat format, with a report by line.

The one place that decides which lines may train: used when a job is validated, when its rows are
counted, and by the trainer. Knows nothing about tokens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ftmagic.local.chat_request import check_request
from ftmagic.local.dialect import ApiError, parse_json
from ftmagic.types import Json

MIN_ROWS = 4
"""Fewest training rows a job may have: OpenAI asks for 10, a local try-out should not have to."""


@dataclass(frozen=True)
class Row:
    """One line of a training file.

    Attributes:
        line: Its 1-based line number.
        body: `messages` and optionally `tools`, `parallel_tool_calls`, `response_format`.
    """

    line: int
    body: Json


@dataclass(frozen=True)
class RowProblem:
    """Why a line cannot be trained on.

    Attributes:
        line: Its 1-based line number.
        message: What is wrong.
    """

    line: int
    message: str

    def __str__(self) -> str:
        """Name the line."""
        return f"line {self.line}: {self.message}"


class RowReport(NamedTuple):
    """What a training file holds.

    Attributes:
        rows: The usable lines.
        problems: One for each line that is not.
    """

    rows: list[Row]
    problems: list[RowProblem]


def read_rows(path: Path) -> RowReport:
    """Read a training file; damaged lines become problems, not exceptions.

    Raises:
        OSError: The file cannot be read.
    """
    return parse_rows(path.read_bytes())


def parse_rows(content: bytes) -> RowReport:
    """Parse the bytes of a training file; see `read_rows`."""
    report = RowReport([], [])
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            body = parse_json(line)
            _check_row(body)
        except ValueError as exc:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
            report.problems.append(RowProblem(number, str(exc)))
        else:
            report.rows.append(Row(number, body))
    return report


def _check_row(body: Any) -> None:
    if not isinstance(body, dict):
        raise ValueError("not a JSON object")
    try:
        check_request(body)
    except ApiError as exc:
        raise ValueError(str(exc)) from exc
    learned = [sent for sent in body["messages"] if sent["role"] == "assistant"]
    if not learned or body["messages"][-1]["role"] != "assistant":
        raise ValueError("the last message is not the assistant's answer")
    for sent in learned:
        _check_answer(sent)


def _check_answer(sent: Json) -> None:
    calls = sent.get("tool_calls") or []
    if not calls and not sent.get("content"):
        raise ValueError("an assistant message has neither content nor tool calls")
    for call in calls:
        function = call["function"]
        arguments = function["arguments"]
        try:
            value = json.loads(arguments) if isinstance(arguments, str) else arguments
        except (ValueError, RecursionError) as exc:
            raise ValueError(f"the arguments of {function['name']!r} are not JSON") from exc
        if not isinstance(value, dict):
            raise ValueError(f"the arguments of {function['name']!r} are not a JSON object")


def listing(problems: list[RowProblem], *, shown: int = 5) -> str:
    """Join problems into one line, the first few in full."""
    more = len(problems) - shown
    return "; ".join(map(str, problems[:shown])) + (f"; and {more} more" if more > 0 else "")
