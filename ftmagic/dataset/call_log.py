"""The calls of a dataset, as sent and answered, and the recording that replays them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

from ftmagic import render
from ftmagic.errors import DataError, message
from ftmagic.formats.atomic_files import Written, write_lines
from ftmagic.store import open_store
from ftmagic.types import Call, Json

_SHOWN_ROWS = 10


class CallLog(Sequence[Call]):
    """Captured calls in order of arrival, failed ones included.

    Attributes:
        name: The dataset.
    """

    def __init__(self, name: str, calls: Iterable[Call]) -> None:
        """Hold the calls of a dataset."""
        self.name = name
        self._calls = tuple(calls)

    def write_recording(self, path: str | os.PathLike[str]) -> Written:
        """Write the answered chat calls as a recording, which `ft.serve(recordings=...)` replays.

        One line `{"model", "request", "reply"}` a call: bodies only, no header and no address.
        Several replies to one request are all kept; they take turns when they are replayed.

        Args:
            path: The JSONL file; replaced only when the new one is whole.

        Raises:
            DataError: No call has an answer that can be replayed.
            StoreError: The folder cannot be written, or is full.
        """
        lines = list(self._recorded())
        if not lines:
            raise DataError(
                message(
                    f"none of the {len(self):,} calls of {self.name!r} has a chat reply to replay; "
                    "nothing was written.",
                    next_step=f"%%capture_ft {self.name}",
                )
            )
        texts = (json.dumps(each, separators=(",", ":")).encode() for each in lines)
        return write_lines(Path(path), texts)

    def _recorded(self) -> Iterator[Json]:
        for call in self:
            if call.api == "openai.chat" and call.outcome == "ok" and call.reply is not None:
                yield {"model": call.model, "request": call.request, "reply": call.reply}

    @overload
    def __getitem__(self, index: int) -> Call: ...
    @overload
    def __getitem__(self, index: slice) -> CallLog: ...
    def __getitem__(self, index: int | slice) -> Call | CallLog:
        """One call, or a log of a slice of them."""
        if isinstance(index, slice):
            return CallLog(self.name, self._calls[index])
        return self._calls[index]

    def __len__(self) -> int:
        """Number of calls."""
        return len(self._calls)

    def __repr__(self) -> str:
        """Say the dataset and how the calls ended."""
        return f"<CallLog {self.name!r}: {self._summary()}>"

    def _repr_html_(self) -> str:
        rows = [
            (n, each.model, each.api, each.status, each.outcome, each.error)
            for n, each in enumerate(self._calls[:_SHOWN_ROWS])
        ]
        columns = ("", "model", "dialect", "status", "outcome", "error")
        return render.table(rows, columns, f"{self.name}: {self._summary()}")

    def _summary(self) -> str:
        outcomes = Counter(each.outcome for each in self)
        counts = [f"{n:,} {outcome}" for outcome, n in sorted(outcomes.items()) if outcome != "ok"]
        return ", ".join([f"{len(self):,} calls", *counts])


def calls(name: str) -> CallLog:
    """Read the captured calls of a dataset.

    Raises:
        UnknownNameError: There is no such dataset.
    """
    return CallLog(name, open_store().calls.select(name))
