"""Names of the models that this server can load: the built-in student, tuned models, local paths.

Knows where a model's files are and what to tell about it; loads nothing.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ftmagic.local.dialect import ApiError
from ftmagic.types import Json

STUDENT = "ftmagic-student"
"""The built-in model."""

STUDENT_FOLDER = Path(__file__).parent / "student"

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class ServedModel:
    """A model that can be loaded.

    Attributes:
        name: As a request names it.
        folder: Its config, safetensors and tokenizer files.
        created_at: Unix seconds.
        owned_by: 'ftmagic', or 'you' for a tuned model.
        grounded_fields: Fields whose values were spans of the input in every training row.
    """

    name: str
    folder: Path
    created_at: int = 0
    owned_by: str = "ftmagic"
    grounded_fields: frozenset[str] = frozenset()

    def body(self) -> Json:
        """The `model` object of the API, and the fields that this model grounds."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created_at,
            "owned_by": self.owned_by,
            "ftmagic_grounded": sorted(self.grounded_fields),
        }


class TunedModels(Protocol):
    """Where the registry learns about trained models."""

    def tuned_models(self) -> list[ServedModel]:
        """List the tuned models and their checkpoints, newest first."""


class ModelRegistry:
    """Finds a model by name.

    Args:
        tuned: The jobs' models.
    """

    def __init__(self, tuned: TunedModels) -> None:
        """Keep the source of tuned models."""
        self._tuned = tuned

    def list(self) -> list[ServedModel]:
        """List the built-in student and the tuned models."""
        student = ServedModel(STUDENT, STUDENT_FOLDER)
        base = [student] if is_model_folder(STUDENT_FOLDER) else []
        return [*base, *self._tuned.tuned_models()]

    def get(self, name: str) -> ServedModel | None:
        """Return the model of a name: listed, a folder on this machine, or a downloaded checkpoint.

        Args:
            name: 'ftmagic-student', 'ft:...', a path, or 'owner/name' as in the Hugging Face cache
                (nothing is downloaded).
        """
        for model in self.list():
            if model.name == name:
                return model
        folder = Path(name).expanduser()
        if folder.is_absolute():
            return ServedModel(name, folder) if is_model_folder(folder) else None
        cached = _cached_folder(name) if _REPOSITORY.fullmatch(name) else None
        return ServedModel(name, cached) if cached is not None else None


def is_model_folder(folder: Path) -> bool:
    """Whether a folder holds a checkpoint in safetensors form."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def base_name(model: str) -> str:
    """Shorten a model's name to what a tuned model is named after.

    A path gives its last part, a tuned model its own base.
    """
    if model.startswith("ft:"):
        return model.split(":")[1]
    return re.sub(r"[^A-Za-z0-9._-]", "-", model.rstrip("/").rsplit("/", 1)[-1])


def unknown_model(name: str, known: list[str]) -> ApiError:
    """Build the 404 for a model that does not exist, with the closest name.

    Args:
        name: What was asked for.
        known: The names that exist.
    """
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}."
    return ApiError(
        404,
        f"The model {name[:200]!r} does not exist on this server; {hint}",
        code="model_not_found",
        param="model",
    )


def _cached_folder(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache  # ~0.3 s: only for such names

    path = try_to_load_from_cache(name, "config.json")
    folder = Path(path).parent if isinstance(path, str) else None
    return folder if folder is not None and is_model_folder(folder) else None
