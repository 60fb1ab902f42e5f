from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from ftmagic.types import Json
from tests.local.tiny import make_row, make_student, write_rows

ROOT = Path(__file__).parents[2]


class Server:
    """A real server process of the embedded engine.

    Args:
        home: Its folder.
        idle_timeout_s: As on the command line.
    """

    def __init__(self, home: Path, idle_timeout_s: float = 600) -> None:
        self.home = home
        command = [sys.executable, "-P", "-m", "ftmagic.local", "--port", "0", "--home", str(home)]
        command += ["--idle-timeout-s", str(idle_timeout_s)]
        home.mkdir(parents=True, exist_ok=True)
        with (home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            )
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            line = stdout.readline()
        if not line:
            self.process.wait(timeout=20)
        assert line, (home / "server.log").read_text()
        self.ready: Json = json.loads(line)

    @property
    def base_url(self) -> str:
        return str(self.ready["base_url"])

    def client(self, **options: Any) -> openai.OpenAI:
        options = {"api_key": self.ready["api_key"], "max_retries": 0, "timeout": 60, **options}
        return openai.OpenAI(base_url=self.base_url, **options)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the server, wait for its end and return its exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model with random weights."""
    return make_student(tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training rows."""
    path = tmp_path_factory.mktemp("rows") / "train.jsonl"
    return write_rows(path, [make_row(index) for index in range(12)])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests that leave it running."""
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.stop()


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    """The official SDK, pointed at `server`."""
    with server.client() as made:
        yield made


def wait_until(is_done: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + timeout_s
    while not is_done():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.05)
