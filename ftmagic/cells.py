"""Cell magics whose body stays an ordinary cell.

A cell magic that runs its body through `shell.run_cell` breaks top-level `await`, line numbers and
Run All. Here the first line alone is replaced, by a line magic that opens a session; the body then
runs natively, and IPython's `post_run_cell` event closes the session. The replacement is a pure
function, because IPython also transforms cells only to see whether they are complete.

Knows nothing of capturing or routing: a session is anything with `close(status)`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from IPython.core.inputtransformer2 import cell_magic as native_cell_magic

HEARTBEAT_S = 0.2
"""An interrupt of an awaiting cell waits until its loop wakes (ipykernel issue 881)."""


class Session(Protocol):
    """What a cell magic opens for the time of one cell."""

    def close(self, status: str) -> str:
        """End it; `status` is 'ok', 'error' or 'interrupted'. Returns what to print."""


@dataclass
class _Frame:
    """One running cell, with what was opened in it."""

    info: Any
    sessions: list[Session] = field(default_factory=list)


class CellBrackets:
    """Opens sessions at the first line of a cell and closes them after its last."""

    def __init__(self, shell: Any, names: tuple[str, ...], before_cell: Callable[[], None]) -> None:
        """Prepare for some cell magics.

        Args:
            shell: The InteractiveShell.
            names: The cell magics; for each, a line magic `_NAME_begin` must be registered.
            before_cell: Called when an outermost cell starts.
        """
        self._shell = shell
        self._head = re.compile(rf"^%%({'|'.join(names)})(?:[ \t]+(.*?))?[ \t]*\r?\n?$")
        self._before_cell = before_cell
        self._threads = threading.local()  # subshells run cells in threads of their own

    def install(self) -> None:
        """Hook into the shell."""
        self._shell.input_transformers_cleanup.append(self.transform)
        self._shell.events.register("pre_run_cell", self._pre_run_cell)
        self._shell.events.register("post_run_cell", self._post_run_cell)

    def uninstall(self) -> None:
        """Take the hooks back; a second call does nothing."""
        transformers = self._shell.input_transformers_cleanup
        if self.transform not in transformers:
            return
        transformers.remove(self.transform)
        self._shell.events.unregister("pre_run_cell", self._pre_run_cell)
        self._shell.events.unregister("post_run_cell", self._post_run_cell)

    def opened(self, session: Session) -> None:
        """Close this session when the present cell ends."""
        if not self._frames:  # a line magic called outside a cell, as tests and scripts do
            self._frames.append(_Frame(None))
        self._frames[-1].sessions.append(_WithHeartbeat(session))

    def cell_identity(self) -> str:
        """Name the present cell: the front end's cell id, else a hash of its source."""
        cell_id = _front_end_cell_id(self._shell)
        if cell_id:
            return cell_id
        info = self._frames[-1].info if self._frames else None
        source = info.raw_cell if info is not None else ""
        return "b2:" + hashlib.blake2b(source.encode(), digest_size=16).hexdigest()

    def transform(self, lines: list[str]) -> list[str]:
        """Replace the first line of a cell that starts with one of our magics; else do nothing."""
        found = self._head.match(lines[0]) if lines else None
        body = lines[1:]
        first = next((index for index, line in enumerate(body) if line.strip()), None)
        if found is None or first is None:  # an empty body: IPython says so itself
            return lines
        if body[first].startswith("%%"):
            inner = body[first:]
            is_ours = self._head.match(inner[0]) is not None
            inner = self.transform(inner) if is_ours else native_cell_magic(inner)
            body = [*body[:first], *inner]
        begin = f"get_ipython().run_line_magic('_{found[1]}_begin', {(found[2] or '')!r})\n"
        return [begin, *body]

    @property
    def _frames(self) -> list[_Frame]:
        if "frames" not in vars(self._threads):
            self._threads.frames = []
        frames: list[_Frame] = self._threads.frames
        return frames

    def _pre_run_cell(self, info: Any) -> None:
        if not self._frames:
            self._before_cell()
        self._frames.append(_Frame(info))

    def _post_run_cell(self, result: Any) -> None:
        frames = self._frames
        start = 0  # without a result the kernel has cancelled the awaiting cell: close everything
        if result is not None:
            matching = [i for i, frame in enumerate(frames) if frame.info is result.info]
            if not matching:  # an empty cell ends without having begun
                return
            start = matching[-1]
        ended, frames[start:] = frames[start:], []
        status = _status(result)
        for frame in reversed(ended):
            for session in reversed(frame.sessions):
                text = session.close(status)
                if text:
                    print(text)


def notebook_name() -> str:
    """Return the notebook's path as the Jupyter server tells its kernels; '' elsewhere."""
    return os.environ.get("JPY_SESSION_NAME", "")


class _WithHeartbeat:
    """A session during which the event loop wakes often enough to notice an interrupt."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._timer: asyncio.TimerHandle | None = None
        try:
            self._beat(asyncio.get_running_loop())
        except RuntimeError:  # no loop runs: a terminal, where an interrupt needs no help
            pass

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(HEARTBEAT_S, self._beat, loop)

    def close(self, status: str) -> str:
        if self._timer is not None:
            self._timer.cancel()
        return self._session.close(status)


def _status(result: Any) -> str:
    if result is None:
        return "interrupted"
    if result.success:
        return "ok"
    error = result.error_in_exec or result.error_before_exec
    is_interrupt = isinstance(error, (KeyboardInterrupt, asyncio.CancelledError))
    return "interrupted" if is_interrupt else "error"


def _front_end_cell_id(shell: Any) -> str:
    """Read `cellId` off the execute request; '' where the front end sends none."""
    zmqshell = sys.modules.get("ipykernel.zmqshell")
    if zmqshell is None or not isinstance(shell, zmqshell.ZMQInteractiveShell):
        return ""
    metadata = (shell.get_parent() or {}).get("metadata") or {}
    return str(metadata.get("cellId") or "")
