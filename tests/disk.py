"""A disk that is full, for the time of a block."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def full_disk(max_file_bytes: int) -> Iterator[None]:
    """Let the kernel refuse to grow any file past a size (EFBIG), as a full disk does (ENOSPC).

    Python ignores SIGXFSZ. Keep the block small: pytest's own output may be a file, too, and a
    report that it cannot write ends the run.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
