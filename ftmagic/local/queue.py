"""Runs fine-tuning jobs: validates their files, then one trainer process at a time.

Jobs live in folders (`job_folder.py`) and survive the server: what was waiting goes on waiting, and
a job whose trainer died with its server starts again from the first step, once; the second time it
fails. A trainer that is killed or fails makes its job `failed`, with the reason.
"""

from __future__ import annotations

import logging
import secrets
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ftmagic.local.dialect import ApiError
from ftmagic.local.files import FileStore
from ftmagic.local.job_folder import TRAINER_LOG, JobFolder
from ftmagic.local.models import ModelRegistry, ServedModel
from ftmagic.local.rows import MIN_ROWS, listing, read_rows
from ftmagic.types import Json

MAX_RESTARTS = 1
HYPERPARAMETERS = ("n_epochs", "batch_size", "learning_rate_multiplier")

_LOG_LINES = 4
_log = logging.getLogger("ftmagic.local")


@dataclass(frozen=True)
class NewJob:
    """What `fine_tuning.jobs.create` asked for, checked.

    Attributes:
        model: The base model's name.
        training_file: File id.
        validation_file: File id; None without one.
        suffix: Part of the tuned model's name; '' without one.
        seed: Of the training.
        hyperparameters: OpenAI's three, each a number or 'auto'.
        metadata: As sent.
    """

    model: str
    training_file: str
    validation_file: str | None = None
    suffix: str = ""
    seed: int = 0
    hyperparameters: Json = field(default_factory=dict)
    metadata: dict[str, str] | None = None

    def body(self) -> Json:
        """The `fine_tuning.job` object at its start."""
        hyperparameters = {name: "auto" for name in HYPERPARAMETERS} | self.hyperparameters
        method = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
        return {
            "id": f"ftjob-{secrets.token_hex(12)}",
            "object": "fine_tuning.job",
            "created_at": int(time.time()),
            "created_ns": time.time_ns(),
            "finished_at": None,
            "status": "validating_files",
            "model": self.model,
            "fine_tuned_model": None,
            "training_file": self.training_file,
            "validation_file": self.validation_file,
            "hyperparameters": hyperparameters,
            "method": method,
            "seed": self.seed,
            "suffix": self.suffix,
            "metadata": self.metadata,
            "trained_tokens": None,
            "estimated_finish": None,
            "error": None,
            "integrations": [],
            "result_files": [],
            "organization_id": "local",
        }


class JobQueue:
    """All jobs of one server.

    Args:
        folder: Holds one folder a job.
        files: Where training files are.
    """

    def __init__(self, folder: Path, files: FileStore) -> None:
        """Read the jobs that are there; nothing runs before `start`."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._files = files
        self._lock = threading.RLock()
        self._validator = ThreadPoolExecutor(1, thread_name_prefix="validate")
        self._trainer = ThreadPoolExecutor(1, thread_name_prefix="train")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._is_closing = False
        self._models: ModelRegistry | None = None
        self._jobs = {job.id: job for job in _read_jobs(folder)}

    def start(self, models: ModelRegistry) -> None:
        """Take up the jobs that an earlier server left unfinished.

        Args:
            models: Finds the base model of a job.
        """
        self._models = models
        for job in sorted(self._jobs.values(), key=_creation):
            if job.status == "running":
                self._take_up(job)
            if job.status == "validating_files":
                self._validator.submit(self._validate, job)
            elif job.status == "queued":
                self._trainer.submit(self._train, job)

    def create(self, new: NewJob) -> Json:
        """Add a job and return it."""
        body = new.body()
        job = JobFolder.make(self._folder / body["id"], body)
        job.note(f"Created fine-tuning job: {job.id}")
        with self._lock:
            self._jobs[job.id] = job
        created = job.body()
        self._validator.submit(self._validate, job)
        return created

    def get(self, job_id: str) -> JobFolder:
        """Return a job.

        Raises:
            ApiError: 404, there is no such job.
        """
        job = self._jobs.get(job_id)
        if job is None:
            raise ApiError(
                404,
                f"Could not find fine tune: {job_id[:80]}",
                code="fine_tune_not_found",
                param="fine_tuning_job_id",
            )
        return job

    def jobs(self) -> list[JobFolder]:
        """Return all jobs, newest first."""
        return sorted(self._jobs.values(), key=_creation)[::-1]

    def cancel(self, job_id: str) -> Json:
        """Stop a job and return it.

        Raises:
            ApiError: 404, there is no such job; 400, it has already ended.
        """
        job = self.get(job_id)
        with self._lock:
            if job.is_final:
                raise ApiError(400, f"the job {job_id} has already {_ended(job.status)}.")
            job.update(status="cancelled")
            process = self._processes.get(job_id)
            if process is not None:
                process.kill()  # it writes files whole or not at all: nothing to clean up
        job.note("The job was cancelled")
        return job.body()

    def active_ids(self) -> list[str]:
        """Return the ids of the jobs that have not ended."""
        return [job.id for job in list(self._jobs.values()) if not job.is_final]

    def tuned_models(self) -> list[ServedModel]:
        """Return the tuned models and their checkpoints, newest first."""
        return [model for job in self.jobs() for model in job.models()]

    def close(self) -> None:
        """Stop the trainer and its threads; unfinished jobs stay in the folder for next time."""
        with self._lock:
            self._is_closing = True
            for process in self._processes.values():
                process.kill()
        self._validator.shutdown(wait=True, cancel_futures=True)
        self._trainer.shutdown(wait=True, cancel_futures=True)

    def _take_up(self, job: JobFolder) -> None:
        result = job.result()
        if result is not None:  # the trainer had finished; only its server did not see it
            self._succeed(job, result)
            return
        if job.n_restarts >= MAX_RESTARTS:
            text = "the server died twice while this job was training (out of memory?)"
            self._fail(job, {"code": "server_died", "message": text, "param": None})
            return
        job.update(status="queued", n_restarts=job.n_restarts + 1)
        job.note(
            "The server stopped while this job was training; it starts again from the first step",
            level="warn",
        )

    def _validate(self, job: JobFolder) -> None:
        job.note("Validating training file: " + str(job.value("training_file")))
        try:
            error = self._file_error(job)
        except Exception as exc:  # a bug or a full disk must end this job, not the queue
            _log.exception("validation of %s failed", job.id)
            error = {
                "code": "server_error",
                "message": f"{type(exc).__name__}: {exc}",
                "param": None,
            }
        with self._lock:
            if job.is_final:
                return
            if error is not None:
                self._fail(job, error)
                return
            job.update(status="queued")
        job.note("Files validated, moving job to queued state")
        if not self._is_closing:
            self._trainer.submit(self._train, job)

    def _file_error(self, job: JobFolder) -> Json | None:
        for param in ("training_file", "validation_file"):
            file_id = job.value(param)
            if file_id is None:
                continue
            try:
                report = read_rows(self._files.path(file_id))
            except ApiError as exc:
                return {"code": "invalid_" + param, "message": str(exc), "param": param}
            kind = param.split("_")[0]
            if report.problems:
                text = f"The job failed due to an invalid {kind} file. {listing(report.problems)}"
                return {"code": "invalid_" + param, "message": text, "param": param}
            needed = MIN_ROWS if kind == "training" else 1
            if len(report.rows) < needed:
                text = (
                    f"{kind.capitalize()} file has {len(report.rows)} example(s), but must have "
                    f"at least {needed} examples (the embedded engine's minimum)"
                )
                return {"code": "invalid_n_examples", "message": text, "param": param}
        return None

    def _train(self, job: JobFolder) -> None:
        try:
            code = self._run_trainer(job)
        except Exception as exc:  # as in _validate
            _log.exception("the trainer of %s did not start", job.id)
            text = f"the trainer did not start: {type(exc).__name__}: {exc}"
            self._fail(job, {"code": "server_error", "message": text, "param": None})
            return
        with self._lock:
            self._processes.pop(job.id, None)
            if job.is_final:
                return  # cancelled
            result = job.result()
            if code == 0 and result is not None:
                self._succeed(job, result)
            elif self._is_closing:
                job.update(status="queued")
                job.note("The server was stopped; the job starts again with it", level="warn")
            else:
                self._fail(job, job.error() or _trainer_error(code, job.path / TRAINER_LOG))

    def _run_trainer(self, job: JobFolder) -> int:
        with self._lock:
            if job.is_final or self._is_closing:
                return 0
            job.clear_outputs()
            command = self._trainer_command(job)
            with (job.path / TRAINER_LOG).open("wb") as log:
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
                )
            self._processes[job.id] = process
            job.update(status="running")
        job.note("Fine-tuning job started; the trainer is loading torch (5-10 s)")
        return process.wait()

    def _trainer_command(self, job: JobFolder) -> list[str]:
        assert self._models is not None, "start() comes before any job"
        model = self._models.get(job.value("model"))
        if model is None:
            raise FileNotFoundError(f"the model {job.value('model')!r} is no longer there")
        options = {
            "--model": str(model.folder),
            "--training-file": str(self._files.path(job.value("training_file"))),
            "--out": str(job.path),
            "--seed": str(job.value("seed")),
        }
        if job.value("validation_file"):
            options["--validation-file"] = str(self._files.path(job.value("validation_file")))
        for name, value in job.value("hyperparameters").items():
            if value != "auto":
                options["--" + name.replace("_", "-")] = str(value)
        flat = [part for pair in options.items() for part in pair]
        return [sys.executable, "-P", "-m", "ftmagic.local.train", *flat, "--stop-with-parent"]

    def _succeed(self, job: JobFolder, result: Json) -> None:
        job.note(f"New fine-tuned model created: {job.model_name}")
        job.note("The job has successfully completed")
        job.update(
            status="succeeded",
            fine_tuned_model=job.model_name,
            trained_tokens=result["trained_tokens"],
        )

    def _fail(self, job: JobFolder, error: Json) -> None:
        job.note(f"The job failed: {error['message']}", level="error")
        job.update(status="failed", error=error)


def _creation(job: JobFolder) -> int:
    return int(job.value("created_ns"))


def _read_jobs(folder: Path) -> list[JobFolder]:
    jobs = []
    for path in folder.glob("ftjob-*"):
        try:
            jobs.append(JobFolder(path))
        except (OSError, ValueError, KeyError):
            _log.warning("the job folder %s is damaged and is left alone", path)
    return jobs


def _trainer_error(code: int, log: Path) -> Json:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = "; its last lines: " + " | ".join(lines[-_LOG_LINES:]) if lines else ""
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (often: the machine ran out of memory)" if name == "SIGKILL" else ""
        return {
            "code": "trainer_killed",
            "message": f"the trainer was killed by {name}{hint}{said}",
            "param": None,
        }
    text = f"the trainer ended with status {code}{said}"
    return {"code": "trainer_failed", "message": text, "param": None}


def _ended(status: str) -> str:
    return {"cancelled": "been cancelled"}.get(status, status)
