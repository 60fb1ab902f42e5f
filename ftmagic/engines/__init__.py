"""Places that can fine-tune a model, behind one small protocol.

An engine takes a training file in the OpenAI chat format and hands back jobs, events, checkpoints
and endpoints, under OpenAI's names. It knows nothing of datasets, cells or notebooks.
"""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Protocol, runtime_checkable

from ftmagic.errors import unknown_name
from ftmagic.types import Checkpoint, Endpoint, JobEvent, JobInfo, Limits, Quote, TrainSpec

ENGINES = ("local", "openai")
"""Names that `engine()` knows. An engine of your own is passed as an object."""


@runtime_checkable
class Engine(Protocol):
    """Something that can fine-tune. Every method raises EngineError when the provider refuses."""

    name: str
    limits: Limits
    default_model: str

    def quote(self, train: Path, validation: Path | None, spec: TrainSpec) -> Quote:
        """Say what the job would take; send nothing."""

    def submit(self, train: Path, validation: Path | None, spec: TrainSpec) -> JobInfo:
        """Start the job, or return the one that already runs for the same files and spec."""

    def retrieve(self, job_id: str) -> JobInfo:
        """Ask for a job's present state."""

    def list(self, after: str | None = None) -> builtins.list[JobInfo]:
        """List jobs, newest first."""

    def events(self, job_id: str, after: str | None = None) -> builtins.list[JobEvent]:
        """List a job's events, oldest first; with `after`, only those after that event id."""

    def checkpoints(self, job_id: str) -> builtins.list[Checkpoint]:
        """List a job's checkpoints, oldest first."""

    def cancel(self, job_id: str) -> JobInfo:
        """Stop a job."""

    def deploy(self, model: str) -> Endpoint:
        """Make a model answer; a no-op where the provider serves at once."""

    def retire(self, endpoint: Endpoint) -> None:
        """Stop serving (and paying); a no-op where nothing is billed by the hour."""


def engine(name: str | Engine, *, base_url: str | None = None) -> Engine:
    """Return an engine by name; an engine object is returned as it is.

    Args:
        name: One of `ENGINES`, or any object with the methods of `Engine`.
        base_url: For 'openai': any server that speaks its dialect.

    Raises:
        UnknownNameError: No engine has that name.
    """
    if not isinstance(name, str):
        return name
    if name == "local":
        from ftmagic.engines.local import LocalEngine

        return LocalEngine()
    if name == "openai":
        from ftmagic.engines.openai import OpenAIEngine

        return OpenAIEngine(base_url=base_url)
    raise unknown_name("engine", name, ENGINES, next_step="%ft_train NAME --engine local")
