"""Prose for pretraining, read from the docstrings of Python's own standard library.

The sentences need no download and carry no one's data. They differ a little between Python
versions, so the recipe records the version that made the shipped weights.
"""

from __future__ import annotations

import ast
import re
import sysconfig
from functools import cache
from pathlib import Path
from random import Random

_SKIPPED_DIRS = ("site-packages", "dist-packages", "/test", "idlelib", "__pycache__")
_PLAIN_SENTENCE = re.compile(r"[\w\s.,;:'\"()\-/!?&+%$#@]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_EDGE_PUNCTUATION = ".,;:\"'()-/ !?&+%$#@"


@cache
def sentences() -> tuple[str, ...]:
    """Return every docstring sentence of 4 to 40 words, in the order of the file names."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted([*root.glob("*.py"), *root.glob("*/*.py")])
    kept: list[str] = []
    for path in paths:
        if not any(part in str(path) for part in _SKIPPED_DIRS):
            kept += _sentences_of(path)
    return tuple(dict.fromkeys(kept))


def span(rng: Random, n_min: int, n_max: int) -> str:
    """Cut `n_min` to `n_max` neighbouring words out of a random sentence."""
    words = rng.choice(sentences()).split()
    n_words = min(len(words), rng.randint(n_min, n_max))
    start = rng.randint(0, len(words) - n_words)
    text = " ".join(words[start : start + n_words]).strip(_EDGE_PUNCTUATION)
    return text or rng.choice(words).strip(_EDGE_PUNCTUATION) or "notes"


@cache
def vocabulary() -> tuple[str, ...]:
    """Return the distinct lower-case words of the prose, sorted."""
    words = {word for line in sentences() for word in re.findall(r"\b[a-z]{3,12}\b", line)}
    return tuple(sorted(words))


def _sentences_of(path: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return []  # lib2to3 ships a few files that are not Python 3
    documented = (ast.Module, ast.FunctionDef, ast.ClassDef)
    docs = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented)]
    text = [re.sub(r"\s+", " ", doc) for doc in docs if doc]
    return [line for doc in text for line in _SENTENCE_END.split(doc) if _is_prose(line)]


def _is_prose(line: str) -> bool:
    return 4 <= len(line.split()) <= 40 and _PLAIN_SENTENCE.fullmatch(line) is not None
