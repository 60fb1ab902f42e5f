"""The embedded engine's web application: what it owns, put together, behind one guarded door.

Routes of the OpenAI dialect live in `files.py`, `job_routes.py` and `chat_routes.py`; the private
ones (`/ftmagic/...`) here. It neither opens a socket nor decides when to stop: `__main__.py` does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ftmagic.errors import DataError
from ftmagic.local.chat_routes import ChatRoutes
from ftmagic.local.dialect import ApiError, read_object
from ftmagic.local.files import FileRoutes, FileStore
from ftmagic.local.guard import Activity, Guard
from ftmagic.local.job_routes import JobRoutes
from ftmagic.local.models import STUDENT, ModelRegistry, unknown_model
from ftmagic.local.pool import ModelPool
from ftmagic.local.queue import JobQueue
from ftmagic.local.recordings import RecordingShelf

_log = logging.getLogger("ftmagic.local")


class LocalServer:
    """The parts of one server and their ASGI application.

    Args:
        home: The server's folder: files, jobs, recordings.
        api_key: The bearer token it asks for.
        stop: Called by `POST /ftmagic/shutdown`.

    Attributes:
        app: The application.
        activity: When it last had something to do.
        queue: Its jobs.
    """

    def __init__(self, home: Path, api_key: str, stop: Callable[[], None]) -> None:
        """Open the stores in `home` and take up the jobs found there."""
        self._stop = stop
        self.activity = Activity()
        self._files = FileStore(home / "files")
        self._recordings = RecordingShelf(home / "recordings.json")
        self.queue = JobQueue(home / "jobs", self._files)
        self._pool = ModelPool()
        self._models = ModelRegistry(self.queue)
        self.queue.start(self._models)
        self._chat = ChatRoutes(self._recordings, self._models, self._pool)
        routes = [
            *FileRoutes(self._files).routes(),
            *JobRoutes(self.queue, self._models, self._files).routes(),
            *self._chat.routes(),
            Route("/ftmagic/health", self._health, methods=["GET"]),
            Route("/ftmagic/recordings", self._register, methods=["POST"]),
            Route("/ftmagic/count", self._count, methods=["POST"]),
            Route("/ftmagic/shutdown", self._shutdown, methods=["POST"]),
        ]
        handlers = {ApiError: _answer_refusal, HTTPException: _answer_http, Exception: _answer_bug}
        self.app: ASGIApp = Guard(
            Starlette(routes=routes, exception_handlers=handlers),  # type: ignore[arg-type]
            api_key=api_key,
            activity=self.activity,
        )

    def close(self) -> None:
        """Stop turns and the trainer; unfinished jobs go on with the next server."""
        self._chat.close()
        self.queue.close()

    async def _health(self, request: Request) -> Response:
        return JSONResponse(
            {
                "status": "ok",
                "pid": os.getpid(),
                "active_jobs": self.queue.active_ids(),
                "recordings": self._recordings.names(),
            }
        )

    async def _register(self, request: Request) -> Response:
        body = await read_object(request)
        name, path = body.get("name"), body.get("path")
        if not isinstance(name, str) or not isinstance(path, str) or "\0" in path:
            raise ApiError(400, "a recording needs a name and a path.", param="name")
        if not Path(path).is_absolute():
            raise ApiError(400, f"the path {path!r} is not absolute.", param="path")
        try:
            recording = await run_in_threadpool(self._recordings.register, name, Path(path))
        except DataError as exc:
            raise ApiError(400, str(exc), code="invalid_recording", param="path") from exc
        return JSONResponse({"name": name, "n_requests": len(recording.replies)})

    async def _count(self, request: Request) -> Response:
        name = request.query_params.get("model", STUDENT)
        served = self._models.get(name)
        if served is None:
            raise unknown_model(name, [known.name for known in self._models.list()])
        content = await request.body()
        return JSONResponse(await run_in_threadpool(self._pool.count, served, content))

    async def _shutdown(self, request: Request) -> Response:
        self._stop()
        return JSONResponse({"status": "stopping"})


async def _answer_refusal(request: Request, exc: ApiError) -> Response:
    return JSONResponse(exc.body(), status_code=exc.status)


async def _answer_http(request: Request, exc: HTTPException) -> Response:
    text = f"{exc.detail}: {request.method} {request.url.path}"
    return JSONResponse(ApiError(exc.status_code, text).body(), status_code=exc.status_code)


async def _answer_bug(request: Request, exc: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=exc)
    text = f"the embedded engine failed: {type(exc).__name__}. Its log has the details."
    return JSONResponse(ApiError(500, text).body(), status_code=500)
