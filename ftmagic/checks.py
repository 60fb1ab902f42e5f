"""What rows must pass before an engine may have them: problems in words, with what mends them.

Pure. Knows an engine only by its `Limits`; looks for no secrets (`wire.secrets` does).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from ftmagic.formats.rows import row_problems
from ftmagic.formats.training_files import to_row
from ftmagic.types import Example, Limits, OutputSchema, Problem, canonical_json

CHARACTERS_PER_TOKEN = 4
"""For estimates only. Source: OpenAI's help page "What are tokens": about four characters."""

_SHOWN_ROWS = 6
_Numbered = Sequence[tuple[int, Example]]


def check(
    examples: Sequence[Example], limits: Limits, *, engine_name: str = "this engine"
) -> list[Problem]:
    """List what stops these rows from being trained on, and what is odd about them.

    Rows that are rejected or break their schema do not count as trainable; they are warnings here,
    because training leaves them out.

    Args:
        examples: The rows, in order; problems name them from 1.
        limits: What the engine accepts.
        engine_name: As the user calls it.

    Returns:
        Errors first, then warnings, each in the order of the rows.
    """
    numbered = [(number, each) for number, each in enumerate(examples, start=1) if each.messages]
    problems = [
        *_count_problems(examples, limits, engine_name),
        *_shape_problems(examples),
        *_size_problems(examples, limits, engine_name),
        *_left_out(examples),
        *_duplicates(numbered),
        *_conflicts(numbered),
        *_mixed_versions(numbered),
    ]
    return sorted(problems, key=lambda each: (each.severity != "error", each.row or 0))


def count_characters(example: Example) -> int:
    """Count the characters of the training line of a row."""
    return len(canonical_json(to_row(example)))


def used_schema(example: Example) -> OutputSchema | None:
    """The schema that the answer follows: of the tool that is called first, or of the format."""
    calls = example.answer.get("tool_calls") or []
    kind = "tool" if calls else "response_format"
    name = calls[0]["function"]["name"] if calls else None
    fitting = (each for each in example.schemas if each.kind == kind)
    return next((each for each in fitting if name in (None, each.name)), None)


def _count_problems(
    examples: Sequence[Example], limits: Limits, engine_name: str
) -> Iterable[Problem]:
    name = _dataset_name(examples)
    if not examples:
        yield Problem(
            "error", None, "there are no rows: nothing to train on", "%%capture_ft albums"
        )
        return
    n_trainable = sum(each.is_trainable for each in examples)
    if n_trainable >= limits.min_rows:
        return
    left_out = _left_out_counts(examples)
    yield Problem(
        "error",
        None,
        f"{_quoted(name)} {n_trainable:,} rows that may train{left_out}; engine {engine_name!r} "
        f"needs at least {limits.min_rows:,}",
        f"ft.examples({name or 'albums'!r}).check()"
        if left_out
        else f"%%capture_ft {name or 'albums'}",
    )


def _shape_problems(examples: Sequence[Example]) -> Iterable[Problem]:
    for number, example in enumerate(examples, start=1):
        for text in row_problems(example.messages, example.tools):
            yield Problem("error", number, text, "ds.filter(...) leaves the row out")


def _size_problems(
    examples: Sequence[Example], limits: Limits, engine_name: str
) -> Iterable[Problem]:
    size_bytes = 0
    for number, example in enumerate(examples, start=1):
        text = canonical_json(to_row(example))
        size_bytes += len(text.encode("utf-8", "replace")) + 1
        n_tokens, basis = example.n_tokens, "the provider's count of the call"
        if n_tokens is None:
            n_tokens, basis = len(text) // CHARACTERS_PER_TOKEN, "estimate: characters / 4"
        if n_tokens > limits.max_row_tokens:
            yield Problem(
                "error",
                number,
                f"about {n_tokens:,} tokens ({basis}); engine {engine_name!r} takes at most "
                f"{limits.max_row_tokens:,} a row",
                "ds.filter(...) leaves the row out; shorter prompts keep it",
            )
    if size_bytes > limits.max_file_bytes:
        yield Problem(
            "error",
            None,
            f"the training file would have {size_bytes / 2**20:,.0f} MB; engine {engine_name!r} "
            f"takes at most {limits.max_file_bytes / 2**20:,.0f} MB",
            "ds.filter(...) with fewer rows",
        )


def _left_out(examples: Sequence[Example]) -> Iterable[Problem]:
    for number, example in enumerate(examples, start=1):
        if example.review == "rejected":
            yield Problem("warning", number, "rejected, so training leaves it out")
        elif example.problems:
            yield Problem(
                "warning",
                number,
                f"training leaves it out, because its answer is not valid: {example.problems[0]}",
                f"ft.examples({example.dataset or 'albums'!r})[{number - 1}].problems",
            )


def _left_out_counts(examples: Sequence[Example]) -> str:
    n_rejected = sum(each.review == "rejected" for each in examples)
    n_invalid = sum(bool(each.problems) and each.review != "rejected" for each in examples)
    parts = [f"{n:,} {word}" for n, word in ((n_rejected, "rejected"), (n_invalid, "invalid")) if n]
    return f" ({', '.join(parts)})" if parts else ""


def _duplicates(numbered: _Numbered) -> Iterable[Problem]:
    seen: set[str] = set()
    repeated = []
    for number, example in numbered:
        key = example.content_key()
        if key in seen:
            repeated.append(number)
        seen.add(key)
    if repeated:
        verb = "row repeats" if len(repeated) == 1 else "rows repeat"
        yield Problem(
            "warning",
            repeated[0],
            f"{len(repeated):,} {verb} an earlier one exactly ({_rows(repeated)})",
            "ds.dedupe()",
        )


def _conflicts(numbered: _Numbered) -> Iterable[Problem]:
    answers: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for number, example in numbered:
        answers[example.input_key()].setdefault(example.content_key(), number)
    clashes = [sorted(each.values()) for each in answers.values() if len(each) > 1]
    if clashes:
        noun = "input has" if len(clashes) == 1 else "inputs have"
        yield Problem(
            "warning",
            clashes[0][0],
            f"{len(clashes):,} {noun} different answers, the first one in {_rows(clashes[0])}",
            "keep one of them: ds[i:i + 1].reject()",
        )


def _mixed_versions(numbered: _Numbered) -> Iterable[Problem]:
    """Count the rows of each version of each schema name."""
    versions: defaultdict[str, Counter[tuple[int, str]]] = defaultdict(Counter)
    for _, example in numbered:
        schema = used_schema(example)
        if schema is not None:
            versions[schema.name][(example.schema_version, schema.hash)] += 1
    for name, counts in versions.items():
        if len({key for _, key in counts}) > 1:
            yield Problem(
                "warning",
                None,
                f"{len(counts)} versions of the schema {name!r} are mixed: {_versions(counts)}",
                "ds.filter(lambda each: each.schema_version == 2)",
            )


def _versions(counts: Counter[tuple[int, str]]) -> str:
    """Name stored versions v1, v2; the versions of rows that are not stored by their hash."""
    numbers = {number for number, _ in counts}
    names_by_number = len(numbers) == len(counts)
    parts = []
    for (number, key), n in sorted(counts.items()):
        name = f"v{number}" if names_by_number else key.removeprefix("b2:")[:8]
        parts.append(f"{name} ({n:,} {'row' if n == 1 else 'rows'})")
    return ", ".join(parts)


def _dataset_name(examples: Sequence[Example]) -> str:
    return examples[0].dataset if examples else ""


def _quoted(name: str) -> str:
    return f"{name!r} has" if name else "there are"


def _rows(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:_SHOWN_ROWS])
    more = len(numbers) - _SHOWN_ROWS
    word = "row" if len(numbers) == 1 else "rows"
    return f"{word} {shown}" + (f" and {more:,} more" if more > 0 else "")
