from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.sklearn.linear.module import Box
from cipherlearn.sklearn.neighbors.distances import Grid, Metric, References
from cipherlearn.sklearn.neighbors.typical import TypicalRows


@given(seed=st.integers(0, 2**31), copies=st.integers(1, 6), k=st.integers(1, 5))
def test_typical_rows(seed: int, copies: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    points = np.repeat(rng.normal(size=(12, 2)), copies, axis=0)
    references, grid = References(points, Metric(2.0)), Grid(Box.around(points), 12)
    typical = TypicalRows.of(references, grid, k)
    farthest = typical.farthest()
    sums = np.sort(references.sums(grid, points), axis=1)
    np.testing.assert_array_equal(farthest[: len(points)], sums[:, k])
    assert typical.crowded.any() == (copies > k)
    assert len(farthest) == len(points) * (3 if copies > k else 1)
    if copies > k:  # without these, a row has farther neighbours; moved, it stays among the others
        assert (farthest[len(points) : 2 * len(points)] >= sums[:, k]).all()
    assert (farthest <= sums.max()).all()


def test_all_rows_at_one_point() -> None:
    references = References(np.ones((9, 2)), Metric(2.0))
    grid = Grid(Box(np.zeros(2), np.full(2, 2.0)), 4)
    found = TypicalRows.of(references, grid, 3).farthest()
    assert np.isfinite(found).all()
