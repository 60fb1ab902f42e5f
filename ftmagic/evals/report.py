"""What a comparison found: a score for each row and model, and what they add up to.

`Report` is a value: it was measured once and shows itself as text, HTML and data frame. It knows
nothing of how the answers were obtained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ftmagic.errors import ConfigError, MissingExtraError, message
from ftmagic.evals.intervals import Difference, Interval, paired_difference, quantile, wilson
from ftmagic.evals.scoring import ListCount, Score, add_lists

if TYPE_CHECKING:
    import pandas

ALL = "all"
"""Name of the group that holds every row."""


@dataclass(frozen=True)
class Row:
    """One test row answered by one model.

    Attributes:
        example_id: The test row.
        source: What it is about; rows of one source are not independent.
        group: Value of the tag that the report is grouped by; '' without one.
        model: Label of the model.
        score: Against the recorded answer; None when no reply came, which is then in `error`.
        problems: Why the raw reply does not fit the schema; () when it does.
        latency_s: From sending to the whole reply, in this process.
        n_prompt_tokens: As the server counts them; None if it does not say.
        n_completion_tokens: Likewise.
        prompt: The last message that was sent, for display.
        target: The recorded answer, parsed where it is JSON.
        output: The model's, likewise; None without one.
        error: Why no reply came; '' when one did.
        has_tools: The request offered tools.
        is_reviewed: A person approved or edited the recorded answer.
    """

    example_id: int
    source: str
    model: str
    score: Score | None
    group: str = ""
    problems: tuple[str, ...] = ()
    latency_s: float = 0.0
    n_prompt_tokens: int | None = None
    n_completion_tokens: int | None = None
    prompt: str = ""
    target: Any = None
    output: Any = None
    error: str = ""
    has_tools: bool = False
    is_reviewed: bool = False

    @property
    def n_tokens(self) -> int:
        """Tokens of prompt and reply."""
        return (self.n_prompt_tokens or 0) + (self.n_completion_tokens or 0)

    def to_dict(self) -> dict[str, Any]:
        """The row as plain values; `fields` holds the share right of each field (1.0 or 0.0)."""
        score = self.score
        lists = score.list_count if score else None
        return {
            "example_id": self.example_id,
            "source": self.source,
            "group": self.group,
            "model": self.model,
            "valid": None if score is None else not self.problems,
            "tool_right": score.is_tool_right if score else None,
            "exact": score.is_exact if score else None,
            "field_accuracy": score.field_accuracy if score else None,
            "fields": {path: c.share for path, c in score.fields.items()} if score else {},
            "list_f1": lists.f1 if lists else None,
            "latency_s": self.latency_s,
            "n_prompt_tokens": self.n_prompt_tokens,
            "n_completion_tokens": self.n_completion_tokens,
            "output": self.output,
            "target": self.target,
            "problems": list(self.problems),
            "error": self.error,
            "reviewed": self.is_reviewed,
        }


@dataclass(frozen=True)
class Rate:
    """A share with its Wilson interval."""

    n_right: int
    n: int

    @property
    def share(self) -> float:
        """0 to 1; 0 of nothing is 0."""
        return self.n_right / self.n if self.n else 0.0

    @property
    def interval(self) -> Interval:
        """The 95 % interval."""
        return wilson(self.n_right, self.n)


@dataclass(frozen=True)
class Summary:
    """One model on one group of test rows.

    Attributes:
        group: The group; 'all' for every row.
        model: Label of the model.
        n: Rows that were answered and scored.
        n_errors: Rows without a reply; they are not scored.
        n_sources: Independent sources among the scored rows.
        valid: Raw replies that fit their schema.
        tool_choice: Replies that call the recorded tools; None where no tools were offered.
        exact: Records that are right in every field.
        field_accuracy: Mean over rows of the share of right fields, 0 to 1.
        fields: Share right of each field, over all rows.
        lists: Items of all lists; None where there are none.
        latency_p50_s: Median latency.
        latency_p95_s: Latency that 95 % of the calls stay under.
        tokens_per_call: Mean of prompt and reply; None where the server does not count.
        gain: Field accuracy minus the first model's, on the rows that both answered; None for the
            first model.
        exact_gain: The same for exact records.
    """

    group: str
    model: str
    n: int
    n_errors: int
    n_sources: int
    valid: Rate
    tool_choice: Rate | None
    exact: Rate
    field_accuracy: float
    fields: Mapping[str, float]
    lists: ListCount | None
    latency_p50_s: float
    latency_p95_s: float
    tokens_per_call: float | None
    gain: Difference | None = None
    exact_gain: Difference | None = None

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain values, flat enough for a data frame."""
        gain, exact_gain = self.gain, self.exact_gain
        return {
            "group": self.group,
            "model": self.model,
            "n": self.n,
            "n_errors": self.n_errors,
            "n_sources": self.n_sources,
            "valid": self.valid.share,
            "valid_low": self.valid.interval.low,
            "valid_high": self.valid.interval.high,
            "tool_choice": self.tool_choice.share if self.tool_choice else None,
            "exact": self.exact.share,
            "field_accuracy": self.field_accuracy,
            "list_precision": self.lists.precision if self.lists else None,
            "list_recall": self.lists.recall if self.lists else None,
            "list_f1": self.lists.f1 if self.lists else None,
            "latency_p50_s": self.latency_p50_s,
            "latency_p95_s": self.latency_p95_s,
            "tokens_per_call": self.tokens_per_call,
            **_flat("gain", gain),
            **_flat("exact_gain", exact_gain),
        }


@dataclass(frozen=True, repr=False, kw_only=True)
class Report:
    """What `compare()` found.

    Attributes:
        dataset: Name of the dataset.
        models: Labels, the one that the others are measured against first.
        results: One `Row` for each test row and model.
        split: The split that the rows are of.
        group_tag: The tag that the report is grouped by; '' without one.
        teachers: The models whose recorded answers are the reference.
        warnings: What the reader must know before believing the numbers.
        notes: Where and how it was measured.
    """

    dataset: str
    models: tuple[str, ...]
    results: tuple[Row, ...]
    split: str = "test"
    group_tag: str = ""
    teachers: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dict for each test row and model, with score, output, target and error."""
        return [row.to_dict() for row in self.results]

    @property
    def groups(self) -> list[str]:
        """The groups, 'all' first."""
        named = sorted({row.group for row in self.results} - {""})
        return [ALL, *(named if self.group_tag else [])]

    @cached_property
    def summary(self) -> list[Summary]:
        """One `Summary` for each group and model, group by group."""
        return [
            summarise(self.results, group, model, self.models[0])
            for group in self.groups
            for model in self.models
        ]

    @property
    def n_examples(self) -> int:
        """Test rows."""
        return len({row.example_id for row in self.results})

    def of(self, model: str, group: str = ALL) -> Summary:
        """Return the summary of one model on one group.

        Raises:
            ConfigError: The report has no such model or group.
        """
        for each in self.summary:
            if (each.model, each.group) == (model, group):
                return each
        raise ConfigError(
            f"the report has no model {model!r} in group {group!r}; "
            f"models: {', '.join(self.models)}; groups: {', '.join(self.groups)}"
        )

    def to_pandas(self, what: str = "rows") -> pandas.DataFrame:
        """Return the rows, or with 'summary' the summary, as a data frame.

        Every field has a column of its own, `field:<path>`.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as exc:
            raise MissingExtraError(
                message("a data frame needs pandas.", next_step="pip install pandas")
            ) from exc
        if what == "summary":
            return pandas.DataFrame([each.to_dict() for each in self.summary])
        table = []
        for row in self.rows:
            shares = row.pop("fields")
            table.append({**row, **{f"field:{path}": share for path, share in shares.items()}})
        return pandas.DataFrame(table)

    def __repr__(self) -> str:
        """The report as a plain table."""
        from ftmagic.evals.plain import report_text

        return report_text(self)

    def _repr_html_(self) -> str:
        from ftmagic.evals.page import report_html

        return report_html(self)


def summarise(results: Sequence[Row], group: str, model: str, first_model: str) -> Summary:
    """Add up one model's rows of one group, and pair them with the first model's."""
    in_group = [row for row in results if group in (ALL, row.group)]
    mine = [row for row in in_group if row.model == model]
    scored = [(row, row.score) for row in mine if row.score is not None]
    scores = [score for _, score in scored]
    lists = [score.list_count for score in scores if score.list_count is not None]
    tooled = [score for row, score in scored if row.has_tools]
    counted = [row.n_tokens for row, _ in scored if row.n_completion_tokens is not None]
    latencies = [row.latency_s for row, _ in scored]
    return Summary(
        group=group,
        model=model,
        n=len(scored),
        n_errors=len(mine) - len(scored),
        n_sources=len({row.source for row, _ in scored}),
        valid=Rate(sum(not row.problems for row, _ in scored), len(scored)),
        tool_choice=Rate(sum(s.is_tool_right for s in tooled), len(tooled)) if tooled else None,
        exact=Rate(sum(score.is_exact for score in scores), len(scores)),
        field_accuracy=_mean([score.field_accuracy for score in scores]),
        fields=_field_shares(scores),
        lists=add_lists(lists) if lists else None,
        latency_p50_s=quantile(latencies, 0.5),
        latency_p95_s=quantile(latencies, 0.95),
        tokens_per_call=_mean(counted) if counted else None,
        gain=_gain(in_group, model, first_model, exact=False),
        exact_gain=_gain(in_group, model, first_model, exact=True),
    )


def _gain(rows: Sequence[Row], model: str, first: str, *, exact: bool) -> Difference | None:
    if model == first:
        return None
    value = {
        (row.model, row.example_id): float(row.score.is_exact)
        if exact
        else row.score.field_accuracy
        for row in rows
        if row.score is not None
    }
    pairs = [
        (value[model, row.example_id] - value[first, row.example_id], row.source)
        for row in rows
        if row.model == model
        and (model, row.example_id) in value
        and (first, row.example_id) in value
    ]
    return paired_difference([each for each, _ in pairs], [source for _, source in pairs])


def _field_shares(scores: Sequence[Score]) -> dict[str, float]:
    right: dict[str, int] = {}
    asked: dict[str, int] = {}
    for score in scores:
        for path, count in score.fields.items():
            right[path] = right.get(path, 0) + count.n_right
            asked[path] = asked.get(path, 0) + count.n
    return {path: right[path] / n for path, n in asked.items() if n}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _flat(name: str, difference: Difference | None) -> dict[str, Any]:
    interval = difference.interval if difference else None
    return {
        name: difference.mean if difference else None,
        f"{name}_low": interval.low if interval else None,
        f"{name}_high": interval.high if interval else None,
    }
