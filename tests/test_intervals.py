"""Intervals against published values."""

from __future__ import annotations

import random

import pytest

from ftmagic.evals.intervals import (
    Interval,
    paired_difference,
    quantile,
    t_quantile,
    wilson,
)


@pytest.mark.parametrize(
    ("n_right", "n", "low", "high"),
    [
        (20, 20, 0.8389, 1.0),
        (0, 20, 0.0, 0.1611),
        (8, 10, 0.4902, 0.9433),
        (50, 100, 0.4038, 0.5962),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_matches_published_values(n_right: int, n: int, low: float, high: float) -> None:
    interval = wilson(n_right, n)

    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("probability", "n_freedom", "expected"),
    [
        (0.975, 6, 2.4469),
        (0.975, 10, 2.2281),
        (0.975, 19, 2.0930),
        (0.975, 28, 2.0484),
        (0.995, 19, 2.8609),
        (0.95, 24, 1.7109),
        (0.975, 1000, 1.9623),
        (0.025, 19, -2.0930),
    ],
)
def test_t_quantile_matches_the_table(probability: float, n_freedom: int, expected: float) -> None:
    assert t_quantile(probability, n_freedom) == pytest.approx(expected, abs=5e-4)


def test_small_samples_use_the_paired_t() -> None:
    # 20 differences: ten 0.0, ten 1.0. Mean .5, s = sqrt(5/19) = .512989, se = .114708,
    # t(.975, 19) = 2.0930: half width .240085.
    result = paired_difference([0.0, 1.0] * 10, [str(at) for at in range(20)])

    assert result.method == "t"
    assert result.mean == 0.5
    assert result.interval is not None
    assert (result.interval.low, result.interval.high) == pytest.approx((0.2599, 0.7401), abs=1e-4)
    assert result.is_clear


def test_under_twenty_sources_there_is_no_interval() -> None:
    few = paired_difference([1.0] * 40, [str(at % 19) for at in range(40)])

    assert (few.mean, few.interval, few.n, few.n_clusters) == (1.0, None, 40, 19)
    assert few.method == "too few"
    assert not few.is_clear
    assert paired_difference([], []).interval is None


def test_repeating_each_row_does_not_narrow_the_interval() -> None:
    chance = random.Random(5)
    differences = [chance.choice([-1.0, 0.0, 1.0, 1.0]) for _ in range(60)]
    sources = [str(at) for at in range(60)]
    once = paired_difference(differences, sources).interval
    thrice = paired_difference(differences * 3, sources * 3).interval
    as_if_independent = paired_difference(differences * 3, [str(at) for at in range(180)]).interval

    assert once is not None and thrice is not None and as_if_independent is not None
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    assert as_if_independent.high - as_if_independent.low < 0.7 * (once.high - once.low)


def test_bootstrap_is_near_the_normal_interval_and_repeatable() -> None:
    # 100 differences of 0 and 1, half each: se = .05025, so about .5 -+ .0985.
    differences, sources = [0.0, 1.0] * 50, [str(at) for at in range(100)]
    result = paired_difference(differences, sources)

    assert result.method == "bootstrap"
    assert result.interval is not None
    assert (result.interval.low, result.interval.high) == pytest.approx((0.4015, 0.5985), abs=0.02)
    assert paired_difference(differences, sources) == result


def test_bootstrap_of_skewed_differences_leans_to_the_long_tail() -> None:
    differences = [0.0] * 54 + [1.0] * 6
    result = paired_difference(differences, [str(at) for at in range(60)])

    assert result.interval is not None
    assert result.interval.high - result.mean > result.mean - result.interval.low
    assert result.interval.low > 0.0


def test_equal_differences_give_a_point() -> None:
    result = paired_difference([0.25] * 40, [str(at) for at in range(40)])

    assert result.interval == Interval(0.25, 0.25)


def test_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    chance = random.Random(11)
    n_hits = 0
    for _ in range(100):
        differences, sources = [], []
        for source in range(25):
            shift = chance.gauss(0.2, 0.3)
            for _ in range(chance.randint(1, 4)):
                differences.append(shift + chance.gauss(0, 0.1))
                sources.append(str(source))
        interval = paired_difference(differences, sources).interval
        assert interval is not None
        n_hits += interval.low <= 0.2 <= interval.high

    assert n_hits >= 88  # 95 expected, standard deviation 2.2


def test_quantile_interpolates() -> None:
    assert quantile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert quantile([1.0, 2.0], 0.95) == pytest.approx(1.95)
    assert (quantile([7.0], 0.95), quantile([], 0.5)) == (7.0, 0.0)
