"""Recorded citation calls in a store, for the tests of comparison and routing."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from ftmagic.formats.openai_chat import examples_from_call
from ftmagic.store import CallRecord, JobRecord, Store
from ftmagic.types import Call, JobInfo, Json, TrainSpec
from tests.provider import completion, tool_call

CITATION: Json = {
    "type": "object",
    "properties": {
        "author": {"type": "string"},
        "year": {"type": "integer"},
        "title": {"type": "string"},
    },
    "required": ["author", "year", "title"],
    "additionalProperties": False,
}
TOOL: Json = {"type": "function", "function": {"name": "Citation", "parameters": CITATION}}
FORCED: Json = {"type": "function", "function": {"name": "Citation"}}


def citation(number: int) -> Json:
    """The work that passage `number` cites."""
    return {"author": f"Author{number}", "year": 1900 + number, "title": f"Work {number}"}


def request_for(number: int, model: str = "teacher") -> Json:
    """A request as a user's cell sends it."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": f"passage {number}"}],
        "tools": [TOOL],
        "tool_choice": FORCED,
    }


def number_in(request: Json) -> int:
    """Which passage a request is about."""
    return int(request["messages"][-1]["content"].split()[-1])


def record(
    store: Store,
    numbers: range,
    *,
    split: str | None = None,
    tags: Mapping[str, str] | None = None,
    source: str | None = "work {}",
    answers: Mapping[int, Json] | None = None,
    cell: str = "",
) -> None:
    """Record one call for each number in the dataset 'citations'."""
    run = store.calls.begin_run("citations", split=split, cell=cell)
    records = []
    for number in numbers:
        named = {"source": source.format(number)} if source else {}
        value = (answers or {}).get(number, citation(number))
        call = Call(
            id=uuid.uuid4().hex,
            run_id=run.id,
            api="openai.chat",
            url="http://teacher/v1/chat/completions",
            request=request_for(number),
            reply=completion(tool_calls=[tool_call("Citation", value)], model="teacher"),
            tags={**named, **(tags or {})},
        )
        records.append(CallRecord(call, examples_from_call(call).examples, ""))
    store.calls.add(records)
    store.calls.end_run(run.id, "ok")


def promote_job(store: Store, base_url: str, **changes: Any) -> JobRecord:
    """Store a succeeded, promoted job of 'citations' whose model answers at `base_url`."""
    rows = store.examples.select("citations")
    job = JobRecord(
        id="ftjob-1",
        engine="openai",
        dataset="citations",
        host="127.0.0.1",
        content_hash="b2:0",
        info=JobInfo(
            "ftjob-1", "openai", "student", "succeeded", fine_tuned_model="ft:student:citations"
        ),
        spec=TrainSpec("student"),
        example_ids=[(row.id, row.revision) for row in rows if row.split != "test"],
        base_url=base_url,
    )
    job = JobRecord(**{**vars(job), **changes})
    store.jobs.put(job)
    store.jobs.promote(job.id)
    return job


def student(request: Json) -> Json:
    """Answer right when tuned; the base model gets two of three fields wrong."""
    value = citation(number_in(request))
    if not request["model"].startswith("ft:"):
        value |= {"year": 1, "title": "?"}
    called = [tool_call("Citation", json.dumps(value))]
    return completion(tool_calls=called, model=request["model"])
