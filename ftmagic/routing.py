"""Which model answers for a dataset: `use()` sends a cell's own calls to it, `client()` reaches it.

Owns the decision over each call and its reason. How a request is rewritten is `ftmagic.wire`'s
business; the user's client, its key and its model name stay as they are.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextvars import Token
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from ftmagic.engines import engine
from ftmagic.errors import RoutingError, UnknownNameError, message
from ftmagic.formats.messages import Unmappable, tools_from_request
from ftmagic.formats.openai_chat import is_structured
from ftmagic.formats.schemas import output_schemas
from ftmagic.store import JobRecord, Store, open_store
from ftmagic.types import Endpoint, JobInfo, Json, content_hash
from ftmagic.wire import scope, seam

if TYPE_CHECKING:
    import openai

CHAT_PATH = "/chat/completions"
NOT_CHAT = "not a chat completion"
NOT_STRUCTURED = "no tools and no response_format"
NOT_TRAINED = "schema not trained"


class FinishedJob(Protocol):
    """What `use()` needs of a `Job`."""

    @property
    def info(self) -> JobInfo:
        """The job as its engine describes it."""

    @property
    def endpoint(self) -> Endpoint:
        """Where its model answers."""


@dataclass(frozen=True)
class RoutedSummary:
    """What became of the calls.

    Attributes:
        model: Where the rerouted ones went.
        n_rerouted: Calls that the tuned model answered; an SDK's retry counts again.
        reasons: Why the others passed through, with their number.
        n_faults: What went wrong inside ftmagic meanwhile; such a call passes through.
        fault: The last such fault.
    """

    model: str
    n_rerouted: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    n_faults: int = 0
    fault: str = ""

    @property
    def n_passed(self) -> int:
        """Calls that went where they always go."""
        return sum(self.reasons.values())

    @property
    def n_calls(self) -> int:
        """All calls that were seen."""
        return self.n_rerouted + self.n_passed

    def __str__(self) -> str:
        """As '12 calls: 9 rerouted, 3 passed through (schema not trained)', and our faults."""
        if not self.n_faults:
            return self._counts()
        return f"{self._counts()}\n  {self.n_faults} faults inside ftmagic, the last: {self.fault}"

    def _counts(self) -> str:
        if not self.n_calls:
            return "no LLM call was seen; nothing was rerouted"
        text = f"{self.n_calls} call{'' if self.n_calls == 1 else 's'}: {self.n_rerouted} rerouted"
        if not self.n_passed:
            return f"{text} to {self.model}"
        several = len(self.reasons) > 1
        reasons = [f"{n} {why}" if several else why for why, n in self.reasons.items()]
        return f"{text}, {self.n_passed} passed through ({', '.join(reasons)})"


class Routed:
    """A context in which calls go to another model; made by `use()`."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        trained: frozenset[str] | None = None,
        instead_of: str | None = None,
        strict: bool = False,
    ) -> None:
        """Prepare the route; nothing is rerouted before `with`.

        Args:
            endpoint: Where to send calls.
            trained: Hashes of the output schemas that it was trained on; None for any.
            instead_of: Only calls that name this model.
            strict: Raise for a structured call that cannot be rerouted.
        """
        self.endpoint = endpoint
        self._trained = trained
        self._instead_of = instead_of
        self._is_strict = strict
        self._lock = threading.Lock()
        self._n_rerouted = 0
        self._reasons: Counter[str] = Counter()
        self._known: dict[str, str] = {}
        self._faults_before = scope.faults.count
        self._token: Token[scope.Route | None] | None = None

    def __repr__(self) -> str:
        """Show the summary."""
        return str(self.summary())

    def __enter__(self) -> Routed:
        """Start rerouting the calls that this context makes."""
        seam.install()
        self._faults_before = scope.faults.count
        self._token = scope.push_route(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; tasks and threads started inside keep the route."""
        if self._token is not None:
            scope.pop_route(self._token)
            self._token = None

    def decide(self, url: str, body: Json, rewrite: Callable[[Endpoint], Any]) -> Any:
        """Say where a call goes: return its request to the tuned model, or None to let it pass.

        Raises:
            RoutingError: It is structured, cannot be rerouted, and `strict` is set.
        """
        reason = self._reason_to_pass(url, body)
        rewritten: Any = None
        cause: Exception | None = None
        if not reason:
            try:
                rewritten = rewrite(self.endpoint)
            except Exception as exc:  # whatever it is, the call passes, or is refused when strict
                cause = exc
                reason = str(exc).partition("\n")[0].rstrip(".") or type(exc).__name__
        with self._lock:
            if rewritten is not None:
                self._n_rerouted += 1
                return rewritten
            self._reasons[reason] += 1
        if self._is_strict and _asks_for_structure(body) and not self._is_other_model(body):
            raise self._refusal(body, reason, cause) from cause
        return None

    def summary(self) -> RoutedSummary:
        """Count what became of the calls so far."""
        with self._lock:
            return RoutedSummary(
                self.endpoint.model,
                self._n_rerouted,
                dict(self._reasons),
                n_faults=scope.faults.count - self._faults_before,
                fault=scope.faults.last,
            )

    def _refusal(self, body: Json, reason: str, cause: Exception | None) -> RoutingError:
        said = f"a call for model {body.get('model')!r} was not sent to {self.endpoint.model!r}: "
        if cause is not None:
            return RoutingError(f"{said}{cause}")
        next_step = "record it first (%%capture_ft, %ft_train), or leave out --strict"
        return RoutingError(message(f"{said}{reason}.", next_step=next_step))

    def _is_other_model(self, body: Json) -> bool:
        return self._instead_of is not None and body.get("model") != self._instead_of

    def _reason_to_pass(self, url: str, body: Json) -> str:
        if not url.endswith(CHAT_PATH):
            return NOT_CHAT
        if self._is_other_model(body):
            return f"model is not {self._instead_of}"
        if not is_structured(body):
            return NOT_STRUCTURED
        if self._trained is None:
            return ""
        shape = {name: body.get(name) for name in ("tools", "functions", "response_format")}
        key = content_hash(shape)
        if key not in self._known:
            self._known[key] = _untrained(shape, self._trained)
        return self._known[key]


def use(
    target: str | FinishedJob | Endpoint, *, instead_of: str | None = None, strict: bool = False
) -> Routed:
    """Send the structured calls made inside to a tuned model instead.

    A call is rerouted when all of its tools, or its response format, were trained; to an Endpoint
    goes every structured call. It works in threads and async code; the calls keep their shape.

    Args:
        target: A dataset (its promoted job), a job's id, a `Job`, or an `Endpoint`.
        instead_of: Only calls that name this model.
        strict: A structured call that cannot be rerouted raises RoutingError.

    Returns:
        A context manager with `summary()`.

    Raises:
        UnknownNameError: No dataset or job has that name.
        RoutingError: The dataset has no job that succeeded.
        ConfigError: The key of the endpoint is not set.

    Example:
        with ft.use("albums") as routed:
            ask("Goodfellas")
        print(routed.summary())
    """
    trained: frozenset[str] | None = None
    if isinstance(target, Endpoint):
        endpoint = target
    elif isinstance(target, str):
        record = find_job(target)
        endpoint, trained = endpoint_of(record), trained_schemas(record)
    else:
        endpoint = target.endpoint
        trained = trained_schemas(open_store().jobs.get(target.info.id))
    endpoint.key()
    return Routed(endpoint, trained=trained, instead_of=instead_of, strict=strict)


def client(name: str, **options: Any) -> openai.OpenAI:
    """Return an official SDK client of the server where a dataset's tuned model answers.

    The model's name is `ft.job(...).fine_tuned_model`; `client.models.list()` shows it too.

    Args:
        name: A dataset, or a job's id.
        **options: Passed on to `openai.OpenAI`.

    Raises:
        UnknownNameError: No dataset or job has that name.
        RoutingError: The dataset has no job that succeeded.
    """
    return endpoint_of(find_job(name)).client(**options)


def find_job(name: str) -> JobRecord:
    """Return the job that answers for a dataset, or the job with that id.

    Raises:
        UnknownNameError: No dataset or job has that name.
        RoutingError: The dataset has no promoted job.
    """
    store = open_store()
    try:
        record = store.jobs.promoted(name)
    except UnknownNameError as exc:
        return _job_with_id(store, name, exc)
    if record is not None:
        return record
    raise RoutingError(
        message(
            f"no tuned model answers for {name!r} yet: {_job_states(store, name)}.",
            next_step="%ft_status" if store.jobs.list(name) else f"%ft_train {name}",
        )
    )


def endpoint_of(record: JobRecord) -> Endpoint:
    """Return where a job's tuned model answers, making it answer if it does not.

    Raises:
        RoutingError: The job has no model (yet).
        EngineError: The engine refuses to serve it.
    """
    info = record.info
    if info is None or not info.fine_tuned_model:
        status = info.status if info else "unknown"
        raise RoutingError(
            message(f"job {record.id} has no model: it is {status}.", next_step="%ft_status")
        )
    place = engine(record.engine, base_url=record.base_url or None)
    return place.deploy(info.fine_tuned_model)


def trained_schemas(record: JobRecord) -> frozenset[str] | None:
    """Hashes of the output schemas of the rows that a job was trained on.

    Where those rows are not known (an adopted job), or some were replaced or erased since, every
    schema of the dataset counts. None when nothing is known of the job's dataset.
    """
    if not record.dataset:
        return None
    store = open_store()
    ids = {example_id for example_id, _ in record.example_ids}
    rows = store.examples.select(record.dataset, ids=sorted(ids)) if ids else []
    hashes = {schema.hash for row in rows for schema in row.schemas}
    if not ids or len(rows) < len(ids):
        hashes |= {schema.hash for schema in store.schemas(record.dataset)}
    return frozenset(hashes)


def _job_with_id(store: Store, name: str, unknown_dataset: UnknownNameError) -> JobRecord:
    try:
        return store.jobs.get(name)
    except UnknownNameError:
        raise unknown_dataset from None


def _job_states(store: Store, dataset: str) -> str:
    states = Counter(
        record.info.status if record.info else "unknown" for record in store.jobs.list(dataset)
    )
    if not states:
        return "it has no job"
    return "its jobs are " + ", ".join(f"{status} ({n})" for status, n in states.items())


def _untrained(shape: Json, trained: frozenset[str]) -> str:
    """Return why a shape cannot be rerouted; '' when all of its schemas were trained."""
    try:
        schemas = output_schemas(tools_from_request(shape), shape.get("response_format"))
    except Unmappable as exc:
        return str(exc)
    return "" if schemas and all(each.hash in trained for each in schemas) else NOT_TRAINED


def _asks_for_structure(body: Json) -> bool:
    text = body.get("text")  # the Responses API keeps its format there
    shape = text.get("format") if isinstance(text, dict) else None
    return is_structured(body) or (
        isinstance(shape, dict) and str(shape.get("type", "")).startswith("json")
    )
