"""The trainer: one flat script that fine-tunes a causal language model on chat rows.

    python -m ftmagic.local.train --model DIR --training-file rows.jsonl --out FOLDER

It runs alone, and the server's queue runs it as one process a job. In FOLDER it appends its log and
measurements to `events.jsonl`, keeps the last three `checkpoints/step-N/` (safetensors, tokenizer,
`checkpoint.json`), writes `plan.json` when it has decided how to train, and at the end
`result.json` (the best step) or `error.json` (why not). The same seed, rows, threads and precision
give the same weights.

All weights are trained: right for the small built-in student. Loss counts the answer's tokens only
(`chat.py` proves that they are inside the mask), logits are computed where there is loss.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from ftmagic.errors import DataError
from ftmagic.local.chat import ChatFormat, EncodedRow, grounded_fields, load_chat_format
from ftmagic.local.checkpoints import drop_oldest, save_checkpoint
from ftmagic.local.encoding import count_targets, encode_rows
from ftmagic.local.generate import (
    SMALL_PARAMETERS,
    context_tokens_of,
    count_parameters,
    load_model,
)
from ftmagic.local.job_folder import ERROR, PLAN, RESULT, append_event, write_json
from ftmagic.local.loss import Arithmetic, evaluate, loss_of, passes
from ftmagic.local.probe import PRECISIONS, choose_arithmetic, is_slowed
from ftmagic.local.rows import MIN_ROWS, Row, listing, read_rows
from ftmagic.types import Json

SMALL_MODEL_LR = 1e-3
"""Base learning rate below `SMALL_PARAMETERS` parameters; `learning_rate_multiplier` scales it."""
LARGE_MODEL_LR = 2e-5
AUTO_BATCH_SIZE = 8
AUTO_EPOCHS = 8
AUTO_EPOCHS_BLIND = 5
"""Epochs without a validation file, where nothing tells when to stop."""
PATIENCE = 3
"""Epochs without a better validation loss after which training stops."""
MIN_GAIN = 0.01
"""Share by which a validation loss must fall to count as better."""
ADAM_BETAS = (0.9, 0.99)
WEIGHT_DECAY = 0.01
WARMUP_STEPS = 10
FINAL_LR_SHARE = 0.05
KEPT_CHECKPOINTS = 3

_LOGGED_STEPS = 200


@dataclass(frozen=True)
class Options:
    """What to train on what, as the command line says; None means 'auto'."""

    model: Path
    training_file: Path
    out: Path
    validation_file: Path | None = None
    n_epochs: int | None = None
    batch_size: int | None = None
    learning_rate_multiplier: float | None = None
    seed: int = 0
    threads: int | None = None
    precision: str | None = None


@dataclass(frozen=True)
class Plan:
    """How it is trained; the first three are OpenAI's hyperparameters."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    peak_lr: float
    steps_per_epoch: int

    @property
    def total_steps(self) -> int:
        """Optimiser steps when nothing stops it early."""
        return self.n_epochs * self.steps_per_epoch

    def body(self) -> Json:
        """What `plan.json` says of it."""
        hyperparameters = {
            "n_epochs": self.n_epochs,
            "batch_size": self.batch_size,
            "learning_rate_multiplier": self.learning_rate_multiplier,
        }
        return {"hyperparameters": hyperparameters, "total_steps": self.total_steps}


@dataclass
class Progress:
    """Where a training run stands."""

    step: int = 0
    n_trained_tokens: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    n_worse: int = 0


class _Reader:
    """Tokenises files for one model and logs what does not fit."""

    def __init__(self, chat: ChatFormat, context_tokens: int, out: Path) -> None:
        self._chat = chat
        self._context_tokens = context_tokens
        self._out = out

    def encode(self, rows: list[Row], kind: str, needed: int) -> list[EncodedRow]:
        encoded = encode_rows(self._chat, rows, self._context_tokens)
        if encoded.problems:
            raise DataError(f"the {kind} file: {listing(encoded.problems)}")
        if encoded.too_long:
            lines = ", ".join(map(str, encoded.too_long[:20]))
            append_event(
                self._out,
                f"{len(encoded.too_long)} {kind} rows are longer than {self._context_tokens} "
                f"tokens and would lose their answer; they are left out: lines {lines}",
                level="warn",
            )
        if len(encoded.rows) < needed:
            raise DataError(
                f"{len(encoded.rows)} of {len(rows)} {kind} rows fit the model's "
                f"{self._context_tokens} tokens; at least {needed} are needed."
            )
        return encoded.rows


def train(options: Options) -> None:
    """Run one job from rows to checkpoints.

    Raises:
        DataError: The rows or hyperparameters cannot be trained on.
    """
    torch.manual_seed(options.seed)
    model = load_model(options.model)
    tokenizer = AutoTokenizer.from_pretrained(options.model, local_files_only=True)
    reader = _Reader(load_chat_format(tokenizer), context_tokens_of(model), options.out)
    rows = read_training_rows(options.training_file)
    train_rows = reader.encode(rows, "training", MIN_ROWS)
    valid_rows: list[EncodedRow] = []
    if options.validation_file is not None:
        valid_rows = reader.encode(read_training_rows(options.validation_file), "validation", 1)
    plan = decide(options, model, len(train_rows), is_validated=bool(valid_rows))
    grounded = sorted(grounded_fields([row.body for row in rows]))
    write_json(options.out / PLAN, {**plan.body(), "grounded_fields": grounded})
    arithmetic = choose_arithmetic(
        model, train_rows[: plan.batch_size], options.threads, options.precision
    )
    torch.set_num_threads(arithmetic.n_threads)
    append_event(
        options.out,
        f"Training {count_parameters(model) / 1e6:.1f}M parameters on {len(train_rows)} rows "
        f"({sum(len(row.token_ids) for row in train_rows)} tokens), {len(valid_rows)} validation "
        f"rows, at most {plan.total_steps} steps, on {_device_name(model, arithmetic)}",
    )
    progress = Progress()
    for metrics in run_epochs(model, train_rows, valid_rows, plan, arithmetic, progress, options):
        keep_if_better(model, tokenizer, options.out, progress, metrics)
        if valid_rows and progress.n_worse >= PATIENCE:
            append_event(
                options.out,
                f"Stopped early: {PATIENCE} epochs without a better validation loss "
                f"(best {progress.best_loss:.4f} at step {progress.best_step})",
            )
            break
    result = {"step": progress.best_step, "trained_tokens": progress.n_trained_tokens}
    write_json(options.out / RESULT, result)


def run_epochs(
    model: Any,
    train_rows: list[EncodedRow],
    valid_rows: list[EncodedRow],
    plan: Plan,
    arithmetic: Arithmetic,
    progress: Progress,
    options: Options,
) -> Iterator[Json]:
    """Train epoch by epoch, logging steps; yield the measurements at each epoch's end."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan.peak_lr, betas=ADAM_BETAS, weight_decay=WEIGHT_DECAY
    )
    is_bfloat16 = arithmetic.is_bfloat16
    shuffler = random.Random(options.seed)
    log_every = max(1, plan.total_steps // _LOGGED_STEPS)
    model.train()
    epochs_s: list[float] = []
    for epoch in range(1, plan.n_epochs + 1):
        started = time.perf_counter()
        for batch in batches(train_rows, plan.batch_size, shuffler):
            progress.step += 1
            progress.n_trained_tokens += sum(len(row.token_ids) for row in batch)
            lr = plan.peak_lr * learning_rate_share(progress.step, plan.total_steps)
            metrics = train_step(model, optimizer, batch, lr, is_bfloat16=is_bfloat16)
            metrics |= {"step": progress.step, "total_steps": plan.total_steps, "epoch": epoch}
            is_epoch_end = progress.step == epoch * plan.steps_per_epoch
            if is_epoch_end:
                metrics |= evaluate(model, valid_rows, is_bfloat16=is_bfloat16)
            if is_epoch_end or progress.step % log_every == 0:
                append_event(options.out, _describe(metrics), data=metrics)
        epochs_s.append(time.perf_counter() - started)
        if options.threads is None and torch.get_num_threads() > 1 and is_slowed(epochs_s):
            torch.set_num_threads(1)
            append_event(options.out, "The machine is busy: training goes on with one thread")
        yield metrics


def decide(options: Options, model: Any, n_rows: int, *, is_validated: bool) -> Plan:
    """Fill in what the options leave to the trainer."""
    batch_size = options.batch_size or min(AUTO_BATCH_SIZE, max(1, n_rows // 2))
    multiplier = options.learning_rate_multiplier or 1.0
    is_small = count_parameters(model) < SMALL_PARAMETERS
    return Plan(
        n_epochs=options.n_epochs or (AUTO_EPOCHS if is_validated else AUTO_EPOCHS_BLIND),
        batch_size=batch_size,
        learning_rate_multiplier=multiplier,
        peak_lr=multiplier * (SMALL_MODEL_LR if is_small else LARGE_MODEL_LR),
        steps_per_epoch=math.ceil(n_rows / batch_size),
    )


def read_training_rows(path: Path) -> list[Row]:
    """Read a file whose every line must be usable.

    Raises:
        DataError: Some are not, by line.
    """
    report = read_rows(path)
    if report.problems:
        raise DataError(f"{path.name}: {listing(report.problems)}")
    return report.rows


def batches(
    rows: list[EncodedRow], batch_size: int, shuffler: random.Random
) -> Iterator[list[EncodedRow]]:
    """Yield the batches of one epoch in a new order."""
    order = list(range(len(rows)))
    shuffler.shuffle(order)
    for start in range(0, len(order), batch_size):
        yield [rows[index] for index in order[start : start + batch_size]]


def learning_rate_share(step: int, total_steps: int) -> float:
    """Return the share of the peak learning rate: warm up, then fall linearly.

    Args:
        step: From 1.
        total_steps: Where the fall ends, at `FINAL_LR_SHARE`.
    """
    warmup = min(WARMUP_STEPS, max(1, total_steps // 10))
    left = (total_steps - step) / max(1, total_steps - warmup)
    return min(step / warmup, FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * left)


def train_step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    rows: list[EncodedRow],
    lr: float,
    *,
    is_bfloat16: bool = False,
) -> Json:
    """Take one optimiser step; the loss is the mean over the batch's answer tokens.

    Raises:
        DataError: The loss is no longer a number.
    """
    n_targets = sum(count_targets(row) for row in rows)
    total, n_right = 0.0, 0
    optimizer.zero_grad(set_to_none=True)
    for part in passes(rows):
        loss = loss_of(model, part, is_bfloat16=is_bfloat16)
        (loss.total / n_targets).backward()
        total += float(loss.total.detach())
        n_right += loss.n_right
    if not math.isfinite(total):
        raise DataError(
            "the training loss is no longer a number; the learning rate is too high.\n"
            "  Next: train again with a smaller learning_rate_multiplier"
        )
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    return {
        "train_loss": round(total / n_targets, 5),
        "train_mean_token_accuracy": round(n_right / n_targets, 5),
        "learning_rate": lr,
    }


def keep_if_better(
    model: Any, tokenizer: Any, out: Path, progress: Progress, metrics: Json
) -> None:
    """Save a checkpoint when the validation loss fell, or always where there is none."""
    valid_loss = metrics.get("valid_loss")
    if valid_loss is not None and valid_loss > progress.best_loss * (1 - MIN_GAIN):
        progress.n_worse += 1
        return
    progress.n_worse = 0
    progress.best_step = progress.step
    progress.best_loss = valid_loss if valid_loss is not None else math.inf
    save_checkpoint(model, tokenizer, out, metrics)
    drop_oldest(out, kept=KEPT_CHECKPOINTS)


def _describe(metrics: Json) -> str:
    text = f"Step {metrics['step']}/{metrics['total_steps']}: training loss="
    text += f"{metrics['train_loss']:.2f}"
    if "valid_loss" in metrics:
        text += f", full validation loss={metrics['valid_loss']:.2f}"
    return text


def _device_name(model: Any, arithmetic: Arithmetic) -> str:
    numbers = "bfloat16" if arithmetic.is_bfloat16 else "float32"
    if model.device.type != "cpu":
        return f"{model.device} in {numbers}"
    plural = "" if arithmetic.n_threads == 1 else "s"
    return f"{arithmetic.n_threads} CPU thread{plural} in {numbers}"


def _stop_with_parent() -> None:
    """End this process when standard input closes: its server is gone."""

    def wait() -> None:
        while os.read(0, 1024):  # not sys.stdin: its lock would abort a normal exit
            pass
        os._exit(70)

    threading.Thread(target=wait, daemon=True).start()


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and train; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ftmagic.local.train", description="Fine-tune a model on chat rows."
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--training-file", type=Path, required=True, help="JSON Lines, OpenAI chat")
    parser.add_argument("--validation-file", type=Path, help="decides when to stop")
    parser.add_argument("--out", type=Path, required=True, help="folder for events and checkpoints")
    parser.add_argument("--n-epochs", type=int, help="at most; default 8, or 5 unvalidated")
    parser.add_argument("--batch-size", type=int, help="rows a step; default 8")
    parser.add_argument("--learning-rate-multiplier", type=float, help="default 1")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument("--threads", type=int, help="CPU threads; default: the faster of 1 and all")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: the faster one")
    parser.add_argument("--stop-with-parent", action="store_true", help="end when stdin closes")
    values = vars(parser.parse_args(arguments))
    if values.pop("stop_with_parent"):
        _stop_with_parent()
    options = Options(**values)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        train(options)
    except DataError as exc:
        error = {"code": "invalid_training_file", "message": str(exc), "param": "training_file"}
        write_json(options.out / ERROR, error)
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
