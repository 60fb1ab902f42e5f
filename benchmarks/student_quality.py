"""How well the built-in student learns the demo's task, over several trainings.

Captures, trains and compares through the public API, as notebook 01 does, once for each training
seed, in homes of their own; the passages are the same each time. Prints one JSON line: share of
fields right (exact match), base and tuned, with and without grounding, mean over the seeds, and
for the singles pooled the paired 95 % interval of the gain for the first seed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from typing import Any

import openai
from pydantic import BaseModel, Field

import ftmagic as ft
from ftmagic import config
from ftmagic.data import citations

KINDS = ("seen", "unseen", "lists")


class Citation(BaseModel):
    """A work that the text cites."""

    author: str = Field(description="family name of the first author, as printed")
    year: int
    title: str = Field(description="word for word, as printed")


class Citations(BaseModel):
    """All works that the text cites, in the order of the text."""

    citations: list[Citation]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    n_seeds = parser.parse_args().seeds
    runs = [_one(seed) for seed in range(n_seeds)]
    keys = [key for key in runs[0] if key != "gain"]
    means = {key: round(statistics.mean(run[key] for run in runs), 3) for key in keys}
    spread = {key: [min(run[key] for run in runs), max(run[key] for run in runs)] for key in keys}
    print(
        json.dumps(
            {
                "benchmark": "student_quality",
                "n_seeds": n_seeds,
                "field_accuracy_mean": means,
                "field_accuracy_range": {key: spread[key] for key in keys if "tuned" in key},
                "singles_gain_first_seed": runs[0]["gain"],
            }
        )
    )


def _one(seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as home:
        config.home(home)
        os.environ["FTMAGIC_HOME"] = home
        try:
            _capture(f"{home}/answer-key.jsonl")
            ft.train("citations", seed=seed).wait()
            return _scores()
        finally:
            ft.stop_server()


def _request(passage: citations.Passage) -> dict[str, Any]:
    wanted = Citations if passage.is_list else Citation
    return {
        "messages": [{"role": "user", "content": passage.text}],
        "tools": [openai.pydantic_function_tool(wanted)],
        "tool_choice": {"type": "function", "function": {"name": wanted.__name__}},
    }


def _capture(path: str) -> None:
    citations.write_answer_key(path, _request)
    teacher = ft.serve(recordings={citations.ANSWER_KEY: path})
    client = teacher.client()
    for kind in ("train", *KINDS):
        split: Any = None if kind == "train" else "test"
        with ft.capture("citations", split=split, tags={"kind": kind}):
            for passage in citations.passages(kind):  # type: ignore[arg-type]  # a Kind
                with ft.tag(id=passage.id, source=passage.source):
                    client.chat.completions.create(model=teacher.model, **_request(passage))


def _scores() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, grounded in (("grounded", True), ("free", False)):
        report = ft.compare("citations", by="kind", grounded=grounded)
        for kind in KINDS:
            for model in ("base", "tuned"):
                accuracy = report.of(model, kind).field_accuracy
                found[f"{kind} {model} {name}"] = round(accuracy, 3)
    singles = ft.examples("citations").filter(lambda row: row.tags.get("kind") != "lists")
    gain = ft.compare(singles).of("tuned").gain
    assert gain is not None and gain.interval is not None
    found["gain"] = [round(gain.mean, 3), round(gain.interval.low, 3), round(gain.interval.high, 3)]
    return found


if __name__ == "__main__":
    main()
