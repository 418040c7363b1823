from __future__ import annotations

import numpy as np
import pytest

from cipherlearn.errors import ModelError
from cipherlearn.sklearn.linear.affine import Affine

RNG = np.random.default_rng(0)
WEIGHTS, CONSTANT = RNG.normal(size=(5, 2)), RNG.normal(size=2)
ROWS = RNG.normal(size=(7, 5))


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_a_wrong_reading_is_seen_whatever_the_units(size: float) -> None:
    right = Affine(WEIGHTS * size, CONSTANT)
    assert (right.n_features, right.n_outputs) == (5, 2)
    rows = ROWS / size
    right.check(ROWS @ WEIGHTS + CONSTANT, rows)
    wrong = WEIGHTS.copy()
    wrong[3, 1] += 0.01
    for values in (
        ROWS @ wrong + CONSTANT,
        right(rows) + 0.01,
        ROWS @ WEIGHTS,
        np.full((7, 2), np.nan),
    ):
        with pytest.raises(ModelError, match=r"not an affine function .*at row 0"):
            right.check(values, rows)
    with pytest.raises(ModelError, match=r"shape \(7, 1\), and not \(7, 2\)"):
        right.check(right(rows)[:, :1], rows)


def test_scores_that_are_all_zero_but_for_rounding() -> None:
    nothing = Affine(np.zeros((5, 2)), np.full(2, -4e-16))
    nothing.check(np.full((7, 2), -8.9e-16), ROWS)
