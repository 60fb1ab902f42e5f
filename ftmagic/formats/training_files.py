"""OpenAI fine-tuning files: JSONL rows and the sidecar that keeps what a row has no field for.

A line holds `messages`, `tools` and `parallel_tool_calls`. The output schema, `tool_choice`,
`response_format` and bookkeeping go into `NAME.schema.json` beside it, so that reading gives back
equal examples. A file without a sidecar is read as any OpenAI chat JSONL.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ftmagic.errors import DataError, message
from ftmagic.formats import strict_json
from ftmagic.formats.atomic_files import write_lines
from ftmagic.formats.messages import (
    Unmappable,
    prompt_from_request,
    tool_choice_from_request,
    tools_from_request,
)
from ftmagic.formats.rows import row_problems
from ftmagic.formats.schemas import output_schemas
from ftmagic.formats.sidecars import Sidecar, SidecarWriter, read_sidecar, sidecar_path
from ftmagic.formats.strict_json import StrictJsonError
from ftmagic.formats.validation import answer_problems
from ftmagic.types import (
    Example,
    Json,
    Problem,
)

_FIELDS = {
    "messages",
    "tools",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "tool_choice",
    "response_format",
}
# Legal inside JSON strings, but line ends to many a reader that splits lines.
_LINE_ENDS = {"\u2028": "\\u2028", "\u2029": "\\u2029", "\x85": "\\u0085"}


@dataclass(frozen=True)
class Manifest:
    """A training file that was written.

    Attributes:
        path: The file.
        sidecar: The schemas beside it.
        n_rows: Its rows.
        size_bytes: Its size.
        sha256: Hex digest of its bytes.
        n_left_out: Rows that were there but are not trainable.
        n_test_left_out: Rows that were there but are held out for testing.
    """

    path: Path
    sidecar: Path
    n_rows: int
    size_bytes: int
    sha256: str
    n_left_out: int = 0
    n_test_left_out: int = 0

    def __str__(self) -> str:
        """Say what was written where."""
        text = f"{self.n_rows:,} rows in {self.path} (schemas in {self.sidecar.name})"
        counts = {"rejected or invalid": self.n_left_out, "test": self.n_test_left_out}
        left_out = [f"; {count:,} {word} rows left out" for word, count in counts.items() if count]
        return text + "".join(left_out)


@dataclass(frozen=True)
class ReadResult:
    """What a training file holds.

    Attributes:
        examples: The rows that could be read, in order.
        problems: What is wrong, by line number; errors are lines without an example.
    """

    examples: list[Example]
    problems: list[Problem]

    @property
    def errors(self) -> list[Problem]:
        """The problems that cost a row."""
        return [each for each in self.problems if each.severity == "error"]


def to_row(example: Example, *, keeps_response_format: bool = False) -> Json:
    """Make the training line of an example.

    Args:
        example: Its last message is the answer.
        keeps_response_format: Write `response_format` too; OpenAI's format has no such field.
    """
    row: Json = {"messages": example.messages}
    if example.tools:
        row["tools"] = example.tools
        if example.parallel_tool_calls is not None:
            row["parallel_tool_calls"] = example.parallel_tool_calls
    if keeps_response_format and example.response_format is not None:
        row["response_format"] = example.response_format
    return row


def write_rows(
    path: Path, examples: Iterable[Example], *, keeps_response_format: bool = False
) -> Manifest:
    """Write a training file and its sidecar, each whole or not at all.

    Args:
        path: The JSONL file; its folder must exist.
        examples: The rows, in order.
        keeps_response_format: Write `response_format` into the lines (the local engine reads it).

    Raises:
        DataError: A row cannot be written as JSON and UTF-8.
        StoreError: The folder cannot be written, or is full.
    """
    sidecar = SidecarWriter()
    written = write_lines(path, _lines(examples, sidecar, keeps_response_format))
    beside = sidecar_path(path)
    write_lines(beside, [sidecar.dump(written)])
    return Manifest(path, beside, written.n_rows, written.size_bytes, written.sha256)


def read_rows(path: Path) -> ReadResult:
    """Read a training file, with its sidecar if there is one.

    Never raises for what is in the file: each bad line is a problem with its number, and the
    other lines are read.

    Raises:
        DataError: The file cannot be opened.
    """
    sidecar = read_sidecar(sidecar_path(path))
    problems = [sidecar.problem] if sidecar.problem else []
    examples: list[Example] = []
    for number, line in _numbered_lines(path):
        if not line.strip():
            problems.append(Problem("warning", number, "a blank line was passed over"))
            continue
        try:
            example, warnings = _read_line(line, sidecar)
        except (StrictJsonError, Unmappable) as exc:
            problems.append(Problem("error", number, str(exc)))
        else:
            examples.append(example)
            problems += [Problem("warning", number, text) for text in warnings]
    return ReadResult(examples, problems)


def _lines(
    examples: Iterable[Example], sidecar: SidecarWriter, keeps_response_format: bool
) -> Iterator[bytes]:
    for number, example in enumerate(examples, start=1):
        line = _dump_line(to_row(example, keeps_response_format=keeps_response_format), number)
        sidecar.add(line, example)
        yield line


def _dump_line(row: Json, number: int) -> bytes:
    try:
        text = json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        for character, escape in _LINE_ENDS.items():
            text = text.replace(character, escape)
        return text.encode("utf-8")
    except UnicodeEncodeError:
        problem = "holds half a surrogate pair, which UTF-8 cannot spell"
    except ValueError:
        problem = "holds NaN or an infinite number, which JSON cannot spell"
    raise DataError(
        message(
            f"row {number} {problem}; nothing was written.",
            next_step="ds.filter(lambda each: each.is_trainable).write(PATH)",
        )
    )


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (1-based number, line without its end), split at line feeds and nowhere else."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                yield number, line.removesuffix(b"\n").removesuffix(b"\r")
    except OSError as exc:
        raise DataError(
            message(f"{path} cannot be read: {exc.strerror}.", next_step="ft.Dataset.read(FILE)")
        ) from exc


def _read_line(line: bytes, sidecar: Sidecar) -> tuple[Example, list[str]]:
    row = _parse_line(line)
    example = _example_from_row(row)
    example = sidecar.complete(example, line)
    problems = row_problems(example.messages, example.tools)
    if problems:
        raise Unmappable("; ".join(problems[:3]))
    example = replace(example, problems=answer_problems(example.answer, example.schemas))
    warnings = [f"the answer breaks its schema: {each}" for each in example.problems]
    unknown = sorted(set(row) - _FIELDS)
    if unknown:
        warnings.append(f"fields that a training row does not have: {', '.join(unknown)[:100]}")
    return example, warnings


def _parse_line(line: bytes) -> Json:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise StrictJsonError(f"not UTF-8 at byte {exc.start + 1} of the line") from None
    row = strict_json.loads(text)
    if not isinstance(row, dict):
        raise StrictJsonError("not a JSON object")
    if "\\u" in text and strict_json.has_lone_surrogate(json.dumps(row, ensure_ascii=False)):
        raise StrictJsonError("holds half a surrogate pair, which UTF-8 cannot spell")
    if "messages" not in row:
        raise StrictJsonError(_no_messages(row))
    return row


def _no_messages(row: Json) -> str:
    if "prompt" in row and "completion" in row:
        return "a prompt-completion row; the chat format needs 'messages'"
    if "preferred_output" in row:
        return "a preference (DPO) row; the chat format needs 'messages'"
    return "there is no 'messages'"


def _example_from_row(row: Json) -> Example:
    try:
        messages, tools = prompt_from_request(row), tools_from_request(row)
        parallel = row.get("parallel_tool_calls")
        response_format = row.get("response_format")
        return Example(
            messages=messages,
            tools=tools,
            parallel_tool_calls=parallel if isinstance(parallel, bool) else None,
            tool_choice=tool_choice_from_request(row),
            response_format=response_format,
            schemas=output_schemas(tools, response_format),
        )
    except KeyError as exc:
        raise Unmappable(f"a message or tool has no {exc.args[0]!r}") from None
    except (TypeError, AttributeError):
        # Numbers where objects belong, and the like.
        raise Unmappable("messages or tools are not lists of objects") from None
