"""The live view of a job: one display, updated by a daemon thread until the job has ended.

One thread a job, however many displays show it. It only updates displays, it never prints.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from ftmagic.errors import FtmagicError
from ftmagic.store import open_store
from ftmagic.training import Job, read_metrics
from ftmagic.ui.job_card import JobView, card_html, card_text

_LONGEST_PAUSE_S = 30.0
_MOST_TRIES_AFTER_THE_END = 3
_CLOCK_EVERY_S = 5.0
"""How often the elapsed time alone is worth an update."""

_running: dict[str, LiveStatus] = {}
_registering = threading.RLock()


class Shown:
    """Something with an HTML face for notebooks and a plain one for consoles."""

    def __init__(self, html: str, text: str) -> None:
        """Hold both."""
        self._html, self._text = html, text

    def __repr__(self) -> str:
        """The plain one."""
        return self._text

    def _repr_html_(self) -> str:
        return self._html


class LiveStatus:
    """A job on display: `start()` a thread that updates it, or `wait()` and update it here."""

    def __init__(self, job: Job, *, note: str = "", poll_s: float | None = None) -> None:
        """Make a view; nothing is shown yet.

        Args:
            job: The job.
            note: To be shown with it.
            poll_s: Pause between two questions; None is the job's own.
        """
        self.job = job
        self._note = note
        self._warning = ""
        self._poll_s = job.poll_s if poll_s is None else poll_s
        self._pause_s = self._poll_s
        self._n_failures = 0
        self._displays: list[Any] = []
        self._shown: object = None
        self._shown_at = 0.0
        self._stop = threading.Event()
        self._updating = threading.RLock()
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        """Whether the thread goes on."""
        return self._thread is not None and self._thread.is_alive()

    def show(self, display: Any = None) -> None:
        """Put the card on display.

        Args:
            display: A `DisplayHandle` to take over; None makes a new one in this cell.
        """
        from IPython.display import display as show

        with self._updating:
            if display is None:
                display = show(self._card(), display_id=True)
            else:
                display.update(self._card())
            if display is not None:  # a plain Python has printed the card
                self._displays.append(display)

    def start(self) -> LiveStatus:
        """Update the display from a thread until the job has ended or `stop()` is called."""
        if not self.is_running and not self.job.info.is_final:
            self._stop.clear()
            self._thread = threading.Thread(
                target=self._run, daemon=True, name=f"ftmagic-live-{self.job.id}"
            )
            self._thread.start()
        return self

    def stop(self) -> None:
        """Stop updating; the job goes on."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=2.0)

    def wait(self) -> Job:
        """Stay until the job has ended, updating the same display; Ctrl-C detaches."""
        try:
            self.stop()
            self._stop.clear()
            while not self.update():
                self._stop.wait(self._pause_s)
        except KeyboardInterrupt:
            self._note = f"detached: the job goes on; %ft_status {self.job.id} shows it again"
            self._publish(is_forced=True)
        return self.job

    def update(self) -> bool:
        """Ask the engine once, and update the displays if anything changed.

        Returns:
            Whether the job has ended, and all of it is shown.
        """
        try:
            self.job.refresh()
            self.job.events()
            self._warning, self._pause_s, self._n_failures = "", self._poll_s, 0
        except FtmagicError as exc:
            # Shown instead of raised: a view must outlive a lost network and a missing key.
            self._warning = _first_line(exc)
            self._pause_s = min(max(self._pause_s, 0.25) * 2, _LONGEST_PAUSE_S)
            self._n_failures += 1
        # The events of an ended job may be lost with its engine: a few tries are enough.
        has_given_up = self._n_failures >= _MOST_TRIES_AFTER_THE_END
        is_over = self.job.info.is_final and (not self._warning or has_given_up)
        self._publish(is_forced=is_over)
        return is_over

    def _run(self) -> None:
        try:
            while not self._stop.is_set() and not self.update():
                self._stop.wait(self._pause_s)
        except Exception as exc:
            # Nobody sees an exception of a thread in a notebook: the card must say it.
            self._warning = f"this view stopped: {type(exc).__name__}: {exc}"
            self._publish(is_forced=True)
        finally:
            open_store().close()  # this thread's connection

    def _publish(self, *, is_forced: bool = False) -> None:
        with self._updating:
            info = self.job.info
            state = (info, len(self.job.seen_events), self._warning, self._note)
            is_due = time.monotonic() - self._shown_at > _CLOCK_EVERY_S
            if state == self._shown and not is_due and not is_forced:
                return
            self._shown, self._shown_at = state, time.monotonic()
            card = self._card()
            for display in self._displays:
                display.update(card)

    def _card(self) -> Shown:
        view = self._view()
        return Shown(card_html(view), card_text(view))

    def _view(self) -> JobView:
        events = self.job.seen_events
        notes = [each for each in (self._note, self._warning) if each]
        return JobView(
            info=self.job.info,
            dataset=self.job.dataset,
            host=self.job.record.host,
            progress=self.job.progress,
            metrics=tuple(read_metrics(events)),
            events=tuple(events),
            note="\n".join(notes),
            is_promoted=self.job.is_promoted,
            now=time.time(),
        )


def live(job: Job, *, note: str = "", display: Any = None) -> LiveStatus:
    """Show a job and keep it up to date; a second call shows the same job once more.

    Args:
        job: The job.
        note: To be shown with it.
        display: A `DisplayHandle` to take over; None makes a new one in this cell.
    """
    with _registering:
        view = _running.get(job.id)
        if view is None or not view.is_running:
            view = _running[job.id] = LiveStatus(job, note=note)
            view.update()
        view.show(display)
        return view.start() if in_notebook() else view


def wait(job: Job) -> Job:
    """Show a job and stay until it has ended."""
    return live(job).wait()


def stop_all() -> None:
    """Stop every live view; the jobs go on."""
    with _registering:
        views = list(_running.values())
        _running.clear()
    for view in views:
        view.stop()


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this, so that a display can be updated later."""
    return kernel_shell() is not None


def kernel_shell() -> Any:
    """Return the kernel's shell, or None in a terminal or a plain Python."""
    if "ipykernel.zmqshell" not in sys.modules:
        return None
    from ipykernel.zmqshell import ZMQInteractiveShell
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    return shell if isinstance(shell, ZMQInteractiveShell) else None


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0]
