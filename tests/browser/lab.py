"""A throw-away JupyterLab, and a page of headless Chromium that drives a notebook in it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import nbformat

TOKEN = "test-token"
CHROMIUM_ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
_IS_IDLE = (
    "() => window.jupyterapp?.shell.currentWidget?.context?.sessionContext"
    "?.session?.kernel?.status === 'idle'"
)


class Lab:
    """A running JupyterLab with a home of its own; nothing of the user's settings is read."""

    def __init__(self, root: Path) -> None:
        """Start it; returns when it answers."""
        self.root = root
        settings = root / ".settings"
        news = settings / "@jupyterlab" / "apputils-extension"
        news.mkdir(parents=True)
        (news / "notification.jupyterlab-settings").write_text(
            json.dumps({"fetchNews": "false", "checkForUpdates": False})
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        environment = {
            **os.environ,
            "JUPYTER_CONFIG_DIR": str(root / ".config"),
            "JUPYTER_RUNTIME_DIR": str(root / ".runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(settings),
            "JUPYTERLAB_WORKSPACES_DIR": str(root / ".workspaces"),
            "IPYTHONDIR": str(root / ".ipython"),
            "FTMAGIC_HOME": str(root / "home"),
        }
        command = [
            *(sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"),
            *("--ip=127.0.0.1", f"--port={self.port}", f"--IdentityProvider.token={TOKEN}"),
            *(f"--ServerApp.root_dir={root}", "--LabApp.expose_app_in_browser=True"),
            "--ServerApp.terminals_enabled=False",
        ]
        with (root / "lab.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        self._wait_until_up()

    def write(self, name: str, cells: list[str]) -> None:
        """Write a notebook of code cells."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        )
        nbformat.write(notebook, self.root / name)

    def stop(self) -> None:
        """Stop it, and the embedded server that its notebooks started."""
        stop_server = "import ftmagic; ftmagic.stop_server()"
        environment = {**os.environ, "FTMAGIC_HOME": str(self.root / "home")}
        subprocess.run([sys.executable, "-c", stop_server], env=environment, check=True)
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_up(self) -> None:
        for _ in range(600):
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{self.port}/api/status?token={TOKEN}", timeout=2
                ):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
            if self._process.poll() is not None:
                break
        raise RuntimeError((self.root / "lab.log").read_text()[-2000:])


class NotebookPage:
    """A notebook open in JupyterLab."""

    def __init__(self, browser: Any, lab: Lab, name: str) -> None:
        """Open it and wait for its kernel.

        Attributes:
            page: The Playwright page.
            errors: What the browser's console printed as errors.
            foreign_requests: URLs asked for that are not this machine's.
        """
        self.errors: list[str] = []
        self.foreign_requests: list[str] = []
        self.page = browser.new_page(viewport={"width": 1280, "height": 1000})
        self.page.on("console", self._note_console)
        self.page.on("request", self._note_request)
        self.page.goto(f"http://127.0.0.1:{lab.port}/lab/tree/{name}?token={TOKEN}&reset")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
        self.page.wait_for_function(_IS_IDLE, timeout=60_000)

    def run(self, index: int) -> None:
        """Run a cell; returns at once."""
        self.cell(index).locator(".jp-Editor").click()
        self.page.keyboard.press("Shift+Enter")

    def cell(self, index: int) -> Any:
        """The cell's locator."""
        return self.page.locator(".jp-Cell").nth(index)

    def output(self, index: int) -> Any:
        """The locator of a cell's output."""
        return self.cell(index).locator(".jp-OutputArea-output").first

    def restart_kernel(self) -> None:
        """Restart the kernel, as the menu does."""
        self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.context.sessionContext.restartKernel()"
        )
        self.page.wait_for_function(_IS_IDLE, timeout=60_000)

    def screenshot(self, name: str, locator: Any | None = None) -> Path:
        """Save a picture under build/screenshots and return its path."""
        folder = Path("build/screenshots")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.png"
        (locator or self.page).screenshot(path=str(path))
        return path

    def _note_console(self, entry: Any) -> None:
        if entry.type == "error":
            self.errors.append(entry.text)

    def _note_request(self, request: Any) -> None:
        if not request.url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")):
            self.foreign_requests.append(request.url)


def chromium_path() -> str | None:
    """Where Chromium is, if it is installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")
