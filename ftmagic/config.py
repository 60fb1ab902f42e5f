"""Where ftmagic's files live, and what the environment says.

The home folder is, in this order: what `ft.home(path)` set, `FTMAGIC_HOME`, `.ftmagic` in the
working directory (which is the notebook's folder in Jupyter) at the first use: it does not move
when the working directory changes. It is made on the first write, with mode 0700 and a
`.gitignore` of its own, so that captured calls are never committed by accident.
"""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from pathlib import Path

from ftmagic.errors import ConfigError, message

HOME_VARIABLE = "FTMAGIC_HOME"
STORE_NAME = "store.db"
_DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

_chosen_home: Path | None = None


def home(path: str | os.PathLike[str] | None = None) -> Path:
    """Return the home folder; with a path, make that the home folder of this process.

    Args:
        path: A folder; it need not exist yet.

    Returns:
        The absolute path of the home folder.
    """
    global _chosen_home
    if path is not None:
        _chosen_home = Path(path).expanduser().resolve()
    if _chosen_home is not None:
        return _chosen_home
    return _resolved_once(os.environ.get(HOME_VARIABLE) or ".ftmagic")


@cache
def _resolved_once(folder: str) -> Path:
    return Path(folder).expanduser().resolve()


def make_home(folder: Path | None = None) -> Path:
    """Make the home folder (mode 0700, ignored by git) if it is not there, and return it.

    Args:
        folder: Make this one instead, which was the home folder when something began.

    Raises:
        ConfigError: The path exists and is not a folder, or cannot be written.
    """
    folder = folder or home()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ignore = folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text("# captured calls may be private\n*\n", encoding="utf-8")
    except OSError as exc:
        raise ConfigError(
            message(
                f"the ftmagic folder {folder} cannot be used: {exc.strerror}.",
                next_step="ft.home('/a/folder/you/can/write')",
            )
        ) from exc
    return folder


def store_path() -> Path:
    """Return the path of the SQLite store; the file need not exist."""
    return home() / STORE_NAME


def check_dataset_name(name: str) -> str:
    """Return the name if it can name a dataset.

    Raises:
        ConfigError: It is empty, too long, or holds other characters than letters, digits, `_.-`.
    """
    if not _DATASET_NAME.fullmatch(name):
        raise ConfigError(
            message(
                f"{name!r} cannot name a dataset: 1 to 100 letters, digits, '_', '.', '-', "
                "the first a letter or digit.",
                next_step="%%capture_ft albums",
            )
        )
    return name


def is_colab() -> bool:
    """Whether this is Google Colab, whose disk vanishes with the machine."""
    return "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ
