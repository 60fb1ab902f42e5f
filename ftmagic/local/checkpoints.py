"""Writes checkpoints into a job's folder, whole or not at all, and drops the oldest.

A checkpoint folder holds what `from_pretrained` reads (safetensors, config, tokenizer) and
`checkpoint.json` with its step and measurements. Knows nothing about how a model is trained.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from ftmagic.local.job_folder import CHECKPOINT, CHECKPOINTS, write_json
from ftmagic.types import Json

_CHECKPOINT_METRICS = (
    "step",
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
)


def save_checkpoint(model: Any, tokenizer: Any, out: Path, metrics: Json) -> None:
    """Write one checkpoint folder, whole or not at all."""
    part = out / CHECKPOINTS / "saving"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    shown = {name: metrics[name] for name in _CHECKPOINT_METRICS if name in metrics}
    saved = {"step": metrics["step"], "created_at": int(time.time()), "metrics": shown}
    write_json(part / CHECKPOINT, saved)
    part.rename(out / CHECKPOINTS / f"step-{metrics['step']}")


def drop_oldest(out: Path, *, kept: int) -> None:
    """Remove all but the last checkpoints.

    Args:
        out: The job's folder.
        kept: How many stay.
    """
    saved = sorted((out / CHECKPOINTS).glob("step-*"), key=lambda path: int(path.name[5:]))
    for path in saved[:-kept]:
        shutil.rmtree(path, ignore_errors=True)
