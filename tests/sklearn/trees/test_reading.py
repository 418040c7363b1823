from __future__ import annotations

import numpy as np
import pytest

from cipherlearn.sklearn.trees import reading
from cipherlearn.sklearn.trees.ensemble import LEAF, Tree, TreeEnsemble


def stump(threshold: float) -> TreeEnsemble:
    leaf = np.array([np.nan, np.nan])
    tree = Tree(
        np.array([0, LEAF, LEAF]),
        np.array([threshold, *leaf]),
        np.array([1, LEAF, LEAF]),
        np.array([2, LEAF, LEAF]),
        np.zeros(3, dtype=bool),
        np.array([[0.0], [-1.0], [3.0]]),
    )
    return TreeEnsemble([tree], np.array([0.5]), 2)


def test_probes_are_around_the_thresholds() -> None:
    rows = reading.probes(stump(2.0), count=64)
    below = float(np.nextafter(np.float32(2.0), np.float32(0.0)))
    assert {x for x in rows[:, 0] if not np.isnan(x)} == {below, 2.0}
    assert np.isnan(rows[:, 0]).any()
    rows = reading.probes(stump(2.0), missing=False, precision=np.float64, count=64)
    assert set(rows[:, 0]) == {float(np.nextafter(2.0, 0.0)), 2.0}
    assert set(rows[:, 1]) == {0.0}


def test_what_scores_are_sums_of() -> None:
    assert reading.reach_of(stump(2.0)) == 3.5


@pytest.mark.parametrize(
    ("ours", "exact", "share"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], 1.0),
        ([2.0, 2.0, 2.0], [1.0, 2.0, 3.0], 0.0),
        ([5.0, 5.0], [5.001, 5.001], 1.0),
        ([6.0, 6.0], [5.0, 5.0], 0.0),
        ([0.0, 0.0], [0.0, 0.0], 1.0),
        ([7.0], [7.0], 1.0),
        ([[1.0, 2.0], [2.0, 2.0]], [[1.0, 2.0], [2.0, 2.0]], 1.0),
        ([[1.0, 1.0], [2.0, 1.0]], [[1.0, 2.0], [2.0, 2.0]], 0.5),
    ],
)
def test_explained_variance(ours: list[float], exact: list[float], share: float) -> None:
    assert reading.explained(np.array(ours), np.array(exact)) == pytest.approx(share)


def test_classes_that_are_as_probable() -> None:
    exact = np.array([[0.5, 0.5], [0.4, 0.6], [0.5, 0.5]])
    ours = np.array([[0.4, 0.6], [0.7, 0.3], [0.6, 0.4]])
    assert reading.as_probable(ours, exact).tolist() == [True, False, True]
    labels = np.array([["a", "b"], ["a", "c"]])
    assert reading.alike(labels, np.array([["a", "b"], ["a", "b"]])).tolist() == [True, False]
