"""What makes two training requests the same one: the bytes of the files and the spec.

Every engine submits under this hash, so a double click, a second kernel and a lost reply all end
in one job. It knows nothing of providers.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ftmagic.types import TrainSpec, content_hash

HASH_KEY = "ftmagic_hash"
"""Metadata key: the content hash of files and spec."""
INTENT_KEY = "ftmagic_intent"
"""Metadata key: the uuid of one attempt to create a job."""


def file_digest(path: Path) -> str:
    """Return 32 hex digits that identify a file's bytes."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as body:
        while chunk := body.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def submission_hash(train: Path, validation: Path | None, spec: TrainSpec) -> str:
    """Return the content hash of files and spec, without the two keys that name the attempt.

    Args:
        train: The training file.
        validation: The validation file, if any.
        spec: The spec; metadata other than `HASH_KEY` and `INTENT_KEY` counts.
    """
    metadata = {
        key: value for key, value in spec.metadata.items() if key not in (HASH_KEY, INTENT_KEY)
    }
    return content_hash(
        [
            file_digest(train),
            file_digest(validation) if validation else None,
            [spec.model, spec.suffix, spec.seed, spec.method],
            spec.hyperparameters(),
            metadata,
        ]
    )
