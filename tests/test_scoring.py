"""Scores against hand-computed answers."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from ftmagic.errors import UnknownNameError
from ftmagic.evals.assignment import pair_items
from ftmagic.evals.comparators import is_equal, is_similar
from ftmagic.evals.scoring import FieldCount, ListCount, Score, score_outputs
from ftmagic.types import OutputSchema

ALBUM = OutputSchema(
    "Album",
    "tool",
    {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "genre": {"enum": ["rock", "folk"]},
            "artist": {"$ref": "#/$defs/Artist"},
            "songs": {"type": "array", "items": {"$ref": "#/$defs/Song"}},
        },
        "$defs": {
            "Artist": {
                "type": "object",
                "properties": {
                    "family": {"type": "string"},
                    "born": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                },
            },
            "Song": {
                "type": "object",
                "properties": {
                    "title": {"type": "string"},
                    "length_s": {"type": "integer"},
                },
            },
        },
    },
)
SONGS = [
    {"title": "Overture", "length_s": 240},
    {"title": "Rain", "length_s": 180},
    {"title": "Night", "length_s": 200},
]
TARGET = {"name": "Dawn", "genre": "rock", "artist": {"family": "Wu", "born": 1970}, "songs": SONGS}
# name, genre, artist.family, artist.born and three songs of two fields: ten fields


def score(output: Any, target: Any = TARGET, **options: Any) -> Score:
    produced = None if output is None else [("Album", output)]
    return score_outputs(produced, [("Album", target)], [ALBUM], **options)


def with_songs(*songs: dict[str, Any]) -> dict[str, Any]:
    return {**TARGET, "songs": list(songs)}


def test_equal_record_is_exact_and_names_every_field() -> None:
    result = score(TARGET)

    assert result.is_exact
    assert (result.n_right, result.n_fields, result.field_accuracy) == (10, 10, 1.0)
    assert dict(result.fields) == {
        "name": FieldCount(1, 1),
        "genre": FieldCount(1, 1),
        "artist.family": FieldCount(1, 1),
        "artist.born": FieldCount(1, 1),
        "songs[].title": FieldCount(3, 3),
        "songs[].length_s": FieldCount(3, 3),
    }
    assert result.lists == {"songs": ListCount(3, 3, 3)}


def test_year_2012_for_2021_is_a_miss_of_that_field() -> None:
    schema = OutputSchema("C", "response_format", {"properties": {"year": {"type": "integer"}}})
    result = score_outputs([("C", {"year": 2012})], [("C", {"year": 2021})], [schema])

    assert result.fields == {"year": FieldCount(0, 1)}
    assert (result.field_accuracy, result.is_exact) == (0.0, False)


def test_empty_list_for_items_scores_nothing() -> None:
    schema = OutputSchema("L", "tool", {"properties": {"songs": {"type": "array"}}})
    result = score_outputs([("L", {"songs": []})], [("L", {"songs": SONGS})], [schema])

    assert result.field_accuracy == 0.0
    assert result.lists["songs"].f1 == 0.0
    assert result.fields["songs[].title"] == FieldCount(0, 3)


def test_duplicated_item_is_a_precision_loss() -> None:
    result = score(with_songs(*SONGS, SONGS[1]))
    songs = result.lists["songs"]

    assert (songs.precision, songs.recall) == (3 / 4, 1.0)
    assert songs.f1 == pytest.approx(6 / 7)
    assert result.fields["songs[].title"] == FieldCount(3, 4)
    assert result.field_accuracy == 10 / 12
    assert not result.is_exact


def test_missing_item_is_a_recall_loss() -> None:
    songs = score(with_songs(SONGS[0], SONGS[2])).lists["songs"]

    assert (songs.precision, songs.recall) == (1.0, 2 / 3)


def test_order_counts_only_when_asked() -> None:
    turned = with_songs(*reversed(SONGS))

    assert score(turned).is_exact
    assert score(turned, ordered=True).fields["songs[].title"] == FieldCount(1, 3)


def test_items_pair_by_key_field_before_anything_else() -> None:
    # By number of equal fields alone "Rain" could pair with the item of length 240.
    output = with_songs(
        {"title": "Rain", "length_s": 240}, {"title": "Overture", "length_s": 180}, SONGS[2]
    )
    result = score(output)

    assert result.fields["songs[].title"] == FieldCount(3, 3)
    assert result.fields["songs[].length_s"] == FieldCount(1, 3)
    assert result.lists["songs"] == ListCount(1, 3, 3)


def test_of_two_duplicates_the_right_one_is_paired() -> None:
    result = score(with_songs({"title": "Rain", "length_s": 1}, *SONGS))

    assert result.lists["songs"] == ListCount(3, 4, 3)


def test_both_lists_empty_is_right() -> None:
    result = score(with_songs(), with_songs())

    assert result.is_exact
    assert result.lists["songs"].f1 == 1.0
    assert result.fields["songs[]"] == FieldCount(1, 1)


def test_items_where_none_were_expected_are_misses() -> None:
    result = score(with_songs(SONGS[0]), with_songs())

    assert result.fields["songs[].title"] == FieldCount(0, 1)
    assert result.lists["songs"].f1 == 0.0


def test_plain_values_in_a_list_are_paired() -> None:
    schema = OutputSchema("T", "tool", {"properties": {"tags": {"type": "array"}}})
    result = score_outputs(
        [("T", {"tags": ["b", "a", "x"]})], [("T", {"tags": ["a", "b"]})], [schema]
    )

    assert result.fields == {"tags[]": FieldCount(2, 3)}
    assert result.lists["tags"] == ListCount(2, 3, 2)


def test_reply_without_output_misses_even_the_null_fields() -> None:
    target = {**TARGET, "artist": {"family": "Wu", "born": None}}
    result = score(None, target)

    assert (result.n_right, result.n_fields) == (0, 10)
    assert not result.is_tool_right
    assert result.lists["songs"] == ListCount(0, 0, 3)


def test_absent_and_null_are_equal() -> None:
    result = score(
        {**TARGET, "artist": {"family": "Wu"}},
        {**TARGET, "artist": {"family": "Wu", "born": None}},
    )

    assert result.is_exact


def test_field_that_was_not_asked_for_is_a_miss() -> None:
    result = score({**TARGET, "label": "x"})

    assert result.fields["label"] == FieldCount(0, 1)
    assert not result.is_exact


def test_record_of_another_shape_is_all_misses() -> None:
    assert score({**TARGET, "artist": "Wu"}).fields["artist.family"] == FieldCount(0, 1)
    assert score(["no", "record"]).n_right == 0


def test_wrong_tool_misses_both_ways() -> None:
    other = OutputSchema("Book", "tool", {"properties": {"pages": {"type": "integer"}}})
    result = score_outputs([("Book", {"pages": 3})], [("Album", {"name": "Dawn"})], [ALBUM, other])

    assert not result.is_tool_right
    assert result.fields["Book.pages"] == FieldCount(0, 1)
    assert result.fields["Album.name"] == FieldCount(0, 1)
    assert result.field_accuracy == 0.0


def test_unknown_tool_does_not_mix_with_the_known_one() -> None:
    result = score_outputs([("Record", {"name": "Dawn"})], [("Album", TARGET)], [ALBUM])

    assert result.fields["name"] == FieldCount(0, 1)
    assert result.fields["Record.name"] == FieldCount(0, 1)


def test_parallel_calls_of_one_tool_are_paired_in_any_order() -> None:
    first, second = {"name": "A"}, {"name": "B"}
    schema = OutputSchema("Album", "tool", {"properties": {"name": {"type": "string"}}})
    result = score_outputs(
        [("Album", second), ("Album", first)], [("Album", first), ("Album", second)], [schema]
    )

    assert result.is_exact
    assert result.lists == {"Album()": ListCount(2, 2, 2)}


def test_no_tool_expected_and_none_called_is_right() -> None:
    assert score_outputs([], [], [ALBUM]).is_exact
    assert score_outputs([("Album", {})], [], [ALBUM]).field_accuracy == 0.0


@pytest.mark.parametrize(
    ("output", "target", "expected"),
    [
        ("Café", "Cafe\u0301", True),
        (" two\n words ", "two words", True),
        ("Two words", "two words", False),
        (3, 3.0, True),
        (0.1 + 0.2, 0.3, True),
        (1.00001, 1.0, False),
        (2021, 2012, False),
        (10**20, 10**20 + 1, False),
        (True, 1, False),
        (0, False, False),
        ("3", 3, False),
        ({}, {}, True),
    ],
)
def test_default_equality(output: Any, target: Any, expected: bool) -> None:
    assert is_equal(output, target) is expected
    assert is_equal(target, output) is expected


def test_enum_is_equal_to_the_last_character() -> None:
    assert score({**TARGET, "genre": " rock"}).fields["genre"] == FieldCount(0, 1)
    assert score({**TARGET, "name": " Dawn"}).fields["name"] == FieldCount(1, 1)


def test_fuzzy_forgives_a_tenth_of_the_characters() -> None:
    assert is_similar("The Silk Road: a history", "the silk road; a history")
    assert not is_similar("The Silk Road", "The Spice Road")


def test_comparators_are_chosen_by_path_or_last_part() -> None:
    output = {**TARGET, "name": "dawn", "songs": [{**SONGS[0], "title": "overture"}, *SONGS[1:]]}

    assert score(output, comparators={"name": "fuzzy"}).n_right == 9
    assert score(output, comparators={"name": "fuzzy", "songs[].title": "fuzzy"}).is_exact
    assert score(output, comparators={"name": lambda o, t: True, "title": "fuzzy"}).is_exact


def test_unknown_comparator_offers_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'fuzzy'"):
        score(TARGET, comparators={"name": "fuzy"})


def test_deep_output_does_not_exhaust_the_stack() -> None:
    deep: Any = "x"
    for _ in range(400):
        deep = {"a": deep}

    assert score(with_songs(deep)).lists["songs"] == ListCount(0, 1, 3)


def test_pairing_is_the_best_of_all_permutations() -> None:
    chance = random.Random(7)
    for n_rows, n_columns in [(1, 1), (2, 3), (4, 4), (5, 3), (5, 6)]:
        weights = [[chance.randint(0, 5) for _ in range(n_columns)] for _ in range(n_rows)]
        got = sum(weights[row][column] for row, column in pair_items(weights))
        turned = [list(line) for line in zip(*weights, strict=True)]
        wide = weights if n_rows <= n_columns else turned
        best = max(
            sum(line[column] for line, column in zip(wide, order, strict=False))
            for order in itertools.permutations(range(len(wide[0])), len(wide))
        )
        assert got == best


def test_long_lists_pair_greedily_one_to_one() -> None:
    n = 150
    weights = [[float(row == column) for column in range(n)] for row in range(n)]

    assert pair_items(weights) == [(index, index) for index in range(n)]
