"""The `/v1/chat/completions` and `/v1/models` routes: recordings and trained models, one dialect.

A model name is looked up among the recordings first, then among the models on disk. Generation
runs in worker threads, so the event loop stays free; a client that hangs up stops its generation.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ftmagic.errors import RecordingMiss
from ftmagic.local.chat_request import check_messages, check_request
from ftmagic.local.dialect import ApiError, ChunkWriter, read_object, stream_body
from ftmagic.local.models import ModelRegistry, unknown_model
from ftmagic.local.pool import ModelPool, Turn
from ftmagic.local.recordings import RecordingShelf
from ftmagic.types import Json

_N_WORKERS = 4  # threads of their own: a crowd of chats must not delay files and jobs
_HANG_UP_CHECK_S = 0.5
_T = TypeVar("_T")


class ChatRoutes:
    """The routes that answer.

    Args:
        recordings: Recorded answers.
        models: Names of the models on disk.
        pool: Generates with them.
    """

    def __init__(self, recordings: RecordingShelf, models: ModelRegistry, pool: ModelPool) -> None:
        """Keep the parts."""
        self._recordings = recordings
        self._models = models
        self._pool = pool
        self._workers = ThreadPoolExecutor(_N_WORKERS, thread_name_prefix="generate")
        self._is_closing = threading.Event()

    def routes(self) -> list[Route]:
        """List the routes."""
        return [
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
            Route("/v1/models", self._list_models, methods=["GET"]),
            Route("/v1/models/{model:path}", self._retrieve_model, methods=["GET"]),
        ]

    def close(self) -> None:
        """End the turns in progress with what there is, and start no more."""
        self._is_closing.set()
        self._workers.shutdown(wait=True, cancel_futures=True)

    async def _complete(self, request: Request) -> Response:
        body = await read_object(request)
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise ApiError(400, "you must provide a model parameter.", param="model")
        if model in self._recordings.names():
            return await self._replay(model, body)
        served = self._models.get(model)
        if served is None:
            raise unknown_model(model, self._names())
        check_request(body)
        turn = await self._in_worker(partial(self._pool.prepare, served, body))
        if body.get("stream"):
            return _event_stream(self._stream(turn, _writer(model, body)))
        return JSONResponse(await self._generate(turn, request))

    async def _replay(self, model: str, body: Json) -> Response:
        check_messages(body.get("messages"))
        try:
            reply = await run_in_threadpool(self._recordings.answer, model, body)
        except RecordingMiss as exc:
            raise ApiError(404, str(exc), code="recording_miss", param="messages") from exc
        if body.get("stream"):
            writer = _writer(str(reply["model"]), body)
            return StreamingResponse(stream_body(reply, writer), media_type="text/event-stream")
        return JSONResponse(reply)

    async def _generate(self, turn: Turn, request: Request) -> Json:
        hung_up = threading.Event()
        work = self._in_worker(partial(turn.run, None, self._stop_sign(hung_up)))
        while not work.done():
            await asyncio.wait([work], timeout=_HANG_UP_CHECK_S)
            if not work.done() and await request.is_disconnected():
                hung_up.set()
        return (await work).body()

    async def _stream(self, turn: Turn, writer: ChunkWriter) -> AsyncIterator[str]:
        hung_up = threading.Event()
        loop = asyncio.get_running_loop()
        deltas: asyncio.Queue[Json | None] = asyncio.Queue()

        def push(delta: Json | None) -> None:
            loop.call_soon_threadsafe(deltas.put_nowait, delta)

        work = self._in_worker(partial(turn.run, push, self._stop_sign(hung_up)))
        work.add_done_callback(lambda _: deltas.put_nowait(None))
        try:
            yield writer.delta({"role": "assistant", "content": ""})
            while (delta := await deltas.get()) is not None:
                yield writer.delta(delta)
            completion = await work
            yield writer.end(completion.finish_reason, completion.usage)
        except ApiError as exc:
            yield writer.error(exc)
        finally:
            hung_up.set()

    def _in_worker(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        return asyncio.get_running_loop().run_in_executor(self._workers, work)

    def _stop_sign(self, hung_up: threading.Event) -> Callable[[], bool]:
        return lambda: hung_up.is_set() or self._is_closing.is_set()

    async def _list_models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": self._all_models()})

    async def _retrieve_model(self, request: Request) -> Response:
        name = request.path_params["model"]
        for model in self._all_models():
            if model["id"] == name:
                return JSONResponse(model)
        raise unknown_model(name, self._names())

    def _names(self) -> list[str]:
        return [model["id"] for model in self._all_models()]

    def _all_models(self) -> list[Json]:
        recordings = [
            {"id": name, "object": "model", "created": 0, "owned_by": "recording"}
            for name in self._recordings.names()
        ]
        return [*(model.body() for model in self._models.list()), *recordings]


def _writer(model: str, body: Json) -> ChunkWriter:
    options = body.get("stream_options") or {}
    return ChunkWriter(model, has_usage=bool(options.get("include_usage")))


def _event_stream(events: AsyncIterator[str]) -> Response:
    return StreamingResponse(events, media_type="text/event-stream")
