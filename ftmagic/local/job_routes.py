"""The `/v1/fine_tuning/jobs` routes: checks what a client asks for and hands it to the queue."""

from __future__ import annotations

import importlib.util
import re
import secrets
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ftmagic.local.dialect import ApiError, list_page, read_object
from ftmagic.local.files import FileStore
from ftmagic.local.models import ModelRegistry, unknown_model
from ftmagic.local.queue import HYPERPARAMETERS, JobQueue, NewJob
from ftmagic.types import Json

NEEDED_MODULES = ("torch", "transformers", "safetensors", "llguidance")
"""What training and generation import."""

_HIGHEST = {"n_epochs": 200, "batch_size": 1024, "learning_rate_multiplier": 1000.0}
_METADATA_FILTER = re.compile(r"metadata\[(.{1,64})\]")


class JobRoutes:
    """The routes that train.

    Args:
        queue: Runs the jobs.
        models: Finds base models.
        files: Finds training files.
    """

    def __init__(self, queue: JobQueue, models: ModelRegistry, files: FileStore) -> None:
        """Keep the parts."""
        self._queue = queue
        self._models = models
        self._files = files

    def routes(self) -> list[Route]:
        """List the routes."""
        jobs = "/v1/fine_tuning/jobs"
        return [
            Route(jobs, self._create, methods=["POST"]),
            Route(jobs, self._list, methods=["GET"]),
            Route(jobs + "/{job_id}", self._retrieve, methods=["GET"]),
            Route(jobs + "/{job_id}/cancel", self._cancel, methods=["POST"]),
            Route(jobs + "/{job_id}/events", self._events, methods=["GET"]),
            Route(jobs + "/{job_id}/checkpoints", self._checkpoints, methods=["GET"]),
        ]

    async def _create(self, request: Request) -> Response:
        new = self._read_new_job(await read_object(request))
        return JSONResponse(await run_in_threadpool(self._queue.create, new))

    async def _list(self, request: Request) -> Response:
        wanted = {
            match.group(1): value
            for name, value in request.query_params.items()
            if (match := _METADATA_FILTER.fullmatch(name))
        }
        jobs = [job.body() for job in self._queue.jobs() if _has_metadata(job.body(), wanted)]
        return JSONResponse(list_page(jobs, request, default_limit=20))

    async def _retrieve(self, request: Request) -> Response:
        return JSONResponse(self._queue.get(request.path_params["job_id"]).body())

    async def _cancel(self, request: Request) -> Response:
        job_id = request.path_params["job_id"]
        return JSONResponse(await run_in_threadpool(self._queue.cancel, job_id))

    async def _events(self, request: Request) -> Response:
        events = self._queue.get(request.path_params["job_id"]).events()
        return JSONResponse(list_page(events, request, default_limit=20))

    async def _checkpoints(self, request: Request) -> Response:
        checkpoints = self._queue.get(request.path_params["job_id"]).checkpoints()
        return JSONResponse(list_page(checkpoints, request, default_limit=10))

    def _read_new_job(self, body: Json) -> NewJob:
        require_modules()
        model = body.get("model")
        if not isinstance(model, str) or self._models.get(model) is None:
            raise unknown_model(str(model), [known.name for known in self._models.list()])
        return NewJob(
            model=model,
            training_file=self._file_id(body, "training_file"),
            validation_file=self._file_id(body, "validation_file")
            if body.get("validation_file")
            else None,
            suffix=_read_suffix(body.get("suffix")),
            seed=_read_seed(body.get("seed")),
            hyperparameters=_read_hyperparameters(body),
            metadata=_read_metadata(body.get("metadata")),
        )

    def _file_id(self, body: Json, param: str) -> str:
        file_id = body.get(param)
        try:
            purpose = self._files.get(str(file_id))["purpose"]
        except ApiError as exc:
            raise ApiError(400, f"invalid {param}: {exc}", param=param) from exc
        if purpose != "fine-tune":
            raise _bad(param, f"the file {file_id} has purpose {purpose!r}, not 'fine-tune'.")
        return str(file_id)


def require_modules() -> None:
    """Refuse to train or generate where a package is missing.

    Raises:
        ApiError: 400, naming them.
    """
    missing = [name for name in NEEDED_MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise ApiError(
            400,
            f"training needs {', '.join(missing)}, not installed here.\n"
            "  Next: pip install 'ftmagic[local]'",
            code="missing_extra",
        )


def _read_suffix(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 64:
        raise _bad("suffix", "suffix must be a text of at most 64 characters.")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", value)


def _read_seed(value: Any) -> int:
    if value is None:
        return secrets.randbelow(2**31)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise _bad("seed", f"seed={value!r} is not a whole number from 0 to {2**31 - 1}.")
    return value


def _read_hyperparameters(body: Json) -> Json:
    method = body.get("method") or {"type": "supervised"}
    if not isinstance(method, dict) or method.get("type") != "supervised":
        raise _bad("method", "the embedded engine trains with method 'supervised' only.")
    values = (method.get("supervised") or {}).get("hyperparameters")
    values = values or body.get("hyperparameters") or {}
    read: Json = {}
    for name in HYPERPARAMETERS:
        value = values.get(name)
        if value not in (None, "auto"):
            read[name] = _number(name, value)
    return read


def _number(name: str, value: Any) -> int | float:
    is_whole = name != "learning_rate_multiplier"
    kinds = (int,) if is_whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value <= _HIGHEST[name]:
        kind = "whole number" if is_whole else "number"
        raise _bad(name, f"{name}={value!r} is not 'auto' or a {kind} up to {_HIGHEST[name]:g}.")
    return value


def _read_metadata(value: Any) -> dict[str, str] | None:
    if value is None:
        return None
    is_valid = (
        isinstance(value, dict)
        and len(value) <= 16
        and all(len(name) <= 64 for name in value)
        and all(isinstance(text, str) and len(text) <= 512 for text in value.values())
    )
    if not is_valid:
        raise _bad("metadata", "metadata must be at most 16 pairs of texts (64 and 512 long).")
    return dict(value)


def _has_metadata(body: Json, wanted: dict[str, str]) -> bool:
    metadata = body["metadata"] or {}
    return all(metadata.get(name) == value for name, value in wanted.items())


def _bad(param: str, text: str) -> ApiError:
    return ApiError(400, text, param=param, code="invalid_value")
