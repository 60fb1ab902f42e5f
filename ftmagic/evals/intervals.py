"""How sure a number is: intervals for rates and for paired differences.

Pure and deterministic, standard library only. It knows nothing of models or scores.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

MIN_CLUSTERS = 20
"""With fewer sources no interval is given: it would promise more than it holds."""

MIN_FOR_BOOTSTRAP = 30
"""With fewer sources the interval is Student's t, which stays honest there."""

N_RESAMPLES = 2000
SEED = 20260401

_NORMAL = statistics.NormalDist()


@dataclass(frozen=True)
class Interval:
    """Where a number lies, with the confidence that was asked for."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A paired difference and how sure it is.

    Attributes:
        mean: Mean difference over the rows.
        interval: None when there are too few clusters to tell.
        n: Rows.
        n_clusters: Independent sources among them.
        method: 'too few', 't' (cluster-robust) or 'bootstrap' (of clusters, BCa).
    """

    mean: float
    interval: Interval | None
    n: int
    n_clusters: int
    method: Literal["too few", "t", "bootstrap"]

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.interval is not None and not self.interval.low <= 0.0 <= self.interval.high


def wilson(n_right: int, n: int, confidence: float = 0.95) -> Interval:
    """Interval of a rate: 20 of 20 is .84 to 1, not exactly 1.

    Args:
        n_right: Successes.
        n: Trials; with none the interval is 0 to 1.
        confidence: Between 0 and 1.

    Source: Wilson (1927), https://doi.org/10.1080/01621459.1927.10502953
    """
    if n == 0:
        return Interval(0.0, 1.0)
    z = _NORMAL.inv_cdf(0.5 + confidence / 2)
    rate = n_right / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if n_right == 0 else max(0.0, centre - half)
    return Interval(low, 1.0 if n_right == n else min(1.0, centre + half))


def paired_difference(
    differences: Sequence[float], clusters: Sequence[str], confidence: float = 0.95
) -> Difference:
    """Interval of the mean of paired differences whose rows are not all independent.

    Rows about the same source (a document, a thread) rise and fall together, so sources are drawn,
    not rows. From `MIN_FOR_BOOTSTRAP` sources on it is the cluster bootstrap, below Student's t
    with the cluster-robust error (for sources of one row: the paired t), and below `MIN_CLUSTERS`
    none.

    Args:
        differences: One a row: score of one model minus score of the other on the same row.
        clusters: The source of each row.
        confidence: Between 0 and 1.

    Returns:
        The mean difference and its interval.
    """
    sums: dict[str, float] = {}
    sizes: dict[str, int] = {}
    for difference, cluster in zip(differences, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + difference
        sizes[cluster] = sizes.get(cluster, 0) + 1
    totals, counts = list(sums.values()), list(sizes.values())
    n, n_clusters = len(differences), len(totals)
    mean = math.fsum(differences) / n if n else 0.0
    if n_clusters < MIN_CLUSTERS:
        return Difference(mean, None, n, n_clusters, "too few")
    if n_clusters < MIN_FOR_BOOTSTRAP:
        return Difference(mean, _t_interval(totals, counts, confidence), n, n_clusters, "t")
    interval = _bootstrap(totals, counts, confidence)
    return Difference(mean, interval, n, n_clusters, "bootstrap")


def t_quantile(probability: float, n_freedom: int) -> float:
    """Quantile of Student's t, right to three decimals from 5 degrees of freedom on.

    Source: Cornish-Fisher expansion, Abramowitz and Stegun 26.7.5.
    """
    z = _NORMAL.inv_cdf(probability)
    v = float(n_freedom)
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )


def quantile(values: Sequence[float], share: float) -> float:
    """Value below which this share of the values lies, interpolated; 0.0 of no values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def _t_interval(totals: list[float], counts: list[int], confidence: float) -> Interval:
    n_clusters, n = len(totals), sum(counts)
    mean = math.fsum(totals) / n
    spread = math.fsum(
        (total - mean * count) ** 2 for total, count in zip(totals, counts, strict=True)
    )
    error = math.sqrt(n_clusters / (n_clusters - 1) * spread) / n
    half = t_quantile(0.5 + confidence / 2, n_clusters - 1) * error
    return Interval(mean - half, mean + half)


def _bootstrap(totals: list[float], counts: list[int], confidence: float) -> Interval:
    """Bias-corrected and accelerated (BCa) bootstrap over clusters.

    Source: Efron (1987), https://doi.org/10.1080/01621459.1987.10478410
    """
    mean = sum(totals) / sum(counts)
    means = _resampled_means(totals, counts)
    below = sum(each < mean for each in means) + 0.5 * sum(each == mean for each in means)
    share = min(max(below / len(means), 1 / len(means)), 1 - 1 / len(means))
    bias = _NORMAL.inv_cdf(share)
    acceleration = _acceleration(totals, counts)

    def corrected(probability: float) -> float:
        z = bias + _NORMAL.inv_cdf(probability)
        return quantile(means, _NORMAL.cdf(bias + z / (1 - acceleration * z)))

    tail = (1 - confidence) / 2
    return Interval(corrected(tail), corrected(1 - tail))


def _resampled_means(totals: list[float], counts: list[int]) -> list[float]:
    chance = random.Random(SEED)
    clusters = range(len(totals))
    means = []
    for _ in range(N_RESAMPLES):
        drawn = chance.choices(clusters, k=len(totals))
        means.append(sum(totals[at] for at in drawn) / sum(counts[at] for at in drawn))
    return sorted(means)


def _acceleration(totals: list[float], counts: list[int]) -> float:
    """Skewness of the means that leave one cluster out, over six."""
    all_total, all_count = sum(totals), sum(counts)
    left_out = [
        (all_total - total) / (all_count - count)
        for total, count in zip(totals, counts, strict=True)
    ]
    centre = statistics.fmean(left_out)
    squares = math.fsum((centre - each) ** 2 for each in left_out)
    cubes = math.fsum((centre - each) ** 3 for each in left_out)
    return cubes / (6 * squares**1.5) if squares > 1e-18 else 0.0
