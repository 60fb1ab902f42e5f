"""One fine-tuning job on disk: its state, its log, its checkpoints, in one folder.

The queue writes `job.json`; the trainer writes `plan.json`, `result.json` or `error.json`, and the
checkpoints; both append lines to `events.jsonl`. Everything else about a job is computed from these
files, so it survives any process. Knows nothing about scheduling or training.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftmagic.local.models import ServedModel, base_name
from ftmagic.types import FINAL_STATUSES, Json

EVENTS, PLAN, RESULT, ERROR = "events.jsonl", "plan.json", "result.json", "error.json"
CHECKPOINTS, CHECKPOINT = "checkpoints", "checkpoint.json"
TRAINER_LOG = "trainer.log"


class JobFolder:
    """A job's folder, and the job as the API describes it.

    Args:
        path: The folder; it holds `job.json`.

    Attributes:
        path: The folder.
        id: The job's id.
    """

    def __init__(self, path: Path) -> None:
        """Read the job.

        Raises:
            OSError: There is no `job.json`.
            ValueError: It is damaged.
        """
        self.path = path
        self._body: Json = json.loads((path / "job.json").read_text(encoding="utf-8"))
        self.id: str = self._body["id"]

    @classmethod
    def make(cls, path: Path, body: Json) -> JobFolder:
        """Make the folder of a new job."""
        path.mkdir(mode=0o700)
        write_json(path / "job.json", body)
        return cls(path)

    @property
    def status(self) -> str:
        """One of OpenAI's six statuses."""
        return str(self._body["status"])

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self.status in FINAL_STATUSES

    @property
    def n_restarts(self) -> int:
        """How often it was taken up again after its server died."""
        return int(self._body.get("n_restarts", 0))

    @property
    def model_name(self) -> str:
        """The tuned model's name, known from the start."""
        suffix = self._body.get("suffix") or ""
        return f"ft:{base_name(self._body['model'])}:{suffix}:{self.id[-8:]}"

    def value(self, name: str) -> Any:
        """Return one field of `job.json`."""
        return self._body.get(name)

    def update(self, **changes: Any) -> None:
        """Change fields and write them down."""
        self._body = {**self._body, **changes}
        if self.is_final and not self._body["finished_at"]:
            self._body["finished_at"] = int(time.time())
        write_json(self.path / "job.json", self._body)

    def body(self) -> Json:
        """The `fine_tuning.job` object; hyperparameters as the trainer resolved them."""
        private = ("n_restarts", "suffix", "created_ns")
        body = {name: value for name, value in self._body.items() if name not in private}
        plan = read_json(self.path / PLAN)
        if plan is not None:
            body["hyperparameters"] = {**body["hyperparameters"], **plan["hyperparameters"]}
            body["method"] = {
                "type": "supervised",
                "supervised": {"hyperparameters": body["hyperparameters"]},
            }
        return body

    def note(self, text: str, *, level: str = "info") -> None:
        """Append a message to the job's log."""
        append_event(self.path, text, level=level)

    def events(self) -> list[Json]:
        """Return the `fine_tuning.job.event` objects, newest first, as the API lists them."""
        events = []
        for number, line in enumerate(_lines(self.path / EVENTS)):
            event = _parse_line(line)
            if event is not None:
                event_id = f"ftevent-{self.id.removeprefix('ftjob-')}-{number}"
                events.append({"object": "fine_tuning.job.event", "id": event_id, **event})
        return events[::-1]

    def checkpoints(self) -> list[Json]:
        """Return the `fine_tuning.job.checkpoint` objects, newest first, as the API lists them."""
        return [
            {
                "object": "fine_tuning.job.checkpoint",
                "id": f"ftckpt-{self.id.removeprefix('ftjob-')}-{saved['step']}",
                "created_at": saved["created_at"],
                "fine_tuned_model_checkpoint": f"{self.model_name}:ckpt-step-{saved['step']}",
                "fine_tuning_job_id": self.id,
                "metrics": saved["metrics"],
                "step_number": saved["step"],
            }
            for saved in self._saved_checkpoints()
        ]

    def models(self) -> list[ServedModel]:
        """Return what of this job can answer: the tuned model once it succeeded, checkpoints."""
        plan = read_json(self.path / PLAN) or {}
        grounded = frozenset(plan.get("grounded_fields", ()))
        names = {
            f"{self.model_name}:ckpt-step-{saved['step']}": self._checkpoint_path(saved["step"])
            for saved in self._saved_checkpoints()
        }
        result = read_json(self.path / RESULT)
        if self.status == "succeeded" and result is not None:
            names = {self.model_name: self._checkpoint_path(result["step"]), **names}
        created_at = int(self._body["created_at"])
        return [
            ServedModel(name, folder, created_at, "you", grounded) for name, folder in names.items()
        ]

    def result(self) -> Json | None:
        """What the trainer wrote at its end; None when it did not get there."""
        return read_json(self.path / RESULT)

    def error(self) -> Json | None:
        """Why the trainer refused, as OpenAI's `error`; None when it did not say."""
        return read_json(self.path / ERROR)

    def clear_outputs(self) -> None:
        """Remove what an earlier trainer left, before the next one starts."""
        shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)
        for name in (PLAN, RESULT, ERROR, TRAINER_LOG):
            (self.path / name).unlink(missing_ok=True)

    def _saved_checkpoints(self) -> list[Json]:
        paths = (self.path / CHECKPOINTS).glob(f"step-*/{CHECKPOINT}")
        saved = [value for value in map(read_json, paths) if value is not None]
        return sorted(saved, key=lambda value: int(value["step"]), reverse=True)

    def _checkpoint_path(self, step: int) -> Path:
        return self.path / CHECKPOINTS / f"step-{step}"


def append_event(
    folder: Path,
    text: str,
    *,
    level: str = "info",
    data: Mapping[str, Any] | None = None,
) -> None:
    """Append one line to a job's log, in one write.

    Args:
        folder: The job's folder.
        text: The message.
        level: 'info', 'warn' or 'error'.
        data: Measurements; makes it a 'metrics' event.
    """
    path = folder / EVENTS
    event = {
        "created_at": int(time.time()),
        "level": level,
        "message": text,
        "type": "message" if data is None else "metrics",
        "data": dict(data or {}),
    }
    line = json.dumps(event) + "\n"
    with path.open("ab") as log:
        if log.tell() and not path.read_bytes().endswith(b"\n"):
            line = "\n" + line  # a killed trainer left half a line
        log.write(line.encode())


def write_json(path: Path, value: Json) -> None:
    """Write a JSON file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1), encoding="utf-8")
    part.replace(path)


def read_json(path: Path) -> Json | None:
    """Read a JSON file that `write_json` wrote; None when there is none."""
    try:
        value: Json = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return value


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []


def _parse_line(line: bytes) -> Json | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None  # the last line of a killed trainer, or the end of the file
    return value if isinstance(value, dict) else None
