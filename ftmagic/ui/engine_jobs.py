"""The jobs that an engine has, whether this machine knows them or not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import overload

from ftmagic import render
from ftmagic.engines import Engine
from ftmagic.store import open_store
from ftmagic.types import JobInfo

_COLUMNS = ("job", "status", "model", "tuned model", "created (UTC)", "known here")


class EngineJobs(Sequence[JobInfo]):
    """The newest jobs of an engine, asked for when this is made."""

    def __init__(self, place: Engine) -> None:
        """Ask an engine for its jobs.

        Raises:
            EngineError: It refuses or does not answer.
        """
        self.engine = place.name
        self._infos = tuple(place.list())
        self._known = {record.id for record in open_store().jobs.list()}

    @overload
    def __getitem__(self, index: int) -> JobInfo: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[JobInfo]: ...
    def __getitem__(self, index: int | slice) -> JobInfo | Sequence[JobInfo]:
        """One job's state, or some."""
        return self._infos[index]

    def __len__(self) -> int:
        """Number of jobs listed."""
        return len(self._infos)

    def __repr__(self) -> str:
        """Show a table, and how to attach to a job."""
        if not self._infos:
            return f"engine {self.engine!r} lists no jobs"
        return f"{render.table_text(self._rows(), _COLUMNS)}\n{self._hint()}"

    def _repr_html_(self) -> str:
        if not self._infos:
            return f"<p>{render.text(repr(self))}</p>"
        return render.table(
            self._rows(),
            _COLUMNS,
            f"the newest jobs on engine {self.engine!r}; {self._hint()}",
        )

    def _hint(self) -> str:
        return f"attach to one: %ft_status JOB --engine {self.engine} --dataset NAME"

    def _rows(self) -> list[list[object]]:
        return [
            [
                info.id,
                info.status,
                info.model,
                info.fine_tuned_model or info.error,
                time.strftime("%Y-%m-%d %H:%M", time.gmtime(info.created_at)),
                "yes" if info.id in self._known else "",
            ]
            for info in self._infos
        ]
