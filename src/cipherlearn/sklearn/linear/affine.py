"""Affine functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cipherlearn.errors import ModelError

#: How far results may be from the affine function that was read, in parts of how much they vary,
#: and of what they are sums of, which is rounded; and what is left of numbers around one that
#: cancel each other in a library.
TOLERANCE, ROUNDING, LEAST = 1e-4, 1e-10, 1e-12


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

    def after(self, first: Affine) -> Affine:
        """The function of what another one gives."""
        return Affine(first.weights @ self.weights, first.constant @ self.weights + self.constant)

    def check(self, theirs: np.ndarray, rows: np.ndarray) -> None:
        """Raise `ModelError` unless a library gives the same results for rows."""
        size = np.abs(rows) @ np.abs(self.weights) + np.abs(self.constant)
        if theirs.shape != size.shape:
            raise ModelError(
                f"the model gives results of shape {theirs.shape}, and not {size.shape}: it cannot "
                "be computed as a product with weights"
            )
        bound = TOLERANCE * np.ptp(theirs, axis=0, keepdims=True) + ROUNDING * size
        error = np.abs(self(rows) - theirs)
        beyond = ~(error <= bound + LEAST).all(axis=1)
        if beyond.any():
            row = int(np.flatnonzero(beyond)[0])
            raise ModelError(
                "the model is not an affine function of what the client encrypts: it cannot be "
                f"computed as a product with weights (at row {row} of those that were tried, it "
                f"gives {theirs[row].tolist()}, and the product {self(rows)[row].tolist()})"
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
