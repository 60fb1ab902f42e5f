"""One job as a card: status, progress, loss curve, last events, error. Values in, HTML or text out.

Everything that an engine said is escaped. Colours come from the page; the accents are visible in
light and in dark.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ftmagic import render
from ftmagic.training import Metric, Progress
from ftmagic.types import JobEvent, JobInfo

_COLOURS = {"succeeded": "#1f9d61", "failed": "#dc4a3d", "cancelled": "#8a8f98"}
_RUNNING, _AWAY = "#3b82f6", "#d99a1c"
_SHOWN_EVENTS = 4
_QUIET = "opacity:.72"


@dataclass(frozen=True)
class JobView:
    """What a card shows.

    Attributes:
        info: The job as last known.
        dataset: Its dataset, or ''.
        host: Where it runs.
        progress: How far it has come.
        metrics: Losses by step.
        events: Oldest first.
        note: What the reader should know about the view itself, for example that it is away.
        is_promoted: Whether the job answers for its dataset.
        now: Unix seconds.
    """

    info: JobInfo
    dataset: str = ""
    host: str = ""
    progress: Progress = Progress()
    metrics: tuple[Metric, ...] = ()
    events: tuple[JobEvent, ...] = ()
    note: str = ""
    is_promoted: bool = False
    now: float = 0.0

    @property
    def fraction(self) -> float | None:
        """How far it is, from 0 to 1; a job that succeeded is through, early stopping included."""
        return 1.0 if self.info.status == "succeeded" else self.progress.fraction

    @property
    def elapsed_s(self) -> float:
        """Seconds from its creation to its end, or to now."""
        end = self.info.finished_at or self.now or time.time()
        return max(0.0, end - self.info.created_at) if self.info.created_at else 0.0


def card_html(view: JobView) -> str:
    """Render a card."""
    train = [(m.step, m.train_loss) for m in view.metrics if m.train_loss is not None]
    valid = [(m.step, m.valid_loss) for m in view.metrics if m.valid_loss is not None]
    total = None if view.info.is_final else view.progress.total_steps
    curve = render.loss_curve(train, valid, total_steps=total)
    colour = _COLOURS.get(view.info.status, _RUNNING)
    parts = [
        _head(view, colour),
        render.progress_bar(view.fraction, colour=colour),
        f'<div style="margin:.45em 0 0;{_QUIET}">{" · ".join(map(render.text, facts(view)))}</div>',
        f'<div style="margin:.8em 0 0">{curve}</div>' if curve else "",
        _notice(view.info.error, _COLOURS["failed"]) if view.info.error else "",
        _notice(view.note, _AWAY) if view.note else "",
        _log(view),
        _next(view),
    ]
    return (
        '<div class="ftmagic-job" style="font:13px/1.5 system-ui,sans-serif;color:inherit;'
        "max-width:560px;padding:.8em 1em;border:1px solid rgba(128,128,128,.28);"
        f'border-radius:8px;text-align:left;break-inside:avoid">{"".join(parts)}</div>'
    )


def card_text(view: JobView) -> str:
    """Render a card for a console."""
    lines = [
        f"{_title(view)}  {render.plain(view.info.id)}",
        f"{render.plain(view.info.status)}  {render.progress_text(view.fraction)}",
        render.plain(" · ".join(facts(view))),
        *(render.plain(each.message, longest=110) for each in _told(view)),
        *(render.plain(each) for each in (view.info.error, view.note) if each),
    ]
    return "\n".join(line for line in lines if line.strip())


def facts(view: JobView) -> list[str]:
    """List what is measured, each figure with what it is."""
    progress, info = view.progress, view.info
    found = []
    if progress.step:
        of_all = f" of {progress.total_steps:,}" if progress.total_steps else ""
        found.append(f"step {progress.step:,}{of_all}")
    if progress.epoch:
        epochs = info.hyperparameters.get("n_epochs")
        of_epochs = f" of {epochs}" if isinstance(epochs, int) else ""
        found.append(f"epoch {progress.epoch:.3g}{of_epochs}")
    if info.created_at:
        found.append(clock(view.elapsed_s))
    if info.trained_tokens is not None:
        found.append(f"{info.trained_tokens:,} trained tokens")
    found.append(f"{info.engine} ({view.host})" if view.host else info.engine)
    return found


def clock(seconds: float) -> str:
    """Write a duration: '0:07', '12:30', '1:02:03'."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _title(view: JobView) -> str:
    name = f"{view.dataset} → " if view.dataset else ""
    return render.plain(name + view.info.model)


def _head(view: JobView, colour: str) -> str:
    status = render.text(view.info.status.replace("_", " "), longest=60)
    promoted = f' <span style="{_QUIET}">promoted</span>' if view.is_promoted else ""
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:.1em .9em;align-items:baseline;'
        'margin-bottom:.5em"><span style="font-weight:650;white-space:nowrap"><span '
        f'aria-hidden="true" style="color:{colour}">●</span> {status}</span>'
        f"<span>{render.text(_title(view))}{promoted}</span>"
        '<code style="margin-left:auto;color:inherit;background:none;font-size:12px;'
        f'{_QUIET}">{render.text(view.info.id)}</code></div>'
    )


def _notice(words: str, colour: str) -> str:
    return (
        f'<div role="status" style="margin:.6em 0 0;padding:.25em .7em;border-left:3px solid '
        f'{colour};background:rgba(128,128,128,.1);white-space:pre-wrap">'
        f"{render.text(words, longest=1200)}</div>"
    )


def _log(view: JobView) -> str:
    lines = "".join(
        f"<div>{_time(each)} {render.text(each.message, longest=160)}</div>" for each in _told(view)
    )
    if not lines:
        return ""
    return (
        '<div style="margin:.7em 0 0;font:11.5px/1.5 ui-monospace,monospace;overflow-wrap:anywhere;'
        f'{_QUIET}">{lines}</div>'
    )


def _told(view: JobView) -> list[JobEvent]:
    """The last messages; of the measurements, which the curve shows, only the newest."""
    last = next((each for each in reversed(view.events) if each.type == "metrics"), None)
    told = [each for each in view.events if each.type != "metrics" or each is last]
    return told[-_SHOWN_EVENTS:]


def _time(event: JobEvent) -> str:
    return time.strftime("%H:%M:%S", time.localtime(event.created_at))


def _next(view: JobView) -> str:
    if view.info.status != "succeeded" or not view.info.fine_tuned_model:
        return ""
    target = view.dataset if view.dataset and view.is_promoted else view.info.id
    return (
        '<div style="margin:.7em 0 0"><code style="color:inherit;background:none">'
        f'{render.text(view.info.fine_tuned_model)}</code> <span style="{_QUIET}">answers in '
        f'</span><code style="color:inherit;background:none">%%use_ft {render.text(target)}</code>'
        "</div>"
    )
