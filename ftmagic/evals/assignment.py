"""Which output item is which target item: the best one-to-one pairing of two lists.

It owns the pairing alone and knows nothing of fields or schemas: it is given a matrix of weights.
"""

from __future__ import annotations

from collections.abc import Sequence

LONG_LIST = 100
"""Above this many items pairs are taken greedily, best first: the exact method is cubic."""


def pair_items(weights: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Pair rows with columns, one to one, so that the sum of the weights is as large as possible.

    Args:
        weights: `weights[row][column]`, each >= 0; every row equally long.

    Returns:
        (row, column) pairs, min(n_rows, n_columns) of them, by row.
    """
    if not weights or not weights[0]:
        return []
    if len(weights) > len(weights[0]):
        flipped = pair_items([list(column) for column in zip(*weights, strict=True)])
        return sorted((row, column) for column, row in flipped)
    if len(weights[0]) > LONG_LIST:
        return _pair_greedily(weights)
    return _pair_exactly(weights)


def _pair_greedily(weights: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    cells = [
        (-weight, row, column)
        for row, line in enumerate(weights)
        for column, weight in enumerate(line)
    ]
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for _, row, column in sorted(cells):
        if row not in pairs and column not in taken:
            pairs[row] = column
            taken.add(column)
    return sorted(pairs.items())


def _pair_exactly(weights: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """The Hungarian method, O(rows^2 * columns), for at most as many rows as columns.

    Rows are added one at a time along the cheapest augmenting path; index 0 stands for "none", so
    rows and columns count from 1 inside.

    Source: https://cp-algorithms.com/graph/hungarian-algorithm.html
    """
    n_columns = len(weights[0])
    row_potential = [0.0] * (len(weights) + 1)
    column_potential = [0.0] * (n_columns + 1)
    row_of = [0] * (n_columns + 1)  # the row that holds each column
    for new_row in range(1, len(weights) + 1):
        row_of[0] = new_row
        column = 0
        slack = [float("inf")] * (n_columns + 1)
        previous = [0] * (n_columns + 1)
        seen = [False] * (n_columns + 1)
        while row_of[column]:
            seen[column] = True
            row = row_of[column]
            for other in range(1, n_columns + 1):
                cost = -weights[row - 1][other - 1] - row_potential[row] - column_potential[other]
                if not seen[other] and cost < slack[other]:
                    slack[other], previous[other] = cost, column
            nearest = min(
                (c for c in range(1, n_columns + 1) if not seen[c]), key=slack.__getitem__
            )
            step = slack[nearest]
            for other in range(n_columns + 1):
                if seen[other]:
                    row_potential[row_of[other]] += step
                    column_potential[other] -= step
                else:
                    slack[other] -= step
            column = nearest
        while column:
            row_of[column] = row_of[previous[column]]
            column = previous[column]
    return sorted((row_of[c] - 1, c - 1) for c in range(1, n_columns + 1) if row_of[c])
