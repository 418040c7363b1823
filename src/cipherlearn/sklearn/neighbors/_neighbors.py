"""Rows of training that answer for those near them: the k nearest of them."""

from __future__ import annotations

import copy
import functools
import warnings
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from cipherlearn.engines.execution import FheMode
from cipherlearn.errors import CalibrationWarning, InvalidParameterError, warn
from cipherlearn.sklearn._agreement import Agreement
from cipherlearn.sklearn._wrapping import COMPARED_ROWS
from cipherlearn.sklearn.neighbors._estimator import NeighborsEstimator, Revealed
from cipherlearn.sklearn.neighbors.distances import Grid, Metric, References
from cipherlearn.sklearn.neighbors.module import SelectionModule
from cipherlearn.sklearn.neighbors.selection import Nearest, Ranked, Selection

#: References of which comparing each with each is as cheap as bisection.
FEW_REFERENCES = 10

#: Distances that are in memory at once, when agreement is measured.
_DISTANCES_AT_ONCE = 2**22

#: Weights that need no distances.
_EQUAL_WEIGHTS = ("uniform", None)


class Neighborhood(NeighborsEstimator):
    """A model that keeps the rows of training, and answers by some of them.

    Attributes
    ----------
    agreement_ : float
        As of all models. A row of training is compared as if it were none: the float model and the
        quantized one both answer without it. As its own nearest neighbour it would tell little of
        other rows.
    """

    built_with: ClassVar[tuple[str, ...]] = ("metric", "p", "metric_params")

    #: The parameter that says which references are selected.
    _searched_by: ClassVar[str]

    #: What the client learns of which rows are selected, and of what they are.
    _ranges_told: ClassVar[str] = "ranges of the features"
    _kinds_told: ClassVar[str]
    _counts_told: ClassVar[str]
    _targets_told: ClassVar[str]

    weights: Any

    @classmethod
    def read(cls, model: Any) -> References:
        points = model._fit_X  # noqa: SLF001 - there is no other name for it
        points = points.toarray() if sparse.issparse(points) else points
        return References(np.asarray(points, np.float64), Metric.of(model))

    @property
    def _told(self) -> tuple[str, str, str]:
        selection = f"{self._kinds_told}, and with each answer {self._counts_told}"
        distances = (
            f"{self._targets_told} of all rows of training, the weights of the metric, and with "
            "each answer the distances from all these rows, which tell where they are"
        )
        return self._ranges_told, selection, distances

    def _options(self) -> Any:
        options = super()._options()
        self._check_weights()
        return options

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._check_weights()

    def _built_with(self) -> tuple[str, ...]:
        # A client with all distances selects by itself.
        return self.built_with if self._reveals else (*self.built_with, self._searched_by)

    def _check_weights(self) -> None:
        if self.reveal != "distances" and self._needs_distances_for_weights:
            raise InvalidParameterError(
                f"weights={self.weights!r} needs the distances, and the client gets the selection "
                "only: set reveal='distances' (it tells the client where the references are), or "
                "weights='uniform'"
            )

    @property
    def _needs_distances_for_weights(self) -> bool:
        return not (isinstance(self.weights, str | None) and self.weights in _EQUAL_WEIGHTS)

    @property
    def _needs_distances(self) -> bool:
        return self._needs_distances_for_weights

    def _raw(self, X: Any, fhe: Any) -> np.ndarray:
        """Scores of rows; of all rows of training, each without itself, if there are none."""
        if X is not None:
            return super()._raw(X, fhe)
        self.check_model_is_fitted()
        self._check_parameters()
        if self._folded:
            raise InvalidParameterError(
                "without rows, those of training are answered for, and the model has them as they "
                "are after the steps before it: give rows"
            )
        points = self.read(self.sklearn_model).points
        return self._scores_without(points, np.arange(len(points)), FheMode.of(fhe))

    def _scores_without(
        self, rows: np.ndarray, places: np.ndarray, mode: FheMode = FheMode.DISABLE
    ) -> np.ndarray:
        """Scores of rows, each without the reference of that place (-1 for none)."""
        lacking = np.flatnonzero(places >= 0)
        if self._reveals:
            if mode is not FheMode.DISABLE:
                self.check_model_is_compiled()
            sums = np.array(self.module_.forward(rows, fhe=mode))
            sums[lacking, places[lacking]] = np.inf
            return sums
        if mode is not FheMode.DISABLE:
            raise InvalidParameterError(
                "without rows, those of training are answered for, each without itself: what is "
                f"encrypted selects of all of them. Take fhe='disable', and not {mode.value!r}, "
                "or give rows"
            )
        if isinstance(self.module_, SelectionModule):
            return self.module_.without(rows, places)
        counted = self._counted(self.sklearn_model)
        counts = np.tile(counted.sum(axis=0), (len(rows), 1))
        counts[lacking] -= counted[places[lacking]]
        return counts

    def _votes(self, scores: np.ndarray) -> np.ndarray:
        """What is counted, by their weights, of the selected references: (rows, counts)."""
        if not self._reveals:
            return scores
        # Of decrypted results only the order may be known: see `post_processing`.
        chosen = self._chosen(scores) & np.isfinite(scores)
        return self._weighted_votes(self._metric().distances(scores), chosen)

    def _weighted_votes(self, distances: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Votes of references that are chosen, at these distances: both (rows, references)."""
        return np.asarray(self._weighted(distances, chosen) @ self._voted(self.sklearn_model))

    @abstractmethod
    def _voted(self, model: Any) -> np.ndarray:
        """What votes are given for, where the client gives them: (references, votes)."""

    @abstractmethod
    def _chosen(self, sums: np.ndarray) -> np.ndarray:
        """Whether each reference is selected, where the client does it: (rows, references)."""

    def _weighted(self, distances: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Weights of the selected references; those of others are zero."""
        if not self._needs_distances_for_weights:
            return chosen.astype(np.float64)
        if isinstance(self.weights, str):
            same = chosen & (distances == 0)
            with np.errstate(divide="ignore"):
                inverse = np.where(chosen, 1.0 / distances, 0.0)
            return np.where(same.any(axis=1, keepdims=True), same, inverse)
        found = np.zeros_like(distances)
        # In order of their distances, as scikit-learn gives them to the function.
        order = np.argsort(np.where(chosen, distances, np.inf), axis=1, kind="stable")
        places = [of[:count] for of, count in zip(order, chosen.sum(axis=1), strict=True)]
        given = [of[taken] for of, taken in zip(distances, places, strict=True)]
        for row, weight in enumerate(self.weights(self._as_given(given))):
            found[row, places[row]] = weight
        return found

    @staticmethod
    @abstractmethod
    def _as_given(distances: list[np.ndarray]) -> np.ndarray:
        """Distances of each row's neighbours as scikit-learn gives them to functions."""

    @abstractmethod
    def _found(
        self, model: Any, rows: np.ndarray, places: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distances of the float model, and which it chooses, each row without one reference."""

    @abstractmethod
    def _agreement_of(self, ours: np.ndarray, theirs: np.ndarray) -> Agreement:
        """How far answers of our votes are those of the float model's."""

    def _compared(self, module: Any, rows: np.ndarray) -> Agreement:
        del module  # that of `module_`
        model = self.sklearn_model
        step = -(-len(rows) // COMPARED_ROWS)
        points = self.read(model).points
        places = _places(self._taken(rows), points)[::step]
        rows = rows[::step]
        size = max(_DISTANCES_AT_ONCE // len(points), 1)
        ours, theirs = [], []
        with warnings.catch_warnings():
            # Of rows without the names that training had, or without a neighbour.
            warnings.simplefilter("ignore")
            for start in range(0, len(rows), size):
                part = rows[start : start + size], places[start : start + size]
                ours.append(self._votes(self._scores_without(*part)))
                taken = self._taken(part[0]), part[1]
                theirs.append(self._weighted_votes(*self._found(model, *taken)))
        return self._agreement_of(np.concatenate(ours), np.concatenate(theirs))


def _places(rows: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which reference each row is: -1 for none, and where there is a single one."""
    if len(points) == 1:
        return np.full(len(rows), -1)
    if np.array_equal(rows, points):
        return np.arange(len(rows))
    # Zeros have one sign.
    known = {row.tobytes(): place for place, row in reversed(list(enumerate(points + 0.0)))}
    return np.array([known.get(row.tobytes(), -1) for row in rows + 0.0])


class KNearest(Neighborhood):
    """The k nearest rows of training."""

    _searched_by: ClassVar[str] = "n_neighbors"

    n_neighbors: int

    @property
    def _told(self) -> tuple[str, str, str]:
        before, selection, distances = super()._told
        return before, f"{selection}; the same of all rows, for where none is selected", distances

    def _check_count(self, count: Any, lacking: int = 0) -> None:
        known = len(self.read(self.sklearn_model)) - lacking
        if not 0 < count <= known:
            others = " other than the row itself" if lacking else ""
            raise InvalidParameterError(
                f"n_neighbors must be from 1 to {known}, the number of rows of training{others}, "
                f"not {count}: take fewer neighbours, or train on more rows"
            )

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._check_count(self.n_neighbors)

    def _raw(self, X: Any, fhe: Any) -> np.ndarray:
        self.check_model_is_fitted()
        self._check_count(self.n_neighbors, int(X is None))
        return super()._raw(X, fhe)

    def _selection(self, model: Any, grid: Grid, bits: int) -> Selection | None:
        references, count = self.read(model), int(model.n_neighbors)
        if count >= len(references) or references.are_equal:
            return None
        if len(references) <= FEW_REFERENCES:
            return Ranked.fitted(references, grid, count, bits)
        return Nearest.fitted(references, grid, count, bits)

    def _chosen(self, sums: np.ndarray) -> np.ndarray:
        order = np.argsort(sums, axis=1, kind="stable")[:, : self.n_neighbors]
        chosen = np.zeros(sums.shape, dtype=bool)
        np.put_along_axis(chosen, order, True, axis=1)
        return chosen

    @staticmethod
    def _as_given(distances: list[np.ndarray]) -> np.ndarray:
        return np.stack(distances)

    def _found(
        self, model: Any, rows: np.ndarray, places: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        known = len(self.read(model))
        distances, nearest = model.kneighbors(rows, min(self.n_neighbors + 1, known))
        taken = nearest != places[:, None]
        # All rows have as many neighbours, as functions of distances expect.
        most = min(self.n_neighbors, known - int((places >= 0).any()))
        taken &= np.cumsum(taken, axis=1) <= most
        chosen = np.zeros((len(rows), known), dtype=bool)
        np.put_along_axis(chosen, nearest, taken, axis=1)
        found = np.full(chosen.shape, np.inf)
        np.put_along_axis(found, nearest, distances, axis=1)
        return found, chosen

    def _votes(self, scores: np.ndarray) -> np.ndarray:
        votes = super()._votes(scores)
        none = ~votes.any(axis=1)
        if self._reveals or not none.any():
            return votes
        selection = getattr(self.module_, "selection", None)
        told = (
            "several are about as near, and comparing each with each by rounded differences went "
            "in a circle"
            if isinstance(selection, Ranked)
            else "they lie farther from all rows of training than new rows were expected to, or "
            "the only one was lost where differences are rounded; more bits (n_bits: "
            "'op_distances') may help"
        )
        warn(
            f"{np.count_nonzero(none)} of {len(votes)} rows have no neighbour within reach: "
            f"{told}. All references vote for them",
            CalibrationWarning,
        )
        return np.where(none[:, None], self._counted(self.sklearn_model).sum(axis=0), votes)

    @Revealed
    def kneighbors(
        self,
        X: Any = None,
        n_neighbors: int | None = None,
        return_distance: bool = True,
        fhe: str = "disable",
    ) -> Any:
        """The nearest references of rows, as scikit-learn gives them, and their distances.

        Parameters
        ----------
        X : array-like of shape (rows, features), optional
            Default: the references, of which none is its own neighbour.
        n_neighbors : int, optional
            Default: the estimator's.
        return_distance : bool, default=True
        fhe : {"disable", "simulate", "execute"}, default="disable"

        Returns
        -------
        (numpy.ndarray of float64, numpy.ndarray of int64), or the latter alone
            Distances and places of references, of shape (rows, neighbours).

        Raises
        ------
        InvalidParameterError
            If there are not so many references.
        """
        self.check_model_is_fitted()
        count = self.n_neighbors if n_neighbors is None else n_neighbors
        self._check_count(count, int(X is None))
        distances = self._metric().distances(super()._raw(X, fhe))
        places = np.argsort(distances, axis=1, kind="stable")[:, :count]
        found = np.take_along_axis(distances, places, axis=1)
        return (found, places) if return_distance else places

    @Revealed
    def kneighbors_graph(
        self,
        X: Any = None,
        n_neighbors: int | None = None,
        mode: str = "connectivity",
        fhe: str = "disable",
    ) -> Any:
        """The neighbours of rows as a sparse matrix: see `kneighbors`, and scikit-learn.

        Parameters
        ----------
        X, n_neighbors, fhe
            As for `kneighbors`.
        mode : {"connectivity", "distance"}, default="connectivity"

        Returns
        -------
        sparse matrix of shape (rows, references)
        """
        self.check_model_is_fitted()
        model = copy.copy(self.sklearn_model)
        model.kneighbors = functools.partial(self.kneighbors, fhe=fhe)
        count = self.n_neighbors if n_neighbors is None else n_neighbors
        return model.kneighbors_graph(X, count, mode)
