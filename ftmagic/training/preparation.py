"""What is ready to be sent to an engine: rows, files, quote; and sending it, once.

Test rows never leave, rows that show a credential never leave this machine, and the intent is in
the store before anything is sent. A second submission of the same rows and spec is the same job.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path

from ftmagic import config, render
from ftmagic.engines import Engine
from ftmagic.engines.addresses import is_loopback
from ftmagic.engines.identity import INTENT_KEY, submission_hash
from ftmagic.engines.openai import OpenAIEngine
from ftmagic.errors import (
    ConfigError,
    DataError,
    EngineError,
    EngineUnreachable,
    FtmagicError,
    UnknownOutcome,
    message,
)
from ftmagic.store import JobRecord, open_store
from ftmagic.store.job_files import folder_of
from ftmagic.training.gathering import Rows, row_problems
from ftmagic.training.handle import INTENT_PREFIX, Job
from ftmagic.training.turns import one_at_a_time
from ftmagic.types import FINAL_STATUSES, Problem, Quote, TrainSpec

_SHOWN_PROBLEMS = 5


@dataclasses.dataclass(frozen=True)
class Preparation:
    """Everything that is ready to be sent, and what it would take.

    Attributes:
        rows: What it learns from.
        quote: What it takes; errors among its problems block it.
        spec: What is asked for.
        folder: Where the training files are, for as long as this object lives; a job's stay.
        content_hash: Of files and spec.
        place: The engine.
        existing: The job that already runs, or ran, on the same rows and spec.
    """

    rows: Rows
    quote: Quote
    spec: TrainSpec
    folder: Path
    content_hash: str
    place: Engine
    existing: Job | None = None

    def require_sound(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            DataError: The quote has errors; the first of them are named.
        """
        errors = [each for each in self.quote.problems if each.severity == "error"]
        if errors:
            raise _unsound(self.rows.name, self.place.name, errors)

    def require_consent(self, confirm: Callable[[Quote], bool] | None) -> None:
        """Refuse to go on without a yes; training on this machine needs none.

        Args:
            confirm: Shown the quote.

        Raises:
            ConfigError: It said no, or there is none and rows would leave this machine.
        """
        if confirm is None and not is_loopback(self.quote.host):
            raise _needs_consent(self.rows.name, self.quote)
        if confirm is not None and not confirm(self.quote):
            raise ConfigError(
                message(
                    "not confirmed: nothing was sent.",
                    next_step=f"%ft_train {self.rows.name} --yes",
                )
            )

    def submit(self) -> Job:
        """Send it, once: a second call, kernel or click gets the same job.

        Raises:
            DataError: The quote has errors, or the rows were divided otherwise since.
            EngineError: The engine refused, or did not say whether it created the job.
        """
        self.require_sound()
        with one_at_a_time():
            existing = find_existing(self.content_hash, self.place)
            if existing is not None:
                return existing
            self.rows.store_splits()
            return self._submit()

    def _submit(self) -> Job:
        store = open_store().jobs
        intent = self._intent()
        store.put(intent)
        files = (self.folder / "train.jsonl", self._validation())
        try:
            info = self.place.submit(*files, intent.spec)
        except UnknownOutcome:
            self._keep_files()
            raise  # the intent stays: it finds the job, should there be one
        except FtmagicError:
            store.forget(intent.id)
            raise
        store.confirm(intent.id, info.id, info)
        self._keep_files()
        found = Job(dataclasses.replace(intent, id=info.id, info=info), self.place)
        found.refresh_quietly()
        return found

    def _intent(self) -> JobRecord:
        """The record of this attempt; one that was never answered is taken up again."""
        before = open_store().jobs.find(self.content_hash, self.place.name)
        address = address_of(self.place)
        if before is not None and before.info is None and before.base_url == address:
            return before
        attempt = uuid.uuid4().hex
        metadata = {**self.spec.metadata, INTENT_KEY: attempt}
        return JobRecord(
            id=INTENT_PREFIX + attempt,
            engine=self.place.name,
            dataset=self.rows.name,
            host=self.quote.host,
            content_hash=self.content_hash,
            info=None,
            spec=dataclasses.replace(self.spec, metadata=metadata),
            example_ids=[(each.id, each.revision) for each in self.rows.train if each.id],
            created_at=time.time(),
            base_url=address,
        )

    def _keep_files(self) -> None:
        """Move the files into the folder of their job, which may hold its events already."""
        kept = folder_of(self.content_hash)
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in self.folder.iterdir():
            file.replace(kept / file.name)

    def _validation(self) -> Path | None:
        path = self.folder / "validation.jsonl"
        return path if path.exists() else None


def write_preparation(rows: Rows, place: Engine, spec: TrainSpec) -> Preparation:
    """Write the training files and ask the engine for its quote; send nothing."""
    folder = _new_folder()
    try:
        prepared = _prepared(rows, place, spec, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # Rows that are not submitted leave nothing behind.
    weakref.finalize(prepared, shutil.rmtree, folder, ignore_errors=True)
    return prepared


def _prepared(rows: Rows, place: Engine, spec: TrainSpec, folder: Path) -> Preparation:
    files = _write_files(rows, place, folder)
    digest = submission_hash(*files, spec)
    quoted = place.quote(*files, spec)
    problems = (*row_problems(rows, place, quoted.host), *quoted.problems)
    return Preparation(
        rows=rows,
        quote=dataclasses.replace(quoted, problems=problems),
        spec=spec,
        folder=folder,
        content_hash=digest,
        place=place,
        existing=find_existing(digest, place),
    )


def find_existing(content_hash: str, place: Engine) -> Job | None:
    """Find the job that already runs, or succeeded, on the same files and spec."""
    record = open_store().jobs.find(content_hash, place.name)
    if record is None or record.info is None:
        return None
    if record.base_url and record.base_url != address_of(place):
        return None
    found = Job(record, place)
    try:
        status = found.refresh().status
    except EngineUnreachable:
        status = found.info.status
    except EngineError:  # the engine knows it no more
        return None
    return None if status in FINAL_STATUSES - {"succeeded"} else found


def address_of(place: Engine) -> str:
    """The address by which an engine is found again after a restart; '' where its name does."""
    if isinstance(place, OpenAIEngine) and place.name == "openai":
        return place.base_url
    return ""


def host_at(place: Engine) -> str:
    """The host that an engine talks to, as far as its class says."""
    return place.host if isinstance(place, OpenAIEngine) else place.name


def _new_folder() -> Path:
    config.make_home()
    folder = config.home() / "jobs" / f".new-{uuid.uuid4().hex}"
    folder.mkdir(mode=0o700, parents=True)
    return folder


def _write_files(rows: Rows, place: Engine, folder: Path) -> tuple[Path, Path | None]:
    """Write the training file, and the validation file if there are rows for it."""
    keeps = place.limits.keeps_response_format
    train = folder / "train.jsonl"
    rows.train.write(train, keeps_response_format=keeps)
    if not rows.validation:
        return train, None
    held = folder / "validation.jsonl"
    rows.validation.write(held, keeps_response_format=keeps)
    return train, held


def _needs_consent(name: str, quote: Quote) -> ConfigError:
    asked = f"ft.train({name!r}, engine={quote.engine!r}, confirm=lambda quote: True)"
    return ConfigError(
        message(
            f"training would send {quote.n_train:,} rows to {quote.host}, which takes a yes; "
            f"nothing was sent.\n{render.quote_text(quote)}",
            next_step=asked,
        )
    )


def _unsound(name: str, engine_name: str, errors: list[Problem]) -> DataError:
    lines = [
        f"  {f'row {each.row}: ' if each.row else ''}{each.message}"
        + (f"  [{each.fix}]" if each.fix else "")
        for each in errors[:_SHOWN_PROBLEMS]
    ]
    if len(errors) > _SHOWN_PROBLEMS:
        lines.append(f"  and {len(errors) - _SHOWN_PROBLEMS} more")
    noun = "problem stops" if len(errors) == 1 else "problems stop"
    return DataError(
        message(
            f"{len(errors)} {noun} {name!r} from training on {engine_name!r}; nothing was sent.\n"
            + "\n".join(lines),
            next_step=f"ft.examples({name!r}).check({engine_name!r})",
        )
    )
