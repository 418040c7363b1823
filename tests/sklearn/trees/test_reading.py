from __future__ import annotations

import numpy as np

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
