"""OpenAI's fine-tuning API, and every server that speaks it.

Owns the conversation: files, jobs, events, checkpoints. It creates a job once: under a hash of
files and spec that is looked for first, without the SDK's retries, and a reply that got lost is
looked for by the attempt's own id. It knows nothing of datasets or notebooks.
"""

from __future__ import annotations

import builtins
import itertools
import json
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftmagic.engines import prices, refusals
from ftmagic.engines.addresses import (
    host_of,
    is_loopback,
    key_variable,
    require_key,
    resolve_base_url,
)
from ftmagic.engines.identity import HASH_KEY, INTENT_KEY, file_digest, submission_hash
from ftmagic.engines.limits import limits_of, size_problems, suffix_problems
from ftmagic.engines.replies import (
    as_json,
    bodies_until,
    no_answer,
    read_checkpoint,
    read_event,
    read_job,
)
from ftmagic.errors import EngineError, EngineUnreachable, UnknownOutcome, message
from ftmagic.types import (
    Checkpoint,
    Endpoint,
    JobEvent,
    JobInfo,
    Json,
    Limits,
    Problem,
    Quote,
    TrainSpec,
)

if TYPE_CHECKING:
    import openai

DEFAULT_MODEL = "gpt-4.1-nano-2025-04-14"

_DEAD_STATUSES = ("failed", "cancelled")
_MOST_JOBS = 500
_MOST_FILES = 10_000
_MOST_EVENTS = 20_000


class OpenAIEngine:
    """Fine-tuning over the OpenAI dialect.

    A subclass for another server overrides `base_url`, `key` and `quote`.
    """

    create_attempts = 4
    """How often a job is asked for while the provider says 429."""
    lookup_delays_s: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0)
    """Waits between looking for a job whose creation was not answered."""
    file_timeout_s = 30.0
    """How long to wait for an uploaded file to be processed before going on."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        name: str = "openai",
        *,
        limits: Limits | None = None,
        default_model: str = DEFAULT_MODEL,
        timeout_s: float = 60.0,
        max_retries: int = 3,
    ) -> None:
        """Set the engine up; nothing is sent, no key is needed yet.

        Args:
            base_url: Ends in the API's version folder; None is `OPENAI_BASE_URL`, else OpenAI.
            api_key: None reads the environment when it is first needed.
            name: The engine's name.
            limits: What the server accepts; None is OpenAI's.
            default_model: The base model when none is named.
            timeout_s: For one request.
            max_retries: For requests that may be repeated: all but the creation of a job.

        Raises:
            ConfigError: The address cannot be used.
        """
        self._base_url = resolve_base_url(base_url)
        self._api_key = api_key
        self.name = name
        self.limits = limits or limits_of(self._base_url)
        self.default_model = default_model
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._clients: dict[tuple[str, str], openai.OpenAI] = {}
        self._connecting = threading.Lock()
        weakref.finalize(self, _close_all, self._clients)

    @property
    def base_url(self) -> str:
        """Where the server is now."""
        return self._base_url

    @property
    def host(self) -> str:
        """The host that rows are sent to."""
        return host_of(self.base_url)

    @property
    def is_remote(self) -> bool:
        """Whether the rows would leave this machine."""
        return not is_loopback(self.host)

    def key(self) -> str:
        """The key to send.

        Raises:
            ConfigError: There is none.
        """
        return self._api_key or require_key(self.base_url)

    def client(self) -> openai.OpenAI:
        """Return the SDK client for the present address; made once."""
        import openai

        address = (self.base_url, self.key())
        with self._connecting:
            if address not in self._clients:
                self._clients[address] = openai.OpenAI(
                    base_url=address[0],
                    api_key=address[1],
                    timeout=self._timeout_s,
                    max_retries=self._max_retries,
                    # A proxy from the environment must not stand between us and this machine.
                    http_client=None
                    if self.is_remote
                    else openai.DefaultHttpxClient(trust_env=False),
                )
            return self._clients[address]

    def quote(self, train: Path, validation: Path | None, spec: TrainSpec) -> Quote:
        """Say what the job would take; send nothing.

        Tokens are estimated from characters, the cost from a dated table.
        """
        rows = list(prices.estimate_row_tokens(train))
        n_validation = sum(1 for _ in prices.estimate_row_tokens(validation)) if validation else 0
        n_truncated = sum(1 for n_tokens in rows if n_tokens > self.limits.max_row_tokens)
        cost = prices.estimate_cost(spec.model, sum(rows), len(rows), spec.n_epochs)
        return Quote(
            engine=self.name,
            host=self.host,
            model=spec.model,
            n_train=len(rows),
            n_validation=n_validation,
            n_tokens=sum(rows),
            tokens_basis="estimate",
            n_truncated=n_truncated,
            cost_usd=cost.cost_usd,
            cost_basis=cost.basis,
            problems=tuple(self._problems(train, rows, spec)),
        )

    def submit(self, train: Path, validation: Path | None, spec: TrainSpec) -> JobInfo:
        """Start the job, or return the live or succeeded one of the same files and spec.

        Args:
            train: OpenAI chat JSONL.
            validation: Likewise, or None.
            spec: `metadata[INTENT_KEY]` names this attempt; one is made up if it is missing.

        Raises:
            ConfigError: There is no key.
            TrainingUnavailable: The provider creates no jobs for this account any more.
            UnknownOutcome: Nothing says whether the job was created; it is not asked again.
            EngineUnreachable: It did not answer, and nothing was created.
            EngineError: It refused.
        """
        digest = submission_hash(train, validation, spec)
        intent = spec.metadata.get(INTENT_KEY) or uuid.uuid4().hex
        existing = self._find(HASH_KEY, digest)
        if existing is not None:
            return existing
        body: Json = {
            "model": spec.model,
            "training_file": self.upload(train),
            "metadata": {**spec.metadata, HASH_KEY: digest, INTENT_KEY: intent},
            "method": method_of(spec),
        }
        if validation is not None:
            body["validation_file"] = self.upload(validation)
        if spec.suffix is not None:
            body["suffix"] = spec.suffix
        if spec.seed is not None:
            body["seed"] = spec.seed
        return self._create(body, intent)

    def retrieve(self, job_id: str) -> JobInfo:
        """Ask for a job's present state."""
        with self._translated(f"asking for job {job_id}"):
            job = self.client().fine_tuning.jobs.retrieve(job_id)
        return self._job(job)

    def list(self, after: str | None = None) -> builtins.list[JobInfo]:
        """List up to 100 jobs, newest first; with `after`, those older than that job id."""
        with self._translated("listing jobs"):
            page = self.client().fine_tuning.jobs.list(**_page(after, 100))
            bodies = [as_json(each) for each in page.data]
        return [read_job(body, self.name) for body in bodies]

    def events(self, job_id: str, after: str | None = None) -> builtins.list[JobEvent]:
        """List a job's events, oldest first; with `after`, only those later than that event id.

        The API gives the newest first, so that catching up costs one page.
        """
        with self._translated(f"reading events of {job_id}"):
            pages = self.client().fine_tuning.jobs.list_events(job_id, limit=100)
            found = bodies_until(itertools.islice(pages, _MOST_EVENTS), after)
        return [read_event(body) for body in reversed(found)]

    def checkpoints(self, job_id: str) -> builtins.list[Checkpoint]:
        """List a job's checkpoints, oldest first."""
        with self._translated(f"reading checkpoints of {job_id}"):
            pages = self.client().fine_tuning.jobs.checkpoints.list(job_id, limit=100)
            found = bodies_until(itertools.islice(pages, _MOST_EVENTS), None)
        return sorted(map(read_checkpoint, found), key=lambda each: each.step_number)

    def cancel(self, job_id: str) -> JobInfo:
        """Stop a job."""
        with self._translated(f"cancelling {job_id}"):
            job = self.client().fine_tuning.jobs.cancel(job_id)
        return self._job(job)

    def deploy(self, model: str) -> Endpoint:
        """Return where a tuned model answers: at once, at the same address."""
        return Endpoint(
            self.base_url, model, api_key=self._api_key, api_key_env=key_variable(self.base_url)
        )

    def retire(self, endpoint: Endpoint) -> None:
        """Do nothing: nothing is billed by the hour."""

    def upload(self, path: Path) -> str:
        """Upload a training file, or find the one with the same bytes.

        The name carries the content's hash. A cut upload is looked for before it is repeated, so
        that nothing lies about twice.

        Returns:
            The file's id.

        Raises:
            EngineError: The provider refused the file.
        """
        name = f"ftmagic-{file_digest(path)}.jsonl"
        for delay_s in (*self.lookup_delays_s, None):
            found = self._find_file(name)
            try:
                return self._processed(found) if found else self._send_file(path, name)
            except EngineUnreachable:
                if delay_s is None:
                    raise
                time.sleep(delay_s)
        raise AssertionError("the loop returns or raises")

    def _send_file(self, path: Path, name: str) -> str:
        with path.open("rb") as body, self._translated(f"uploading {path.name}"):
            files = self.client().with_options(max_retries=0).files
            sent = files.create(file=(name, body), purpose="fine-tune")
            return self._processed(as_json(sent))

    def _find_file(self, name: str) -> Json | None:
        with self._translated("listing files"):
            files = self.client().files.list(purpose="fine-tune")
            for each in itertools.islice(files, _MOST_FILES):
                body = as_json(each)
                if body.get("filename") == name and body.get("status") != "error":
                    return body
        return None

    def _processed(self, body: Json) -> str:
        """Wait a little for a file to be processed; the job waits for the rest."""
        file_id = str(body["id"])
        deadline = time.monotonic() + self.file_timeout_s
        while body.get("status") == "uploaded" and time.monotonic() < deadline:
            time.sleep(0.5)
            with self._translated(f"asking for file {file_id}"):
                body = as_json(self.client().files.retrieve(file_id))
        if body.get("status") == "error":
            raise EngineError(
                message(
                    f"{self.host} could not read the training file {file_id}: "
                    f"{body.get('status_details') or 'it gave no reason'}.",
                    next_step="ft.examples('NAME').check('openai')",
                )
            )
        return file_id

    def _create(self, body: Json, intent: str) -> JobInfo:
        import openai

        jobs = self.client().with_options(max_retries=0).fine_tuning.jobs
        # `method` and `metadata` came to the SDK after 1.40: send them past its signature.
        newer = {name: body.pop(name) for name in ("method", "metadata")}
        for attempt in range(self.create_attempts):
            try:
                return self._job(jobs.create(**body, extra_body=newer))
            except openai.RateLimitError as exc:
                if refusals.is_quota(exc) or attempt == self.create_attempts - 1:
                    raise self._refusal(exc) from exc
                time.sleep(refusals.wait_s(exc, attempt))
            except openai.APIConnectionError as exc:
                if refusals.was_never_sent(exc):
                    with self._translated("creating the job"):
                        raise
                return self._find_lost(intent, exc)
            except (EngineUnreachable, json.JSONDecodeError) as exc:
                return self._find_lost(intent, exc)
            except openai.APIStatusError as exc:
                if exc.status_code < 500 and exc.status_code != 408:
                    raise self._refusal(exc) from exc
                return self._find_lost(intent, exc)
        raise AssertionError("the loop returns or raises")

    def _find_lost(self, intent: str, exc: Exception) -> JobInfo:
        """Look for the job whose creation was not answered; never create a second one."""
        for delay_s in self.lookup_delays_s:
            time.sleep(delay_s)
            try:
                job = self._find(INTENT_KEY, intent)
            except EngineUnreachable:
                continue
            if job is not None:
                return job
        raise UnknownOutcome(
            message(
                f"unknown whether the job was created: {self.host} did not answer usefully "
                f"({type(exc).__name__}), and no job with {INTENT_KEY} {intent} is listed. "
                "Nothing was sent a second time.",
                next_step=f"check with %ft_status --engine {self.name}",
            )
        ) from exc

    def _find(self, key: str, value: str) -> JobInfo | None:
        """Find the newest job with this metadata that did not fail."""
        with self._translated("listing jobs"):
            pages = self.client().fine_tuning.jobs.list(limit=100)
            for each in itertools.islice(pages, _MOST_JOBS):
                job = read_job(as_json(each), self.name)
                if job.metadata.get(key) == value and job.status not in _DEAD_STATUSES:
                    return job
        return None

    def _job(self, reply: object) -> JobInfo:
        job = read_job(as_json(reply), self.name)
        if not job.id:
            raise no_answer(self.host, "a job")
        return job

    def _refusal(self, exc: openai.APIStatusError) -> EngineError:
        return refusals.refusal(exc, self.name, self.host, "creating the job", self.key())

    def _translated(self, doing: str) -> AbstractContextManager[None]:
        return refusals.translated(self.name, self.host, doing, key=self._api_key or self.key())

    def _problems(
        self, train: Path, rows: builtins.list[int], spec: TrainSpec
    ) -> Iterator[Problem]:
        yield from size_problems(train, rows, self.limits, self.name)
        yield from suffix_problems(spec.suffix)
        for deadline in self.limits.deadlines:
            yield Problem("warning", None, f"{self.host}: {deadline}", "--engine local")


def method_of(spec: TrainSpec) -> Json:
    """Build the `method` of a job: its type and the hyperparameters that were set."""
    return {"type": spec.method, spec.method: {"hyperparameters": spec.hyperparameters()}}


def _page(after: str | None, limit: int) -> dict[str, Any]:
    return {"limit": limit} if after is None else {"after": after, "limit": limit}


def _close_all(clients: dict[tuple[str, str], openai.OpenAI]) -> None:
    for client in clients.values():
        client.close()
