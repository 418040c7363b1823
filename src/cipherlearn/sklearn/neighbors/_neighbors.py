"""Neighbours that vote for classes, or whose targets are averaged."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from scipy import sparse
from sklearn.base import ClassifierMixin

from cipherlearn.errors import CalibrationWarning, InvalidParameterError, warn
from cipherlearn.sklearn import _kinds as kinds
from cipherlearn.sklearn._agreement import Agreement, alike, as_probable
from cipherlearn.sklearn.neighbors._estimator import NeighborsEstimator, Revealed
from cipherlearn.sklearn.neighbors.distances import Grid, Metric, References
from cipherlearn.sklearn.neighbors.selection import Nearest, Ranked, Selection, Within, all_of

#: References of which comparing each with each is as cheap as bisection, and exact.
FEW_REFERENCES = 10

#: Bits of the targets whose neighbours' sums the server computes, bit by bit.
TARGET_BITS = 8


class Neighborhood(NeighborsEstimator):
    """A model that keeps the rows of training, and answers by some of them."""

    weights: Any

    @classmethod
    def read(cls, model: Any) -> References:
        points = model._fit_X  # noqa: SLF001 - there is no other name for it
        points = points.toarray() if sparse.issparse(points) else points
        return References(np.asarray(points, np.float64), Metric.of(model))

    def _options(self) -> Any:
        options = super()._options()
        if not self._reveals and self.weights not in ("uniform", None):
            raise InvalidParameterError(
                f"weights={self.weights!r} needs the distances, and the client gets the selection "
                "only: set reveal='distances' (it tells the client where the references are), or "
                "weights='uniform'"
            )
        return options

    def _votes(self, scores: np.ndarray, kinds_of: np.ndarray) -> np.ndarray:
        """What is counted, by their weights, of the selected references: (rows, counts)."""
        if not self._reveals:
            return scores
        # Of decrypted results only the order may be known: see `post_processing`.
        chosen = self._chosen(scores)
        return np.asarray(self._weighted(self._metric().distances(scores), chosen) @ kinds_of)

    @property
    def _needs_distances(self) -> bool:
        return self.weights not in ("uniform", None)

    @abstractmethod
    def _chosen(self, sums: np.ndarray) -> np.ndarray:
        """Whether each reference is selected, where the client does it: (rows, references)."""

    def _weighted(self, distances: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Weights of the selected references; those of others are zero."""
        if self.weights in ("uniform", None):
            return chosen.astype(np.float64)
        if self.weights == "distance":
            same = chosen & (distances == 0)
            with np.errstate(divide="ignore"):
                inverse = np.where(chosen, 1.0 / distances, 0.0)
            return np.where(same.any(axis=1, keepdims=True), same, inverse)
        found = np.zeros_like(distances)
        for row, (of_row, taken) in enumerate(zip(distances, chosen, strict=True)):
            order = np.flatnonzero(taken)[np.argsort(of_row[taken], kind="stable")]
            found[row, order] = self.weights(of_row[order])
        return found


class KNearest(Neighborhood):
    """The k nearest rows of training."""

    n_neighbors: int

    def _selection(self, model: Any, grid: Grid, rows: np.ndarray, bits: int) -> Selection:
        del rows  # whatever rows a model is imported with: its own tell how far neighbours are
        references, count = self.read(model), int(model.n_neighbors)
        if count >= len(references):
            return all_of(references, grid, bits)
        if len(references) <= FEW_REFERENCES:
            return Ranked.fitted(references, grid, count, bits)
        return Nearest.fitted(references, grid, references.points, count, bits)

    def _chosen(self, sums: np.ndarray) -> np.ndarray:
        order = np.argsort(sums, axis=1, kind="stable")[:, : self.n_neighbors]
        chosen = np.zeros(sums.shape, dtype=bool)
        np.put_along_axis(chosen, order, True, axis=1)
        return chosen

    def _votes(self, scores: np.ndarray, kinds_of: np.ndarray) -> np.ndarray:
        votes = super()._votes(scores, kinds_of)
        none = ~votes.any(axis=1)
        if none.any():
            warn(
                f"{np.count_nonzero(none)} of {len(votes)} rows have no neighbour within reach: "
                "they lie farther from the references than these do from each other, or more bits "
                "(n_bits: 'op_distances') are needed. All references vote for them",
                CalibrationWarning,
            )
        return np.where(none[:, None], kinds_of.sum(axis=0), votes)

    @Revealed
    def kneighbors(
        self,
        X: Any,
        n_neighbors: int | None = None,
        return_distance: bool = True,
        fhe: str = "disable",
    ) -> Any:
        """The nearest references of rows, as scikit-learn gives them, and their distances.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        n_neighbors : int, optional
            Default: the estimator's.
        return_distance : bool, default=True
        fhe : {"disable", "simulate", "execute"}, default="disable"

        Returns
        -------
        (numpy.ndarray of float64, numpy.ndarray of int64), or the latter alone
            Distances and places of references, of shape (rows, neighbours).
        """
        distances = self._metric().distances(self._raw(X, fhe))
        count = self.n_neighbors if n_neighbors is None else n_neighbors
        if not 0 < count <= distances.shape[1]:
            raise InvalidParameterError(
                f"n_neighbors must be from 1 to {distances.shape[1]}, the number of references, "
                f"not {count}"
            )
        places = np.argsort(distances, axis=1, kind="stable")[:, :count]
        found = np.take_along_axis(distances, places, axis=1)
        return (found, places) if return_distance else places


class InRadius(Neighborhood):
    """The rows of training within a radius."""

    radius: float

    def _selection(self, model: Any, grid: Grid, rows: np.ndarray, bits: int) -> Selection:
        del rows
        references = self.read(model)
        threshold = references.metric.sum_of(float(model.radius))
        return Within.fitted(references, grid, threshold, bits)

    @property
    def _needs_distances(self) -> bool:
        return True

    def _chosen(self, sums: np.ndarray) -> np.ndarray:
        return np.asarray(sums <= self._metric().sum_of(self.radius))

    @Revealed
    def radius_neighbors(
        self,
        X: Any,
        radius: float | None = None,
        return_distance: bool = True,
        fhe: str = "disable",
    ) -> Any:
        """The references within a radius of rows, as scikit-learn gives them, and their distances.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        radius : float, optional
            Default: the estimator's.
        return_distance : bool, default=True
        fhe : {"disable", "simulate", "execute"}, default="disable"

        Returns
        -------
        (numpy.ndarray of object, numpy.ndarray of object), or the latter alone
            An array of distances and one of places a row.
        """
        distances = self._metric().distances(self._raw(X, fhe))
        within = distances <= (self.radius if radius is None else radius)
        places, found = np.empty((2, len(distances)), dtype=object)
        for row, taken in enumerate(within):
            places[row], found[row] = np.flatnonzero(taken), distances[row, taken]
        return (found, places) if return_distance else places


class Voting(kinds.MirroredTags, kinds.Predicting, ClassifierMixin):  # type: ignore[misc]
    """Neighbours vote for their classes: one target, or several side by side."""

    @staticmethod
    def _classes(model: Any) -> Sequence[np.ndarray]:
        """The classes of each target."""
        return model.classes_ if model.outputs_2d_ else [model.classes_]

    def _counted(self: Any, model: Any) -> np.ndarray:
        labels = np.asarray(model._y).reshape(len(model._y), -1)  # noqa: SLF001
        each = [
            of_target[:, None] == np.arange(len(classes))
            for of_target, classes in zip(labels.T, self._classes(model), strict=True)
        ]
        return np.concatenate(each, axis=1).astype(np.int64)

    def _shares(self: Any, scores: np.ndarray) -> list[np.ndarray]:
        """For each target, the share of votes that each class has; 0 if there are none."""
        model = self.sklearn_model
        votes = self._votes(scores, self._counted(model))
        ends = np.cumsum([len(classes) for classes in self._classes(model)])[:-1]
        parts = np.split(votes, ends, axis=1)
        totals = [part.sum(axis=1, keepdims=True) for part in parts]
        return [
            p / np.where(total == 0, 1.0, total) for p, total in zip(parts, totals, strict=True)
        ]

    def _predictions(self: Any, scores: np.ndarray) -> np.ndarray:
        shares, classes = self._shares(scores), self._classes(self.sklearn_model)
        # The first of equal ones, as scikit-learn has it.
        found = [of[each.argmax(axis=1)] for of, each in zip(classes, shares, strict=True)]
        return np.stack(found, axis=1) if self.outputs_2d_ else found[0]

    def _agreement(self: Any, scores: np.ndarray, rows: np.ndarray) -> Agreement:
        model = self.sklearn_model
        same = alike(self._predictions(scores), np.asarray(model.predict(rows)))
        if not model.outputs_2d_:  # where two classes have as many votes, either will do
            same |= as_probable(self._shares(scores)[0], model.predict_proba(rows))
        return Agreement(float(same.mean()), len(rows), of_values=False)

    def _answered(self: Any, scores: np.ndarray) -> Any:
        shares = self._shares(scores)
        return shares if self.outputs_2d_ else shares[0]

    def predict_proba(self: Any, X: Any, fhe: str = "disable") -> Any:
        """Shares of the votes of each class: see `predict`.

        Returns
        -------
        numpy.ndarray of float64, shape (rows, classes), or a list of them, one a target
        """
        return self._answered(self._raw(X, fhe))

    def predict_log_proba(self: Any, X: Any, fhe: str = "disable") -> Any:
        """Logarithms of `predict_proba`."""
        shares = self.predict_proba(X, fhe)
        with np.errstate(divide="ignore"):  # a class may have no vote
            return [np.log(each) for each in shares] if isinstance(shares, list) else np.log(shares)


class Averaging(kinds.Regressor):
    """Targets of the neighbours are averaged.

    Targets are rounded to 8 bits, and each bit is counted by itself: sums of single bits cost no
    precision under encryption.
    """

    #: Powers of two of the bits of a target.
    _BITS: ClassVar[np.ndarray] = 2 ** np.arange(TARGET_BITS)

    @staticmethod
    def _library_predictions(model: Any, rows: np.ndarray) -> np.ndarray:
        if np.asarray(model._y).dtype == object:  # noqa: SLF001
            # Numbers all the same, as an array of objects: of their averages nothing else is known.
            model = copy.copy(model)
            model._y = model._y.astype(np.float64)  # noqa: SLF001
        return np.asarray(model.predict(rows))

    @staticmethod
    def _targets(model: Any) -> np.ndarray:
        """Targets of the references: (references, targets)."""
        return np.asarray(model._y, np.float64).reshape(len(model._y), -1)  # noqa: SLF001

    def _counted(self: Any, model: Any) -> np.ndarray:
        """One for each reference, and then the bits of its targets."""
        targets = self._targets(model)
        low, step = self._steps(targets)
        integers = np.rint((targets - low) / step).astype(np.int64)
        bits = (integers[:, :, None] // self._BITS % 2).reshape(len(targets), -1)
        return np.concatenate([np.ones((len(targets), 1), np.int64), bits], axis=1)

    @staticmethod
    def _steps(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low, span = targets.min(axis=0), np.ptp(targets, axis=0)
        return low, np.where(span > 0, span, 1.0) / (2**TARGET_BITS - 1)

    def _averages(self: Any, scores: np.ndarray) -> np.ndarray:
        targets = self._targets(self.sklearn_model)
        if self._reveals:
            ones = np.ones((len(targets), 1))
            votes = self._votes(scores, np.concatenate([ones, targets], axis=1))
            with np.errstate(invalid="ignore"):
                return np.asarray(votes[:, 1:] / votes[:, :1])
        votes = self._votes(scores, self._counted(self.sklearn_model))
        low, step = self._steps(targets)
        sums = votes[:, 1:].reshape(len(votes), -1, TARGET_BITS) @ self._BITS
        with np.errstate(invalid="ignore"):  # of no neighbour there is no average
            return np.asarray(low + step * sums / votes[:, :1])

    def _predictions(self: Any, scores: np.ndarray) -> np.ndarray:
        values = self._averages(scores)
        return np.asarray(values[:, 0] if self._is_flat else values)
