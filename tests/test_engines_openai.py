from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftmagic.engines import Engine, prices
from ftmagic.engines.addresses import key_variable, resolve_base_url
from ftmagic.engines.openai import OpenAIEngine
from ftmagic.errors import ConfigError, EngineError, EngineUnreachable, TrainingUnavailable
from ftmagic.types import TrainSpec
from tests.finetuning_provider import Fault, FineTuningProvider

KEY = "sk-test-key-0123456789"
SPEC = TrainSpec(model="gpt-4.1-mini-2025-04-14", suffix="albums", seed=3, n_epochs=2)
JOBS = "/fine_tuning/jobs"


class QuickEngine(OpenAIEngine):
    lookup_delays_s = (0.0, 0.01, 0.02)


@pytest.fixture
def provider() -> Iterator[FineTuningProvider]:
    with FineTuningProvider() as server:
        yield server


@pytest.fixture
def engine(provider: FineTuningProvider) -> OpenAIEngine:
    return QuickEngine(provider.base_url, KEY, max_retries=2)


def write_rows(path: Path, n_rows: int = 12, answer: str = "Hi.") -> Path:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Hello {number}"},
                {"role": "assistant", "content": answer},
            ]
        }
        for number in range(n_rows)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "train.jsonl")


def test_it_is_an_engine(engine: OpenAIEngine) -> None:
    assert isinstance(engine, Engine)


def test_submit_sends_files_spec_and_identity(
    provider: FineTuningProvider, engine: OpenAIEngine, train: Path, tmp_path: Path
) -> None:
    validation = write_rows(tmp_path / "validation.jsonl", 3)
    job = engine.submit(train, validation, SPEC)
    (body,) = provider.created
    assert job.status == "queued"
    assert (body["training_file"], body["validation_file"]) == ("file-1", "file-2")
    assert body["method"] == {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": 2}},
    }
    assert (body["suffix"], body["seed"]) == ("albums", 3)
    assert set(body["metadata"]) == {"ftmagic_hash", "ftmagic_intent"}
    assert len(provider.files["file-1"]["rows"]) == 12


def test_the_same_files_and_spec_are_one_job(
    provider: FineTuningProvider, engine: OpenAIEngine, train: Path
) -> None:
    first = engine.submit(train, None, SPEC)
    other_kernel = QuickEngine(provider.base_url, KEY)
    assert other_kernel.submit(train, None, SPEC).id == first.id
    provider.finish(first.id)
    assert engine.submit(train, None, SPEC).id == first.id
    assert len(provider.jobs) == 1
    assert len(provider.files) == 1


def test_a_failed_job_does_not_stand_in_the_way(
    provider: FineTuningProvider, engine: OpenAIEngine, train: Path
) -> None:
    first = engine.submit(train, None, SPEC)
    provider.fail(first.id, "server_error", "out of luck")
    assert engine.submit(train, None, SPEC).id != first.id
    assert len(provider.files) == 1


def test_another_spec_is_another_job_with_the_same_file(
    provider: FineTuningProvider, engine: OpenAIEngine, train: Path
) -> None:
    first = engine.submit(train, None, SPEC)
    second = engine.submit(train, None, TrainSpec(model=SPEC.model, n_epochs=3))
    assert first.id != second.id
    assert len(provider.files) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", JOBS, is_reset=True, is_done=True),
        Fault("POST", JOBS, status=500, is_done=True),
        Fault("POST", JOBS, body=b"<html>gateway</html>", is_done=True),
    ],
    ids=["reset", "500", "html"],
)
def test_a_lost_reply_makes_one_job(
    provider: FineTuningProvider, engine: OpenAIEngine, train: Path, fault: Fault
) -> None:
    provider.faults.append(fault)
    job = engine.submit(train, None, SPEC)
    assert job.id == "ftjob-1"
    assert len(provider.jobs) == 1
    assert provider.count(f"POST {JOBS}") == 1


def test_a_create_that_times_out_makes_one_job(provider: FineTuningProvider, train: Path) -> None:
    engine = QuickEngine(provider.base_url, KEY, timeout_s=0.5)
    provider.faults.append(Fault("POST", JOBS, delay_s=1.0, is_done=True, status=500))
    engine.lookup_delays_s = (0.4, 0.4, 0.4)
    assert engine.submit(train, None, SPEC).id == "ftjob-1"
    assert len(provider.jobs) == 1


def test_a_creation_that_cannot_be_found_is_not_repeated(
    provider: FineTuningProvider, engine: OpenAIEngine, train: Path
) -> None:
    provider.faults.append(Fault("POST", JOBS, is_reset=True))
    with pytest.raises(EngineError, match="unknown whether the job was created") as caught:
        engine.submit(train, None, SPEC)
    assert "%ft_status --engine openai" in str(caught.value)
    assert caught.value.__cause__ is not None
    assert provider.count(f"POST {JOBS}") == 1
    assert not provider.jobs


def test_training_not_available_names_the_way_on(
    provider: FineTuningProvider, engine: OpenAIEngine, train: Path
) -> None:
    text = "Fine-tuning is winding down for this organization."
    provider.faults.append(
        Fault("POST", JOBS, status=403, code="training_not_available", text=text)
    )
    with pytest.raises(TrainingUnavailable) as caught:
        engine.submit(train, None, SPEC)
    said = str(caught.value)
    assert text in said and "req-42" in said and "2027-01-06" in said
    assert said.endswith("Next: %ft_train NAME --engine local")
    assert provider.count(f"POST {JOBS}") == 1


def test_a_rate_limit_is_waited_out(
    provider: FineTuningProvider, engine: OpenAIEngine, train: Path
) -> None:
    provider.faults += [Fault("POST", JOBS, status=429)] * 2
    assert engine.submit(train, None, SPEC).id == "ftjob-1"
    assert provider.count(f"POST {JOBS}") == 3


def test_a_used_up_quota_stops_at_once(
    provider: FineTuningProvider, engine: OpenAIEngine, train: Path
) -> None:
    provider.faults.append(
        Fault("POST", JOBS, status=429, code="insufficient_quota", text="You exceeded your quota")
    )
    with pytest.raises(EngineError, match="quota is used up") as caught:
        engine.submit(train, None, SPEC)
    assert "You exceeded your quota" in str(caught.value)
    assert provider.count(f"POST {JOBS}") == 1


def test_a_refusal_keeps_the_providers_sentence_and_hides_the_key(
    provider: FineTuningProvider, engine: OpenAIEngine, train: Path
) -> None:
    provider.faults.append(
        Fault("POST", JOBS, status=400, code="model_not_found", text=f"no model for {KEY}")
    )
    with pytest.raises(EngineError) as caught:
        engine.submit(train, None, SPEC)
    assert "400 no model for [key] (request id req-42)" in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_cut_upload_is_sent_again_and_lies_there_once(
    provider: FineTuningProvider, engine: OpenAIEngine, train: Path
) -> None:
    provider.faults.append(Fault("POST", "/files", is_reset=True))
    engine.upload(train)
    assert len(provider.files) == 1
    other = write_rows(train.with_name("other.jsonl"), 11)
    provider.faults.append(Fault("POST", "/files", is_reset=True, is_done=True))
    engine.upload(other)
    assert len(provider.files) == 2


def test_reads_go_on_after_a_server_error(
    provider: FineTuningProvider, engine: OpenAIEngine, train: Path
) -> None:
    job = engine.submit(train, None, SPEC)
    provider.faults += [
        Fault("GET", f"{JOBS}/{job.id}", status=503),
        Fault("GET", f"{JOBS}/{job.id}", is_reset=True),
    ]
    assert engine.retrieve(job.id).status == "queued"


def test_a_server_that_is_gone_is_unreachable(train: Path) -> None:
    with FineTuningProvider() as provider:
        engine = OpenAIEngine(provider.base_url, KEY, max_retries=0)
    with pytest.raises(EngineUnreachable, match="did not answer"):
        engine.retrieve("ftjob-1")
    with pytest.raises(EngineUnreachable):
        engine.submit(train, None, SPEC)


def test_an_html_page_is_not_a_job(
    provider: FineTuningProvider, engine: OpenAIEngine, train: Path
) -> None:
    job = engine.submit(train, None, SPEC)
    provider.faults.append(Fault("GET", f"{JOBS}/{job.id}", body=b"<html>log in</html>"))
    with pytest.raises(EngineUnreachable):
        engine.retrieve(job.id)


def test_an_unknown_status_is_kept_verbatim(
    provider: FineTuningProvider, engine: OpenAIEngine, train: Path
) -> None:
    job = engine.submit(train, None, SPEC)
    provider.set_status(job.id, "pausing_soon", surprising=[1])
    found = engine.retrieve(job.id)
    assert found.status == "pausing_soon"
    assert not found.is_final


def test_a_job_that_fails_validation_says_why(
    provider: FineTuningProvider, engine: OpenAIEngine, tmp_path: Path
) -> None:
    job = engine.submit(write_rows(tmp_path / "few.jsonl", 3), None, SPEC)
    found = engine.retrieve(job.id)
    assert found.status == "failed"
    assert found.error.startswith("invalid_n_examples: Training file has 3 example(s)")


def test_events_come_oldest_first_and_after_the_last_seen(
    provider: FineTuningProvider, engine: OpenAIEngine, train: Path
) -> None:
    job = engine.submit(train, None, SPEC)
    for step in range(1, 151):
        provider.step(job.id, step, 150, train_loss=1 / step)
    events = engine.events(job.id)
    assert len(events) == 151
    assert [each.data["step"] for each in events[1:]] == list(range(1, 151))
    later = engine.events(job.id, after=events[-2].id)
    assert [each.id for each in later] == [events[-1].id]


def test_list_pages_from_newest_to_oldest(
    provider: FineTuningProvider, engine: OpenAIEngine, train: Path
) -> None:
    for epochs in (1, 2, 3):
        engine.submit(train, None, TrainSpec(model="m", n_epochs=epochs))
    assert [job.id for job in engine.list()] == ["ftjob-3", "ftjob-2", "ftjob-1"]
    assert [job.id for job in engine.list(after="ftjob-2")] == ["ftjob-1"]


def test_cancel_checkpoints_and_deploy(
    provider: FineTuningProvider, engine: OpenAIEngine, train: Path
) -> None:
    job = engine.submit(train, None, SPEC)
    provider.finish(job.id)
    (checkpoint,) = engine.checkpoints(job.id)
    assert checkpoint.step_number == 10
    assert checkpoint.metrics == {"step": 10.0, "train_loss": 0.5}
    endpoint = engine.deploy(engine.retrieve(job.id).fine_tuned_model or "")
    with endpoint.client() as client:
        reply = client.chat.completions.create(
            model=endpoint.model, messages=[{"role": "user", "content": "Hi"}]
        )
    assert reply.choices[0].message.content == f"Hello from {endpoint.model}"
    assert KEY not in repr(endpoint)
    assert engine.cancel(job.id).status == "cancelled"


def test_quote_sends_nothing_and_labels_its_figures(
    provider: FineTuningProvider, engine: OpenAIEngine, train: Path
) -> None:
    quote = engine.quote(train, None, SPEC)
    assert provider.requests == []
    assert (quote.n_train, quote.n_validation, quote.host) == (12, 0, "127.0.0.1")
    # "Hello 0" + "Hi." is 10 characters: 2 tokens, and 4 for each of two messages; twelve rows,
    # the last two with one character more.
    assert quote.n_tokens == 12 * (2 + 8)
    assert quote.tokens_basis == "estimate"
    assert quote.cost_usd == pytest.approx(120 * 2 * 5.00 / 1e6)
    assert quote.cost_basis.startswith("estimate: 120 tokens x 2 epochs x $5.00 a million")
    assert quote.problems == ()


def test_quote_names_too_few_rows_as_an_error(engine: OpenAIEngine, tmp_path: Path) -> None:
    quote = engine.quote(write_rows(tmp_path / "few.jsonl", 3), None, SPEC)
    assert [problem.severity for problem in quote.problems] == ["error"]
    assert "3 rows to train on; engine 'openai' needs at least 10" in quote.problems[0].message


def test_quote_names_a_suffix_that_is_too_long(engine: OpenAIEngine, train: Path) -> None:
    (problem,) = engine.quote(train, None, TrainSpec(model="m", suffix="x" * 65)).problems
    assert problem.message == "the suffix has 65 characters; at most 64 are allowed."


def test_quote_for_openai_itself_warns_of_the_end(train: Path) -> None:
    quote = OpenAIEngine(api_key=KEY).quote(train, None, SPEC)
    assert quote.host == "api.openai.com"
    assert any("2027-01-06" in problem.message for problem in quote.problems)
    assert {problem.severity for problem in quote.problems} == {"warning"}


def test_prices_of_snapshots_tuned_models_and_your_own() -> None:
    assert prices.price_of("gpt-4.1-mini-2025-04-14") == prices.price_of("gpt-4.1-mini")
    assert prices.price_of("ft:gpt-4o-2024-08-06:org::x") == prices.price_of("gpt-4o")
    assert prices.price_of("llama") is None
    assert prices.estimate_cost("llama", 10, 1, None).cost_usd is None
    prices.override_price("llama", 2.0)
    assert prices.estimate_cost("llama", 1_000_000, 50, 1).cost_usd == 2.0


@pytest.mark.parametrize(("n_rows", "n_epochs"), [(13, 7), (83, 3), (2, 25), (10_000, 2)])
def test_default_epochs_are_those_that_real_jobs_reported(n_rows: int, n_epochs: int) -> None:
    assert prices.default_epochs(n_rows) == n_epochs


def test_no_key_says_which_variable(train: Path) -> None:
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        OpenAIEngine().submit(train, None, SPEC)


def test_a_key_is_bound_to_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert OpenAIEngine().key() == KEY
    with pytest.raises(ConfigError, match="FTMAGIC_KEY_API_EXAMPLE_COM"):
        OpenAIEngine("https://api.example.com/v1").key()
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.example.com/v1")
    assert key_variable("https://api.example.com/v1") == "OPENAI_API_KEY"


@pytest.mark.parametrize(
    "base_url", ["http://example.com/v1", "ftp://example.com", "example.com", "https://u:p@x.com"]
)
def test_unsafe_addresses_are_refused(base_url: str) -> None:
    with pytest.raises(ConfigError):
        resolve_base_url(base_url)


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    provider: FineTuningProvider, engine: OpenAIEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    assert engine.list() == []


def test_key_with_a_line_end_is_never_shown(provider: FineTuningProvider) -> None:
    engine = OpenAIEngine(provider.base_url, "sk-proj-SECRETSECRETSECRET\n", max_retries=0)
    with pytest.raises(EngineUnreachable, match="a line end in the key") as caught:
        engine.list()
    assert "SECRET" not in str(caught.value)
