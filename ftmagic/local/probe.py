"""Finds the fastest way to train on this machine, by trying for about a second.

On a busy machine two threads were three times slower than one; bfloat16 is twice as fast on a CPU
that has the instructions and several times slower on one that has not. Nothing tells beforehand.
"""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple

import torch

from ftmagic.local.chat import EncodedRow
from ftmagic.local.loss import Arithmetic, loss_of, passes

PRECISIONS = ("float32", "bfloat16")

WORTH = 1.5
"""How many times faster all threads must be than one: they suffer when others need the CPU."""
SLOWED = 2.0
"""An epoch this many times slower than the first shows that others do."""

_TRY_S = 0.4
_HOPELESS = 2.0  # a first step this many times slower than the best is not tried further


def choose_arithmetic(
    model: Any, rows: list[EncodedRow], n_threads: int | None, precision: str | None
) -> Arithmetic:
    """Choose threads and precision, leaving the weights as they are.

    Args:
        model: To be trained.
        rows: A typical batch.
        n_threads: None tries one and all of them.
        precision: One of `PRECISIONS`; None tries both.
    """
    fewest = n_threads or 1
    names = [precision] if precision else PRECISIONS
    ways = [Arithmetic(fewest, name == "bfloat16") for name in names]
    most = os.cpu_count() or 1
    is_open = n_threads is None and most > 1 and model.device.type == "cpu"
    if len(ways) == 1 and not is_open:
        return ways[0]
    part = next(passes(rows))
    best = _try(model, part, ways[0])
    for way in ways[1:]:
        best = min(best, _try(model, part, way, best.step_s))
    if is_open:
        shared = _try(model, part, best.way._replace(n_threads=most), best.step_s / WORTH)
        best = shared if shared.step_s * WORTH < best.step_s else best
    model.zero_grad(set_to_none=True)
    return best.way


def is_slowed(epochs_s: list[float]) -> bool:
    """Whether the last epoch took so long that its threads must be waiting for other processes.

    Args:
        epochs_s: Duration of each epoch so far, in seconds.
    """
    return epochs_s[-1] > SLOWED * epochs_s[0]


class _Trial(NamedTuple):
    step_s: float  # first, so that the smallest trial is the fastest
    way: Arithmetic


def _try(
    model: Any, rows: list[EncodedRow], way: Arithmetic, best_s: float = float("inf")
) -> _Trial:
    """Time the fastest of several steps, or give up where the first is hopeless."""
    torch.set_num_threads(way.n_threads)
    start, fastest = time.perf_counter(), float("inf")
    while time.perf_counter() - start < _TRY_S:
        fastest = min(fastest, _step(model, rows, way))
        if fastest > _HOPELESS * best_s:
            break
    return _Trial(fastest, way)


def _step(model: Any, rows: list[EncodedRow], way: Arithmetic) -> float:
    start = time.perf_counter()
    loss_of(model, rows, is_bfloat16=way.is_bfloat16).total.backward()
    return time.perf_counter() - start
