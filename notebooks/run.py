"""Run a notebook from a clean start in a real kernel, keep what it shows, print its comparison.

    python notebooks/run.py notebooks/01_first_finetune.ipynb --out build/demo

Writes NAME.executed.ipynb and NAME.html into the output folder, also when a cell fails.
FTMAGIC_HOME is a fresh folder in there; a process that still works in it at the end is an error.
Knows nothing of what a notebook is about: it prints the outputs of cells tagged `comparison`.
"""

from __future__ import annotations

import argparse
import copy
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter
from nbformat import NotebookNode

STOP_TIMEOUT_S = 20.0
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def main() -> int:
    """Run the notebook and return the exit status: 0, or 1 when anything went wrong."""
    options = _parse_arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    home = options.out.resolve() / "home"
    stop_processes(home)
    shutil.rmtree(home, ignore_errors=True)
    os.environ["FTMAGIC_HOME"] = str(home)

    started = time.monotonic()
    notebook = nbformat.read(options.notebook, as_version=4)
    try:
        failure = execute(notebook, options.out, options.cell_timeout_s)
        write_results(notebook, options.out, options.notebook.stem)
        survivors = "" if failure else wait_for_end(home)
    finally:
        stop_processes(home)
    print(comparison(notebook) or "the notebook shows no comparison")
    print(f"\n{options.notebook.stem}: {time.monotonic() - started:.0f} s", end="")
    print(f", pages in {options.out}/", flush=True)
    for trouble in filter(None, (failure, survivors)):
        print(trouble, file=sys.stderr)
    return 1 if failure or survivors else 0


def execute(notebook: NotebookNode, folder: Path, cell_timeout_s: float) -> str:
    """Run all cells in a kernel whose working directory is `folder`; return the failure or ''.

    Args:
        notebook: Changed in place: it receives the outputs.
        folder: Where relative paths of the notebook end up.
        cell_timeout_s: Longest time for one cell.
    """
    client = NotebookClient(
        notebook,
        timeout=cell_timeout_s,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # or it warns of unencrypted loopback
        on_cell_start=_announce(len(notebook.cells)),
    )
    try:
        client.execute()
    except CellExecutionError as exc:
        return _COLOURS.sub("", str(exc))
    except TimeoutError as exc:
        return f"a cell ran longer than {cell_timeout_s:.0f} s: {exc}"
    return ""


def write_results(notebook: NotebookNode, folder: Path, stem: str) -> None:
    """Write the executed notebook and a page of it that needs no script from elsewhere."""
    nbformat.write(notebook, folder / f"{stem}.executed.ipynb")
    exporter = HTMLExporter(embed_widgets=False)
    exporter.mathjax_url = exporter.require_js_url = exporter.jquery_url = ""
    static = copy.deepcopy(notebook)
    for cell in static.cells:
        if "outputs" in cell:  # a page shows of a widget only its text, a bar stuck at 0 %
            cell.outputs = [output for output in cell.outputs if not _is_widget(output)]
    page, _ = exporter.from_notebook_node(static, {"metadata": {"name": stem}})
    (folder / f"{stem}.html").write_text(page, encoding="utf-8")


def comparison(notebook: NotebookNode) -> str:
    """Collect the plain text that the cells tagged `comparison` show, progress bars left out."""
    texts = []
    for cell in notebook.cells:
        if "comparison" in cell.metadata.get("tags", []):
            for output in cell.get("outputs", []):
                if output.get("name") != "stderr" and not _is_widget(output):
                    texts.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
    return "\n".join(text.rstrip() for text in texts if text)


def _is_widget(output: NotebookNode) -> bool:
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def wait_for_end(home: Path) -> str:
    """Wait until no process works in `home`; name those that still do after a while."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while (found := processes_in(home)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return "\n".join(f"still running: {pid} {command}" for pid, command in found.items())


def stop_processes(home: Path) -> None:
    """Ask the processes that work in `home` to end."""
    for pid in processes_in(home):
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue  # it ended by itself in between


def processes_in(home: Path) -> dict[int, str]:
    """List the processes whose command line names `home`: the embedded server and its trainer."""
    found = _commands_of_proc() if Path("/proc/self/cmdline").exists() else _commands_of_ps()
    named = {pid: command for pid, command in found.items() if str(home) in command}
    named.pop(os.getpid(), None)
    return named


def _commands_of_proc() -> dict[int, str]:
    commands = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            commands[int(path.parent.name)] = path.read_bytes().replace(b"\0", b" ").decode()
        except (OSError, UnicodeDecodeError):
            continue  # ended in between, or not ours
    return commands


def _commands_of_ps() -> dict[int, str]:
    """The same where there is no /proc (macOS)."""
    command = ["ps", "-axo", "pid=,command="]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pairs = [line.split(maxsplit=1) for line in listed.splitlines()]
    return {int(pair[0]): pair[1] for pair in pairs if len(pair) == 2}


def _announce(n_cells: int) -> Callable[..., None]:
    def on_cell_start(cell: NotebookNode, cell_index: int) -> None:
        lines = [line for line in cell.source.splitlines() if not line.startswith("#")]
        if cell.cell_type == "code" and lines:
            print(f"[{cell_index + 1:2}/{n_cells}] {lines[0][:80]}", flush=True)

    return on_cell_start


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run a notebook in a real kernel.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build/notebooks"))
    parser.add_argument("--cell-timeout-s", type=float, default=900.0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
