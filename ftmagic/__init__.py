"""Turn the LLM calls in a notebook into a model you own.

    %load_ext ftmagic
    %%capture_ft albums      record every structured LLM call of a cell as a training example
    %ft_train albums         fine-tune a student on them
    %%use_ft albums          send the very same code to the student
    %ft_compare albums       measure whether it is as good

Each magic has a Python twin here. Names are loaded when they are first used, so that
`import ftmagic` costs a few milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftmagic.config import home as home
    from ftmagic.dataset import Dataset as Dataset
    from ftmagic.dataset import calls as calls
    from ftmagic.dataset import datasets as datasets
    from ftmagic.dataset import examples as examples
    from ftmagic.engines import engine as engine
    from ftmagic.engines.local import serve as serve
    from ftmagic.engines.local import stop_server as stop_server
    from ftmagic.evals import compare as compare
    from ftmagic.loops import allow_nested_loops as allow_nested_loops
    from ftmagic.recorder import capture as capture
    from ftmagic.recorder import tag as tag
    from ftmagic.routing import client as client
    from ftmagic.routing import use as use
    from ftmagic.training import adopt as adopt
    from ftmagic.training import job as job
    from ftmagic.training import jobs as jobs
    from ftmagic.training import train as train
    from ftmagic.types import Endpoint as Endpoint
    from ftmagic.types import Example as Example

__version__ = "0.1.0"

_HOMES = {
    "Dataset": "dataset",
    "Endpoint": "types",
    "Example": "types",
    "adopt": "training",
    "allow_nested_loops": "loops",
    "calls": "dataset",
    "capture": "recorder",
    "client": "routing",
    "compare": "evals",
    "datasets": "dataset",
    "engine": "engines",
    "examples": "dataset",
    "home": "config",
    "job": "training",
    "jobs": "training",
    "serve": "engines.local",
    "stop_server": "engines.local",
    "tag": "recorder",
    "train": "training",
    "use": "routing",
}

__all__ = [
    "Dataset",
    "Endpoint",
    "Example",
    "adopt",
    "allow_nested_loops",
    "calls",
    "capture",
    "client",
    "compare",
    "datasets",
    "engine",
    "examples",
    "home",
    "job",
    "jobs",
    "load_ipython_extension",
    "serve",
    "stop_server",
    "tag",
    "train",
    "unload_ipython_extension",
    "use",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ftmagic' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"ftmagic.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext ftmagic`: register the magics. Nothing is patched, started or sent."""
    from ftmagic import magics

    magics.load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext ftmagic`: remove the magics and put every patched function back."""
    from ftmagic import magics

    magics.unload(shell)
