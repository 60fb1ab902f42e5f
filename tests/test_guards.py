"""Rules of the house that no single module can keep."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import ftmagic
from ftmagic import magics

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "openai", "anywidget", "transformers", "pandas", "ipywidgets")
TWINS = {
    "capture_ft": "capture",
    "use_ft": "use",
    "ft_train": "train",
    "ft_status": "job",
    "ft_compare": "compare",
    "ft_datasets": "datasets",
    "ft_export": "examples",
}


def test_public_names_equal_all_and_every_one_loads() -> None:
    for name in ftmagic.__all__:
        assert callable(getattr(ftmagic, name)), name
    hooks = {"load_ipython_extension", "unload_ipython_extension"}
    assert set(ftmagic.__all__) == set(ftmagic._HOMES) | hooks


def test_every_magic_has_a_twin_and_stands_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    kinds = magics.FtMagics.magics
    names = {name for kind in kinds.values() for name in kind if not name.startswith("_")}
    assert names == set(TWINS)
    for name, twin in TWINS.items():
        assert twin in ftmagic.__all__
        assert f"%{name}" in readme and f"ft.{twin}(" in readme


def test_no_module_is_named_like_a_public_function() -> None:
    modules = {path.stem for path in (ROOT / "ftmagic").iterdir() if path.stem[0] != "_"}
    assert not modules & set(ftmagic.__all__)


def test_import_and_load_ext_import_nothing_heavy() -> None:
    code = (
        "import sys; from IPython.core.interactiveshell import InteractiveShell as S; "
        "before = set(sys.modules); s = S.instance(); s.run_line_magic('load_ext', 'ftmagic'); "
        f"print([n for n in {HEAVY} if n in sys.modules and n not in before])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_every_magic_that_a_text_names_exists() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "ftmagic").rglob("*.py")]
    texts.append((ROOT / "README.md").read_text(encoding="utf-8"))
    named = {name for text in texts for name in re.findall(r"%(ft_\w+|\w+_ft)\b", text)}
    assert named == set(TWINS)
