"""Starts, finds and stops the embedded engine's process.

The engine is a process of its own (`python -m ftmagic.local`), which outlives the kernel and stops
itself when idle; this side finds it by `server.json` in the home folder and speaks HTTP to it. It
never imports `ftmagic.local`, torch or transformers.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from ftmagic import config
from ftmagic.errors import EngineError, MissingExtraError, message
from ftmagic.types import Endpoint, Json

START_TIMEOUT_S = 60.0
"""How long a start may take; it is about one second on an idle machine."""

IDLE_TIMEOUT_VARIABLE = "FTMAGIC_IDLE_TIMEOUT_S"
"""Environment variable: seconds without work after which a started server stops itself."""

SERVER_MODULES = ("starlette", "uvicorn", "python_multipart")
TRAINING_MODULES = ("torch", "transformers", "safetensors", "llguidance")

_EXIT_ALREADY_SERVED = 3
_POLL_S = 0.05
_STOP_TIMEOUT_S = 15.0
_LOG_LINES = 12


@dataclass(frozen=True)
class ServerAddress:
    """A running embedded server.

    Attributes:
        base_url: Ends in '/v1'.
        api_key: Its bearer token, never shown.
        pid: Its process.
    """

    base_url: str
    api_key: str = field(repr=False)
    pid: int

    def endpoint(self, model: str) -> Endpoint:
        """Return where one of its models answers."""
        return Endpoint(self.base_url, model, api_key=self.api_key)

    def request(self, method: str, path: str, body: bytes | None = None) -> Json:
        """Call one of the server's private routes.

        Args:
            method: HTTP method.
            path: Below the server's root, for example '/ftmagic/health'.
            body: JSON (or JSON Lines) to send.

        Raises:
            urllib.error.URLError: It refused (an HTTPError) or does not answer.
            OSError: The connection broke.
        """
        root = self.base_url.removesuffix("/v1")
        headers = {"Authorization": f"Bearer {self.api_key}", "Content-Type": "application/json"}
        request = urllib.request.Request(root + path, body, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback: no proxy
        with opener.open(request, timeout=_timeout_s(path)) as reply:
            value: Json = json.loads(reply.read())
        return value


def folder() -> Path:
    """Return the embedded engine's folder: files, jobs, models, its log and `server.json`."""
    return config.home() / "local"


def find() -> ServerAddress | None:
    """Return the server of the home folder if it is alive and well."""
    try:
        entry = json.loads((folder() / "server.json").read_text(encoding="utf-8"))
        address = ServerAddress(entry["base_url"], entry["api_key"], int(entry["pid"]))
        health = address.request("GET", "/ftmagic/health")
    except (OSError, ValueError, KeyError):
        return None  # none, or the remains of one that was killed; URLError is an OSError
    return address if health.get("pid") == address.pid else None


def start(*, needs_training: bool = False) -> ServerAddress:
    """Return the home folder's server, starting it when there is none.

    Two kernels may call this at once: one server wins the folder's lock, both return it.

    Args:
        needs_training: Whether torch will be needed, for training or generation; recordings do
            without.

    Raises:
        MissingExtraError: The packages of the extra `local` are not installed.
        EngineError: It did not start; with the end of its log.
    """
    _require_modules(SERVER_MODULES + (TRAINING_MODULES if needs_training else ()))
    address = find()
    if address is not None:
        return address
    config.make_home()
    folder().mkdir(mode=0o700, exist_ok=True)
    log = folder() / "server.log"
    process = _spawn(log)
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        address = find()
        if address is not None:
            return address
        if process.poll() not in (None, _EXIT_ALREADY_SERVED):
            break
        time.sleep(_POLL_S)
    raise _not_started(process, log)


def stop_server() -> bool:
    """Stop the home folder's server; unfinished jobs go on with the next one.

    Returns:
        Whether there was one.

    Raises:
        EngineError: It did not stop in time.
    """
    address = find()
    if address is None:
        return False
    address.request("POST", "/ftmagic/shutdown", b"{}")
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while (folder() / "server.json").exists():
        if time.monotonic() > deadline:
            raise EngineError(
                message(
                    f"the embedded server (pid {address.pid}) did not stop within "
                    f"{_STOP_TIMEOUT_S:.0f} s.",
                    next_step=f"kill {address.pid}",
                )
            )
        time.sleep(_POLL_S)
    return True


def _spawn(log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "ftmagic.local", "--home", str(folder())]
    idle_timeout_s = os.environ.get(IDLE_TIMEOUT_VARIABLE)
    if idle_timeout_s:
        command += ["--idle-timeout-s", idle_timeout_s]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # its ready line holds the key
            stderr=output,
            env=_environment(),
            start_new_session=True,  # an interrupt of the kernel must not reach it
        )
    # It outlives us, or we it: someone must collect its exit status.
    threading.Thread(target=process.wait, name="ftmagic-server", daemon=True).start()
    return process


def _environment() -> dict[str, str]:
    """The kernel's environment; a source checkout is put on the path, as `-P` hides the folder."""
    environment = dict(os.environ)
    parent = Path(config.__file__).resolve().parent.parent
    if "site-packages" not in parent.parts:
        paths = [str(parent), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return environment


def _require_modules(names: tuple[str, ...]) -> None:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            message(
                f"the embedded engine needs {', '.join(missing)}, which "
                f"{'is' if len(missing) == 1 else 'are'} not installed in {sys.prefix}.",
                next_step="%pip install 'ftmagic[local]'",
            )
        )


def _not_started(process: subprocess.Popen[bytes], log: Path) -> EngineError:
    code = process.poll()
    if code is None:
        process.terminate()
        what = f"was not ready within {START_TIMEOUT_S:.0f} s"
    elif code == _EXIT_ALREADY_SERVED:
        what = "found its folder locked by another process that does not answer"
    else:
        what = f"ended with status {code} before it was ready"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
    return EngineError(
        message(
            f"the embedded server {what}; the end of its log ({log}):\n  " + "\n  ".join(lines),
            next_step=f"python -m ftmagic.local --home {folder()}",
        )
    )


def _timeout_s(path: str) -> float:
    return 5.0 if path == "/ftmagic/health" else 120.0


def error_text(exc: urllib.error.HTTPError) -> str:
    """Read the message of a refusal by the server."""
    try:
        return str(json.loads(exc.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the embedded server answered {exc.code} {exc.reason}."
