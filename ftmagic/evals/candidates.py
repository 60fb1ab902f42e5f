"""Who is compared: 'base', 'tuned', a model's name, a job or an endpoint -> label and endpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from ftmagic.errors import ConfigError, message
from ftmagic.routing import FinishedJob, endpoint_of
from ftmagic.store import JobRecord, open_store
from ftmagic.types import Endpoint, Json

GROUNDED = "ftmagic_grounded"
"""The embedded engine's own request field: which output fields are spans of the input."""

Model = str | FinishedJob | Endpoint
"""What `compare()` takes for a model."""


@dataclass(frozen=True)
class Candidate:
    """One model of a comparison, and what is sent along with every request to it."""

    label: str
    endpoint: Endpoint
    settings: Json = dataclasses.field(default_factory=dict)


def needs_job(models: Sequence[Model]) -> bool:
    """Whether any of the models is named relative to the dataset's promoted job."""
    return any(isinstance(model, str) for model in models)


def candidates(
    models: Sequence[Model], job: JobRecord | None, *, is_grounded: bool = True
) -> list[Candidate]:
    """Find where each model answers.

    Args:
        models: As given to `compare()`.
        job: The dataset's promoted job; needed for every model that is a string.
        is_grounded: On the embedded engine, hold all models to the spans of the input to which
            the tuned one is held; False holds none of them.

    Raises:
        ConfigError: There is none, or one twice.
        RoutingError: The job has no model.
    """
    tuned = endpoint_of(job) if job is not None and needs_job(models) else None
    settings = _grounding(job, tuned, is_grounded) if job is not None and tuned else {}
    found = [_candidate(model, job, tuned, settings) for model in models]
    labels = [each.label for each in found]
    if not labels or len(set(labels)) < len(labels):
        raise ConfigError(
            message(
                f"compare() needs different models, got: {', '.join(labels) or 'none'}.",
                next_step='ft.compare(NAME, ["base", "tuned"])',
            )
        )
    return found


def training_jobs(models: Sequence[Model], promoted: JobRecord | None) -> list[JobRecord]:
    """Return the jobs among the models that this store knows the training rows of."""
    known = {record.id: record for record in open_store().jobs.list()}
    ids = [model.info.id for model in models if not isinstance(model, (str, Endpoint))]
    return [*([promoted] if promoted else []), *(known[each] for each in ids if each in known)]


def _grounding(job: JobRecord, tuned: Endpoint, is_grounded: bool) -> Json:
    """The embedded engine's extra setting; the base gets what the tuned model got for free."""
    if job.engine != "local":
        return {}
    if not is_grounded:
        return {GROUNDED: []}
    with tuned.client() as client:
        described = client.models.retrieve(tuned.model).to_dict()
    return {GROUNDED: described.get(GROUNDED, [])}


def _candidate(
    model: Model, job: JobRecord | None, tuned: Endpoint | None, settings: Json
) -> Candidate:
    if isinstance(model, Endpoint):
        return Candidate(model.model, model)
    if not isinstance(model, str):
        return Candidate(model.endpoint.model, model.endpoint)
    if tuned is None or job is None:
        raise ConfigError(f"{model!r} needs a dataset with a tuned model; pass an Endpoint.")
    if model == "tuned":
        return Candidate(model, tuned, settings)
    name = _base_model(job) if model == "base" else model
    return Candidate(model, dataclasses.replace(tuned, model=name), settings)


def _base_model(job: JobRecord) -> str:
    return job.info.model if job.info is not None else job.spec.model
