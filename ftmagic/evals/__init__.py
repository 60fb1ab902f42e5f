"""Measure models on held-out rows: `compare()` asks, scores and reports.

Its parts, from the bottom: `comparators`, `assignment`, `scoring` and `intervals` are pure;
`report` adds up, `plain`, `page` and `worst` show; `held_out`, `candidates` and `answers` find the
rows, the models and the replies. Nothing here trains, and nothing is stored.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

from ftmagic.engines.addresses import host_of, is_loopback
from ftmagic.errors import ConfigError
from ftmagic.evals.answers import Answer, Scoring, ask, score_answer
from ftmagic.evals.candidates import (
    GROUNDED,
    Candidate,
    Model,
    candidates,
    needs_job,
    training_jobs,
)
from ftmagic.evals.comparators import Comparator, comparator
from ftmagic.evals.held_out import (
    HeldOut,
    group_of,
    held_out,
    require_no_credential,
    require_tag,
    source_of,
)
from ftmagic.evals.report import Report, Row, Summary
from ftmagic.evals.scoring import Score, score_outputs
from ftmagic.routing import find_job
from ftmagic.types import Example
from ftmagic.wire import scope

if TYPE_CHECKING:
    import openai

    from ftmagic.dataset import Dataset

__all__ = ["Report", "Row", "Score", "Summary", "compare", "score_outputs"]

ENDING = "ftmagic-compare-ending"
"""Name of the thread that tidies up after an interrupted comparison."""


def compare(
    dataset: str | Dataset,
    models: Sequence[Model] = ("base", "tuned"),
    *,
    by: str | None = None,
    split: str = "test",
    concurrency: int = 4,
    comparators: Mapping[str, str | Comparator] | None = None,
    ordered: bool = False,
    grounded: bool = True,
    **client_options: Any,
) -> Report:
    """Ask each model every test row, exactly as captured, and score it against the recording.

    The calls are real: another machine's owner may bill them, so their number is printed first.

    Args:
        dataset: Its name, or rows chosen with `ft.examples(...)`.
        models: 'base' (the student before training), 'tuned' (the promoted job), another model's
            name on the same server, a `Job`, or an `Endpoint`. The first is what the others are
            measured against.
        by: Report the values of this tag apart: 'kind' or 'tag:kind'.
        split: The rows to ask.
        concurrency: Calls at a time.
        comparators: Field path, or last part of it -> 'exact', 'equal', 'fuzzy' or a function of
            (output, target).
        ordered: Items of a list must stand in the recorded order.
        grounded: On the embedded engine, hold base and tuned alike to spans of the input in the
            fields where every training row has one; False holds neither, so that the difference
            that grounding makes can be seen.
        **client_options: Passed on to `openai.OpenAI`, for example `timeout`.

    Returns:
        The report. A call that failed is a row with an error: counted, not scored.

    Raises:
        DataError: The dataset has no row that may be used, or one shows a credential and would
            leave this machine.
        RoutingError: 'base' or 'tuned' is asked for and no job is promoted.
        ConfigError: Two models are the same, or a key is missing.

    Example:
        report = ft.compare("albums", by="style")
        report.to_pandas()
    """
    rules = {path: comparator(rule) for path, rule in (comparators or {}).items()}
    scoring = Scoring(rules, ordered)
    if concurrency < 1:
        raise ConfigError(f"concurrency must be at least 1, got {concurrency}.")
    name = dataset if isinstance(dataset, str) else str(dataset.name)
    job = find_job(name) if needs_job(models) else None
    chosen = candidates(models, job, is_grounded=grounded)
    rows = held_out(dataset, split, training_jobs(models, job))
    _announce(rows, chosen)
    tag = (by or "").removeprefix("tag:")
    require_tag(rows, tag)
    started_at = time.time()
    answers = _ask_all(rows.examples, chosen, concurrency, client_options)
    results = tuple(
        score_answer(
            example,
            answers[example.id, candidate.label],
            model=candidate.label,
            source=source_of(example),
            group=group_of(example, tag),
            scoring=scoring,
        )
        for example, candidate in itertools.product(rows.examples, chosen)
    )
    return Report(
        dataset=name,
        models=tuple(candidate.label for candidate in chosen),
        results=results,
        split=split,
        group_tag=tag,
        teachers=tuple(sorted({row.model for row in rows.examples if row.model})),
        warnings=(*rows.warnings, *_warnings(rows, results, answers)),
        notes=(_how(chosen, started_at, concurrency),),
    )


def _announce(rows: HeldOut, chosen: Sequence[Candidate]) -> None:
    """Say how many calls go to other machines, and keep credentials from them."""
    hosts = [host_of(each.endpoint.base_url) for each in chosen]
    away = Counter(host for host in hosts if not is_loopback(host))
    require_no_credential(rows, list(away))
    for host, n_models in away.items():
        print(f"{n_models * len(rows.examples):,} calls to {host}, which its owner may bill")


def _ask_all(
    examples: Sequence[Example],
    chosen: Sequence[Candidate],
    concurrency: int,
    client_options: Mapping[str, Any],
) -> dict[tuple[int, str], Answer]:
    """Send every row to every model, in turns, so that a slow minute hits all alike."""
    from tqdm.auto import tqdm

    clients = {each.label: each.endpoint.client(**client_options) for each in chosen}
    answers: dict[tuple[int, str], Answer] = {}
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="ftmagic-compare")
    try:
        with scope.ignore_calls():  # test rows must never be captured as training rows
            pending: dict[Future[Answer], tuple[int, str]] = {
                pool.submit(
                    ask,
                    clients[each.label],
                    each.endpoint.model,
                    example.request(),
                    each.settings,
                ): (example.id, each.label)
                for example, each in itertools.product(examples, chosen)
            }
        for done in tqdm(
            as_completed(pending), total=len(pending), desc="compare", unit="call", leave=False
        ):
            answers[pending[done]] = done.result()
    except BaseException:  # an interrupt returns at once; what was sent already ends by itself
        ending = threading.Thread(target=_end, args=(pool, clients), name=ENDING, daemon=True)
        ending.start()
        raise
    _end(pool, clients)
    return answers


def _end(pool: ThreadPoolExecutor, clients: Mapping[str, openai.OpenAI]) -> None:
    """Drop the calls that wait, let the ones that were sent end, and close the clients."""
    pool.shutdown(wait=True, cancel_futures=True)
    for client in clients.values():
        client.close()


def _warnings(
    rows: HeldOut, results: Sequence[Row], answers: Mapping[tuple[int, str], Answer]
) -> list[str]:
    found = []
    for model in dict.fromkeys(row.model for row in results):
        mine = [row for row in results if row.model == model]
        errors = [row.error for row in mine if row.score is None]
        if errors:
            found.append(
                f"{len(errors)} of {len(mine)} calls to {model} brought no reply and are not "
                f"scored; the first: {errors[0]}"
            )
        if any(answers[row.example_id, model].is_default_temperature for row in mine):
            found.append(f"{model} refused temperature 0 and answered at its own.")
    if not any(source_of(row) != f"row {row.id}" for row in rows.examples):
        found.append(
            "No row names its source (ft.tag(source=...)): every row is taken as independent, "
            "which makes intervals too narrow where several rows are about one document."
        )
    return found


def _how(chosen: Sequence[Candidate], started_at: float, concurrency: int) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(started_at))
    places = ", ".join(f"{each.label} = {each.endpoint.model}" for each in chosen)
    grounded = sorted({path for each in chosen for path in each.settings.get(GROUNDED, [])})
    fields = ", ".join(grounded)
    held = f" Every model is held to spans of the input in: {fields}." if grounded else ""
    hosts = ", ".join(dict.fromkeys(each.endpoint.base_url for each in chosen))
    return (
        f"Measured {when} UTC: {places}, at {hosts}; each row was sent once to each model in the "
        f"captured shape, at temperature 0, {concurrency} calls at a time. Latency is wall clock "
        "in this process and holds the wait for calls at the same time, the other model's too: "
        "concurrency=1 measures it alone; tokens (prompt + reply, a call) are the server's count."
        f"{held}"
    )
