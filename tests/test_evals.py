"""compare() over real HTTP: the official SDK against a loopback provider, rows in a real store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ftmagic.errors import ConfigError, DataError, RoutingError, UnknownNameError
from ftmagic.evals import ENDING, Report, compare
from ftmagic.evals.comparators import normalise
from ftmagic.store import Store
from ftmagic.types import Endpoint, JobInfo
from ftmagic.wire import scope, seam
from tests.citation_calls import citation, number_in, promote_job, record, request_for, student
from tests.provider import Provider, completion, error_reply, json_reply, tool_call


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-key")
    with Provider() as server:
        server.answer = student
        yield server


@pytest.fixture
def ready(store: Store, provider: Provider) -> Store:
    """24 test rows of 24 works, 3 training rows, one promoted job."""
    record(store, range(3), split="train")
    record(store, range(10, 22), split="test", tags={"kind": "single"})
    record(store, range(22, 34), split="test", tags={"kind": "list"})
    promote_job(store, provider.base_url)
    return store


def test_base_and_tuned_are_scored_and_paired(ready: Store) -> None:
    report = compare("citations")
    base, tuned = report.of("base"), report.of("tuned")

    assert (base.n, tuned.n, tuned.n_sources) == (24, 24, 24)
    assert base.field_accuracy == pytest.approx(1 / 3)
    assert (tuned.field_accuracy, tuned.exact.share, base.exact.share) == (1.0, 1.0, 0.0)
    assert base.fields == {"author": 1.0, "year": 0.0, "title": 0.0}
    assert base.valid.n_right == 24
    assert tuned.gain is not None and tuned.gain.interval is not None
    assert tuned.gain.interval.low == pytest.approx(2 / 3)
    assert tuned.tokens_per_call == 8


def test_each_request_has_the_captured_shape(ready: Store, provider: Provider) -> None:
    compare("citations")
    bodies = [received.json for received in provider.requests]

    assert len(bodies) == 48
    assert {body["model"] for body in bodies} == {"student", "ft:student:citations"}
    for body in bodies:
        expected = request_for(number_in(body), body["model"])
        assert body == {**expected, "temperature": 0}


def test_values_of_a_tag_are_reported_apart(ready: Store) -> None:
    report = compare("citations", by="tag:kind")

    assert report.groups == ["all", "list", "single"]
    assert report.of("tuned", "single").n == 12
    gain = report.of("tuned", "single").gain
    assert gain is not None and gain.interval is None
    assert "too few to tell (12 sources; 20 are needed)" in repr(report)
    assert compare("citations", by="kind").groups == report.groups


def test_rows_that_training_saw_are_left_out_and_said(store: Store, provider: Provider) -> None:
    record(store, range(3), split="train")
    record(store, range(30, 33), split="test")
    record(store, range(40, 42), split="test", source="work 1")  # about a work seen in training
    other_answer = {2: citation(5)}  # the same input as training row 2, another answer
    record(store, range(2, 3), split="test", source="fresh", answers=other_answer)
    promote_job(store, provider.base_url)
    report = compare("citations")

    assert sorted({row["target"]["year"] for row in report.rows}) == [1930, 1931, 1932]
    assert any(
        "3 test rows left out" in text and "source: 2" in text and "input: 1" in text
        for text in report.warnings
    )


def test_rows_that_a_given_job_trained_on_are_left_out(ready: Store, provider: Provider) -> None:
    rows = ready.examples.select("citations", split="test")
    job = promote_job(
        ready, provider.base_url, id="ftjob-2", example_ids=[(row.id, 0) for row in rows[:4]]
    )

    class Finished:
        info = JobInfo(job.id, "openai", "student", "succeeded")
        endpoint = Endpoint(provider.base_url, "ft:second", api_key="k")

    report = compare("citations", [Finished()])

    assert report.models == ("ft:second",)
    assert report.n_examples == 20


def test_failed_calls_are_counted_and_not_scored(ready: Store, provider: Provider) -> None:
    def flaky(request: Any) -> Any:
        if number_in(request) == 10 and request["model"] == "student":
            return {"error": "out of memory"}
        return student(request)

    provider.answer = flaky
    report = compare("citations")
    base, tuned = report.of("base"), report.of("tuned")

    assert (base.n, base.n_errors, tuned.n) == (23, 1, 24)
    assert tuned.gain is not None and tuned.gain.n == 23
    assert "1 of 24 calls to base brought no reply" in " ".join(report.warnings)
    assert [row["error"] for row in report.rows if row["error"]] == [
        "the reply is no chat completion"
    ]


def test_http_errors_are_kept_with_their_reason(store: Store, provider: Provider) -> None:
    record(store, range(10, 12), split="test")
    provider.script(error_reply(404, "no model named 'ghost'"))
    report = compare(
        "citations", [Endpoint(provider.base_url, "ghost", api_key="k")], concurrency=1
    )

    assert report.of("ghost").n_errors == 1
    assert "no model named 'ghost'" in report.rows[0]["error"]
    assert report.models == ("ghost",)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (completion("I think it is Author10"), "the model answered in words"),
        (completion(tool_calls=[tool_call("Citation", '{"author": "A')]), "not JSON"),
        (completion(tool_calls=[tool_call("Citation", {"author": "A"})]), "year"),
        (completion(tool_calls=[tool_call("Book", citation(10))]), "was not offered"),
        (completion("", refusal="I will not"), "the model refused"),
        (
            completion(tool_calls=[tool_call("Citation", citation(10))], finish_reason="length"),
            "cut off",
        ),
    ],
)
def test_raw_replies_that_break_the_schema_are_counted(
    store: Store, provider: Provider, message: Any, reason: str
) -> None:
    record(store, range(10, 11), split="test")
    provider.script(json_reply(message))
    report = compare("citations", [Endpoint(provider.base_url, "m", api_key="k")])
    row = report.rows[0]

    assert row["valid"] is False
    assert any(reason in problem for problem in row["problems"])
    assert report.of("m").valid.n_right == 0


def test_model_that_refuses_temperature_0_is_asked_without(
    store: Store, provider: Provider
) -> None:
    record(store, range(10, 11), split="test")
    provider.script(error_reply(400, "Unsupported value: 'temperature' does not support 0"))
    report = compare("citations", [Endpoint(provider.base_url, "ft:o", api_key="k")])

    assert report.of("ft:o").exact.share == 1.0
    assert "temperature" not in provider.requests[-1].json
    assert any("refused temperature 0" in text for text in report.warnings)


def test_own_calls_are_neither_recorded_nor_rerouted(ready: Store, provider: Provider) -> None:
    seen: list[Any] = []
    seam.install()
    entry = scope.enter(scope.Scope("run", sink=seen.append))
    try:
        compare("citations")
    finally:
        scope.leave(entry)
        seam.uninstall()

    assert seen == []


def test_rows_without_a_source_warn(store: Store, provider: Provider) -> None:
    record(store, range(10, 12), split="test", source=None)
    report = compare("citations", [Endpoint(provider.base_url, "m", api_key="k")])

    assert any("No row names its source" in text for text in report.warnings)


def test_approved_rows_are_counted_apart(ready: Store) -> None:
    ids = [row.id for row in ready.examples.select("citations", split="test")][:5]
    ready.examples.set_review(ids, "approved")
    report = compare("citations")

    assert "5 of 24 rows were approved or edited by a person" in repr(report)
    assert "base 0.33, tuned 1.00" in repr(report)


def test_rejected_rows_are_no_reference(ready: Store) -> None:
    ids = [row.id for row in ready.examples.select("citations", split="test")][:4]
    ready.examples.set_review(ids, "rejected")
    report = compare("citations")

    assert report.n_examples == 20
    assert any("4 test rows left out" in text for text in report.warnings)


def test_comparators_reach_the_scorer(ready: Store) -> None:
    report = compare("citations", comparators={"title": lambda output, target: True})

    assert report.of("base").fields["title"] == 1.0
    with pytest.raises(UnknownNameError, match="comparator"):
        compare("citations", comparators={"title": "almost"})


def test_comparator_that_fails_costs_only_its_row(ready: Store) -> None:
    def fails_on_short(output: str, target: str) -> bool:
        return bool(1 / (len(output) - 1))

    report = compare("citations", comparators={"title": fails_on_short})

    assert report.of("base").n_errors == 24
    assert report.of("tuned").n_errors == 0
    assert "a comparator failed: ZeroDivisionError" in report.rows[0]["error"]


def test_no_test_rows_names_the_command(store: Store, provider: Provider) -> None:
    record(store, range(3), split="train")
    promote_job(store, provider.base_url)

    with pytest.raises(DataError, match="%%capture_ft citations --split test") as caught:
        compare("citations")
    assert "it has 3 train" in str(caught.value)


def test_no_promoted_job_names_the_command(store: Store) -> None:
    record(store, range(3), split="test")

    with pytest.raises(RoutingError, match="%ft_train citations"):
        compare("citations")


def test_unknown_dataset_offers_the_closest(ready: Store) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'citations'"):
        compare("citation")


@pytest.mark.parametrize("models", [["tuned", "tuned"], []])
def test_models_must_differ(ready: Store, models: list[str]) -> None:
    with pytest.raises(ConfigError, match="different models"):
        compare("citations", models)


def test_other_model_of_the_same_server_can_be_named(ready: Store, provider: Provider) -> None:
    report = compare("citations", ["base", "other/model"])

    assert report.models == ("base", "other/model")
    assert "other/model" in {received.json["model"] for received in provider.requests}


def test_interrupt_drops_the_calls_that_wait(ready: Store, provider: Provider) -> None:
    started = threading.Event()

    def interrupt(request: Any) -> Any:
        if started.is_set():
            return student(request)
        started.set()
        raise_in_main()
        return student(request)

    def raise_in_main() -> None:
        import _thread

        _thread.interrupt_main()

    provider.answer = interrupt
    with pytest.raises(KeyboardInterrupt):
        compare("citations", concurrency=1)
    for thread in threading.enumerate():
        if thread.name == ENDING:
            thread.join(10)

    assert len(provider.requests) < 48


def test_rows_become_a_data_frame_with_a_column_a_field(ready: Store) -> None:
    pandas = pytest.importorskip("pandas")
    report = compare("citations")
    rows, summary = report.to_pandas(), report.to_pandas("summary")

    assert isinstance(rows, pandas.DataFrame)
    assert rows[rows.model == "base"]["field:year"].mean() == 0.0
    assert list(summary.model) == ["base", "tuned"]
    assert summary.gain_low[1] == pytest.approx(2 / 3)


def test_text_fits_a_hundred_columns_and_names_the_reference(ready: Store) -> None:
    report: Report = compare("citations", by="kind")
    text = repr(report)

    assert max(len(line) for line in text.splitlines()) <= 100
    assert "reference: teacher" in text
    assert "+0.67  [+0.67, +0.67]" in text
    assert "constrained decoding guarantees" in normalise(text)
    assert "student" in text and "127.0.0.1" in text


def test_unknown_model_or_group_of_a_report_lists_them(ready: Store) -> None:
    with pytest.raises(ConfigError, match="models: base, tuned; groups: all"):
        compare("citations").of("tuned", "singles")


def test_rows_that_a_superseded_row_gave_away_are_left_out(
    store: Store, provider: Provider
) -> None:
    record(store, range(6), split="train", cell="cell")
    promote_job(store, provider.base_url)
    run = store.calls.begin_run("citations", cell="cell")
    assert store.calls.supersede_earlier(run.id) == 6
    record(store, range(4, 10), split="test", source=None)
    report = compare("citations")

    assert sorted({row["target"]["year"] for row in report.rows}) == [1906, 1907, 1908, 1909]
    assert any("input: 2" in text for text in report.warnings)


class Elsewhere(Endpoint):
    """A loopback server under an address on the network."""

    def client(self, **options: Any) -> Any:
        import dataclasses

        home = Endpoint(options.pop("at"), self.model, api_key="k")
        return dataclasses.replace(home).client(**options)


def test_calls_that_leave_this_machine_are_announced(
    store: Store, provider: Provider, capsys: pytest.CaptureFixture[str]
) -> None:
    record(store, range(10, 12), split="test")
    compare("citations", [Elsewhere("https://api.example.com/v1", "m")], at=provider.base_url)
    assert "2 calls to api.example.com, which its owner may bill" in capsys.readouterr().out
    compare("citations", [Endpoint(provider.base_url, "m", api_key="k")])
    assert capsys.readouterr().out == ""


def test_a_test_row_with_a_credential_stays_on_this_machine(
    store: Store, provider: Provider
) -> None:
    shown = {"author": "sk-proj-" + "aB3" * 20, "year": 1, "title": "t"}
    record(store, range(10, 12), split="test", answers={11: shown})
    away = Elsewhere("https://api.example.com/v1", "m")
    with pytest.raises(DataError, match=r"credential \(openai\)(?s:.)*api.example.com"):
        compare("citations", [away], at=provider.base_url)
    assert provider.requests == []
    assert compare("citations", [Endpoint(provider.base_url, "m", api_key="k")]).n_examples == 2


def test_tag_that_no_row_carries_names_the_closest(ready: Store) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'kind'"):
        compare("citations", by="knd")
