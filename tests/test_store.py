from __future__ import annotations

import os
import sqlite3
import stat
import threading
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from ftmagic.errors import DataError, StoreError, UnknownNameError
from ftmagic.splits import SplitPlan
from ftmagic.store import CallRecord, JobRecord, Store, open_store
from ftmagic.types import Call, Example, JobInfo, OutputSchema, Split, TrainSpec

SYSTEM = "You extract citations. " * 40


def make_record(run_id: str, text: str, answer: str = '{"year":1981}') -> CallRecord:
    request = {
        "model": "teacher",
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}],
        "tools": [
            {"type": "function", "function": {"name": "Citation", "parameters": {"type": "object"}}}
        ],
        "temperature": 0,
    }
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": uuid.uuid4().hex,
                "type": "function",
                "function": {"name": "Citation", "arguments": answer},
            }
        ],
    }
    reply = {"choices": [{"message": message}], "usage": {"total_tokens": 42}}
    call = Call(
        id=uuid.uuid4().hex,
        run_id=run_id,
        api="openai.chat",
        url="http://127.0.0.1/v1/chat/completions",
        request=request,
        reply=reply,
        tags={"source": f"work:{text}"},
    )
    example = Example(
        messages=[*request["messages"], message],  # type: ignore[misc]
        tools=request["tools"],  # type: ignore[arg-type]
        schemas=(OutputSchema("Citation", "tool", {"type": "object"}),),
        call_id=call.id,
        model="teacher",
        tags=call.tags,
        n_tokens=42,
    )
    return CallRecord(call, [example])


def capture(store: Store, texts: list[str], *, cell: str = "cell-1", name: str = "works") -> str:
    run = store.calls.begin_run(name, cell=cell)
    store.calls.add([make_record(run.id, text) for text in texts])
    store.calls.end_run(run.id, "ok")
    return run.id


def assign(store: Store, splits: dict[int, Split]) -> None:
    store.examples.assign_splits("works", lambda rows: SplitPlan(splits))


def test_store_is_private_and_its_folder_is_ignored_by_git(store: Store, home: Path) -> None:
    assert stat.S_IMODE(os.stat(store.path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(home).st_mode) == 0o700
    assert (home / ".gitignore").read_text().splitlines()[-1] == "*"


def test_call_and_example_come_back_as_they_were(store: Store) -> None:
    run = store.calls.begin_run("works", cell="c", split="test")
    record = make_record(run.id, "Baltagi (1981)")
    added = store.calls.add([record])
    assert (added.n_calls, added.n_new, added.n_duplicates) == (1, 1, 0)
    assert list(store.calls.select("works")) == [record.call]
    (example,) = store.examples.select("works")
    assert example == record.examples[0]
    assert (example.split, example.model, example.n_tokens) == ("test", "teacher", 42)
    assert example.tags == {"source": "work:Baltagi (1981)"}
    assert example.schemas == record.examples[0].schemas


def test_same_content_is_a_duplicate_and_bodies_are_stored_once(store: Store) -> None:
    run = store.calls.begin_run("works")
    added = store.calls.add([make_record(run.id, text) for text in ("a", "a", "b")])
    assert (added.n_calls, added.n_new, added.n_duplicates) == (3, 2, 1)
    with sqlite3.connect(store.path) as connection:
        tools = connection.execute("select count(distinct tools_id) from calls").fetchone()
    assert tools == (1,)
    connection.close()


def test_rerun_counts_earlier_examples_and_replace_supersedes_them(store: Store) -> None:
    capture(store, ["a", "b", "c"])
    run = store.calls.begin_run("works", cell="cell-1")
    assert (run.number, run.n_kept_examples) == (2, 3)
    store.calls.add([make_record(run.id, text) for text in ("a", "d")])
    assert store.calls.supersede_earlier(run.id) == 2
    texts = [example.prompt[-1]["content"] for example in store.examples.select("works")]
    assert texts == ["a", "d"]


def test_replace_leaves_what_another_cell_captured(store: Store) -> None:
    capture(store, ["a", "b"], cell="cell-1")
    capture(store, ["b", "c"], cell="cell-2")
    run = store.calls.begin_run("works", cell="cell-2")
    store.calls.add([make_record(run.id, "d")])
    assert store.calls.supersede_earlier(run.id) == 1
    texts = [example.prompt[-1]["content"] for example in store.examples.select("works")]
    assert texts == ["a", "b", "d"]


def test_other_cell_is_a_first_run(store: Store) -> None:
    capture(store, ["a"])
    assert store.calls.begin_run("works", cell="cell-2").number == 1


def test_unknown_dataset_names_the_closest(store: Store) -> None:
    capture(store, ["a"], name="albums")
    with pytest.raises(UnknownNameError, match="did you mean 'albums'"):
        store.datasets.require("album")


def test_new_schema_of_the_same_name_is_a_new_version(store: Store) -> None:
    run = store.calls.begin_run("works")
    first, second = make_record(run.id, "a"), make_record(run.id, "b")
    changed = OutputSchema("Citation", "tool", {"type": "object", "required": ["year"]})
    example = replace(second.examples[0], schemas=(changed,))
    store.calls.add([first, CallRecord(second.call, [example])])
    assert [(row.name, row.version, row.n_examples) for row in store.schemas("works")] == [
        ("Citation", 1, 1),
        ("Citation", 2, 1),
    ]
    assert [each.schema_version for each in store.examples.select("works")] == [1, 2]


def test_split_once_assigned_never_changes(store: Store) -> None:
    capture(store, ["a", "b"])
    first, second = (example.id for example in store.examples.select("works"))
    assign(store, {first: "train"})
    assign(store, {first: "test", second: "test"})
    assert [each.split for each in store.examples.select("works")] == ["train", "test"]


def test_review_and_revision(store: Store) -> None:
    capture(store, ["a", "b"])
    first, second = store.examples.select("works")
    store.examples.set_review([first.id], "rejected", reviewer="ana")
    edited = replace(second, messages=[*second.prompt, {"role": "assistant", "content": "x"}])
    assert store.examples.add_revision(second.id, edited, author="ana") == 1
    (kept,) = store.examples.select("works", is_trainable=True)
    assert (kept.revision, kept.answer["content"]) == (1, "x")
    assert store.examples.select("works", review="rejected") == [first]


def test_rename_copy_delete(store: Store) -> None:
    capture(store, ["a", "b"])
    assign(store, {store.examples.select("works")[0].id: "test"})
    store.datasets.rename("works", "citations")
    assert store.datasets.copy("citations", "second") == 2
    assert store.examples.select("second")[0].split == "test"
    assert store.examples.select("second") == store.examples.select("citations")
    with pytest.raises(DataError, match="already a dataset"):
        store.datasets.rename("second", "citations")
    deleted = store.datasets.delete("citations")
    assert (deleted.n_calls, deleted.n_examples) == (2, 2)
    assert store.datasets.names() == ["second"]
    assert len(store.examples.select("second")) == 2


def test_deleting_everything_leaves_no_body(store: Store) -> None:
    capture(store, ["a", "b"])
    store.datasets.delete("works")
    connection = sqlite3.connect(store.path)
    tables = ("bodies", "calls", "examples", "revisions", "runs", "tags", "schemas")
    counts = [connection.execute(f"select count(*) from {table}").fetchone() for table in tables]
    connection.close()
    assert counts == [(0,)] * len(tables)


def test_job_survives_and_one_is_promoted(store: Store) -> None:
    capture(store, ["a"])
    spec = TrainSpec(model="ftmagic-student", n_epochs=3)
    for number in (1, 2):
        record = JobRecord(
            id=f"intent-{number}",
            engine="local",
            dataset="works",
            host="127.0.0.1",
            content_hash=f"b2:{number}",
            info=None,
            spec=spec,
            example_ids=[(1, 0)],
            created_at=float(number),
        )
        store.jobs.put(record)
        info = JobInfo(id=f"ftjob-{number}", engine="local", model="ftmagic-student", status="odd")
        store.jobs.confirm(record.id, info.id, info)
        store.jobs.promote(info.id)
    again = Store(store.path)
    assert [record.id for record in again.jobs.list("works")] == ["ftjob-2", "ftjob-1"]
    promoted = again.jobs.promoted("works")
    assert promoted is not None and promoted.id == "ftjob-2"
    assert (promoted.spec, promoted.example_ids) == (spec, [(1, 0)])
    found = again.jobs.find("b2:1", "local")
    assert found is not None and found.id == "ftjob-1" and not found.is_promoted
    again.close()


def test_newer_store_is_left_alone(home: Path, store: Store) -> None:
    connection = sqlite3.connect(store.path)
    connection.execute("pragma user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="format 99"):
        Store(store.path)


def test_deleted_store_is_said_loudly(store: Store) -> None:
    capture(store, ["a"])
    store.path.unlink()
    with pytest.raises(StoreError, match="was deleted while in use"):
        store.datasets.create("other")


def test_two_threads_write_without_loss(store: Store) -> None:
    run = store.calls.begin_run("works")

    def write(prefix: str) -> None:
        for number in range(20):
            store.calls.add([make_record(run.id, f"{prefix}{number}")])
        store.close()

    threads = [threading.Thread(target=write, args=(prefix,)) for prefix in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.examples.select("works")) == 40


def test_not_a_database_is_a_clear_error(home: Path) -> None:
    home.mkdir()
    (home / "store.db").write_bytes(b"not a database, but long enough to be one" * 30)
    with pytest.raises(StoreError, match="Next: "):
        open_store()


def make_job(id: str, status: str = "running") -> JobRecord:
    info = JobInfo(id=id, engine="local", model="student", status=status)
    return JobRecord(
        id=id,
        engine="local",
        dataset="works",
        host="127.0.0.1",
        content_hash=f"b2:{id}",
        info=info,
        spec=TrainSpec("student"),
        example_ids=[],
    )


def test_news_of_a_job_reach_it_whatever_its_dataset_is_called(store: Store) -> None:
    capture(store, ["a"])
    store.jobs.put(make_job("one"))
    store.datasets.rename("works", "citations")
    done = make_job("one", "succeeded").info
    assert done is not None
    store.jobs.update("one", done)
    assert store.datasets.names() == ["citations"]
    assert store.jobs.get("one").info == done


def test_only_the_first_success_of_a_dataset_is_promoted_by_itself(store: Store) -> None:
    capture(store, ["a"])
    for name in ("one", "two"):
        store.jobs.put(make_job(name, "succeeded"))
        store.jobs.promote_first(name)
    assert [store.jobs.get(name).is_promoted for name in ("one", "two")] == [True, False]
    store.datasets.delete("works")
    store.jobs.promote_first("two")
    assert not store.jobs.get("two").is_promoted


def test_a_plan_that_fails_assigns_nothing(store: Store) -> None:
    capture(store, ["a"])

    def fail(rows: object) -> SplitPlan:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.examples.assign_splits("works", fail)
    assign(store, {store.examples.select("works")[0].id: "test"})
    assert store.examples.select("works")[0].split == "test"


def test_inputs_and_sources_of_superseded_rows_are_known(store: Store) -> None:
    capture(store, ["a"])
    (old,) = store.examples.select("works")
    run = store.calls.begin_run("works", cell="cell-1")
    store.calls.supersede_earlier(run.id)
    assert store.examples.select("works") == []
    assert store.examples.keys_of([old.id, 999]) == [(old.input_key(), "work:a")]


def test_a_deletion_leaves_no_text_in_the_file(store: Store) -> None:
    capture(store, ["a"], name="Nowhereland")
    store.datasets.delete("Nowhereland")
    files = [store.path, *store.path.parent.glob("store.db-*")]
    assert not any(b"Nowhereland" in file.read_bytes() for file in files)


def test_record_that_no_database_takes_is_not_the_disks_fault(store: Store) -> None:
    run = store.calls.begin_run("works")
    wrong = replace(make_record(run.id, "a").call, status=[1])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="cannot hold this record"):
        store.calls.add([CallRecord(wrong)])
    store.calls.add([make_record(run.id, "a")])
    assert len(store.examples.select("works")) == 1


def test_call_of_an_erased_run_is_named(store: Store) -> None:
    with pytest.raises(DataError, match="dataset of its cell was deleted"):
        store.calls.add([make_record("0" * 32, "a")])


def test_call_delivered_again_replaces_what_was_there(store: Store) -> None:
    run = store.calls.begin_run("works")
    record = make_record(run.id, "a")
    store.calls.add([record])
    store.calls.add([record])
    assert list(store.calls.select("works")) == [record.call]
    assert [row.call_id for row in store.examples.select("works")] == [record.call.id]


def test_file_that_cannot_be_opened_by_another_thread_is_a_store_error(
    store: Store, home: Path
) -> None:
    home.rename(home.with_name("moved"))
    raised: list[StoreError] = []

    def read() -> None:
        with pytest.raises(StoreError, match="cannot be opened") as caught:
            store.datasets.names()
        raised.append(caught.value)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert len(raised) == 1
