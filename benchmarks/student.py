"""What the built-in student costs: training and constrained decoding, in tokens a second.

Drives the embedded server with the official SDK, as a user's machine would, in a home folder of
its own. Prints one JSON line. Times are wall clock with the server's own thread choice; the ratio
of constrained to free decoding within the run is the figure to compare.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import openai
from pydantic import BaseModel

from ftmagic.data import citations

N_DECODED = 24
N_EPOCHS = 3


class Citation(BaseModel):
    """The demo's schema."""

    author: str
    year: int
    title: str


def main() -> None:
    """Train once, decode some rows both ways, print."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["FTMAGIC_HOME"] = home
        import ftmagic as ft

        client: Any = ft.engine("local").deploy("ftmagic-student").client()
        try:
            print(json.dumps(_measure(client, Path(home))))
        finally:
            ft.stop_server()


def _measure(client: openai.OpenAI, home: Path) -> dict[str, Any]:
    job = _train(client, home / "rows.jsonl")
    metrics = [
        event
        for event in client.fine_tuning.jobs.list_events(job.id, limit=100).data
        if event.type == "metrics"
    ]
    train_s = max(event.created_at for event in metrics) - min(
        event.created_at for event in metrics
    )
    constrained = _decode(client, job.fine_tuned_model, is_constrained=True)
    free = _decode(client, job.fine_tuned_model, is_constrained=False)
    return {
        "benchmark": "student",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "trained_tokens": job.trained_tokens,
        "train_tokens_per_s": round(job.trained_tokens / max(train_s, 1)),
        "job_s": job.finished_at - job.created_at,
        "constrained_tokens_per_s_median": round(statistics.median(constrained)),
        "free_tokens_per_s_median": round(statistics.median(free)),
        "constrained_to_free": round(statistics.median(constrained) / statistics.median(free), 2),
        "n_decoded": N_DECODED,
    }


def _train(client: openai.OpenAI, path: Path) -> Any:
    rows = [
        {**_request(passage.text), "messages": _messages(passage)}
        for passage in citations.passages("train")
        if not passage.is_list
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    file = client.files.create(file=path, purpose="fine-tune")
    job: Any = client.fine_tuning.jobs.create(
        model="ftmagic-student",
        training_file=file.id,
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": N_EPOCHS}},
        },
    )
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.5)
        job = client.fine_tuning.jobs.retrieve(job.id)
    if job.status != "succeeded":
        raise RuntimeError(f"the job {job.status}: {job.error}")
    return job


def _messages(passage: citations.Passage) -> list[Any]:
    function = {"name": "Citation", "arguments": json.dumps(passage.answer)}
    call = {"id": "call_1", "type": "function", "function": function}
    return [
        {"role": "user", "content": passage.text},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]


def _request(text: str) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": text}],
        "tools": [openai.pydantic_function_tool(Citation)],
    }


def _decode(client: openai.OpenAI, model: str, *, is_constrained: bool) -> list[float]:
    rates = []
    for passage in citations.passages("seen")[:N_DECODED]:
        body: dict[str, Any] = _request(passage.text)
        if is_constrained:
            body["tool_choice"] = {"type": "function", "function": {"name": "Citation"}}
        else:
            del body["tools"]
        started = time.perf_counter()
        reply = client.chat.completions.create(
            model=model, temperature=0, max_completion_tokens=60, **body
        )
        assert reply.usage is not None
        rates.append(reply.usage.completion_tokens / (time.perf_counter() - started))
    return rates


if __name__ == "__main__":
    main()
