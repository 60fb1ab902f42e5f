from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ftmagic.wire import scope
from tests.wire_parts import captured

SUBMIT = vars(ThreadPoolExecutor)["submit"]
START = vars(threading.Thread)["start"]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    scope.install_threads()
    yield
    scope.uninstall_threads()
    scope.switch.is_on = False
    scope.set_current(None)
    scope.set_route(None)
    assert vars(ThreadPoolExecutor)["submit"] is SUBMIT
    assert vars(threading.Thread)["start"] is START


def owner() -> tuple[str, bool]:
    """Who would get a call made here: the scope's id and whether it is ambient."""
    claimed = scope.claim()
    if claimed is None or claimed.scope is None:
        return "nobody", False
    return claimed.scope.id, claimed.is_ambient


def in_thread(function: Any, *args: Any) -> Any:
    """Run a function in a thread of its own, and return its result."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function(*args)))
    thread.start()
    thread.join()
    return results[0]


class Worker:
    """A long-lived thread that is fed through a queue, as many libraries have one."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._results.put(job())

    def ask(self, job: Any) -> Any:
        self._jobs.put(job)
        return self._results.get(timeout=5)

    def stop(self) -> None:
        self._jobs.put(None)
        self._thread.join()


def test_a_call_belongs_to_the_open_capture_and_to_nobody_after() -> None:
    assert owner() == ("nobody", False)
    with captured("a"):
        assert owner() == ("a", False)
    assert owner() == ("nobody", False)


def test_the_inner_capture_gets_the_call() -> None:
    with captured("outer"):
        with captured("inner"):
            assert owner() == ("inner", False)
        assert owner() == ("outer", False)


def test_await_gather_and_to_thread_carry_the_capture() -> None:
    async def main() -> list[Any]:
        async def ask() -> Any:
            await asyncio.sleep(0)
            return owner()

        return [*await asyncio.gather(ask(), ask()), await asyncio.to_thread(owner)]

    with captured("a"):
        assert asyncio.run(main()) == [("a", False)] * 3


def test_pools_and_threads_carry_the_capture_also_when_made_before() -> None:
    with ThreadPoolExecutor(1) as before:
        before.submit(int).result()
        with captured("a"), ThreadPoolExecutor(1) as inside:
            assert before.submit(owner).result() == ("a", False)
            assert inside.submit(owner).result() == ("a", False)
            assert list(inside.map(lambda _: owner(), range(2))) == [("a", False)] * 2
            assert in_thread(owner) == ("a", False)
            timer_results: list[Any] = []
            timer = threading.Timer(0, lambda: timer_results.append(owner()))
            timer.start()
            timer.join()
            assert timer_results == [("a", False)]
            assert asyncio.run(in_executor()) == ("a", False)


async def in_executor() -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, owner)


def test_a_pool_kept_from_one_capture_works_for_the_next_one_and_for_none() -> None:
    with ThreadPoolExecutor(1) as pool:
        with captured("first"):
            pool.submit(int).result()
        with captured("second"):
            assert pool.submit(owner).result() == ("second", False)
        assert pool.submit(owner).result() == ("nobody", False)


def test_a_worker_from_before_is_ambient_only_while_a_capture_is_open() -> None:
    worker = Worker()
    try:
        with captured("outer"), captured("inner"):
            assert worker.ask(owner) == ("inner", True)
        assert worker.ask(owner) == ("nobody", False)
    finally:
        worker.stop()


def test_a_worker_left_over_from_an_earlier_capture_stays_its_own() -> None:
    with captured("first"):
        worker = Worker()
    try:
        with captured("second"):
            assert worker.ask(owner) == ("first", False)
    finally:
        worker.stop()


def test_a_task_that_outlives_its_capture_keeps_it() -> None:
    async def main() -> Any:
        released = asyncio.Event()

        async def late() -> Any:
            await released.wait()
            return owner()

        with captured("first"):
            task = asyncio.create_task(late())
            await asyncio.sleep(0)
        with captured("second"):
            released.set()
            return await task

    assert asyncio.run(main()) == ("first", False)


def test_a_leaked_token_is_stopped_by_setting_none() -> None:
    leaked = scope.Scope("leaked", sink=lambda exchange: None)
    entry = scope.enter(leaked)
    contextvars.copy_context().run(scope.leave, entry)  # ends in another context, as cells may
    assert owner() == ("leaked", False)
    scope.set_current(None)
    assert owner() == ("nobody", False)


def test_leaving_twice_or_elsewhere_does_no_harm() -> None:
    first = scope.Scope("first", sink=lambda exchange: None)
    entry = scope.enter(first)
    token = scope.push_tags({"a": "1"})
    other = contextvars.Context()
    other.run(scope.pop_tags, token)
    other.run(scope.leave, entry)
    scope.leave(entry)
    scope.leave(entry)
    scope.pop_tags(token)
    scope.pop_tags(token)
    assert owner() == ("nobody", False)
    assert scope.current_tags() == {}
    assert other.run(scope.current_tags) == {}


def test_tags_add_up_travel_and_end() -> None:
    outer = scope.push_tags({"a": "1", "b": "1"})
    inner = scope.push_tags({"b": "2"})
    assert scope.current_tags() == {"a": "1", "b": "2"}
    with captured(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(scope.current_tags).result() == {"a": "1", "b": "2"}
        assert in_thread(scope.current_tags) == {"a": "1", "b": "2"}
    scope.pop_tags(inner)
    assert scope.current_tags() == {"a": "1", "b": "1"}
    scope.pop_tags(outer)
    assert scope.current_tags() == {}


def test_our_own_calls_are_nobodys() -> None:
    with captured("a"):
        with scope.ignore_calls():
            assert owner() == ("nobody", False)
            assert in_thread(owner) == ("nobody", False)
        assert owner() == ("a", False)


def test_a_thread_shows_its_own_run_and_its_own_error() -> None:
    class Failing(threading.Thread):
        def run(self) -> None:
            self.seen = (owner(), "run" in vars(self))

    with captured("a"):
        thread = Failing()
        thread.start()
        thread.join()
        assert thread.seen == (("a", False), False)
        with pytest.raises(RuntimeError, match="threads can only be started once"):
            thread.start()
        assert "run" not in vars(thread)
        with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result()


def test_a_run_set_on_the_thread_itself_is_put_back() -> None:
    seen: list[Any] = []
    thread: Any = threading.Thread()
    thread.run = mine = lambda: seen.append(owner())
    with captured("a"):
        thread.start()
        thread.join()
    assert seen == [("a", False)]
    assert vars(thread)["run"] is mine


def test_nothing_is_carried_before_the_first_capture() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: 7).result() == 7
    assert in_thread(lambda: 8) == 8


def test_a_fault_in_carrying_leaves_the_users_thread_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*args: Any) -> Any:
        raise OSError("injected")

    before = scope.faults.count
    monkeypatch.setattr(scope, "_wrap_run", broken)
    with captured("a"):
        assert in_thread(lambda: 8) == 8
    assert scope.faults.count == before + 1
    assert scope.faults.last == "thread: OSError: injected"


def test_a_wrapper_that_came_after_ours_survives_uninstall() -> None:
    ours = vars(ThreadPoolExecutor)["submit"]

    def theirs(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        return ours(self, fn, *args, **kwargs)

    kind: Any = ThreadPoolExecutor
    kind.submit = theirs
    try:
        scope.uninstall_threads()
        assert vars(ThreadPoolExecutor)["submit"] is theirs
        with captured("a"), ThreadPoolExecutor(1) as pool:
            assert pool.submit(owner).result()[0] == "a"  # ambient: ours no longer carries
            assert pool.submit(owner).result()[1] is True
    finally:
        kind.submit = SUBMIT


def test_every_keyword_reaches_the_function_of_a_pool() -> None:
    def tool(**arguments: Any) -> Any:
        return arguments

    with captured("a"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(tool, function=1, self=2).result() == {"function": 1, "self": 2}
