"""Projections on few components."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import decomposition

from cipherlearn.errors import InvalidParameterError
from cipherlearn.sklearn.linear._estimator import LinearTransformer

PACKAGE = "sklearn"
EXTRA = None


class _Likely(LinearTransformer):
    """Components of a normal distribution, which says how likely rows are."""

    def score_samples(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Log-likelihood of rows; of the float model, in the clear.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        fhe : {"disable"}, default="disable"

        Returns
        -------
        numpy.ndarray of float64, shape (rows,)

        Raises
        ------
        InvalidParameterError
            In another mode: what is encrypted are new features, which do not tell a likelihood.
        """
        if fhe != "disable":
            raise InvalidParameterError(
                f"score_samples of {type(self).__name__} is computed in the clear: fhe must be "
                f"'disable', not {fhe!r}"
            )
        self.check_model_is_fitted()
        return np.asarray(self.sklearn_model.score_samples(self._taken(self._rows(X))))

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of `score_samples`."""
        del y
        return float(self.score_samples(X).mean())


class PCA(_Likely, wraps=decomposition.PCA):
    """Principal components: see `LinearEstimator`."""


class IncrementalPCA(LinearTransformer, wraps=decomposition.IncrementalPCA):
    """Principal components, found batch by batch: see `LinearEstimator`."""


class TruncatedSVD(LinearTransformer, wraps=decomposition.TruncatedSVD):
    """Singular vectors, without centering: see `LinearEstimator`."""


class FactorAnalysis(_Likely, wraps=decomposition.FactorAnalysis):
    """Means of latent factors: see `LinearEstimator`."""


class FastICA(LinearTransformer, wraps=decomposition.FastICA):
    """Independent components: see `LinearEstimator`."""


class SparsePCA(LinearTransformer, wraps=decomposition.SparsePCA):
    """Components of few features each: see `LinearEstimator`."""


class MiniBatchSparsePCA(LinearTransformer, wraps=decomposition.MiniBatchSparsePCA):
    """`SparsePCA`, found batch by batch: see `LinearEstimator`."""
