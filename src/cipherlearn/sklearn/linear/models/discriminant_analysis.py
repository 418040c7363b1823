"""Linear discriminant analysis."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import discriminant_analysis

from cipherlearn.sklearn.linear._estimator import (
    FineEstimator,
    LinearClassifier,
    ProjectingEstimator,
    centered,
)
from cipherlearn.sklearn.linear.maps import FeatureMap, Products
from cipherlearn.sklearn.linear.module import LinearBits

PACKAGE = "sklearn"
EXTRA = None


class LinearDiscriminantAnalysis(
    ProjectingEstimator,
    LinearClassifier,
    wraps=discriminant_analysis.LinearDiscriminantAnalysis,
):
    """Classes of equal covariance, and the directions that part them: see `LinearEstimator`."""

    @classmethod
    def _new(cls, model: Any, rows: np.ndarray) -> np.ndarray:
        # This solver finds no directions.
        return np.zeros((len(rows), 0)) if model.solver == "lsqr" else super()._new(model, rows)

    def transform(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """New features of rows: see `ProjectingEstimator.transform`.

        Raises
        ------
        NotImplementedError
            With ``solver="lsqr"``, as scikit-learn does.
        """
        if self.is_fitted and self.sklearn_model.solver == "lsqr":
            self.sklearn_model.transform(X)
        return super().transform(X, fhe)


class QuadraticDiscriminantAnalysis(
    LinearClassifier,
    FineEstimator,
    wraps=discriminant_analysis.QuadraticDiscriminantAnalysis,
):
    """Classes with a covariance each: see `FineEstimator`.

    The client encrypts the products of each two features as well. Of more than two classes, scores
    are less their mean over the classes: what is common to all says nothing of the class.
    """

    @classmethod
    def _library_scores(cls, model: Any, rows: np.ndarray) -> np.ndarray:
        return centered(super()._library_scores(model, rows))

    def _map(self, model: Any, rows: np.ndarray, bits: LinearBits) -> FeatureMap:
        del model, bits
        return Products.around(rows)
