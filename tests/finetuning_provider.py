"""A real loopback HTTP server that speaks OpenAI's fine-tuning API, scripted by the test.

    with FineTuningProvider() as provider:
        engine = OpenAIEngine(base_url=provider.base_url, api_key="sk-test-key")
        provider.faults.append(Fault("POST", "/fine_tuning/jobs", is_reset=True, is_done=True))
        job = engine.submit(path, None, TrainSpec(model="gpt-test"))
        provider.step(job.id, 1, 10, train_loss=2.0)
        provider.finish(job.id)

Jobs stay 'queued' until the test moves them; a training file with fewer than 10 rows fails
validation at the first look, as the real one does. It knows nothing of ftmagic.
"""

from __future__ import annotations

import email
import email.policy
import json
import re
import socket
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with the next request that fits.

    Attributes:
        method: HTTP method.
        path: End of the path, below '/v1'.
        status: Answer with it; 0 lets the request through after `delay_s`.
        code: Of the error.
        text: Of the error.
        body: Answer with these bytes as text/html instead.
        is_reset: Close the connection without an answer.
        is_done: Do the work first: only the reply is lost.
        delay_s: Wait before answering.
    """

    method: str
    path: str
    status: int = 0
    code: str | None = None
    text: str = "scripted"
    body: bytes = b""
    is_reset: bool = False
    is_done: bool = False
    delay_s: float = 0.0


class FineTuningProvider:
    """The server; a context manager.

    Attributes:
        faults: What goes wrong, each with the first request that fits.
        requests: '(method) (path)' of everything that arrived.
        keys: The authorization headers that arrived.
        files: Uploaded files, with `rows`.
        jobs: Jobs, oldest first.
        created: Bodies that were accepted by the creation of jobs.
        is_hiding_jobs: The list of jobs is empty, as if it lagged behind.
    """

    def __init__(self) -> None:
        """Bind a free port; `with` starts to answer."""
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.keys: list[str] = []
        self.files: dict[str, Json] = {}
        self.jobs: dict[str, Json] = {}
        self.events: dict[str, list[Json]] = {}
        self.checkpoints: dict[str, list[Json]] = {}
        self.created: list[Json] = []
        self.is_hiding_jobs = False
        self.lock = threading.RLock()
        self._server = _Server(self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )

    @property
    def base_url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def count(self, request: str) -> int:
        """Count the requests that arrived with this method and end of path."""
        method, path = request.split(" ")
        return sum(each.startswith(method + " ") and each.endswith(path) for each in self.requests)

    def set_status(self, job_id: str, status: str, **fields: Any) -> None:
        """Move a job on."""
        with self.lock:
            self.jobs[job_id].update(status=status, **fields)

    def say(self, job_id: str, text: str, level: str = "info", data: Json | None = None) -> None:
        """Add an event."""
        with self.lock:
            events = self.events[job_id]
            events.append(
                {
                    "object": "fine_tuning.job.event",
                    "id": f"ftevent-{job_id}-{len(events)}",
                    "created_at": 1_790_000_000 + len(events) // 3,
                    "level": level,
                    "message": text,
                    "type": "metrics" if data else "message",
                    "data": data or {},
                }
            )

    def step(self, job_id: str, step: int, total: int, **metrics: float) -> None:
        """Report one training step of a running job."""
        self.set_status(job_id, "running")
        data = {"step": step, "total_steps": total, **metrics}
        self.say(job_id, f"Step {step}/{total}: training loss=...", data=data)

    def finish(self, job_id: str, n_tokens: int = 1000) -> None:
        """Let a job succeed."""
        model = f"ft:{self.jobs[job_id]['model']}:org::{job_id}"
        self.checkpoints[job_id].append(
            {
                "object": "fine_tuning.job.checkpoint",
                "id": f"ftckpt-{job_id}",
                "created_at": 1_790_000_100,
                "fine_tuned_model_checkpoint": f"{model}:ckpt-step-10",
                "fine_tuning_job_id": job_id,
                "metrics": {"step": 10.0, "train_loss": 0.5, "valid_loss": None},
                "step_number": 10,
            }
        )
        self.set_status(
            job_id,
            "succeeded",
            fine_tuned_model=model,
            trained_tokens=n_tokens,
            finished_at=1_790_000_100,
        )

    def fail(self, job_id: str, code: str, text: str) -> None:
        """Let a job fail."""
        error = {"code": code, "message": text, "param": "training_file"}
        self.set_status(job_id, "failed", error=error, finished_at=1_790_000_100)

    def take_fault(self, method: str, path: str) -> Fault | None:
        """Find and use up the fault that is meant for a request."""
        with self.lock:
            for fault in self.faults:
                if fault.method == method and path.endswith(fault.path):
                    self.faults.remove(fault)
                    return fault
        return None

    def answer(self, method: str, path: str, query: Json, body: Json) -> tuple[int, Json]:
        """Do what a request asks for."""
        with self.lock:
            for wanted, pattern, function in _ROUTES:
                match = re.fullmatch(pattern, path)
                if wanted == method and match:
                    return function(self, query, body, *match.groups())
        return 404, _error(f"no such route: {method} {path}", "not_found")

    def upload(self, query: Json, body: Json) -> tuple[int, Json]:
        number = len(self.files) + 1
        file = {
            "id": f"file-{number}",
            "object": "file",
            "bytes": len(body["file"]),
            "created_at": 1_790_000_000 + number,
            "filename": body["filename"],
            "purpose": body["purpose"],
            "status": "processed",
        }
        rows = [json.loads(line) for line in body["file"].splitlines() if line.strip()]
        self.files[file["id"]] = {**file, "rows": rows}
        return 200, file

    def list_files(self, query: Json, body: Json) -> tuple[int, Json]:
        newest = [_without_rows(each) for each in reversed(self.files.values())]
        return 200, _page(newest, query, 10_000)

    def get_file(self, query: Json, body: Json, file_id: str) -> tuple[int, Json]:
        return 200, _without_rows(self.files[file_id])

    def create(self, query: Json, body: Json) -> tuple[int, Json]:
        if body["training_file"] not in self.files:
            return 400, _error("invalid training_file", "invalid_value")
        number = len(self.jobs) + 1
        job = {
            "id": f"ftjob-{number}",
            "object": "fine_tuning.job",
            "created_at": 1_790_000_000 + number,
            "error": {},
            "fine_tuned_model": None,
            "finished_at": None,
            "hyperparameters": {"n_epochs": "auto"},
            "method": body.get("method"),
            "metadata": body.get("metadata"),
            "model": body["model"],
            "organization_id": "org-1",
            "result_files": [],
            "seed": body.get("seed") or 7,
            "status": "queued",
            "trained_tokens": None,
            "training_file": body["training_file"],
            "validation_file": body.get("validation_file"),
        }
        self.jobs[job["id"]] = job
        self.events[job["id"]] = []
        self.checkpoints[job["id"]] = []
        self.created.append(body)
        self.say(job["id"], f"Created fine-tuning job: {job['id']}")
        return 200, dict(job)

    def list_jobs(self, query: Json, body: Json) -> tuple[int, Json]:
        listed = [] if self.is_hiding_jobs else list(reversed(self.jobs.values()))
        return 200, _page(listed, query, 20)

    def get_job(self, query: Json, body: Json, job_id: str) -> tuple[int, Json]:
        if job_id not in self.jobs:
            return 404, _error(f"Could not find fine tune: {job_id}", "fine_tune_not_found")
        job = self.jobs[job_id]
        n_rows = len(self.files[job["training_file"]]["rows"])
        if job["status"] == "queued" and n_rows < 10:
            self.fail(
                job_id,
                "invalid_n_examples",
                f"Training file has {n_rows} example(s), but must have at least 10 examples",
            )
        return 200, dict(job)

    def cancel(self, query: Json, body: Json, job_id: str) -> tuple[int, Json]:
        self.set_status(job_id, "cancelled", finished_at=1_790_000_050)
        return 200, dict(self.jobs[job_id])

    def list_events(self, query: Json, body: Json, job_id: str) -> tuple[int, Json]:
        return 200, _page(list(reversed(self.events[job_id])), query, 20)

    def list_checkpoints(self, query: Json, body: Json, job_id: str) -> tuple[int, Json]:
        return 200, _page(list(reversed(self.checkpoints[job_id])), query, 10)

    def chat(self, query: Json, body: Json) -> tuple[int, Json]:
        message = {"role": "assistant", "content": f"Hello from {body['model']}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return 200, {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_790_000_000,
            "model": body["model"],
            "choices": [choice],
        }

    def __enter__(self) -> FineTuningProvider:
        """Start to answer."""
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop, and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


_ROUTES = (
    ("POST", "/files", FineTuningProvider.upload),
    ("GET", "/files", FineTuningProvider.list_files),
    ("GET", "/files/([^/]+)", FineTuningProvider.get_file),
    ("POST", "/fine_tuning/jobs", FineTuningProvider.create),
    ("GET", "/fine_tuning/jobs", FineTuningProvider.list_jobs),
    ("GET", "/fine_tuning/jobs/([^/]+)", FineTuningProvider.get_job),
    ("POST", "/fine_tuning/jobs/([^/]+)/cancel", FineTuningProvider.cancel),
    ("GET", "/fine_tuning/jobs/([^/]+)/events", FineTuningProvider.list_events),
    ("GET", "/fine_tuning/jobs/([^/]+)/checkpoints", FineTuningProvider.list_checkpoints),
    ("POST", "/chat/completions", FineTuningProvider.chat),
)


def _page(items: list[Json], query: Json, default_limit: int) -> Json:
    ids = [item["id"] for item in items]
    start = ids.index(query["after"]) + 1 if "after" in query else 0
    end = start + int(query.get("limit", default_limit))
    return {"object": "list", "data": items[start:end], "has_more": end < len(items)}


def _error(text: str, code: str | None) -> Json:
    error = {"message": text, "type": "invalid_request_error", "param": None, "code": code}
    return {"error": error}


def _without_rows(file: Json) -> Json:
    return {key: value for key, value in file.items() if key != "rows"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, provider: FineTuningProvider) -> None:
        self.provider = provider
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away early are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        provider = self.server.provider
        parts = urlsplit(self.path)
        path = parts.path.removeprefix("/v1")
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        body = self._body()
        provider.requests.append(f"{method} {path}")
        provider.keys.append(self.headers.get("authorization") or "")
        fault = provider.take_fault(method, path)
        if fault is None:
            self._send(*provider.answer(method, path, query, body))
            return
        time.sleep(fault.delay_s)
        if fault.is_done:
            provider.answer(method, path, query, body)
        if fault.is_reset:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault.body:
            self._send_bytes(200, fault.body, "text/html")
        elif fault.status:
            self._send(fault.status, _error(fault.text, fault.code))
        else:
            self._send(*provider.answer(method, path, query, body))

    def _body(self) -> Json:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        kind = self.headers.get("content-type") or ""
        if kind.startswith("multipart/"):
            return _read_form(kind, raw)
        return json.loads(raw) if raw else {}

    def _send(self, status: int, body: Json) -> None:
        self._send_bytes(status, json.dumps(body).encode(), "application/json")

    def _send_bytes(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-request-id", "req-42")
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _read_form(kind: str, raw: bytes) -> Json:
    whole = email.message_from_bytes(
        b"content-type: " + kind.encode() + b"\r\n\r\n" + raw, policy=email.policy.HTTP
    )
    form: Json = {}
    for part in whole.iter_parts():
        name = str(part.get_param("name", header="content-disposition"))
        value = part.get_payload(decode=True)
        assert isinstance(value, bytes)
        form[name] = value if part.get_filename() else value.decode()
        if part.get_filename():
            form["filename"] = part.get_filename()
    return form
