from __future__ import annotations

import numpy as np
import pytest

from cipherlearn.errors import ModelError
from cipherlearn.sklearn.trees.ensemble import LEAF, Tree, TreeEnsemble


def stump(feature: int = 0, left: int = 1, right: int = 2) -> Tree:
    return Tree(
        np.array([feature, LEAF, LEAF]),
        np.array([0.5, np.nan, np.nan]),
        np.array([left, LEAF, LEAF]),
        np.array([right, LEAF, LEAF]),
        np.array([True, False, False]),
        np.array([[0.0], [-1.0], [2.0]]),
    )


def test_values_at_the_threshold_and_missing_ones_go_where_the_split_says() -> None:
    ensemble = TreeEnsemble([stump(), stump()], np.array([10.0]), 1)
    scores = ensemble.raw_scores(np.array([[0.4], [0.5], [np.nan]]))
    assert scores.tolist() == [[8.0], [14.0], [14.0]]


def test_categories_go_where_the_split_says() -> None:
    known = stump()
    tree = Tree(
        known.feature,
        np.full(3, np.nan),
        known.left,
        known.right,
        np.zeros(3, dtype=bool),
        known.values,
        {0: frozenset({1.0, 3.0})},
    )
    assert tree.leaf_of(np.array([[1.0], [2.0], [3.0], [np.nan]])).tolist() == [2, 1, 2, 1]


@pytest.mark.parametrize("tree", [stump(feature=3), stump(left=0)], ids=["feature", "order"])
def test_damaged_trees_are_refused(tree: Tree) -> None:
    with pytest.raises(ModelError, match="tree 1 is damaged"):
        TreeEnsemble([stump(), tree], np.zeros(1), 1)
