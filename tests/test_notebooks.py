import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ftmagic.data.works import works

nbformat: Any = pytest.importorskip("nbformat")
pytest.importorskip("nbconvert")

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def load_runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebook_runner", NOTEBOOKS / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_notebooks() -> dict[str, Any]:
    found = {path.name: nbformat.read(path, as_version=4) for path in NOTEBOOKS.glob("*.ipynb")}
    assert "01_first_finetune.ipynb" in found
    return found


def test_notebooks_are_short_and_hold_no_outputs() -> None:
    for name, notebook in read_notebooks().items():
        nbformat.validate(notebook)
        assert len(notebook.cells) < 20, name
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert not any(cell.outputs or cell.execution_count for cell in code), name
        assert len({cell.id for cell in notebook.cells}) == len(notebook.cells), name


def test_notebooks_begin_with_a_badge_and_one_install_line() -> None:
    for name, notebook in read_notebooks().items():
        title, install = notebook.cells[0], notebook.cells[1]
        assert f"colab.research.google.com/github/ftmagic/ftmagic/blob/main/notebooks/{name}" in (
            title.source
        )
        assert sum(line.startswith("INSTALL = ") for line in install.source.splitlines()) == 1


def test_the_first_notebook_states_how_many_works_there_are() -> None:
    text = " ".join(cell.source for cell in read_notebooks()["01_first_finetune.ipynb"].cells)
    assert f"({len(works())} of them" in text


def test_runner_prints_the_cells_tagged_comparison_only() -> None:
    runner = load_runner()
    widget = {"text/plain": "0%|", "application/vnd.jupyter.widget-view+json": {"model_id": "m"}}
    cells = [
        nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("stream", text="no\n")]),
        nbformat.v4.new_code_cell(
            "2",
            metadata={"tags": ["comparison"]},
            outputs=[
                nbformat.v4.new_output("stream", name="stderr", text="50% |####"),
                nbformat.v4.new_output("display_data", data=widget),
                nbformat.v4.new_output("display_data", data={"text/plain": "model  fields\n"}),
                nbformat.v4.new_output("stream", text="tuned  .82\n"),
            ],
        ),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    assert runner.comparison(notebook) == "model  fields\ntuned  .82"


def test_runner_finds_and_ends_a_process_that_works_in_its_folder(tmp_path: Path) -> None:
    runner = load_runner()
    code = "import sys, time; print(1, flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        assert list(runner.processes_in(tmp_path)) == [process.pid]
        started = time.monotonic()
        runner.stop_processes(tmp_path)
        process.wait(timeout=10)
        assert time.monotonic() - started < 10
    assert runner.processes_in(tmp_path) == {}
