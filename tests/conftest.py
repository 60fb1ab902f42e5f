from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ftmagic import config
from ftmagic.store import Store, open_store


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every test has a home folder of its own, and no key."""
    folder = tmp_path / "home"
    monkeypatch.setenv(config.HOME_VARIABLE, str(folder))
    monkeypatch.setattr(config, "_chosen_home", None)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    yield folder


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    """The store of this test's home folder."""
    opened = open_store()
    yield opened
    opened.close()
