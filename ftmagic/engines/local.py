"""The embedded engine as an `Engine`, and recordings served by it.

Jobs go through `openai.py` to the server that `embedded.py` finds or starts; this file adds what
is particular to it: exact token counts, no cost, no minimum of ten rows.
"""

from __future__ import annotations

import builtins
import json
import os
import time
import urllib.error
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

from ftmagic.engines.embedded import (
    ServerAddress,
    error_text,
    find,
    folder,
    start,
    stop_server,
)
from ftmagic.engines.openai import OpenAIEngine
from ftmagic.errors import DataError, EngineError, EngineUnreachable, message
from ftmagic.types import Endpoint, JobInfo, Json, Limits, Problem, Quote, TrainSpec

__all__ = ["LocalEngine", "ServerAddress", "find", "folder", "serve", "start", "stop_server"]

_HOST = "127.0.0.1"
_CHECK_EVERY_S = 2.0


def serve(recordings: Mapping[str, str | os.PathLike[str]]) -> Endpoint:
    """Serve recorded answers as models of the embedded server, starting it when needed.

    Args:
        recordings: Model name -> a file of `{model, request, reply}` lines, as
            `ft.calls(NAME).write_recording(path)` writes it.

    Returns:
        The endpoint of the first recording. The others answer at the same address under their own
        names: `dataclasses.replace(endpoint, model=NAME)`.

    Raises:
        DataError: There is no recording, or a file cannot be used; with line numbers.
        MissingExtraError: The packages of the extra `local` are not installed.
        EngineError: The server did not start.
    """
    if not recordings:
        raise DataError(
            message(
                "there is no recording to serve.",
                next_step='ft.serve(recordings={"answer-key": path})',
            )
        )
    address = start()
    for name, path in recordings.items():
        entry = {"name": name, "path": str(Path(path).expanduser().resolve())}
        try:
            address.request("POST", "/ftmagic/recordings", json.dumps(entry).encode())
        except urllib.error.HTTPError as exc:
            raise DataError(error_text(exc)) from exc
    return address.endpoint(next(iter(recordings)))


class LocalEngine(OpenAIEngine):
    """The embedded engine: OpenAI's dialect at the home folder's own server, started when needed.

    It costs nothing, reads `response_format` from the training lines, and counts tokens with the
    model's own tokenizer.
    """

    def __init__(self) -> None:
        """Set the engine up; nothing is started yet."""
        super().__init__(
            f"http://{_HOST}/v1",
            name="local",
            limits=Limits(
                min_rows=4,
                max_row_tokens=4096,
                keeps_response_format=True,
                capabilities=frozenset({"checkpoints"}),
            ),
            default_model="ftmagic-student",
        )
        self._address: ServerAddress | None = None
        self._checked_at = 0.0

    @property
    def base_url(self) -> str:
        """Where the server is; it is started if there is none."""
        return self._server().base_url

    @property
    def host(self) -> str:
        """This machine."""
        return _HOST

    def key(self) -> str:
        """The server's own key."""
        return self._server().api_key

    def quote(self, train: Path, validation: Path | None, spec: TrainSpec) -> Quote:
        """Count rows and tokens with the model's tokenizer, on this machine."""
        counted = self._count(train, spec.model)
        held_out = self._count(validation, spec.model) if validation is not None else None
        too_long = counted["too_long"] + (held_out["too_long"] if held_out else [])
        problems = list(_row_problems(train, counted))
        if held_out is not None and validation is not None:
            problems += _row_problems(validation, held_out)
        n_usable = counted["n_rows"] - len(counted["too_long"]) - len(counted["problems"])
        if n_usable < self.limits.min_rows:
            problems.append(
                Problem(
                    "error",
                    None,
                    f"{n_usable} rows can be trained on; engine 'local' needs at least "
                    f"{self.limits.min_rows}.",
                    "%%capture_ft NAME   (more rows)",
                )
            )
        return Quote(
            engine=self.name,
            host=self.host,
            model=spec.model,
            n_train=counted["n_rows"],
            n_validation=held_out["n_rows"] if held_out else 0,
            n_tokens=counted["n_tokens"],
            tokens_basis="measured",
            n_truncated=len(too_long),
            cost_usd=0.0,
            cost_basis="your own machine",
            problems=tuple(problems),
        )

    def list(self, after: str | None = None) -> builtins.list[JobInfo]:
        """List jobs, newest first; where none was ever made, no server is started to say so."""
        if not (folder() / "jobs").exists():
            return []
        return super().list(after)

    def deploy(self, model: str) -> Endpoint:
        """Return where a model answers."""
        return self._server().endpoint(model)

    def _server(self) -> ServerAddress:
        is_fresh = time.monotonic() - self._checked_at < _CHECK_EVERY_S
        if self._address is None or not is_fresh:
            self._address = start(needs_training=True)
            self._checked_at = time.monotonic()
        return self._address

    def _count(self, path: Path, model: str) -> Json:
        query = urllib.parse.urlencode({"model": model})
        try:
            return self._server().request("POST", f"/ftmagic/count?{query}", path.read_bytes())
        except urllib.error.HTTPError as exc:
            raise EngineError(error_text(exc)) from exc
        except OSError as exc:
            raise EngineUnreachable(
                message(f"the embedded server is gone: {exc}.", next_step="%ft_status")
            ) from exc


def _row_problems(path: Path, counted: Json) -> Iterator[Problem]:
    for problem in counted["problems"]:
        yield Problem("error", problem["line"], f"{path.name}: {problem['message']}")
    for line in counted["too_long"]:
        yield Problem(
            "warning",
            line,
            f"{path.name}: longer than the {counted['context_tokens']} tokens the model reads; "
            "it is left out.",
            "shorten or reject the row",
        )
