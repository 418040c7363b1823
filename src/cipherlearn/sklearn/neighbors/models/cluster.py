"""Clusters with a center each."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import cluster
from sklearn.base import ClusterMixin, TransformerMixin
from sklearn.utils import check_consistent_length

from cipherlearn.sklearn import _kinds as kinds
from cipherlearn.sklearn.neighbors._centers import CentersEstimator
from cipherlearn.sklearn.neighbors._estimator import Revealed
from cipherlearn.sklearn.neighbors.distances import Metric, References

PACKAGE = "sklearn"
EXTRA = None


class _Clusters(
    kinds.MirroredTags,
    kinds.Predicting,
    ClusterMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    CentersEstimator,
):
    """Rows belong to the cluster whose center is the nearest."""

    @classmethod
    def read(cls, model: Any) -> References:
        return References(np.asarray(model.cluster_centers_, np.float64), Metric(2.0))

    def _metric(self) -> Metric:
        return Metric(2.0)

    @staticmethod
    def _library_predictions(model: Any, rows: np.ndarray) -> np.ndarray:
        # It takes the precision that it was trained in, and no other.
        return np.asarray(model.predict(rows.astype(model.cluster_centers_.dtype)))

    def _predictions(self, scores: np.ndarray) -> np.ndarray:
        return self._nearest(scores).astype(np.int32)

    @Revealed
    def score(
        self, X: Any, y: Any = None, sample_weight: Any = None, fhe: str = "disable"
    ) -> float:
        """Minus the sum of the squared distances of rows from the nearest centers.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        y : object
            Ignored.
        sample_weight : array-like of shape (rows,), optional
        fhe : {"disable", "simulate", "execute"}, default="disable"
        """
        del y
        least = np.maximum(self._raw(X, fhe).min(axis=1), 0.0)
        weights = np.ones(len(least)) if sample_weight is None else np.asarray(sample_weight)
        check_consistent_length(least, weights)
        return -float(least @ weights)

    def transform(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Distances of rows from all centers: (rows, clusters)."""
        return Metric(2.0).distances(self._raw(X, fhe))

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> np.ndarray:
        """`fit`, and then `transform`."""
        return self.fit(X, y, **fit_params).transform(X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the distances."""
        self.check_model_is_fitted()
        return np.asarray(self.sklearn_model.get_feature_names_out(input_features))


# Only now: scikit-learn has wrapped them, for `set_output`.
for _name in ("transform", "fit_transform"):
    setattr(_Clusters, _name, Revealed(getattr(_Clusters, _name)))


class KMeans(_Clusters, wraps=cluster.KMeans):
    """Centers that are the means of their rows: see `NeighborsEstimator`."""


class MiniBatchKMeans(_Clusters, wraps=cluster.MiniBatchKMeans):
    """`KMeans`, trained on a few rows at a time: see `NeighborsEstimator`."""
