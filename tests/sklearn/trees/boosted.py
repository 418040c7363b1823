"""Data and checks that the tests of all libraries for boosting share."""

from __future__ import annotations

from typing import Any

import numpy as np

from cipherlearn.sklearn.trees._estimator import on_grid

N_ROWS = 240


def rows() -> np.ndarray:
    """Two features of numbers, one of them with gaps, and one of few whole numbers."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(N_ROWS, 3)).astype(np.float32).astype(np.float64)
    X[:, 2] = generator.integers(0, 7, N_ROWS)
    X[::9, 0] = np.nan
    return X


def values(X: np.ndarray) -> np.ndarray:
    """A function of rows that trees can learn."""
    return np.nan_to_num(X[:, 0], nan=0.5) + np.sin(2 * X[:, 1]) + 0.6 * (X[:, 2] % 3)


def grid_rows(model: Any, X: Any) -> np.ndarray:
    """Rows as the float model of an estimator saw them in training."""
    return on_grid(model._rows(X), model.codes_)


def same(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> None:
    """Arrays of the same numbers, but for rounding."""
    theirs = np.asarray(theirs, dtype=np.float64).reshape(ours.shape)
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
