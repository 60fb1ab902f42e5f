"""Thirteen albums that GPT-4 made up after thirteen films, from the original tutorial.

Recorded in 2023 and kept as they came, with their mistakes. They need knowledge of films and music,
which is what a small model does not have; they are here to be captured and exported.

Source: "Fine Tuning with Function Calling", LlamaIndex documentation, October 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ftmagic.data import read_rows, recording_line, write_lines
from ftmagic.types import Json

RECORDED_GPT_4 = "recorded-gpt-4"
"""The name under which the recorded answers are served as a model."""


@dataclass(frozen=True)
class RecordedAlbum:
    """One recorded answer.

    Attributes:
        movie_name: The film that the album was to be inspired by.
        album: `{name, artist, songs: [{title, length_seconds}]}`, as GPT-4 answered.
    """

    movie_name: str
    album: Json


def recorded_albums() -> list[RecordedAlbum]:
    """Read the recorded albums, in the order of the original run."""
    rows = read_rows("albums_gpt4.jsonl")
    return [RecordedAlbum(row["movie_name"], row["album"]) for row in rows]


def write_recording(path: str | Path, make_request: Callable[[str], Json]) -> int:
    """Write the recorded albums as a recording named 'recorded-gpt-4'.

    Args:
        path: The JSON-lines file to write.
        make_request: Your own function that asks for an album: from a film's name to the
            chat-completions body without the model.

    Returns:
        How many answers were written.
    """
    lines = (
        recording_line(RECORDED_GPT_4, make_request(row.movie_name), row.album)
        for row in recorded_albums()
    )
    return write_lines(path, lines)
