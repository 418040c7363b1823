"""The nearest rows of training, and the nearest mean of a class."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn import neighbors
from sklearn.base import ClassifierMixin

from cipherlearn.errors import InvalidParameterError
from cipherlearn.sklearn import _kinds as kinds
from cipherlearn.sklearn.neighbors._answers import Averaging, Voting
from cipherlearn.sklearn.neighbors._centers import CentersEstimator
from cipherlearn.sklearn.neighbors._estimator import Revealed
from cipherlearn.sklearn.neighbors._neighbors import KNearest
from cipherlearn.sklearn.neighbors._radius import InRadius
from cipherlearn.sklearn.neighbors.distances import Metric, References

PACKAGE = "sklearn"
EXTRA = None


class KNeighborsClassifier(Voting, KNearest, wraps=neighbors.KNeighborsClassifier):
    """The nearest rows vote: see `NeighborsEstimator`.

    References that are about as far as the k-th vote as well: under encryption, more than k may.
    """

    def _raw(self, X: Any, fhe: Any) -> np.ndarray:
        scores = super()._raw(X, fhe)
        if self._reveals and not self._votes(scores).any(axis=1).all():
            raise InvalidParameterError(
                f"weights={self.weights!r} gives all neighbours of some rows a weight of zero: "
                "give one of them more"
            )
        return scores


class KNeighborsRegressor(Averaging, KNearest, wraps=neighbors.KNeighborsRegressor):
    """The targets of the nearest rows are averaged: see `KNeighborsClassifier`."""


class RadiusNeighborsClassifier(Voting, InRadius, wraps=neighbors.RadiusNeighborsClassifier):
    """The rows within a radius vote: see `NeighborsEstimator`."""

    @property
    def _told(self) -> tuple[str, str, str]:
        before, selection, distances = super()._told
        label = "the label of outliers"
        return before, f"{selection}; {label}", f"{distances}; {label}"

    def _outliers(self, scores: np.ndarray) -> np.ndarray:
        """Rows without a neighbour."""
        return np.asarray(~self._votes(scores).any(axis=1))

    def _raw(self, X: Any, fhe: Any) -> np.ndarray:
        scores = super()._raw(X, fhe)
        outliers = self._outliers(scores)
        if self.outlier_label_ is None and outliers.any():
            raise InvalidParameterError(
                f"No neighbors found for test samples {np.flatnonzero(outliers)}: take a larger "
                "radius, give an outlier_label, or leave these rows out"
            )
        return scores

    def _shares(self, votes: np.ndarray) -> list[np.ndarray]:
        shares = super()._shares(votes)
        outliers = ~votes.any(axis=1)
        if self.outlier_label_ is not None and outliers.any():
            targets = zip(
                shares, self._classes(self.sklearn_model), self.outlier_label_, strict=True
            )
            for each, classes, label in targets:
                each[outliers] = classes == label
            self._warn_of_labels()
        return shares

    def _warn_of_labels(self) -> None:
        """Warn of labels of outliers that are no classes, as scikit-learn does."""
        for classes, label in zip(
            self._classes(self.sklearn_model), self.outlier_label_, strict=True
        ):
            if label not in classes:
                message = (
                    f"Outlier label {label} is not in training classes. All class probabilities "
                    "of outliers will be assigned with 0."
                )
                warnings.warn(message, UserWarning, stacklevel=2)

    def _predictions(self, scores: np.ndarray) -> np.ndarray:
        found = super()._predictions(scores)
        if self.outlier_label_ is None:
            return np.asarray(found)
        outliers = self._outliers(scores)
        labels = np.asarray(self.outlier_label_, dtype=found.dtype)
        found[outliers] = labels if found.ndim > 1 else labels[0]
        if outliers.any():
            self._warn_of_labels()
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
    units of their deviations within classes. With ``reveal="distances"`` there are scores and
    probabilities, as scikit-learn has them: always in these units. See `NeighborsEstimator`.
    """

    built_with: ClassVar[tuple[str, ...]] = ("metric",)

    @property
    def _told(self) -> tuple[str, str, str]:
        before, selection, distances = super()._told
        more = "the priors of the classes and the deviations of features within them"
        return f"{before} and the classes", selection, f"{distances}; {more}"

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
        return References(points, Metric(2.0, cls._scales(model)))

    @staticmethod
    def _scales(model: Any) -> np.ndarray:
        deviations = np.asarray(model.within_class_std_dev_, np.float64)
        return np.asarray(1.0 / np.where(deviations == 0, 1.0, deviations) ** 2)

    @classmethod
    def _offsets(cls, model: Any) -> np.ndarray | None:
        return None if cls._has_equal_priors(model) else cls._of_priors(model)

    @staticmethod
    def _of_priors(model: Any) -> np.ndarray:
        return np.asarray(-2.0 * np.log(np.maximum(model.class_prior_, 1e-300)))

    @classmethod
    def _revealed(cls, model: Any) -> tuple[References, np.ndarray | None]:
        """The means; in the distance of the scores as well, where `predict` has another one."""
        plain = cls.read(model)
        if plain.metric.power != 2 or not cls._has_equal_priors(model):
            return plain, cls._offsets(model)
        scales = np.tile(cls._scales(model), (len(plain), 1))
        weights = np.concatenate([np.ones_like(scales), scales])
        offsets = np.concatenate([np.zeros(len(plain)), cls._of_priors(model)])
        return References(np.tile(plain.points, (2, 1)), Metric(2.0, weights)), offsets

    def _predictions(self, scores: np.ndarray) -> np.ndarray:
        return np.asarray(self.classes_[self._nearest(scores[:, : len(self.classes_)])])

    def _of_classes(self, X: Any, fhe: str) -> np.ndarray:
        return -self._raw(X, fhe)[:, -len(self.classes_) :]

    @Revealed
    def decision_function(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Discriminant scores of rows: the less the distance from a mean, the higher.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        fhe : {"disable", "simulate", "execute"}, default="disable"

        Returns
        -------
        numpy.ndarray of float64, shape (rows,) of two classes, (rows, classes) of more
        """
        scores = self._of_classes(X, fhe)
        return np.asarray(scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores)

    @Revealed
    def predict_proba(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Probabilities of the classes: see `decision_function`.

        Returns
        -------
        numpy.ndarray of float64, shape (rows, classes)
        """
        return np.asarray(softmax(self._of_classes(X, fhe), axis=1))

    @Revealed
    def predict_log_proba(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Logarithms of `predict_proba`."""
        return np.asarray(log_softmax(self._of_classes(X, fhe), axis=1))
