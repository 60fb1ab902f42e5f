"""Every error ftmagic raises on purpose.

FtmagicError
|-- DataError (ValueError)          rows, files or schemas that cannot be used as they are
|   `-- UnknownNameError (LookupError)  a dataset, job, model or engine that does not exist
|-- ConfigError (ValueError)        an argument, an environment variable or a path that is wrong
|-- MissingExtraError (ImportError) an optional part of ftmagic is not installed
|-- StoreError (OSError)            the SQLite file cannot be read or written
|-- EngineError (RuntimeError)      a place that trains or serves refused or failed
|   |-- EngineUnreachable           it did not answer, or not usefully: try again later
|   |   `-- UnknownOutcome          it was asked, and nothing says whether it did it
|   |-- TrainingUnavailable         the provider no longer creates jobs
|   `-- JobFailed                   a job ended as failed or cancelled
|-- RecordingMiss (LookupError)     a recording holds no answer to this request
`-- RoutingError (RuntimeError)     a call could not be sent to the tuned model

A message has three parts: what happened with the values, what was needed, and after "Next:" one
command to paste. Each error also inherits the built-in that it refines, so code that does not know
ftmagic still catches it. All of them pickle (they take one string).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FtmagicError(Exception):
    """The root of everything ftmagic raises on purpose."""


class DataError(FtmagicError, ValueError):
    """Rows, files or schemas that cannot be used as they are."""


class UnknownNameError(DataError, LookupError):
    """A dataset, job, model or engine that does not exist."""


class ConfigError(FtmagicError, ValueError):
    """An argument, an environment variable or a path that is wrong."""


class MissingExtraError(FtmagicError, ImportError):
    """An optional part of ftmagic is not installed."""


class StoreError(FtmagicError, OSError):
    """The SQLite file cannot be read or written."""


class EngineError(FtmagicError, RuntimeError):
    """A place that trains or serves refused or failed."""


class EngineUnreachable(EngineError):
    """A place that trains or serves did not answer, or not usefully; later it may."""


class UnknownOutcome(EngineUnreachable):
    """A place was asked to create something, and nothing says whether it did."""


class TrainingUnavailable(EngineError):
    """The provider no longer creates fine-tuning jobs for this account."""


class JobFailed(EngineError):
    """A job ended as failed or cancelled where a model was needed."""


class RecordingMiss(FtmagicError, LookupError):
    """A recording holds no answer to this request."""


class RoutingError(FtmagicError, RuntimeError):
    """A call could not be sent to the tuned model."""


def message(what: str, *, next_step: str = "") -> str:
    """Join what happened and the command to paste next into one error message."""
    return f"{what}\n  Next: {next_step}" if next_step else what


def unknown_name(kind: str, name: str, known: Iterable[str], *, next_step: str) -> UnknownNameError:
    """Build the error for a name that does not exist, with its closest match.

    Args:
        kind: What was looked for, as a user would say it ("dataset", "job").
        name: The name that was given.
        known: The names that exist.
        next_step: The command that lists or creates one.

    Returns:
        The error, ready to raise.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        hint = f"did you mean {close[0]!r}?"
    elif names:
        hint = "there are: " + ", ".join(repr(known_name) for known_name in names[:8])
    else:
        hint = f"there is no {kind} yet."
    return UnknownNameError(message(f"no {kind} named {name!r}; {hint}", next_step=next_step))
