"""Losses and progress, as a job's events report them. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ftmagic.types import JobEvent

_STEP_OF = re.compile(r"\bstep (\d+)\s*/\s*(\d+)", re.IGNORECASE)


class Metric(NamedTuple):
    """What was measured at one step.

    Attributes:
        step: Optimiser steps so far.
        train_loss: None where only validation was measured.
        valid_loss: None where it was not measured.
    """

    step: int
    train_loss: float | None
    valid_loss: float | None


@dataclass(frozen=True)
class Progress:
    """How far a job has come.

    Attributes:
        step: Optimiser steps so far; 0 before the first report.
        total_steps: At most so many; None if the engine does not say.
        epoch: Passes over the rows; None if the engine does not say.
    """

    step: int = 0
    total_steps: int | None = None
    epoch: float | None = None

    @property
    def fraction(self) -> float | None:
        """From 0 to 1, or None if it cannot be known."""
        return min(1.0, self.step / self.total_steps) if self.total_steps else None


def read_metrics(events: Iterable[JobEvent]) -> list[Metric]:
    """Read the losses, by step; what two events say of one step is joined."""
    found: dict[int, Metric] = {}
    for event in events:
        step = _number(event.data, "step")
        train_loss = _number(event.data, "train_loss")
        valid_loss = _number(event.data, "valid_loss")
        if valid_loss is None:
            valid_loss = _number(event.data, "full_valid_loss")
        if step is None or (train_loss is None and valid_loss is None):
            continue
        before = found.get(int(step), Metric(int(step), None, None))
        found[int(step)] = Metric(
            int(step),
            before.train_loss if train_loss is None else train_loss,
            before.valid_loss if valid_loss is None else valid_loss,
        )
    return [found[step] for step in sorted(found)]


def read_progress(events: Iterable[JobEvent]) -> Progress:
    """Read how far the job has come, from the data of its events or from 'Step 3/20'."""
    step, total, epoch = 0, None, None
    for event in events:
        match = _STEP_OF.search(event.message)
        now = _number(event.data, "step") or (int(match[1]) if match else 0)
        step = max(step, int(now))
        most = _number(event.data, "total_steps") or (int(match[2]) if match else None)
        total = int(most) if most else total
        epoch = _number(event.data, "epoch") or epoch
    return Progress(step, total, epoch)


def _number(data: Mapping[str, Any], name: str) -> float | None:
    value = data.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) else None
