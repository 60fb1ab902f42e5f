"""The file beside a training file: what a training line has no field for.

Owns the schemas, `tool_choice`, `response_format` and bookkeeping of each line, found again by the
hash of the line, so that lines may be added, removed or moved. Knows nothing of lines' contents.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ftmagic.formats import strict_json
from ftmagic.formats.atomic_files import Written
from ftmagic.types import (
    REVIEWS,
    SPLITS,
    Example,
    Json,
    OutputSchema,
    Problem,
    Review,
    Split,
    content_hash,
)

SIDECAR_FORMAT = "ftmagic.schema/1"
_BOOKKEEPING = ("review", "split", "model", "n_tokens", "created_at")


@dataclass(frozen=True)
class SidecarEntry:
    """What the sidecar keeps for one line."""

    schemas: tuple[OutputSchema, ...]
    tool_choice: Any
    parallel_tool_calls: bool | None
    response_format: Json | None
    tags: Mapping[str, str]
    review: Review
    split: Split | None
    model: str
    n_tokens: int | None
    created_at: float


@dataclass(frozen=True)
class Sidecar:
    """The entries by hash of their line, so that they survive lines added, removed or moved."""

    entries: Mapping[str, list[SidecarEntry]] = field(default_factory=dict)
    problem: Problem | None = None

    def complete(self, example: Example, line: bytes) -> Example:
        """Give an example what was kept for its line; equal lines take theirs in turn."""
        entries = self.entries.get(line_hash(line), [])
        if not entries:
            return example
        entry = entries.pop(0) if len(entries) > 1 else entries[0]
        return replace(example, **{each.name: getattr(entry, each.name) for each in fields(entry)})


def sidecar_path(path: Path) -> Path:
    """The schema file of a training file: `albums.jsonl` has `albums.schema.json`."""
    return path.with_suffix(".schema.json")


def line_hash(line: bytes) -> str:
    """Identify a line, without its end."""
    return hashlib.blake2b(line, digest_size=12).hexdigest()


class SidecarWriter:
    """Collects, while the lines are written, what they have no field for."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._schemas: dict[str, Json] = {}
        self._formats: dict[str, Json] = {}
        self._rows: list[Json] = []

    def add(self, line: bytes, example: Example) -> None:
        """Keep what the line of this example has no field for."""
        self._rows.append({"line": line_hash(line), **self._entry(example)})

    def dump(self, written: Written) -> bytes:
        """Serialise the sidecar of the file that was written."""
        value = {
            "format": SIDECAR_FORMAT,
            "training_file": written.path.name,
            "sha256": written.sha256,
            "schemas": self._schemas,
            "response_formats": self._formats,
            "rows": self._rows,
        }
        return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()

    def _entry(self, example: Example) -> Json:
        entry: Json = {name: getattr(example, name) for name in _BOOKKEEPING}
        entry["schemas"] = [self._keep_schema(each) for each in example.schemas]
        entry["tool_choice"] = example.tool_choice
        entry["parallel_tool_calls"] = example.parallel_tool_calls
        entry["tags"] = dict(example.tags)
        entry["response_format"] = self._keep_format(example.response_format)
        return entry

    def _keep_format(self, response_format: Json | None) -> str | None:
        if response_format is None:
            return None
        key = content_hash(response_format)
        self._formats.setdefault(key, response_format)
        return key

    def _keep_schema(self, schema: OutputSchema) -> str:
        key = schema.hash
        self._schemas.setdefault(key, asdict(schema))
        return key


def read_sidecar(path: Path) -> Sidecar:
    """Read a sidecar; one that is damaged is reported, and the rows are read without it."""
    if not path.exists():
        return Sidecar()
    try:
        value: Any = strict_json.loads(path.read_text("utf-8"))
        if value["format"] != SIDECAR_FORMAT:
            raise ValueError(f"its format is {str(value['format'])[:40]!r}")
        schemas = {key: OutputSchema(**each) for key, each in value["schemas"].items()}
        entries: dict[str, list[SidecarEntry]] = {}
        for row in value["rows"]:
            entry = _entry_from_json(row, schemas, value["response_formats"])
            entries.setdefault(row["line"], []).append(entry)
        return Sidecar(entries)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        text = f"{path.name} is left aside, because it cannot be read: {type(exc).__name__}"
        return Sidecar(problem=Problem("warning", None, text, "write the file again"))


def _entry_from_json(
    row: Json, schemas: Mapping[str, OutputSchema], formats: Mapping[str, Json]
) -> SidecarEntry:
    if row["review"] not in REVIEWS or row["split"] not in (None, *SPLITS):
        raise ValueError("not a review state or not a split")
    key = row["response_format"]
    return SidecarEntry(
        schemas=tuple(schemas[each] for each in row["schemas"]),
        response_format=None if key is None else formats[key],
        **{name: row[name] for name in ("tool_choice", "parallel_tool_calls", "tags")},
        **{name: row[name] for name in _BOOKKEEPING},
    )
