"""One submission at a time, over all kernels that share a home folder.

The lock is SQLite's, so a killed kernel leaves none behind. Knows nothing of what is submitted.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator

from ftmagic import config
from ftmagic.errors import EngineError, message

_LOCK_TIMEOUT_S = 600.0
_LOCK_TRY_S = 0.2


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one kernel (thread, process) submit at a time; a killed one leaves no lock behind.

    Raises:
        EngineError: Another one has been submitting for ten minutes.
    """
    config.make_home()
    lock = sqlite3.connect(
        config.home() / "submissions.lock", timeout=_LOCK_TRY_S, isolation_level=None
    )
    with contextlib.closing(lock):
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        while not _has_locked(lock, is_last=time.monotonic() > deadline):
            pass  # between two tries Python sees a Ctrl-C, which SQLite's own waiting does not
        yield


def _has_locked(lock: sqlite3.Connection, *, is_last: bool) -> bool:
    try:
        lock.execute("begin exclusive")
    except sqlite3.OperationalError as exc:
        if not is_last and "locked" in str(exc):
            return False
        raise EngineError(
            message(
                f"another kernel is submitting a job from {config.home()}: {exc}.",
                next_step="%ft_status",
            )
        ) from exc
    return True
