"""capture() and tag(): every structured LLM call made inside becomes a fine-tuning example.

The caller's thread only puts raw exchanges on a queue. One writer thread decodes them, makes
examples of them and stores both. A failure on that way is counted, and said once when the capture
closes; it never reaches the user's call.
"""

from __future__ import annotations

import contextlib
import difflib
import warnings
from collections.abc import Iterator, Mapping
from types import TracebackType

from ftmagic import config, writer
from ftmagic.errors import DataError
from ftmagic.render import plain
from ftmagic.runs import Run
from ftmagic.store import Added
from ftmagic.types import SPLITS, Split
from ftmagic.wire import scope, seam

FLUSH_TIMEOUT_S = 30.0


class RecordingWarning(UserWarning):
    """Calls were made, but some of them could not be stored."""


class Capture:
    """An open or closed capture; `capture()` makes it.

    Attributes:
        run: What is known of this run; its counts are final once the capture is closed.
        lost: What could not be stored until the capture was closed, and why; '' for nothing.
    """

    def __init__(self, run: Run, tags: Mapping[str, str]) -> None:
        """Prepare a capture; nothing is recorded before `open()`."""
        self.run = run
        self.lost = ""
        self._scope = scope.Scope(run.id, sink=run.receive, tags=dict(tags))
        self._entry: scope.Entry | None = None
        self._faults_before = scope.faults.count

    @property
    def added(self) -> Added:
        """What was stored so far."""
        return self.run.added

    def open(self) -> Capture:
        """Record from here on, in this context and what it starts."""
        seam.install()
        self._entry = scope.enter(self._scope)
        return self

    def close(self, status: str = "ok") -> None:
        """Stop recording, and wait until everything is stored.

        Args:
            status: How the recorded code ended: 'ok', 'error' or 'interrupted'.
        """
        if self._entry is None:
            return
        scope.leave(self._entry)
        self._entry = None
        for exchange in scope.snapshot_open(self._scope):
            self.run.receive(exchange)
        self.run.end(status)
        self.lost = writer.flush(FLUSH_TIMEOUT_S)
        if self.lost:
            warnings.warn(self.lost, RecordingWarning, stacklevel=3)

    def summary(self) -> str:
        """Say what was recorded, why something was not, and what can be done about it."""
        n_faults = scope.faults.count - self._faults_before
        # A provider's words are in it: they may not reach the console as they are.
        return "\n".join(map(plain, _summary_lines(self.run, self.lost, n_faults)))

    def __enter__(self) -> Capture:
        """Open the capture."""
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the capture; the exception, if any, goes on."""
        self.close(status_of(exc))

    def __repr__(self) -> str:
        """Show the summary."""
        return self.summary()


def capture(
    dataset: str,
    *,
    split: Split | None = None,
    tags: Mapping[str, str] | None = None,
    replace: bool = False,
    record_all: bool = False,
    cell: str = "",
    notebook: str = "",
) -> Capture:
    """Record every structured LLM call of a block as an example of a dataset.

    Args:
        dataset: Its name; made if it is new.
        split: Put all examples of this block into one split, for example 'test'.
        tags: Tags of every call of this block.
        replace: Once the block has succeeded, set the examples of earlier runs of the same `cell`
            aside.
        record_all: Make examples of calls without tools and without a JSON format too.
        cell: Identity of the code that is run, so that a second run is known as one.
        notebook: Where it stands, for provenance.

    Returns:
        A context manager; after the block, `print(it)` says what was recorded.

    Raises:
        ConfigError: The name cannot name a dataset.
        DataError: There is no such split.
    """
    config.check_dataset_name(dataset)
    if split is not None and split not in SPLITS:
        raise DataError(f"split {split!r} is not one of {', '.join(SPLITS)}.")
    run = Run(
        dataset=dataset,
        cell=cell,
        notebook=notebook,
        split=split,
        is_replacing=replace,
        records_all=record_all,
    )
    return Capture(run, _as_text(tags or {}))


@contextlib.contextmanager
def tag(**tags: object) -> Iterator[None]:
    """Give the calls of a block an identity: `id` of the row, `source` it is about, or any other.

    Examples of one source stay in one split. Nested tags add up.

    Args:
        **tags: Values are stored as text.
    """
    token = scope.push_tags(_as_text(tags))
    try:
        yield
    finally:
        scope.pop_tags(token)


def status_of(exc: BaseException | None) -> str:
    """Name how a block ended."""
    if exc is None:
        return "ok"
    return "interrupted" if isinstance(exc, KeyboardInterrupt) else "error"


def _as_text(tags: Mapping[str, object]) -> dict[str, str]:
    # File names may hold bytes that are no text, which Python shows as half surrogate pairs.
    return {key: str(value).encode("utf-8", "replace").decode() for key, value in tags.items()}


def _summary_lines(run: Run, lost: str, n_faults: int) -> Iterator[str]:
    added = run.added
    yield (
        f"{_count(added.n_calls, 'call')}, {_count(added.n_new, 'new example')}, "
        f"{_count(added.n_duplicates, 'duplicate')}, {added.n_skipped} skipped"
        + (f", {_count(run.n_retries, 'retry', 'retries')}" if run.n_retries else "")
    )
    for reason, count in added.reasons.most_common():
        yield f"  skipped {count}: {reason}"
    if run.n_ambient:
        yield f"  {run.n_ambient} of them came from threads that this cell did not start"
    if lost:
        yield f"  {lost}"
    elif not added.n_calls:
        yield (
            f"  no call to an LLM API went through httpx or httpx2; {run.dataset!r} is as it was."
        )
    if run.number > 1:
        yield _rerun_line(run)
    if n_faults:
        yield f"  {n_faults} faults inside the recorder, the last: {scope.faults.last}"
    yield from _notes(run)


def _rerun_line(run: Run) -> str:
    earlier = "run 1" if run.number == 2 else f"runs 1-{run.number - 1}"
    if run.is_replacing:
        return f"  run {run.number}; {_count(run.n_superseded, 'example')} of {earlier} superseded"
    return (
        f"  run {run.number}; {_count(run.n_kept, 'example')} of {earlier} kept "
        "(--replace supersedes them)"
    )


def _notes(run: Run) -> Iterator[str]:
    if run.is_new_dataset:
        close = difflib.get_close_matches(run.dataset, run.other_datasets, n=1, cutoff=0.75)
        if close:
            yield (
                f"  {run.dataset!r} is new; did you mean {close[0]!r}? "
                f"Then: %ft_datasets --delete {run.dataset}"
            )
    if run.is_new_store:
        yield f"  stored in {run.store_path}"
        if config.is_colab():
            yield (
                "  this disk vanishes with the Colab machine; keep the file: "
                "ft.home('/content/drive/MyDrive/ftmagic')"
            )


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
