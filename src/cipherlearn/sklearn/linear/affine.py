"""Affine functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cipherlearn.errors import ModelError

#: How far results may be from the affine function that was read, in parts of what they are sums of.
TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Affine:
    """``x @ weights + constant``.

    Parameters
    ----------
    weights : numpy.ndarray of float64, shape (features, outputs)
    constant : numpy.ndarray of float64, shape (outputs,)
    """

    weights: np.ndarray
    constant: np.ndarray

    def check(self, theirs: np.ndarray, rows: np.ndarray) -> None:
        """Raise `ModelError` unless a library gives the same results for rows."""
        size = np.abs(rows) @ np.abs(self.weights) + np.abs(self.constant)
        same_shape = theirs.shape == size.shape
        if not same_shape or not (np.abs(self(rows) - theirs) <= TOLERANCE * (1.0 + size)).all():
            raise ModelError(
                "the model is not an affine function of what the client encrypts: it cannot be "
                "computed as a product with weights"
            )

    @property
    def n_features(self) -> int:
        """How many features there are."""
        return int(self.weights.shape[0])

    @property
    def n_outputs(self) -> int:
        """How many results there are."""
        return int(self.weights.shape[1])

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Results of rows: (rows, features) -> (rows, outputs)."""
        return np.asarray(rows @ self.weights + self.constant)
