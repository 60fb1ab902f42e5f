"""The folder of a submission: where the training files and the events of a job are kept.

It knows names and nothing of what is in them, but that events are no rows.
"""

from __future__ import annotations

from pathlib import Path

from ftmagic import config

EVENTS_SUFFIX = ".events.json"


def folder_of(content_hash: str) -> Path:
    """Return the folder of a submission, below the home folder."""
    return config.home() / "jobs" / slug(content_hash.rpartition(":")[2])


def slug(text: str) -> str:
    """Make a file name of a hash or an id."""
    kept = "".join(each if each.isalnum() or each in "-_" else "_" for each in text)
    return kept[:100] or "job"


def erase_rows(content_hash: str) -> None:
    """Erase the rows of a submission; the events of its job stay."""
    folder = folder_of(content_hash)
    for file in folder.glob("*"):
        if not file.name.endswith(EVENTS_SUFFIX):
            file.unlink(missing_ok=True)
