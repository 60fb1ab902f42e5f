"""What a capture adds to a call of the openai SDK: thread CPU time of the caller, and process CPU.

    python benchmarks/capture_overhead.py [--calls 500] [--gathers 30] [--captures 30]

One process, one client, four arms: `bare` (the client's `send` is the HTTP library's own), `null`
(the same again: what the measurement itself swings by), `idle` (patched, the call is nobody's),
`capture`. Every round times each arm once, in random order, after two untimed calls in the same
state; a loopback server answers from a process of its own. `sync`, `stream` and `gather` (100 async
calls) are thread CPU time; `process` is the CPU time of all threads for a capture of 100 calls,
from opening it to the end of its flush. Prints one JSON line. Times are microseconds a call;
`added_us` is the median over rounds of the difference to `bare` in the same round, `interval` its
95 % interval.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ftmagic.wire import scope, seam  # noqa: E402
from tests.provider import Provider, completion, json_reply, stream_reply, tool_call  # noqa: E402

ARMS = ("bare", "null", "idle", "capture")
GATHERED = 100
ANSWER = completion(
    tool_calls=[tool_call("album", {"title": "The Dark Side of the Moon", "year": 1973})]
)
REQUEST: Any = {
    "model": "gpt-test",
    "messages": [
        {"role": "system", "content": "Invent an album."},
        {"role": "user", "content": "Generate an album inspired by The Shining. " * 20},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "album",
                "parameters": {
                    "type": "object",
                    "properties": {"title": {"type": "string"}, "year": {"type": "integer"}},
                },
            },
        }
    ],
}
Times = dict[str, list[float]]


def serve() -> None:
    """Answer until standard input ends; print the address first."""
    whole, streamed = json_reply(ANSWER), stream_reply(ANSWER)

    class Fast(Provider):
        def reply_to(self, received: Any) -> Any:
            return streamed if b'"stream":true' in received.body else whole

    with Fast() as provider:
        print(provider.base_url, flush=True)
        sys.stdin.read()


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Run `serve` in a process of its own; yields its base URL."""
    command = [sys.executable, str(Path(__file__)), "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        yield process.stdout.readline().decode().strip()
        process.stdin.close()


@contextlib.contextmanager
def nothing_recorded() -> Iterator[None]:
    """Capture into a sink that drops everything, where `ftmagic.recorder` is missing."""
    seam.install()
    entry = scope.enter(scope.Scope("bench", sink=lambda exchange: None))
    yield
    scope.leave(entry)


def recorder() -> tuple[Callable[[], Any], str]:
    """Return how to open a capture, and what its sink is called in the result."""
    try:
        from ftmagic.recorder import capture
    except ImportError:
        return nothing_recorded, "none"
    return lambda: capture("bench"), "ftmagic.recorder"


def switcher(http_client: Any) -> Callable[[str], None]:
    """Return what gives one HTTP client an arm's `send`: no class has to change mid-run."""
    wrapper = vars(next(kind for kind in type(http_client).__mro__ if "send" in vars(kind)))["send"]
    patched, bare = wrapper.__get__(http_client), wrapper.__wrapped__.__get__(http_client)

    def switch(name: str) -> None:
        http_client.send = bare if name in ("bare", "null") else patched

    return switch


def state(name: str) -> contextlib.AbstractContextManager[None]:
    """Put this context into an arm's state."""
    return scope.ignore_calls() if name == "idle" else contextlib.nullcontext()


def time_calls(client: Any, call: Callable[[], object], rounds: int) -> Times:
    """Time one call an arm and round, in thread CPU microseconds; 10 rounds warm up first."""
    switch = switcher(client._client)
    times: Times = {name: [] for name in ARMS}
    for number in range(-10, rounds):
        for name in random.sample(ARMS, len(ARMS)):
            switch(name)
            with state(name):
                call()
                call()
                started = time.thread_time_ns()
                call()
                taken = time.thread_time_ns() - started
            if number >= 0:
                times[name].append(taken / 1000)
    return times


async def time_gathers(client: Any, rounds: int) -> Times:
    """Time one gather an arm and round, in thread CPU microseconds a call; 2 rounds warm up."""
    switch = switcher(client._client)
    create = client.chat.completions.create
    times: Times = {name: [] for name in ARMS}
    for number in range(-2, rounds):
        for name in random.sample(ARMS, len(ARMS)):
            gc.collect()
            switch(name)
            with state(name):
                started = time.thread_time_ns()
                await asyncio.gather(*[create(**REQUEST) for _ in range(GATHERED)])
                taken = time.thread_time_ns() - started
            if number >= 0:
                times[name].append(taken / 1000 / GATHERED)
    await client.close()
    return times


def time_captures(client: Any, open_capture: Callable[[], Any], rounds: int) -> Times:
    """Time 100 calls an arm and round in process CPU microseconds a call, flush included."""
    switch = switcher(client._client)
    times: Times = {name: [] for name in ARMS}
    for _ in range(rounds):
        for name in random.sample(ARMS, len(ARMS)):
            gc.collect()
            switch(name)
            started = time.process_time_ns()
            with open_capture() if name == "capture" else state(name):
                for _ in range(100):
                    client.chat.completions.create(**REQUEST)
            times[name].append((time.process_time_ns() - started) / 1000 / 100)
    return times


def measure(base_url: str, options: argparse.Namespace) -> dict[str, Times]:
    """Run all arms of all styles; returns style -> arm -> times, one a round."""
    import openai

    seam.install()
    open_capture, _ = recorder()
    client = openai.OpenAI(base_url=base_url, api_key="bench", max_retries=0)
    async_client = openai.AsyncOpenAI(base_url=base_url, api_key="bench", max_retries=0)
    create = client.chat.completions.create

    def call() -> object:
        return create(**REQUEST)

    def stream() -> object:
        return deque(create(**REQUEST, stream=True), maxlen=0)

    with open_capture():
        found = {
            "sync": time_calls(client, call, options.calls),
            "stream": time_calls(client, stream, options.calls),
            "gather": asyncio.run(time_gathers(async_client, options.gathers)),
        }
    found["process"] = time_captures(client, open_capture, options.captures)
    client.close()
    seam.uninstall()
    return found


def interval_of_median(values: list[float]) -> list[float]:
    """Return the 95 % interval of the median by order statistics (normal approximation)."""
    ordered, n = sorted(values), len(values)
    reach = 0.98 * n**0.5
    low, high = max(0, int(n / 2 - reach)), min(n - 1, int(n / 2 + reach))
    return [round(ordered[low], 2), round(ordered[high], 2)]


def summary(times: Times) -> dict[str, Any]:
    """Compare each arm of a style with `bare`."""
    bare = times["bare"]
    result: dict[str, Any] = {
        "n": len(bare),
        "bare_us": round(median(bare), 1),
        "bare_p99_us": round(quantiles(bare, n=100)[98], 1),
    }
    for name in ARMS[1:]:
        added = [mine - its for mine, its in zip(times[name], bare, strict=True)]
        result[name] = {
            "added_us": round(median(added), 2),
            "interval": interval_of_median(added),
            "p99_us": round(quantiles(times[name], n=100)[98], 1),
            "ratio": round(1 + median(added) / median(bare), 4),
        }
    return result


def commit() -> str:
    """Return the commit that is measured; '' outside a repository."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--gathers", type=int, default=30)
    parser.add_argument("--captures", type=int, default=30)
    parser.add_argument("--serve", action="store_true")
    options = parser.parse_args()
    if options.serve:
        return serve()
    with tempfile.TemporaryDirectory() as home, server() as base_url:
        os.environ["FTMAGIC_HOME"] = home
        found = measure(base_url, options)
    styles = {style: summary(times) for style, times in found.items()}
    print(json.dumps({"benchmark": "capture_overhead", **about(), **styles}))


def about() -> dict[str, Any]:
    """Say what was measured, on what."""
    names = ("openai", "httpx", "httpx2")
    versions = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(ImportError):
            versions[name] = version(name)
    return {
        "commit": commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}",
        "versions": versions,
        "sink": recorder()[1],
        "faults": scope.faults.count,
        "load_1min": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    main()
