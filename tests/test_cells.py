"""The cell machinery in an InteractiveShell, and in a real kernel over its own protocol."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from ftmagic import magics
from ftmagic.cells import CellBrackets
from ftmagic.wire import seam
from tests.provider import Provider
from tests.wire_parts import HTTP_MODULES


@pytest.fixture
def ip() -> Iterator[InteractiveShell]:
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(
        config=Config({"HistoryManager": {"enabled": False}})  # its database would stay open
    )
    magics.load(shell)
    yield shell
    magics.unload(shell)
    InteractiveShell.clear_instance()


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    folder = tmp_path_factory.mktemp("kernel")
    os.environ["FTMAGIC_HOME"] = str(folder / "home")
    with Provider() as provider:
        running = Kernel(folder, provider)
        yield running
        running.stop()


def test_transform_is_pure_and_replaces_the_first_line_only() -> None:
    brackets = CellBrackets(None, ("capture_ft", "use_ft"), lambda: None)
    cell = ["%%capture_ft albums --tag 'a b=c'\n", "x = 1\n", "x"]
    expected = "get_ipython().run_line_magic('_capture_ft_begin', \"albums --tag 'a b=c'\")\n"
    assert brackets.transform(cell) == [expected, "x = 1\n", "x"]
    assert brackets.transform(cell) == brackets.transform(cell)
    assert brackets.transform(["%%capture_ftx\n", "x"]) == ["%%capture_ftx\n", "x"]
    assert brackets.transform(["%%capture_ft a\n", "\n"]) == ["%%capture_ft a\n", "\n"]
    nested = brackets.transform(["%%use_ft a\n", "%%time\n", "x = 1\n"])
    assert nested[1].startswith("get_ipython().run_cell_magic('time'")


def test_cell_keeps_its_value_and_prints_the_summary(
    ip: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    result = ip.run_cell("%%capture_ft albums\nx = 20\nx + 1")
    assert (result.success, result.result) == (True, 21)
    assert "0 calls, 0 new examples" in capsys.readouterr().out


def test_unload_puts_the_identical_functions_back(ip: InteractiveShell) -> None:
    import threading
    from concurrent.futures import ThreadPoolExecutor

    installed = [importlib.import_module(name) for name in HTTP_MODULES]
    owners: list[tuple[Any, str]] = [
        *((module.Client, "send") for module in installed),
        *((module.AsyncClient, "send") for module in installed),
        (threading.Thread, "start"),
        (ThreadPoolExecutor, "submit"),
    ]
    before = [vars(owner)[name] for owner, name in owners]
    ip.run_cell("%%capture_ft albums\n1")
    during = [vars(owner)[name] for owner, name in owners]
    assert not any(new is old for new, old in zip(during, before, strict=True))
    magics.unload(ip)
    after = [vars(owner)[name] for owner, name in owners]
    assert all(new is old for new, old in zip(after, before, strict=True))
    assert "capture_ft" not in ip.magics_manager.magics["cell"]


def test_load_patches_nothing_and_loading_twice_registers_once(ip: InteractiveShell) -> None:
    assert not seam.is_installed()
    magics.load(ip)
    ours = [each for each in ip.input_transformers_cleanup if "CellBrackets" in str(each)]
    assert len(ours) == 1


def test_undefined_variable_in_the_line_is_an_error(
    ip: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    result = ip.run_cell("%%capture_ft {nowhere}\nx = 1")
    assert not result.success
    assert "name 'nowhere' is not defined" in capsys.readouterr().err
    ip.run_cell("name = 'albums'")
    assert ip.run_cell("%%capture_ft {name}\n1").success


def test_our_error_shows_as_its_message_and_keeps_its_type(
    ip: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    result = ip.run_cell("%%capture_ft ../x\n1")
    assert type(result.error_in_exec).__name__ == "ConfigError"
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err
    assert "cannot name a dataset" in shown.out + shown.err


class Kernel:
    """A real kernel; `run(code)` gives the reply's status and everything the cell printed."""

    def __init__(self, folder: Path, provider: Provider) -> None:
        from jupyter_client.manager import start_new_kernel

        self.manager, self.client = start_new_kernel(cwd=str(folder))
        self.run(
            "%load_ext ftmagic\nimport openai, asyncio\n"
            f"client = openai.OpenAI(base_url={provider.base_url!r}, api_key='k')\n"
            "tool = {'type': 'function', 'function': {'name': 'album', 'parameters': {}}}\n"
            "def ask(text):\n"
            "    return client.chat.completions.create(model='m', tools=[tool],\n"
            "        messages=[{'role': 'user', 'content': text}])\n"
        )

    def run(self, code: str, *, interrupt_after_s: float | None = None, **options: Any) -> Ran:
        message_id = self.client.execute(code, **options)
        started = time.time()
        if interrupt_after_s is not None:
            time.sleep(interrupt_after_s)
            started = time.time()
            self.manager.interrupt_kernel()
        reply = self.client.get_shell_msg(timeout=60)
        while reply["parent_header"].get("msg_id") != message_id:
            reply = self.client.get_shell_msg(timeout=60)
        duration_s = time.time() - started
        texts = []
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != message_id:
                continue
            content = message["content"]
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                break
            texts.append(content.get("text") or content.get("data", {}).get("text/plain", ""))
            texts.extend(content.get("traceback", []))
        return Ran(reply["content"]["status"], "\n".join(texts), duration_s)

    def stop(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.context.destroy(linger=0)


class Ran:
    def __init__(self, status: str, text: str, duration_s: float) -> None:
        self.status, self.text, self.duration_s = status, text, duration_s


def test_kernel_records_and_shows_the_last_value(kernel: Kernel) -> None:
    ran = kernel.run("%%capture_ft albums\nanswer = ask('a')\nanswer.choices[0].finish_reason")
    assert ran.status == "ok"
    assert "'tool_calls'" in ran.text
    assert "1 call, 1 new example, 0 duplicates, 0 skipped" in ran.text


def test_kernel_top_level_await(kernel: Kernel) -> None:
    ran = kernel.run("%%capture_ft albums\nawait asyncio.sleep(0.01)\nx = ask('b'); 'done'")
    assert (ran.status, "'done'" in ran.text, "1 call, 1 new" in ran.text) == ("ok", True, True)


def test_kernel_time_inside_capture(kernel: Kernel) -> None:
    ran = kernel.run("%%capture_ft albums\n%%time\nx = ask('c')")
    assert "Wall time" in ran.text and "1 call, 1 new example" in ran.text


def test_kernel_failing_cell_stops_run_all_and_shows_one_traceback(kernel: Kernel) -> None:
    ran = kernel.run("%%capture_ft albums\nx = ask('d')\n\n1 / 0")
    assert ran.status == "error"
    assert ran.text.count("Traceback") == 1
    assert "line 4" in ran.text or "----> 4" in ran.text
    assert "1 call, 1 new example" in ran.text


def test_kernel_interrupt_of_an_awaiting_cell(kernel: Kernel) -> None:
    ran = kernel.run("%%capture_ft albums\nawait asyncio.sleep(30)", interrupt_after_s=1.0)
    assert ran.status == "error"
    assert ran.duration_s < 0.5
    assert kernel.run("1 + 1").text.strip() == "2"


def test_kernel_rerun_is_known_and_next_cell_is_not_captured(kernel: Kernel) -> None:
    code = "%%capture_ft reruns\nimport uuid\nx = ask(uuid.uuid4().hex)"
    kernel.run(code)
    assert "run 2; 1 example of run 1 kept (--replace supersedes them)" in kernel.run(code).text
    kernel.run("x = ask('outside')")
    listed = kernel.run("import ftmagic as ft; len(ft.calls('reruns'))")
    assert listed.text.strip() == "2"


def test_kernel_unknown_option_is_a_usage_error(kernel: Kernel) -> None:
    ran = kernel.run("%%capture_ft albums --nonsense\n1")
    assert ran.status == "error" and "unrecognized arguments" in ran.text
