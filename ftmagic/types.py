"""The values that travel between ftmagic's modules: frozen, plain, without I/O.

Messages, tools and schemas stay JSON dicts in the OpenAI chat shape, because the training row *is*
the example. Times are Unix seconds in UTC, durations end in `_s`, money in `_usd`.

One file of over 400 lines, because it is the vocabulary: most of it is the meaning of fields.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from ftmagic.errors import ConfigError, message

if TYPE_CHECKING:
    import openai

Json = dict[str, Any]
"""One JSON object."""

Split = Literal["train", "validation", "test"]
Review = Literal["pending", "approved", "rejected"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
REVIEWS: tuple[Review, ...] = ("pending", "approved", "rejected")

FINAL_STATUSES = frozenset({"succeeded", "failed", "cancelled"})
"""Job statuses after which nothing changes (openai `types/fine_tuning/fine_tuning_job.py`)."""


def canonical_json(value: object) -> str:
    """Serialise with sorted keys and no white space: equal values give equal text."""
    return json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )


def content_hash(value: object) -> str:
    """Identify a JSON value: 'b2:' (the algorithm) and 32 hex digits of its canonical form."""
    text = canonical_json(value).encode("utf-8", "surrogatepass")
    return "b2:" + hashlib.blake2b(text, digest_size=16).hexdigest()


@dataclass(frozen=True)
class Call:
    """One request and its reply, as sent; never edited, kept also when it failed.

    Attributes:
        id: Ours, a 32-digit hex uuid made when the call was sent.
        run_id: The run (one execution of a capturing cell) that made it.
        api: Wire dialect: 'openai.chat', 'openai.responses', 'anthropic.messages' or 'unknown'.
        url: Where it went, without query string and credentials.
        request: The JSON body that was sent.
        reply: The JSON body that came back; a streamed one is rebuilt from its chunks. None when
            nothing usable came back.
        status: HTTP status; 0 when no response arrived.
        outcome: 'ok', 'failed' (HTTP error or no response) or 'partial' (cut or abandoned stream).
        error: What went wrong, in one line; empty for 'ok'.
        started_at: Unix seconds.
        latency_s: From sending to the last byte.
        is_stream: Whether the reply was streamed.
        is_ambient: No cell token reached the call; it was made while the capture was open.
        attempt: 0 for the first try, counted by the SDK's retry header.
        tags: `ft.tag(...)` and `--tag` at the moment the call was made; 'id' and 'source' are
            the identity of the call and the document that it is about.
        library: The SDK that sent it, from its user agent (never stored otherwise).
    """

    id: str
    run_id: str
    api: str
    url: str
    request: Json
    reply: Json | None
    status: int = 200
    outcome: Literal["ok", "failed", "partial"] = "ok"
    error: str = ""
    started_at: float = 0.0
    latency_s: float = 0.0
    is_stream: bool = False
    is_ambient: bool = False
    attempt: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    library: str = ""

    @property
    def model(self) -> str:
        """The model that the request named."""
        return str(self.request.get("model", ""))

    @property
    def n_tokens(self) -> int | None:
        """Total tokens as the provider counted them; None if it gave no usable number."""
        usage = (self.reply or {}).get("usage")
        total = usage.get("total_tokens") if isinstance(usage, dict) else None
        return total if type(total) is int and 0 <= total < 2**63 else None


@dataclass(frozen=True)
class OutputSchema:
    """What the output of an example must look like: a tool's parameters or a response format.

    Attributes:
        name: The tool's or the response format's name.
        kind: 'tool' or 'response_format'.
        schema: JSON Schema of the arguments or of the content; {} for `json_object`.
        is_strict: Whether the request asked for strict mode.
    """

    name: str
    kind: Literal["tool", "response_format"]
    schema: Json
    is_strict: bool = False

    @property
    def hash(self) -> str:
        """Content hash of kind, name, schema and strictness: a new hash is a new version."""
        return content_hash([self.kind, self.name, self.schema, self.is_strict])


@dataclass(frozen=True)
class Example:
    """One training row made from a call: what the model was shown, and what it should answer.

    `messages` ends with the assistant message to learn. Fields with `compare=False` are
    bookkeeping: two examples with the same content are equal.

    Attributes:
        messages: Chat messages in the OpenAI shape; the last one is the assistant's answer.
        tools: Tools offered, [] for a response format.
        parallel_tool_calls: As in the request; None when it did not say.
        tool_choice: As in the request; kept for use and comparison, not part of a training row.
        response_format: As in the request; likewise (the training line has no such field).
        schemas: One for each tool, or the response format's.
        id: Row id in the store; 0 before it is stored.
        call_id: The call it came from; '' for an imported row.
        dataset: Name of its dataset.
        revision: 0 as captured, counted up by edits.
        review: 'pending', 'approved' or 'rejected'.
        split: None until one is assigned.
        schema_version: Version number of its schema within the dataset, from 1.
        problems: Why it is not trainable, in words; () when it is valid.
        tags: Tags of the call.
        model: The model that answered (the teacher).
        n_tokens: Total tokens of the call as its provider counted them; None if it did not say.
        created_at: Unix seconds.
    """

    messages: list[Json]
    tools: list[Json] = field(default_factory=list)
    parallel_tool_calls: bool | None = None
    tool_choice: Any = None
    response_format: Json | None = None
    schemas: tuple[OutputSchema, ...] = field(default=(), compare=False)
    id: int = field(default=0, compare=False)
    call_id: str = field(default="", compare=False)
    dataset: str = field(default="", compare=False)
    revision: int = field(default=0, compare=False)
    review: Review = field(default="pending", compare=False)
    split: Split | None = field(default=None, compare=False)
    schema_version: int = field(default=1, compare=False)
    problems: tuple[str, ...] = field(default=(), compare=False)
    tags: Mapping[str, str] = field(default_factory=dict, compare=False)
    model: str = field(default="", compare=False)
    n_tokens: int | None = field(default=None, compare=False)
    created_at: float = field(default=0.0, compare=False)

    @property
    def prompt(self) -> list[Json]:
        """The messages before the answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> Json:
        """The assistant message to learn."""
        return self.messages[-1]

    @property
    def is_trainable(self) -> bool:
        """Valid against its schema and not rejected."""
        return not self.problems and self.review != "rejected"

    def content_key(self) -> str:
        """Identify what the row teaches: tool call ids, which are random, do not count."""
        return content_hash([*self._input(), _without_call_ids(self.answer)])

    def input_key(self) -> str:
        """Identify what the model was shown; rows that share it and differ in answer conflict."""
        return content_hash(self._input())

    def _input(self) -> list[Any]:
        prompt = [_without_call_ids(each) for each in self.prompt]
        return [prompt, self.tools, self.tool_choice, self.response_format]

    def request(self) -> Json:
        """The chat-completions body that was captured, without model and sampling settings."""
        body: Json = {"messages": self.prompt}
        if self.tools:
            body["tools"] = self.tools
        if self.tool_choice is not None:
            body["tool_choice"] = self.tool_choice
        if self.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = self.parallel_tool_calls
        if self.response_format is not None:
            body["response_format"] = self.response_format
        return body

    def outputs(self) -> list[tuple[str, Any]]:
        """The structured answer: (schema name, parsed JSON) for each tool call or for the content.

        Raises:
            ValueError: Arguments or content are not JSON.
        """
        calls = self.answer.get("tool_calls") or []
        if calls:
            return [
                (call["function"]["name"], json.loads(call["function"]["arguments"]))
                for call in calls
            ]
        name = self.schemas[0].name if self.schemas else ""
        return [(name, json.loads(self.answer.get("content") or ""))]


def _without_call_ids(chat_message: Json) -> Json:
    cleaned = {key: value for key, value in chat_message.items() if key != "tool_call_id"}
    if cleaned.get("tool_calls"):
        cleaned["tool_calls"] = [
            {key: value for key, value in call.items() if key != "id"}
            for call in cleaned["tool_calls"]
        ]
    return cleaned


@dataclass(frozen=True)
class Problem:
    """One thing that keeps a row or a dataset from being used, and how to mend it.

    Attributes:
        severity: 'error' blocks training; 'warning' is shown.
        row: 1-based row number in the file or dataset; None when it concerns all of it.
        message: What is wrong, with the values.
        fix: The command or edit that mends it.
    """

    severity: Literal["error", "warning"]
    row: int | None
    message: str
    fix: str = ""


@dataclass(frozen=True)
class Limits:
    """What an engine accepts.

    Attributes:
        min_rows: Fewest training rows a job may have.
        max_row_tokens: Longest row in tokens.
        max_file_bytes: Largest training file.
        methods: Of 'supervised', 'dpo', 'reinforcement'.
        keeps_response_format: A training line may carry `response_format` (OpenAI's may not).
        capabilities: Optional verbs: of 'pause', 'resume', 'checkpoints', 'download'.
        deadlines: Known dates after which something stops, in words with the date first.
    """

    min_rows: int = 1
    max_row_tokens: int = 65_536
    max_file_bytes: int = 512 * 2**20
    methods: tuple[str, ...] = ("supervised",)
    keeps_response_format: bool = False
    capabilities: frozenset[str] = frozenset()
    deadlines: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainSpec:
    """What to train: the arguments of `fine_tuning.jobs.create` but the files.

    Attributes:
        model: The base model, as the engine names it.
        suffix: Up to 64 characters that become part of the tuned model's name.
        seed: For reproducible runs where the engine supports it.
        method: 'supervised', 'dpo' or 'reinforcement'.
        n_epochs: None lets the engine decide.
        batch_size: Rows a step; None lets the engine decide.
        learning_rate_multiplier: None lets the engine decide.
        metadata: Up to 16 pairs; ftmagic adds `ftmagic_hash` and `ftmagic_intent`.
    """

    model: str
    suffix: str | None = None
    seed: int | None = None
    method: str = "supervised"
    n_epochs: int | None = None
    batch_size: int | None = None
    learning_rate_multiplier: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def hyperparameters(self) -> Json:
        """The hyperparameters that were set, under OpenAI's names."""
        values = {
            "n_epochs": self.n_epochs,
            "batch_size": self.batch_size,
            "learning_rate_multiplier": self.learning_rate_multiplier,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Quote:
    """What a training job would take, before anything is spent.

    Attributes:
        engine: The engine's name.
        host: Where the rows would be sent ('127.0.0.1' for the embedded engine).
        model: The base model.
        n_train: Training rows.
        n_validation: Validation rows.
        n_tokens: Tokens of the training file, once through.
        tokens_basis: Where `n_tokens` comes from: 'measured', 'provider' or 'estimate'.
        n_truncated: Rows whose answer the engine would cut off.
        cost_usd: None where no price is known; 0.0 on your own machine.
        cost_basis: Where the price comes from, with its date.
        problems: Errors block the job, warnings are shown.
    """

    engine: str
    host: str
    model: str
    n_train: int
    n_validation: int
    n_tokens: int
    tokens_basis: Literal["measured", "provider", "estimate"]
    n_truncated: int = 0
    cost_usd: float | None = None
    cost_basis: str = ""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class JobInfo:
    """A fine-tuning job as its engine describes it, under OpenAI's field names.

    `status` is one of validating_files, queued, running, succeeded, failed, cancelled, or whatever
    else the engine says, shown verbatim.

    Attributes:
        id: The engine's job id.
        engine: The engine's name.
        model: The base model.
        status: See above.
        created_at: Unix seconds.
        finished_at: Unix seconds; None while it goes on.
        fine_tuned_model: The tuned model's name; None before success.
        trained_tokens: As the engine counts them; None before it says.
        error: Why it failed, in the engine's own words; '' otherwise.
        training_file: The engine's file id.
        validation_file: The engine's file id; None without one.
        hyperparameters: As the engine reports them.
        metadata: As sent with the job.
    """

    id: str
    engine: str
    model: str
    status: str
    created_at: float = 0.0
    finished_at: float | None = None
    fine_tuned_model: str | None = None
    trained_tokens: int | None = None
    error: str = ""
    training_file: str = ""
    validation_file: str | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_final(self) -> bool:
        """Whether the job has ended, in success or not."""
        return self.status in FINAL_STATUSES


@dataclass(frozen=True)
class JobEvent:
    """One line of a job's log.

    Attributes:
        id: The engine's event id.
        created_at: Unix seconds.
        level: 'info', 'warn' or 'error'.
        message: In the engine's words.
        type: 'message' or 'metrics'.
        data: For metrics: step, train_loss, valid_loss and whatever else the engine measures.
    """

    id: str
    created_at: float
    level: str
    message: str
    type: str = "message"
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A model saved during training.

    Attributes:
        id: The engine's checkpoint id.
        step_number: Optimiser steps so far.
        fine_tuned_model_checkpoint: The name under which it answers.
        metrics: As the engine reports them.
        created_at: Unix seconds.
    """

    id: str
    step_number: int
    fine_tuned_model_checkpoint: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    created_at: float = 0.0


@dataclass(frozen=True)
class Endpoint:
    """Where a model answers, in the OpenAI dialect.

    Attributes:
        base_url: Ends in the API's version folder, for example 'http://127.0.0.1:8765/v1'.
        model: The name to send as `model`.
        api_key: The key itself, never shown and never stored; None reads `api_key_env`.
        api_key_env: The environment variable that holds the key.
        cost_per_hour_usd: Price of keeping it up; None where serving costs nothing by the hour.
    """

    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    api_key_env: str = "OPENAI_API_KEY"
    cost_per_hour_usd: float | None = None

    def key(self) -> str:
        """The key to send.

        Raises:
            ConfigError: Neither `api_key` nor the environment variable is set.
        """
        value = self.api_key or os.environ.get(self.api_key_env, "")
        if not value:
            raise ConfigError(
                message(
                    f"no key for {self.base_url}: the environment variable {self.api_key_env} "
                    "is not set.",
                    next_step=f"import os, getpass; os.environ[{self.api_key_env!r}] = "
                    "getpass.getpass()",
                )
            )
        return value

    def client(self, **options: Any) -> openai.OpenAI:
        """Make an official SDK client that talks to this endpoint.

        Args:
            **options: Passed on to `openai.OpenAI`.
        """
        import openai

        if urlsplit(self.base_url).hostname in ("127.0.0.1", "localhost", "::1"):
            # A proxy from the environment must not stand between us and this machine.
            options.setdefault("http_client", openai.DefaultHttpxClient(trust_env=False))
        return openai.OpenAI(base_url=self.base_url, api_key=self.key(), **options)
