"""A provider's refusal -> one of our errors, with the provider's own sentence and request id.

Tells three things apart: it refused (EngineError), it did not answer (EngineUnreachable, worth
another try later), it trains no more (TrainingUnavailable). Keys are cut out of every sentence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ftmagic.errors import EngineError, EngineUnreachable, TrainingUnavailable, message
from ftmagic.wire.exchange import one_line

if TYPE_CHECKING:
    import openai

WIND_DOWN = (
    "2026-05-07: organisations that never fine-tuned may not start",
    "2026-07-02: idle organisations may not start",
    "2027-01-06: nobody can create a fine-tuning job any more",
    "2027-01-14: gpt-4o, gpt-4o-mini, gpt-4.1, gpt-4.1-mini and their fine-tunes retire",
)
"""OpenAI closes self-serve fine-tuning. Source: its deprecations page, read in November 2026."""

_TRY_LATER = (408, 409, 429)
_LONGEST_SENTENCE = 600
_LONGEST_WAIT_S = 20.0


@contextmanager
def translated(engine: str, host: str, doing: str, *, key: str = "") -> Iterator[None]:
    """Turn the SDK's exceptions into ours.

    Args:
        engine: The engine's name.
        host: Whom we talk to.
        doing: What was attempted, for example 'uploading train.jsonl'.
        key: A key to cut out of whatever the provider says.

    Raises:
        EngineError: The provider refused.
        EngineUnreachable: It did not answer, or not usefully.
        TrainingUnavailable: It creates no jobs for this account.
    """
    import openai

    try:
        yield
    except openai.APIStatusError as exc:
        raise refusal(exc, engine, host, doing, key) from exc
    except openai.APIConnectionError as exc:
        raise EngineUnreachable(
            message(
                f"{host} did not answer ({doing}): {cause_of(exc)}.",
                next_step=f"%ft_status --engine {engine}   (when you are online again)",
            )
        ) from exc
    except json.JSONDecodeError as exc:  # the SDK lets a broken body through as it is
        raise EngineUnreachable(
            message(
                f"{host} answered with something that is not JSON ({doing}).",
                next_step=f"%ft_status --engine {engine}",
            )
        ) from exc


def cause_of(exc: openai.APIConnectionError) -> str:
    """Say why a connection failed, in one line without the key."""
    cause = exc.__cause__
    return one_line(cause, exc.request) if cause else str(exc).rstrip(".")


def was_never_sent(exc: openai.APIConnectionError) -> bool:
    """Whether the connection failed before any byte of the request left."""
    return type(exc.__cause__).__name__ in ("ConnectError", "ConnectTimeout")


def wait_s(exc: openai.RateLimitError, attempt: int) -> float:
    """Say how long to wait after a 429: as the provider asks, within 20 s; else longer each time.

    Args:
        exc: The refusal.
        attempt: 0 for the first one.
    """
    headers = exc.response.headers
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return float(min(max(float(headers[name]) * unit_s, 0.0), _LONGEST_WAIT_S))
        except (KeyError, ValueError):
            continue
    return float(min(0.5 * 2**attempt, _LONGEST_WAIT_S))


def is_quota(exc: openai.APIStatusError) -> bool:
    """Whether the account has run out of money, which no retry mends."""
    return exc.code == "insufficient_quota"


def refusal(
    exc: openai.APIStatusError, engine: str, host: str, doing: str, key: str = ""
) -> EngineError:
    """Build the error for a status that means no. See `translated` for the arguments."""
    said = f"{host} refused ({doing}): {_sentence(exc, key)}{_request_id(exc)}"
    if exc.code == "training_not_available":
        return TrainingUnavailable(
            message(
                f"{said}\n  OpenAI is winding self-serve fine-tuning down; "
                + "; ".join(WIND_DOWN)
                + ". The rows stay here and train on another engine as they are.",
                next_step="%ft_train NAME --engine local",
            )
        )
    if is_quota(exc):
        return EngineError(
            message(
                f"{said}\n  The account's quota is used up; trying again changes nothing.",
                next_step="%ft_train NAME --engine local   (or add credit at the provider)",
            )
        )
    if exc.status_code == 401:
        return EngineError(message(said, next_step="set another key, then run the cell again"))
    if exc.status_code >= 500 or exc.status_code in _TRY_LATER:
        return EngineUnreachable(message(said, next_step=f"%ft_status --engine {engine}"))
    return EngineError(message(said, next_step=f"%ft_status --engine {engine}"))


def _sentence(exc: openai.APIStatusError, key: str) -> str:
    body = exc.body if isinstance(exc.body, dict) else {}
    text = str(body.get("message") or exc.message).strip()
    text = f"{exc.status_code} {text}"
    if key:
        text = text.replace(key, "[key]")
    return text if len(text) <= _LONGEST_SENTENCE else text[:_LONGEST_SENTENCE] + " ..."


def _request_id(exc: openai.APIStatusError) -> str:
    return f" (request id {exc.request_id})" if exc.request_id else ""
