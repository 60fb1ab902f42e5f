"""Starts the embedded engine: `python -m ftmagic.local --port 0 --home DIR`.

Owns the process: one server a folder (a lock), its key, the socket, `server.json` by which a kernel
finds it again, and the end when nobody has needed it for a while. On standard output it prints one
JSON line `{"base_url", "api_key", "pid"}` when it is ready; its log goes to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import sqlite3
import sys
import time
from pathlib import Path
from types import FrameType

import uvicorn

from ftmagic.local.server import LocalServer
from ftmagic.types import Json

SERVER_FILE = "server.json"
DEFAULT_IDLE_TIMEOUT_S = 1800.0
EXIT_ALREADY_SERVED = 3
"""Exit status when another server holds the folder."""

_HOST = "127.0.0.1"
_log = logging.getLogger("ftmagic.local")


def main(arguments: list[str] | None = None) -> int:
    """Run a server in the foreground until it is stopped or idle; return the exit status."""
    options = _parse(arguments)
    home = options.home.expanduser().resolve()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)  # uvicorn stops on it, then raises it again
    lock = _take_lock(home)
    if lock is None:
        print(_already_served(home), file=sys.stderr)
        return EXIT_ALREADY_SERVED
    try:
        _serve(home, options.port, options.idle_timeout_s)
    finally:
        (home / SERVER_FILE).unlink(missing_ok=True)
        lock.close()
    return 0


class _Server(uvicorn.Server):
    """A uvicorn server that says when it is ready and stops itself when idle."""

    def __init__(self, config: uvicorn.Config, ready: Json, home: Path) -> None:
        super().__init__(config)
        self._ready = ready
        self._home = home

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            _write_private(self._home / SERVER_FILE, json.dumps(self._ready))
            shown = {name: self._ready[name] for name in ("base_url", "api_key", "pid")}
            print(json.dumps(shown), flush=True)


def _serve(home: Path, port: int, idle_timeout_s: float) -> None:
    api_key = _read_key(home)
    listener = _bind(home, port)
    address = f"http://{_HOST}:{listener.getsockname()[1]}/v1"
    ready = {"base_url": address, "api_key": api_key, "pid": os.getpid(), "started_at": time.time()}

    def stop() -> None:
        server.should_exit = True

    local = LocalServer(home, api_key, stop)
    config = uvicorn.Config(
        local.app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    server = _Server(config, ready, home)
    try:
        asyncio.run(_run(server, listener, local, idle_timeout_s))
    finally:
        local.close()


async def _run(
    server: _Server, listener: socket.socket, local: LocalServer, idle_timeout_s: float
) -> None:
    watch = asyncio.create_task(_stop_when_idle(server, local, idle_timeout_s))
    await server.serve(sockets=[listener])
    watch.cancel()


async def _stop_when_idle(server: _Server, local: LocalServer, idle_timeout_s: float) -> None:
    while local.activity.idle_s < idle_timeout_s:
        await asyncio.sleep(min(5.0, idle_timeout_s / 4))
        if local.queue.active_ids():
            local.activity.touch()
    _log.info("nothing to do for %.0f s: stopping", idle_timeout_s)
    server.should_exit = True


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ftmagic.local", description="ftmagic's embedded engine, on loopback."
    )
    parser.add_argument("--home", type=Path, required=True, help="folder for files, jobs, models")
    parser.add_argument(
        "--port", type=int, default=0, help="0 (default): the last one used if free, else any"
    )
    parser.add_argument(
        "--idle-timeout-s",
        type=float,
        default=DEFAULT_IDLE_TIMEOUT_S,
        metavar="N",
        help="stop after N seconds without a request or a job (default %(default)g)",
    )
    return parser.parse_args(arguments)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Let the clean-up after a signal run to its end."""


def _take_lock(home: Path) -> sqlite3.Connection | None:
    """Hold the folder for this process; an exclusive SQLite lock ends with it on every system."""
    connection = sqlite3.connect(home / "lock.db", timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError:
        connection.close()
        return None
    return connection


def _already_served(home: Path) -> str:
    try:
        pid = json.loads((home / SERVER_FILE).read_text(encoding="utf-8"))["pid"]
    except (OSError, ValueError, KeyError):
        pid = "unknown: it is starting"
    return (
        f"{home} is already served by another process (pid {pid}).\n"
        f"  Next: use the address in {home / SERVER_FILE}, or choose another --home"
    )


def _read_key(home: Path) -> str:
    """Return the folder's key, made once: a client made earlier works after a restart."""
    path = home / "key"
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        _write_private(path, f"ftl-{secrets.token_urlsafe(32)}")
        return path.read_text(encoding="ascii")


def _bind(home: Path, port: int) -> socket.socket:
    """Listen on the port; for 0 on the last one used if it is free, so that old clients go on."""
    candidates = [port]
    if port == 0:
        candidates.insert(0, _last_port(home))
    for candidate in candidates:
        # Named, because asyncio sets TCP_NODELAY only where it sees TCP: else 40 ms a call.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if sys.platform != "win32":  # there it would let a second process share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, candidate))
        except OSError:
            listener.close()
            if candidate == candidates[-1]:
                raise
            continue
        _write_private(home / "port", str(listener.getsockname()[1]))
        return listener
    raise AssertionError("unreachable: the last candidate binds or raises")


def _last_port(home: Path) -> int:
    """Return the port that was used last; 0, which is any, when that is not known."""
    try:
        port = int((home / "port").read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):  # none yet, or what a full disk left of it
        return 0
    return port if 0 < port < 2**16 else 0


def _write_private(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
