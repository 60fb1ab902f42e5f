"""Ask a model one captured question, and make its reply comparable with the recorded answer.

The request has exactly the captured shape. A call that fails becomes an `Answer` with an error:
one bad row never stops a comparison.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftmagic.evals.comparators import Comparator
from ftmagic.evals.report import Row
from ftmagic.evals.scoring import Output, Score, score_outputs
from ftmagic.formats import strict_json
from ftmagic.formats.messages import Unmappable, assistant_message
from ftmagic.formats.strict_json import StrictJsonError
from ftmagic.formats.validation import answer_problems
from ftmagic.types import Example, Json, OutputSchema

if TYPE_CHECKING:
    import openai

_MAX_ERROR = 240


@dataclass(frozen=True)
class Answer:
    """What came back for one request.

    Attributes:
        reply: The raw JSON body; None when there is none.
        latency_s: From sending to the whole reply, retries of the SDK included.
        error: Why there is no reply; '' otherwise.
        is_default_temperature: The model refused temperature 0, so it was asked without.
    """

    reply: Json | None
    latency_s: float
    error: str = ""
    is_default_temperature: bool = False


@dataclass(frozen=True)
class Scoring:
    """How outputs are compared: the options of `score_outputs`."""

    comparators: Mapping[str, str | Comparator] | None = None
    ordered: bool = False


def ask(client: openai.OpenAI, model: str, request: Json, extra_body: Json | None = None) -> Answer:
    """Send one request to a model; never raises for what a server or network does.

    Args:
        client: An SDK client of the model's server.
        model: The model's name.
        request: As `Example.request()` makes it.
        extra_body: More fields for this server only.
    """
    import openai

    started = time.perf_counter()
    settings: Json = {"temperature": 0}
    while True:
        try:
            reply = _send(client, {**request, **settings, "model": model, "extra_body": extra_body})
        except openai.BadRequestError as exc:
            if settings and "temperature" in str(exc):  # reasoning models take only their own
                settings = {}
                started = time.perf_counter()
                continue
            return Answer(None, time.perf_counter() - started, _one_line(exc))
        except (openai.OpenAIError, StrictJsonError) as exc:
            return Answer(None, time.perf_counter() - started, _one_line(exc))
        latency_s = time.perf_counter() - started
        if not isinstance(reply, dict) or not reply.get("choices"):
            return Answer(None, latency_s, "the reply is no chat completion")
        return Answer(reply, latency_s, is_default_temperature=not settings)


def score_answer(
    example: Example, answer: Answer, *, model: str, source: str, group: str, scoring: Scoring
) -> Row:
    """Score one answer against the recorded one."""
    targets = outputs_of(example.answer, example.schemas)
    usage = (answer.reply or {}).get("usage") or {}
    score, output, error = None, None, answer.error
    problems: tuple[str, ...] = ()
    if answer.reply is not None:
        try:
            outputs, problems = _read(answer.reply, example)
            score = _score(outputs, targets, example, scoring)
            output = _shown(outputs, answer.reply)
        except _Unscorable as exc:
            error = str(exc)
    return Row(
        example_id=example.id,
        source=source,
        group=group,
        model=model,
        score=score,
        problems=problems,
        latency_s=answer.latency_s,
        n_prompt_tokens=usage.get("prompt_tokens"),
        n_completion_tokens=usage.get("completion_tokens"),
        prompt=_last_text(example),
        target=_shown(targets, {"choices": [{"message": example.answer}]}),
        output=output,
        error=error,
        has_tools=bool(example.tools),
        is_reviewed=example.review == "approved" or example.revision > 0,
    )


def outputs_of(message: Json, schemas: Sequence[OutputSchema]) -> list[Output]:
    """Parse the structured output of an assistant message.

    Args:
        message: With `tool_calls` or `content`.
        schemas: What was asked for. With tools alone, plain words are no output; with none, the
            text is the output.

    Returns:
        (schema name, value); the value is None where the text is not JSON.
    """
    calls = message.get("tool_calls") or []
    if calls:
        return [
            (str(call["function"]["name"]), _parse(call["function"]["arguments"])) for call in calls
        ]
    text = message.get("content")
    if not schemas:
        return [("", text)]
    formats = [each for each in schemas if each.kind == "response_format"]
    return [(formats[0].name, _parse(text))] if formats else []


class _Unscorable(Exception):
    """A reply that cannot be compared; its text says why."""


def _send(client: openai.OpenAI, body: Json) -> Any:
    raw = client.chat.completions.with_raw_response.create(**body)
    return strict_json.loads(raw.http_response.text, unique_keys=False)


def _read(reply: Json, example: Example) -> tuple[list[Output], tuple[str, ...]]:
    """Return the outputs of a raw reply, and why it is not schema-valid."""
    try:
        choice = reply["choices"][0]
        message = assistant_message(choice["message"])
    except Unmappable as exc:
        raise _Unscorable(str(exc)) from None
    except (KeyError, IndexError, TypeError, AttributeError):
        # The server's JSON has another shape than the dialect's: this row is counted as failed.
        raise _Unscorable("the reply is no chat completion") from None
    problems = list(answer_problems(message, example.schemas))
    if example.answer.get("tool_calls") and not message.get("tool_calls"):
        problems.append("the model answered in words, no tool call")
    if choice.get("finish_reason") == "length":
        problems.append("the reply was cut off (finish_reason length)")
    if choice["message"].get("refusal"):
        problems.append("the model refused")
    return outputs_of(message, example.schemas), tuple(problems)


def _score(
    outputs: list[Output], targets: list[Output], example: Example, scoring: Scoring
) -> Score:
    try:
        return score_outputs(
            outputs,
            targets,
            example.schemas,
            comparators=scoring.comparators,
            ordered=scoring.ordered,
        )
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as exc:
        # A comparator of the user's own met a value that it did not expect.
        raise _Unscorable(f"a comparator failed: {type(exc).__name__}: {exc}") from exc


def _parse(text: Any) -> Any:
    try:
        return strict_json.loads(text, unique_keys=False) if isinstance(text, str) else None
    except StrictJsonError:
        return None


def _shown(outputs: Sequence[Output], reply: Json) -> Any:
    """What a person sees of an answer: the value, several calls by name, or the raw text."""
    if len(outputs) == 1 and outputs[0][1] is not None:
        return outputs[0][1]
    if len(outputs) > 1:
        names = dict.fromkeys(name for name, _ in outputs)
        return {name: [value for other, value in outputs if other == name] for name in names}
    message = reply["choices"][0]["message"]
    calls = message.get("tool_calls") or []
    return calls[0]["function"]["arguments"] if calls else message.get("content")


def _last_text(example: Example) -> str:
    content = example.prompt[-1].get("content") if example.prompt else ""
    return content if isinstance(content, str) else ""


def _one_line(exc: BaseException) -> str:
    text = " ".join(f"{type(exc).__name__}: {exc}".split())
    return text if len(text) <= _MAX_ERROR else text[: _MAX_ERROR - 1] + "…"
