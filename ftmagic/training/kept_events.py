"""The events of a job once it has ended, beside its training files.

So the curve of an old job is there when its engine is not.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

from ftmagic import config
from ftmagic.store.job_files import EVENTS_SUFFIX, slug
from ftmagic.types import JobEvent


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
    return folder / f"{slug(job_id)}{EVENTS_SUFFIX}"
