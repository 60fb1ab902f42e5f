"""Conditions over output fields: what they match, and what they refuse to be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftmagic.errors import ConfigError, UnknownNameError
from ftmagic.expressions import parse_condition

ALBUM = {
    "year": 1976,
    "artist": "Queen",
    "songs": [{"title": "Tie Your Mother Down", "length_seconds": 228}],
    "label": None,
    "is_live": False,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("year > 1970", True),
        ("1970 < year <= 1976", True),
        ("1976 < year < 1980", False),
        ("year > 1970 and artist == 'ABBA'", False),
        ("year > 1980 or artist == 'Queen'", True),
        ("not is_live", True),
        ("is_live == false and label is null", True),
        ("artist in ['Queen', 'ABBA']", True),
        ("artist not in ('Queen',)", False),
        ("'uee' in artist", True),
        ("songs[0].title == 'Tie Your Mother Down'", True),
        ("songs[0]['length_seconds'] >= 228", True),
        ("songs[7].title == 'x'", False),
        ("len(songs) == 1", True),
        ("len(year) == 1", False),
        ("missing > 3", False),
        ("artist > 3", False),
        ("year > -1", True),
        ("year", True),
    ],
)
def test_conditions_match_as_they_read(text: str, expected: bool) -> None:
    assert parse_condition(text).matches(ALBUM) is expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "year >",
        "__import__('os').system('true')",
        "len(songs, songs)",
        "(lambda: 1)()",
        "[x for x in songs]",
        "year + 1 > 2",
        "f'{year}'",
        "year := 3",
        "'a' * 9",
        "9 ** 9 ** 9",
        "\x00",
        "(" * 500 + ")" * 500,
        "not " * 200 + "year",
        "y" * 2000,
    ],
)
def test_anything_but_a_condition_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="Next: ft.examples"):
        parse_condition(text)


def test_attributes_reach_json_keys_only() -> None:
    assert parse_condition("artist.__class__").matches(ALBUM) is False
    assert parse_condition("songs.__len__").matches(ALBUM) is False


def test_unknown_field_names_the_closest() -> None:
    condition = parse_condition("yeer > 1990")
    assert condition.names == {"yeer"}
    with pytest.raises(UnknownNameError, match="did you mean 'year'"):
        condition.require_known(ALBUM)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parse_condition(text).matches(ALBUM)
    except ConfigError:
        pass
