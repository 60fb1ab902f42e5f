"""Splits: exact counts, whole groups, and assignments that stay."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftmagic.errors import ConfigError
from ftmagic.splits import SplitRow, assign, choose, groups
from ftmagic.types import Example, Split

quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def rows(n: int, first: int = 0) -> list[SplitRow]:
    return [SplitRow(i, f"g{i}") for i in range(first, first + n)]


def example(text: str, answer: str = "a", **tags: str) -> Example:
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
    return Example(messages, tags=tags)


def test_fractions_give_exact_counts() -> None:
    plan = assign(rows(100), validation=0.1, test=0.2)
    assert plan.counts == {"train": 70, "validation": 10, "test": 20}
    assert plan.note == "70 train, 10 validation, 20 test"


def test_whole_numbers_are_rows() -> None:
    plan = assign(rows(100), validation=7, test=13)
    assert plan.counts == {"train": 80, "validation": 7, "test": 13}


def test_groups_stay_whole_and_the_count_is_still_exact() -> None:
    # Sizes 5, 5, 5, 4, 3: 12 = 5 + 4 + 3 is the only way.
    sizes = {"a": 5, "b": 5, "c": 5, "d": 4, "e": 3}
    made = [SplitRow(n, group) for n, group in enumerate("".join(g * s for g, s in sizes.items()))]
    plan = assign(made, validation=0, test=12)
    test_groups = {row.group for row in made if plan.assignment[row.id] == "test"}
    assert plan.counts["test"] == 12
    assert {"d", "e"} < test_groups and len(test_groups) == 3


def test_a_count_the_groups_cannot_make_is_the_nearest_below_and_said() -> None:
    made = [SplitRow(n, f"g{n // 5}") for n in range(20)]
    plan = assign(made, validation=0, test=8)
    assert plan.counts["test"] == 5
    assert "5 of 8 rows for test: the groups do not add up to more" in plan.note
    assert "the largest group has 5 rows, 25%" in plan.note


def test_too_few_rows_hold_out_none_and_say_so() -> None:
    plan = assign(rows(13), min_train=10, dataset="albums")
    assert plan.counts == {"train": 13}
    assert plan.note.endswith(
        "13 rows: nothing held out, because the engine needs at least 10 to train; "
        "capture test rows apart with %%capture_ft albums --split test"
    )


def test_rows_captured_for_testing_are_the_test() -> None:
    apart = [SplitRow(1000 + n, f"t{n}", fixed="test") for n in range(30)]
    plan = assign([*rows(80), *apart], validation=0.1, test=0.2, min_train=10)
    assert plan.counts == {"train": 72, "validation": 8, "test": 30}
    assert "the 30 rows already set apart for testing are the test" in plan.note
    grown = assign([*rows(80), *apart], validation=0.0, test=0.5, grows_test=True)
    assert grown.counts["test"] == 55


def test_new_row_of_a_test_group_becomes_test() -> None:
    made = [SplitRow(1, "a", fixed="test"), SplitRow(2, "b", fixed="train"), SplitRow(3, "a")]
    made += [SplitRow(4, "b"), SplitRow(5, "c", fixed="train"), SplitRow(6, "c", fixed="test")]
    plan = assign([*made, SplitRow(7, "c")], validation=0, test=0)
    assert plan.assignment == {
        1: "test",
        2: "train",
        3: "test",
        4: "train",
        5: "train",  # what was assigned stays, also where an old group was split
        6: "test",
        7: "test",
    }


def test_rows_of_size_zero_hold_their_groups_place_without_counting() -> None:
    made = [*rows(10), SplitRow(99, "g3", size=0, fixed="test")]
    plan = assign(made, validation=0, test=0)
    assert plan.assignment[3] == "test"
    assert plan.counts == {"train": 9, "test": 1}


def test_another_seed_chooses_other_rows() -> None:
    assert assign(rows(100), seed=0).assignment != assign(rows(100), seed=1).assignment


@pytest.mark.parametrize(("validation", "test"), [(-0.1, 0.2), (0.5, 0.5), (0, -3)])
def test_impossible_shares_are_refused(validation: float, test: float) -> None:
    with pytest.raises(ConfigError, match="leave nothing to train on"):
        assign(rows(10), validation=validation, test=test)


def test_no_rows_is_an_empty_plan() -> None:
    assert assign([]).assignment == {}


made_rows = st.lists(
    st.tuples(st.integers(0, 15), st.sampled_from([1, 1, 1, 2, 3])), max_size=40
).map(lambda pairs: [SplitRow(n, f"g{g}", size) for n, (g, size) in enumerate(pairs)])
shares = st.sampled_from([0, 1, 3, 0.1, 0.2, 0.34])


@quick
@given(made_rows, shares, shares, st.integers(0, 3), st.randoms())
def test_no_group_crosses_and_insertion_order_does_not_matter(
    made: list[SplitRow],
    validation: float,
    test: float,
    seed: int,
    rng: random.Random,
) -> None:
    plan = assign(made, validation=validation, test=test, seed=seed)
    by_group = {row.group: plan.assignment[row.id] for row in made}
    assert all(plan.assignment[row.id] == by_group[row.group] for row in made)
    shuffled = made[:]
    rng.shuffle(shuffled)
    again = assign(shuffled, validation=validation, test=test, seed=seed)
    assert again.assignment == plan.assignment
    assert again.note == plan.note


@quick
@given(made_rows, made_rows, shares, shares)
def test_what_was_assigned_stays_when_rows_are_added(
    old: list[SplitRow], new: list[SplitRow], validation: float, test: float
) -> None:
    first = assign(old, validation=validation, test=test).assignment
    kept = [SplitRow(r.id, r.group, r.size, first[r.id]) for r in old]
    added = [SplitRow(1000 + r.id, r.group, r.size) for r in new]
    second = assign([*kept, *added], validation=validation, test=test).assignment
    assert {key: second[key] for key in first} == first
    split_of: dict[str, set[Split]] = {}
    for row in [*kept, *added]:
        split_of.setdefault(row.group, set()).add(second[row.id])
    assert all(len(splits) == 1 for splits in split_of.values())


@quick
@given(st.integers(0, 60), shares, shares, st.integers(1, 20))
def test_counts_are_exact_and_training_never_starves(
    n: int, validation: float, test: float, min_train: int
) -> None:
    counts = assign(rows(n), validation=validation, test=test, min_train=min_train).counts
    n_test = round(test * n) if isinstance(test, float) else test
    n_validation = round(validation * n) if isinstance(validation, float) else validation
    if n_test + n_validation and n - n_test - n_validation < min_train:
        assert Counter(counts) == Counter(train=n)
    else:
        expected = Counter(train=n - n_test - n_validation, validation=n_validation, test=n_test)
        assert Counter(counts) == expected


@quick
@given(st.lists(st.integers(0, 8), max_size=10), st.integers(0, 30))
def test_chosen_groups_reach_the_best_possible_sum(sizes: list[int], wanted: int) -> None:
    possible = {0}
    for size in sizes:
        possible |= {each + size for each in possible}
    chosen = choose(sizes, wanted)
    assert sum(sizes[index] for index in chosen) == max(p for p in possible if p <= wanted)
    assert chosen == sorted(set(chosen))


def test_equal_inputs_and_equal_sources_share_a_group() -> None:
    examples = [
        example("x", "1", source="s1"),
        example("x", "2", source="s2"),  # the same input joins s1 and s2
        example("y", source="s2"),
        example("z"),
        example("w"),
    ]
    names = groups(examples)
    assert names[0] == names[1] == names[2]
    assert len({names[0], names[3], names[4]}) == 3
    assert len(set(groups(examples, "input"))) == 4
    assert len(set(groups(examples, lambda each: "all"))) == 1


def test_groups_do_not_depend_on_the_order_of_rows() -> None:
    examples = [example(f"t{n % 7}", str(n), source=f"s{n % 5}") for n in range(40)]
    names = dict(zip((each.answer["content"] for each in examples), groups(examples), strict=True))
    backwards = examples[::-1]
    again = zip((e.answer["content"] for e in backwards), groups(backwards), strict=True)
    assert dict(again) == names


def test_unknown_grouping_is_refused() -> None:
    with pytest.raises(ConfigError, match="'near' cannot group rows"):
        groups([], "near")


def test_hundred_thousand_rows_in_threes_come_as_near_as_threes_can() -> None:
    made = [SplitRow(n, f"g{n // 3}") for n in range(100_000)]  # the last group has one row
    assert assign(made, validation=0.1, test=0.2).counts["test"] == 3 * 6_666 + 1
