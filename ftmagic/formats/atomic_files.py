"""Write a file whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ftmagic.errors import StoreError, message


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        path: The file.
        n_rows: Its lines.
        size_bytes: Its size.
        sha256: Hex digest of its bytes.
    """

    path: Path
    n_rows: int
    size_bytes: int
    sha256: str


def write_lines(path: Path, lines: Iterable[bytes]) -> Written:
    """Write lines, each with its line end, into a temporary file and rename it when it is whole.

    What was at `path` before stays until the rename. The file is readable by its owner only.

    Raises:
        StoreError: The folder is not there, cannot be written, or is full.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as exc:
        raise _cannot_write(path, exc) from exc
    try:
        with os.fdopen(handle, "wb") as file:
            written = _copy(path, file.write, lines)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as exc:
        os.unlink(temporary)
        raise _cannot_write(path, exc) from exc
    except BaseException:
        # The rows could not be made, or the user interrupted: leave nothing behind.
        os.unlink(temporary)
        raise
    _sync_folder(path.parent)
    return written


def _copy(path: Path, write: Callable[[bytes], int], lines: Iterable[bytes]) -> Written:
    digest = hashlib.sha256()
    n_rows = size = 0
    for line in lines:
        data = line + b"\n"
        write(data)
        digest.update(data)
        n_rows, size = n_rows + 1, size + len(data)
    return Written(path, n_rows, size, digest.hexdigest())


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(path: Path, exc: OSError) -> StoreError:
    return StoreError(
        message(
            f"{path} could not be written ({exc.strerror}); what was there before is unchanged.",
            next_step="write to another folder, or free some disk space",
        )
    )
