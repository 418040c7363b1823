"""Partial least squares and canonical correlation."""

from __future__ import annotations

from typing import Any

from sklearn import cross_decomposition

from cipherlearn.sklearn._base import without_graph
from cipherlearn.sklearn.linear._estimator import LinearRegressor, ProjectingEstimator

PACKAGE = "sklearn"
EXTRA = None


class _Latent(ProjectingEstimator, LinearRegressor):
    """Latent directions of features and of targets."""

    # As in scikit-learn, targets come second.
    def transform(  # type: ignore[override]
        self, X: Any, y: Any = None, fhe: str = "disable"
    ) -> Any:
        """New features of rows; of targets as well if there are some, which stay in the clear.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        y : array-like of shape (rows,) or (rows, targets), optional
        fhe : {"disable", "simulate", "execute"}, default="disable"

        Returns
        -------
        numpy.ndarray of float64, shape (rows, components), or a tuple of two of them
        """
        found = super().transform(X, fhe)
        if y is None:
            return found
        return found, self.sklearn_model.transform(self._rows(X), without_graph(y))[1]

    def inverse_transform(self, X: Any, y: Any = None) -> Any:
        """Rows, and targets if there are some, of new features; by the float model, in the clear.

        Parameters
        ----------
        X : array-like of shape (rows, components)
        y : array-like of shape (rows, components), optional

        Returns
        -------
        numpy.ndarray of float64, shape (rows, features), or a tuple of two of them
        """
        self.check_model_is_fitted()
        targets = None if y is None else without_graph(y)
        return self.sklearn_model.inverse_transform(without_graph(X), targets)

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Fit, and give the new features of rows and targets."""
        return self.fit(X, y, **fit_params).transform(X, y)


class PLSRegression(_Latent, wraps=cross_decomposition.PLSRegression):
    """Least squares on few latent directions: see `LinearEstimator`."""


class PLSCanonical(_Latent, wraps=cross_decomposition.PLSCanonical):
    """Directions in which features and targets vary together: see `LinearEstimator`."""


class CCA(_Latent, wraps=cross_decomposition.CCA):
    """Canonical correlation analysis: see `LinearEstimator`."""
