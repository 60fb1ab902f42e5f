"""The loss of chat rows under a causal language model: padded passes, logits only where it counts.

Knows tensors and encoded rows; nothing about optimisers, files or jobs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy

from ftmagic.local.chat import EncodedRow
from ftmagic.local.encoding import IGNORED_LABEL
from ftmagic.types import Json

PASS_TOKENS = 4096
"""Most padded tokens in one forward pass; a larger batch is summed over several."""


class Arithmetic(NamedTuple):
    """How to compute.

    Attributes:
        n_threads: CPU threads.
        is_bfloat16: Multiply matrices in bfloat16 (weights stay as they are): two to three times
            faster on a CPU that has it, as much slower on one that has not.
    """

    n_threads: int = 1
    is_bfloat16: bool = False


class Loss(NamedTuple):
    """Sums over the tokens of some rows.

    Attributes:
        total: Summed cross entropy, in nats; a tensor with a gradient while training.
        n_right: Tokens whose best guess was right.
        n_tokens: Tokens with loss.
    """

    total: Any
    n_right: int
    n_tokens: int


@torch.no_grad()
def evaluate(model: Any, rows: list[EncodedRow], *, is_bfloat16: bool = False) -> Json:
    """Measure all validation rows; {} without any."""
    if not rows:
        return {}
    model.eval()
    losses = [loss_of(model, part, is_bfloat16=is_bfloat16) for part in passes(rows)]
    model.train()
    n_targets = sum(loss.n_tokens for loss in losses)
    valid_loss = round(sum(float(loss.total) for loss in losses) / n_targets, 5)
    accuracy = round(sum(loss.n_right for loss in losses) / n_targets, 5)
    return {
        "valid_loss": valid_loss,
        "valid_mean_token_accuracy": accuracy,
        "full_valid_loss": valid_loss,
        "full_valid_mean_token_accuracy": accuracy,
    }


def passes(rows: list[EncodedRow]) -> Iterator[list[EncodedRow]]:
    """Cut rows, longest first, into forward passes of at most `PASS_TOKENS` padded tokens."""
    ordered = sorted(rows, key=lambda row: -len(row.token_ids))
    while ordered:
        size = max(1, PASS_TOKENS // len(ordered[0].token_ids))
        yield ordered[:size]
        ordered = ordered[size:]


def loss_of(model: Any, rows: list[EncodedRow], *, is_bfloat16: bool = False) -> Loss:
    """Run one forward pass.

    Rows are padded on the left, so that the answers stand together at the end and logits are
    computed for little else.
    """
    shape = (len(rows), max(len(row.token_ids) for row in rows))
    ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED_LABEL)
    for index, row in enumerate(rows):
        length = len(row.token_ids)
        ids[index, -length:] = torch.tensor(row.token_ids)
        labels[index, -length:] = torch.tensor(row.labels)
        mask[index, -length:] = 1
    targets = labels[:, 1:]  # (B, T-1): position t predicts token t+1
    kept = (targets != IGNORED_LABEL).any(dim=0).nonzero().flatten()  # (K,)
    targets = targets[:, kept].to(model.device)  # (B, K)
    # Entered for each pass: autocast keeps its copies of the weights until it is left.
    with torch.autocast(model.device.type, torch.bfloat16, enabled=is_bfloat16):
        output = model(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0).to(model.device),
            use_cache=False,
            logits_to_keep=kept.to(model.device),
        )
    logits = output.logits[targets != IGNORED_LABEL].float()  # (N, V)
    targets = targets[targets != IGNORED_LABEL]  # (N,)
    total = cross_entropy(logits, targets, reduction="sum")
    return Loss(total, int((logits.argmax(-1) == targets).sum()), len(targets))
