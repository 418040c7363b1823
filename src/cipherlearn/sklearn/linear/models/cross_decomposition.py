"""Partial least squares."""

from __future__ import annotations

from typing import Any

from sklearn import cross_decomposition

from cipherlearn.sklearn.linear._estimator import LinearRegressor
from cipherlearn.sklearn.linear.affine import Affine

PACKAGE = "sklearn"
EXTRA = None


class PLSRegression(LinearRegressor, wraps=cross_decomposition.PLSRegression):
    """Least squares on few latent directions: see `LinearEstimator`."""

    @classmethod
    def read(cls, model: Any) -> Affine:
        """The function that a fitted float model computes: its features are centered first."""
        return Affine.of_function(
            lambda rows: model.predict(rows).reshape(len(rows), -1), model.n_features_in_
        )
