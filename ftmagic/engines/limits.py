"""What a server of the OpenAI dialect accepts, and whether a training file fits it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ftmagic.engines.addresses import OPENAI_URL, host_of
from ftmagic.engines.refusals import WIND_DOWN
from ftmagic.types import Limits, Problem

_CAPABILITIES = frozenset({"checkpoints", "pause", "resume"})


def limits_of(base_url: str) -> Limits:
    """Return what the server at an address accepts, as far as it is known.

    Source: OpenAI's fine-tuning guide (10 rows, 512 MB); 65,536 tokens a row is Azure's figure.
    """
    is_openai = host_of(base_url) == host_of(OPENAI_URL)
    return Limits(
        min_rows=10,
        methods=("supervised", "dpo", "reinforcement"),
        capabilities=_CAPABILITIES,
        deadlines=WIND_DOWN if is_openai else (),
    )


def size_problems(train: Path, rows: list[int], limits: Limits, engine: str) -> Iterator[Problem]:
    """Compare a training file with an engine's limits.

    Args:
        train: The file.
        rows: Tokens of each row.
        limits: The engine's.
        engine: Its name, for the message.
    """
    if len(rows) < limits.min_rows:
        yield Problem(
            "error",
            None,
            f"{len(rows)} rows to train on; engine {engine!r} needs at least {limits.min_rows}.",
            "%%capture_ft NAME   (more rows)",
        )
    size_bytes = train.stat().st_size
    if size_bytes > limits.max_file_bytes:
        yield Problem(
            "error",
            None,
            f"the training file has {size_bytes:,} bytes; at most {limits.max_file_bytes:,}.",
            "train on fewer rows",
        )
    for number, n_tokens in enumerate(rows, 1):
        if n_tokens > limits.max_row_tokens:
            yield Problem(
                "warning",
                number,
                f"about {n_tokens:,} tokens; what is past {limits.max_row_tokens:,} is cut off.",
                "shorten or reject the row",
            )


def suffix_problems(suffix: str | None) -> Iterator[Problem]:
    """Check the length of a model's suffix: 64 characters. Source: OpenAI's API reference."""
    if suffix is not None and len(suffix) > 64:
        text = f"the suffix has {len(suffix)} characters; at most 64 are allowed."
        yield Problem("error", None, text, "--suffix shorter")
