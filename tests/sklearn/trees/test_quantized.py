from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherlearn.errors import InvalidShapeError
from cipherlearn.sklearn.trees.module import TreeModule
from cipherlearn.sklearn.trees.quantized import QuantizedTrees
from tests.sklearn.trees.ensembles import case


def test_leaves_are_integers_of_their_bits() -> None:
    ensemble, codes, rows = case()
    trees = QuantizedTrees.of(ensemble, codes, 4)
    assert max(np.abs(tree.values).max() for tree in trees.ensemble.trees) == 7
    error = np.abs(trees.scores(rows) - ensemble.raw_scores(rows)).max()
    assert error <= len(ensemble.trees) * trees.scale.max() / 2 + 1e-12


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(2, 9), st.booleans())
def test_trees_in_the_clear_give_exactly_what_the_circuit_gives(
    seed: int, outputs: int, bits: int, sums: bool
) -> None:
    ensemble, codes, rows = case(seed, outputs)
    trees = QuantizedTrees.of(ensemble, codes, bits)
    np.testing.assert_array_equal(TreeModule(trees, sums=sums).forward(rows), trees.scores(rows))


def test_rows_have_as_many_features_as_the_trees() -> None:
    ensemble, codes, rows = case()
    with pytest.raises(InvalidShapeError, match=r"\(30, 4\).*\(rows, 5\)"):
        QuantizedTrees.of(ensemble, codes, 4).scores(rows[:, :4])
