"""The main job in a real JupyterLab: the live status moves, survives a restart, and compares."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.lab import Lab, NotebookPage

pytestmark = pytest.mark.browser

CELLS = [
    # 0
    """%load_ext ftmagic
import ftmagic as ft, openai
from pydantic import BaseModel
from ftmagic.data import citations

class Citation(BaseModel):
    author: str
    year: int
    title: str

def request(passage):
    return dict(
        messages=[{"role": "user", "content": passage.text}],
        tools=[openai.pydantic_function_tool(Citation)],
        tool_choice={"type": "function", "function": {"name": "Citation"}},
    )

citations.write_answer_key("key.jsonl", request)
teacher = ft.serve(recordings={"answer-key": "key.jsonl"})
client = teacher.client()
singles = [p for p in citations.passages("train") if not p.is_list]
def ask(passages):
    for passage in passages:
        with ft.tag(id=passage.id, source=passage.source, kind=passage.kind):
            client.chat.completions.create(model=teacher.model, **request(passage))
print("READY")""",
    # 1
    "%%capture_ft works\nask(singles)",
    # 2
    "%%capture_ft works --split test\nask(citations.passages('seen')[:20])",
    # 3
    "job = %ft_train works --yes",
    # 4: other cells run while the job does
    "sum(range(10))",
    # 5
    "job.wait(); print('DONE', job.status)",
    # 6
    "%ft_compare works",
    # 7
    "%load_ext ftmagic\n%ft_status",
]


@pytest.fixture(scope="module")
def notebook(browser: Any, lab: Lab) -> NotebookPage:
    lab.write("first.ipynb", CELLS)
    return NotebookPage(browser, lab, "first.ipynb")


def test_capture_train_compare_and_restart(notebook: NotebookPage) -> None:
    page = notebook
    for index, text in ((0, "READY"), (1, "64 calls, 64 new examples"), (2, "20 calls, 20 new")):
        page.run(index)
        page.cell(index).get_by_text(text).first.wait_for(timeout=60_000)

    page.run(3)
    live = page.cell(3).locator("svg").first
    live.wait_for(timeout=120_000)
    page.run(4)
    page.cell(4).get_by_text("45").first.wait_for(timeout=10_000)
    first = page.cell(3).inner_text()
    page.page.wait_for_function(
        "before => document.querySelectorAll('.jp-Cell')[3].innerText !== before",
        arg=first,
        timeout=30_000,
    )
    page.screenshot("status_running", page.cell(3))
    page.run(5)
    page.cell(5).get_by_text("DONE succeeded").first.wait_for(timeout=200_000)
    page.cell(3).get_by_text("succeeded").first.wait_for(timeout=10_000)
    page.screenshot("status_succeeded", page.cell(3))

    page.run(6)
    page.cell(6).get_by_text("tuned").first.wait_for(timeout=120_000)
    page.screenshot("comparison", page.cell(6))

    page.restart_kernel()
    page.run(7)
    page.cell(7).get_by_text("succeeded").first.wait_for(timeout=60_000)
    page.screenshot("status_after_restart", page.cell(7))
    assert page.errors == []
    assert page.foreign_requests == []
