"""The folder of a submission: its training files, and the events of its job once that has ended.

So the curve of an old job is there when its engine is not.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

from ftmagic import config
from ftmagic.types import JobEvent


def folder_of(content_hash: str) -> Path:
    """Return the folder of a submission, below the home folder."""
    return config.home() / "jobs" / _slug(content_hash.rpartition(":")[2])


def read(folder: Path, job_id: str) -> list[JobEvent] | None:
    """Read the events that were kept, or None."""
    try:
        kept = json.loads(_path(folder, job_id).read_text(encoding="utf-8"))
        return [JobEvent(**each) for each in kept]
    except (OSError, ValueError, TypeError):
        return None


def write(folder: Path, job_id: str, events: Sequence[JobEvent]) -> None:
    """Keep the events of an ended job, whole or not at all."""
    path = _path(folder, job_id)
    beside = path.with_suffix(f".{os.getpid()}.part")
    try:
        config.make_home()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = json.dumps([dataclasses.asdict(each) for each in events])
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError:
        return  # a full disk costs the copy, not the answer


def _path(folder: Path, job_id: str) -> Path:
    return folder / f"{_slug(job_id)}.events.json"


def _slug(text: str) -> str:
    kept = "".join(each if each.isalnum() or each in "-_" else "_" for each in text)
    return kept[:100] or "job"
