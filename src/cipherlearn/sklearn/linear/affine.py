"""Affine functions of features, whatever library fitted them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cipherlearn.errors import ModelError

#: How far results may be from the affine function that was read, in parts of what they are sums of.
TOLERANCE = 1e-6

#: Rows that a function is probed with at once, if it has many features.
_AT_ONCE = 1024


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
        constant = _values(function, np.zeros((1, n_features)))[0]
        units = np.ones(n_features)
        for _ in range(2):
            # What a unit changes in a large constant is rounded off. So the second time, each
            # feature changes as much as makes a result change by about one.
            parts = np.split(np.arange(n_features), range(_AT_ONCE, n_features, _AT_ONCE))
            found = [_values(function, _unit_rows(units, part)) - constant for part in parts]
            weights = np.concatenate(found) / units[:, None]
            units = _usual_sizes(weights)
        affine = cls(weights, constant)
        # All features count alike.
        rows = np.random.default_rng(0).normal(size=(8, n_features)) * _usual_sizes(weights)
        affine.check(_values(function, rows), rows)
        return affine

    def check(self, theirs: np.ndarray, rows: np.ndarray) -> None:
        """Raise `ModelError` unless a library gives the same for rows."""
        theirs = theirs.reshape(len(rows), -1)
        size = np.abs(rows) @ np.abs(self.weights) + np.abs(self.constant)
        same_shape = theirs.shape == size.shape
        if not same_shape or (np.abs(self(rows) - theirs) > TOLERANCE * (1.0 + size)).any():
            raise ModelError(
                "the model is not an affine function of its features, or not the one that its "
                "coefficients say: it cannot be encrypted as a product with weights"
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

    def beside(self, other: Affine) -> Affine:
        """The results of this one, and then those of another."""
        weights = np.concatenate([self.weights, other.weights], axis=1)
        return Affine(weights, np.concatenate([self.constant, other.constant]))

    def after(self, first: Affine) -> Affine:
        """The function of what another gives."""
        return Affine(first.weights @ self.weights, self(first.constant[None])[0])


def _values(function: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
    """What a function gives, of shape (rows, outputs)."""
    values = np.asarray(function(rows), dtype=np.float64)
    # One number a row, or, of some transformers, all numbers of a single row.
    return values.reshape(len(rows), -1) if values.ndim == 1 else values


def _unit_rows(units: np.ndarray, features: np.ndarray) -> np.ndarray:
    """A row for each of some features, in which nothing else differs from zero."""
    rows = np.zeros((len(features), len(units)))
    rows[np.arange(len(features)), features] = units[features]
    return rows


def _usual_sizes(weights: np.ndarray) -> np.ndarray:
    """For each feature, the value that counts one; less where its weights are very small."""
    largest = np.abs(weights).max(axis=1, initial=0.0)
    floor = 1e-6 * largest.max(initial=0.0)
    return np.asarray(1.0 / np.maximum(largest, floor)) if floor > 0 else np.ones(len(weights))
