"""Uploaded files: kept in one folder under ids of our own making, served by the `/v1/files` routes.

Knows nothing about what is in a file.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from pathlib import Path
from typing import BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from ftmagic.local.dialect import ApiError, list_page
from ftmagic.types import Json

PURPOSES = ("fine-tune", "assistants", "batch", "evals", "user_data", "vision")

_ID = re.compile(r"file-[0-9a-f]{24}")


class FileStore:
    """Files by id, each as its bytes and its `file` object beside them.

    Args:
        folder: Made when it is not there.
    """

    def __init__(self, folder: Path) -> None:
        """Open the folder."""
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def add(self, content: BinaryIO, filename: str, purpose: str) -> Json:
        """Copy a file in and return its `file` object; a failed copy leaves nothing behind."""
        file_id = f"file-{secrets.token_hex(12)}"
        path, part = self._content_path(file_id), self._folder / f"{file_id}.part"
        try:
            with path.open("wb") as target:
                shutil.copyfileobj(content, target)
            body: Json = {
                "id": file_id,
                "object": "file",
                "bytes": path.stat().st_size,
                "created_at": int(time.time()),
                "filename": filename[:255],
                "purpose": purpose,
                "status": "processed",
            }
            part.write_text(json.dumps(body), encoding="utf-8")
            part.replace(self._body_path(file_id))  # only now, and at once, the file is there
        except BaseException:
            path.unlink(missing_ok=True)
            part.unlink(missing_ok=True)
            raise
        return body

    def list(self) -> list[Json]:
        """Return all `file` objects, newest first; damaged ones are left out."""
        found: list[tuple[int, str, Json]] = []
        for path in self._folder.glob("file-*.json"):
            body = _read_body(path)
            if body is not None:
                found.append((path.stat().st_mtime_ns, path.name, body))
        return [body for _, _, body in sorted(found, key=lambda each: each[:2], reverse=True)]

    def get(self, file_id: str) -> Json:
        """Return a `file` object.

        Raises:
            ApiError: 404, there is no such file.
        """
        body = _read_body(self._body_path(file_id)) if _ID.fullmatch(file_id) else None
        if body is None:
            raise ApiError(404, f"No such File object: {file_id[:80]}", param="id")
        return body

    def path(self, file_id: str) -> Path:
        """Return where a file's bytes are; raises as `get` does."""
        self.get(file_id)
        return self._content_path(file_id)

    def delete(self, file_id: str) -> None:
        """Erase a file; raises as `get` does."""
        self.get(file_id)
        self._body_path(file_id).unlink()
        self._content_path(file_id).unlink(missing_ok=True)

    def _content_path(self, file_id: str) -> Path:
        return self._folder / f"{file_id}.bin"

    def _body_path(self, file_id: str) -> Path:
        return self._folder / f"{file_id}.json"


def _read_body(path: Path) -> Json | None:
    """Read a `file` object; None where there is none, or what a full disk left of one."""
    try:
        body: Json = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return body


class FileRoutes:
    """The `/v1/files` routes.

    Args:
        files: What they serve.
    """

    def __init__(self, files: FileStore) -> None:
        """Keep the store."""
        self._files = files

    def routes(self) -> list[Route]:
        """List the routes."""
        return [
            Route("/v1/files", self._create, methods=["POST"]),
            Route("/v1/files", self._list, methods=["GET"]),
            Route("/v1/files/{file_id}", self._retrieve, methods=["GET"]),
            Route("/v1/files/{file_id}", self._delete, methods=["DELETE"]),
            Route("/v1/files/{file_id}/content", self._content, methods=["GET"]),
        ]

    async def _create(self, request: Request) -> Response:
        try:
            async with request.form(max_files=1, max_fields=8) as form:
                upload, purpose = form.get("file"), form.get("purpose")
                if not isinstance(upload, UploadFile):
                    raise ApiError(400, "the form has no 'file'.", param="file")
                if purpose not in PURPOSES:
                    known = ", ".join(PURPOSES)
                    raise ApiError(
                        400, f"purpose={purpose!r} is not one of {known}.", param="purpose"
                    )
                name = Path(upload.filename or "upload").name
                body = await run_in_threadpool(self._files.add, upload.file, name, str(purpose))
        except HTTPException as exc:
            raise ApiError(400, f"the upload is not a multipart form: {exc.detail}") from exc
        return JSONResponse(body)

    async def _list(self, request: Request) -> Response:
        files = self._files.list()
        purpose = request.query_params.get("purpose")
        if purpose is not None:
            files = [body for body in files if body["purpose"] == purpose]
        if request.query_params.get("order") == "asc":
            files.reverse()
        return JSONResponse(list_page(files, request, default_limit=10_000))

    async def _retrieve(self, request: Request) -> Response:
        return JSONResponse(self._files.get(request.path_params["file_id"]))

    async def _delete(self, request: Request) -> Response:
        file_id = request.path_params["file_id"]
        self._files.delete(file_id)
        return JSONResponse({"id": file_id, "object": "file", "deleted": True})

    async def _content(self, request: Request) -> Response:
        path = self._files.path(request.path_params["file_id"])
        return FileResponse(path, media_type="application/octet-stream")
