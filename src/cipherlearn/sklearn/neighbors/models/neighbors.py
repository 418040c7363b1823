"""The nearest rows of training, and the nearest mean of a class."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn import neighbors
from sklearn.base import ClassifierMixin

from cipherlearn.errors import InvalidParameterError
from cipherlearn.sklearn import _kinds as kinds
from cipherlearn.sklearn.neighbors._centers import CentersEstimator
from cipherlearn.sklearn.neighbors._neighbors import Averaging, InRadius, KNearest, Voting
from cipherlearn.sklearn.neighbors.distances import Metric, References

PACKAGE = "sklearn"
EXTRA = None


class KNeighborsClassifier(Voting, KNearest, wraps=neighbors.KNeighborsClassifier):
    """The nearest rows vote: see `NeighborsEstimator`.

    References that are about as far as the k-th vote as well: under encryption, more than k may.
    """


class KNeighborsRegressor(Averaging, KNearest, wraps=neighbors.KNeighborsRegressor):
    """The targets of the nearest rows are averaged: see `KNeighborsClassifier`."""


class RadiusNeighborsClassifier(Voting, InRadius, wraps=neighbors.RadiusNeighborsClassifier):
    """The rows within a radius vote: see `NeighborsEstimator`."""

    def _outliers(self, scores: np.ndarray) -> np.ndarray:
        """Rows without a neighbour."""
        votes = self._votes(scores, self._counted(self.sklearn_model))
        return np.asarray(~votes.any(axis=1))

    def _raw(self, X: Any, fhe: Any) -> np.ndarray:
        scores = super()._raw(X, fhe)
        outliers = self._outliers(scores)
        if self.outlier_label_ is None and outliers.any():
            raise InvalidParameterError(
                f"No neighbors found for test samples {np.flatnonzero(outliers)}: take a larger "
                "radius, give an outlier_label, or leave these rows out"
            )
        return scores

    def _shares(self, scores: np.ndarray) -> list[np.ndarray]:
        shares = super()._shares(scores)
        outliers = self._outliers(scores)
        if self.outlier_label_ is not None and outliers.any():
            targets = zip(
                shares, self._classes(self.sklearn_model), self.outlier_label_, strict=True
            )
            for each, classes, label in targets:
                each[outliers] = classes == label
        return shares

    def _predictions(self, scores: np.ndarray) -> np.ndarray:
        found = super()._predictions(scores)
        if self.outlier_label_ is None:
            return np.asarray(found)
        outliers = self._outliers(scores)
        labels = np.asarray(self.outlier_label_, dtype=found.dtype)
        found[outliers] = labels if found.ndim > 1 else labels[0]
        return np.asarray(found)


class RadiusNeighborsRegressor(Averaging, InRadius, wraps=neighbors.RadiusNeighborsRegressor):
    """The targets of the rows within a radius are averaged: see `NeighborsEstimator`."""

    def predict(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Averages; NaN, with a warning as scikit-learn gives it, of rows without a neighbour."""
        found = super().predict(X, fhe)
        if np.isnan(found).any():
            message = (
                "One or more samples have no neighbors within specified radius; predicting NaN."
            )
            warnings.warn(message, UserWarning, stacklevel=2)
        return np.asarray(found)


class NearestCentroid(
    kinds.MirroredTags,
    kinds.Predicting,
    ClassifierMixin,  # type: ignore[misc]
    CentersEstimator,
    wraps=neighbors.NearestCentroid,
):
    """The class whose mean (or, of ``metric="manhattan"``, median) is the nearest.

    As in scikit-learn, distances are plain where the priors are equal; otherwise features are in
    units of their deviations within classes. There are no probabilities. See `NeighborsEstimator`.
    """

    @staticmethod
    def _has_equal_priors(model: Any) -> bool:
        return bool(np.isclose(model.class_prior_, 1 / len(model.classes_)).all())

    @classmethod
    def read(cls, model: Any) -> References:
        """The means, in the distance that `predict` decides by."""
        points = np.asarray(model.centroids_, np.float64)
        metric = Metric.of(model)
        if cls._has_equal_priors(model):
            return References(points, metric)
        if metric.power != 2:
            raise InvalidParameterError(
                "metric='manhattan' with unequal priors: their squares, which scikit-learn decides "
                "by, are no sums over features. Take priors='uniform', or metric='euclidean'"
            )
        deviations = np.asarray(model.within_class_std_dev_, np.float64)
        scales = 1.0 / np.where(deviations == 0, 1.0, deviations) ** 2
        return References(points, Metric(2.0, scales))

    @classmethod
    def _offsets(cls, model: Any) -> np.ndarray | None:
        if cls._has_equal_priors(model):
            return None
        return np.asarray(-2.0 * np.log(np.maximum(model.class_prior_, 1e-300)))

    def _predictions(self, scores: np.ndarray) -> np.ndarray:
        return np.asarray(self.classes_[self._nearest(scores)])
