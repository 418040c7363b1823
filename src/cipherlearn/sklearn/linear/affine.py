"""Affine functions of features, whatever library fitted them."""

from __future__ import annotations

from collections.abc import Callable
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

    @classmethod
    def of_model(cls, coef: np.ndarray, intercept: np.ndarray | float) -> Affine:
        """From coefficients as scikit-learn has them.

        Parameters
        ----------
        coef : numpy.ndarray, shape (features,) or (outputs, features)
        intercept : float or numpy.ndarray, shape (outputs,)
        """
        weights = np.atleast_2d(np.asarray(coef, dtype=np.float64)).T
        constant = np.broadcast_to(np.asarray(intercept, dtype=np.float64), weights.shape[1:])
        return cls(weights, constant.copy())

    @classmethod
    def of_function(cls, function: Callable[[np.ndarray], np.ndarray], n_features: int) -> Affine:
        """From what a function gives for unit vectors.

        Parameters
        ----------
        function : callable
            Of rows (rows, features); gives (rows, outputs).
        n_features : int

        Raises
        ------
        ModelError
            If it gives something else for other rows: it is not affine then.
        """
        constant = np.asarray(function(np.zeros((1, n_features))), dtype=np.float64)[0]
        weights = np.asarray(function(np.eye(n_features)), dtype=np.float64) - constant
        found = cls(weights, constant)
        found.check(function)
        return found

    def check(self, function: Callable[[np.ndarray], np.ndarray]) -> None:
        """Raise `ModelError` unless a function gives the same for some random rows."""
        rows = np.random.default_rng(0).normal(size=(8, self.n_features))
        theirs = np.asarray(function(rows), dtype=np.float64).reshape(len(rows), -1)
        size = np.abs(rows) @ np.abs(self.weights) + np.abs(self.constant)
        same_shape = theirs.shape == size.shape
        if not same_shape or (np.abs(self(rows) - theirs) > TOLERANCE * (1.0 + size)).any():
            raise ModelError(
                "the model is not the affine function of its features that its coefficients say; "
                "report it with its parameters and the version of its library"
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

    def after(self, first: Affine) -> Affine:
        """The function of what another gives."""
        return Affine(first.weights @ self.weights, self(first.constant[None])[0])
