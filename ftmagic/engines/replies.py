"""JSON of the fine-tuning API -> the project's values.

Read loosely: servers leave fields out, and a status that nobody knows yet is kept verbatim. Sends
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ftmagic.errors import EngineUnreachable, message
from ftmagic.types import Checkpoint, JobEvent, JobInfo, Json


def as_json(reply: object) -> Json:
    """Return what the SDK made of a reply as plain JSON, unknown values included.

    Raises:
        EngineUnreachable: It is no JSON object; the SDK hands other text on as it came.
    """
    import openai

    if not isinstance(reply, openai.BaseModel):
        raise no_answer("the server", "JSON")
    return dict(reply.to_dict(warnings=False))


def no_answer(host: str, wanted: str) -> EngineUnreachable:
    """Build the error for a reply of another kind than was asked for."""
    return EngineUnreachable(
        message(
            f"{host} answered with something that is not {wanted}.",
            next_step="check the address: base_url ends in the API's version folder, as in /v1",
        )
    )


def bodies_until(items: Iterable[object], stop_id: str | None) -> list[Json]:
    """Read the objects of a list up to, and without, the one with this id."""
    bodies: list[Json] = []
    for item in items:
        body = as_json(item)
        if stop_id is not None and body.get("id") == stop_id:
            break
        bodies.append(body)
    return bodies


def read_job(body: Json, engine: str) -> JobInfo:
    """Read a `fine_tuning.job`.

    Args:
        body: The JSON, as it came.
        engine: The engine's name.
    """
    return JobInfo(
        id=str(body.get("id") or ""),
        engine=engine,
        model=str(body.get("model") or ""),
        status=str(body.get("status") or "unknown"),
        created_at=_seconds(body.get("created_at")) or 0.0,
        finished_at=_seconds(body.get("finished_at")),
        fine_tuned_model=_text(body.get("fine_tuned_model")) or None,
        trained_tokens=_count(body.get("trained_tokens")),
        error=_error(body.get("error")),
        training_file=_text(body.get("training_file")),
        validation_file=_text(body.get("validation_file")) or None,
        hyperparameters=_hyperparameters(body),
        metadata={key: str(value) for key, value in _object(body.get("metadata")).items()},
    )


def read_event(body: Json) -> JobEvent:
    """Read a `fine_tuning.job.event`."""
    return JobEvent(
        id=_text(body.get("id")),
        created_at=_seconds(body.get("created_at")) or 0.0,
        level=_text(body.get("level")) or "info",
        message=_text(body.get("message")),
        type=_text(body.get("type")) or "message",
        data=dict(_object(body.get("data"))),
    )


def read_checkpoint(body: Json) -> Checkpoint:
    """Read a `fine_tuning.job.checkpoint`."""
    metrics = _object(body.get("metrics"))
    return Checkpoint(
        id=_text(body.get("id")),
        step_number=_count(body.get("step_number")) or 0,
        fine_tuned_model_checkpoint=_text(body.get("fine_tuned_model_checkpoint")),
        metrics={key: float(value) for key, value in metrics.items() if _is_number(value)},
        created_at=_seconds(body.get("created_at")) or 0.0,
    )


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _seconds(value: Any) -> float | None:
    return float(value) if _is_number(value) else None


def _count(value: Any) -> int | None:
    return int(value) if _is_number(value) else None


def _error(value: Any) -> str:
    """Join code and message; a job that did not fail carries null, {} or an object of nulls."""
    if isinstance(value, str):
        return value
    parts = [_text(_object(value).get(name)) for name in ("code", "message")]
    return ": ".join(part for part in parts if part)


def _hyperparameters(body: Json) -> Mapping[str, Any]:
    method = _object(body.get("method"))
    chosen = _object(method.get(_text(method.get("type"))))
    found = _object(body.get("hyperparameters")) or _object(chosen.get("hyperparameters"))
    return {key: value for key, value in found.items() if value is not None}
