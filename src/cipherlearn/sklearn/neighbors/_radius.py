"""Rows of training that answer for those within a radius of them."""

from __future__ import annotations

import copy
import functools
from typing import Any, ClassVar

import numpy as np

from cipherlearn.errors import CalibrationWarning, InvalidParameterError, warn
from cipherlearn.sklearn.linear.module import Box
from cipherlearn.sklearn.neighbors._estimator import Revealed
from cipherlearn.sklearn.neighbors._neighbors import Neighborhood
from cipherlearn.sklearn.neighbors.distances import Grid
from cipherlearn.sklearn.neighbors.module import SelectionModule
from cipherlearn.sklearn.neighbors.revealed import Distances
from cipherlearn.sklearn.neighbors.selection import BEYOND, Selection, Within

#: By what part of its largest value the range of a feature is widened at least.
_LEAST_WIDENED = 1e-9


class InRadius(Neighborhood):
    """The rows of training within a radius.

    The ranges of features are wider than those of training by the radius and some more: what lies
    beyond them, and is moved to their border, has no neighbour there.
    """

    _searched_by: ClassVar[str] = "radius"
    _ranges_told: ClassVar[str] = "ranges of the features, widened by the radius"

    radius: float

    def _selection(self, model: Any, grid: Grid, bits: int) -> Selection | None:
        references = self.read(model)
        threshold = references.metric.sum_of(float(model.radius))
        return Within.fitted(references, grid, threshold, bits) if threshold < np.inf else None

    def _box(self, model: Any, rows: np.ndarray, known: Box | None, bits: int) -> Box:
        references = self.read(model)
        threshold = references.metric.sum_of(float(model.radius))
        if threshold == np.inf:  # no row is beyond it
            return super()._box(model, rows, known, bits)
        around = Box.around(references.points)
        more = references.metric.reach(BEYOND * threshold, len(around.low))
        # What is moved by rounding is not moved into the radius: one step of the grid, at least.
        more = np.maximum(more, around.span / max(2**bits - 3, 1))
        largest = np.abs(references.points).max(axis=0)
        more = np.maximum(more, _LEAST_WIDENED * np.where(largest > 0, largest, 1.0))
        return Box(around.low - more, around.span + 2 * more)

    @property
    def _needs_distances(self) -> bool:
        return True

    def _chosen(self, sums: np.ndarray) -> np.ndarray:
        return np.asarray(sums <= self._metric().sum_of(self.radius))

    @staticmethod
    def _as_given(distances: list[np.ndarray]) -> np.ndarray:
        return _objects(distances)

    def _found(
        self, model: Any, rows: np.ndarray, places: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        found = np.full((len(rows), len(self.read(model))), np.inf)
        each = zip(*model.radius_neighbors(rows, self.radius), places, strict=True)
        for row, (distances, near, itself) in enumerate(each):
            found[row, near] = distances
            if itself >= 0:
                found[row, itself] = np.inf
        return found, np.isfinite(found)

    def _raw(self, X: Any, fhe: Any) -> np.ndarray:
        scores = super()._raw(X, fhe)
        if X is not None and isinstance(self.module_, SelectionModule):
            # The client knows it of these rows, whatever rounded comparisons say.
            scores = np.where(self._beyond(X, self.module_.box)[:, None], 0.0, scores)
        self._check_reach(X, self.radius)
        return scores

    def _beyond(self, X: Any, ranges: Box) -> np.ndarray:
        """Which rows lie beyond the ranges."""
        units = ranges.units(self._rows(X))
        return np.asarray(((units < 0) | (units > 1)).any(axis=1))

    def _check_reach(self, X: Any, radius: float) -> None:
        """Warn of rows whose distances are not known well enough for a radius set after `fit`."""
        built = self.sklearn_model.radius
        if X is None or not isinstance(self.module_, Distances) or radius <= built:
            return
        beyond = self._beyond(X, self.module_.ranges)
        if beyond.any():
            warn(
                f"{np.count_nonzero(beyond)} of {len(beyond)} rows lie more than the radius of "
                f"training ({built}) outside of its rows: their distances are lower bounds, and "
                f"with radius={radius} they may get too many neighbours. Fit with this radius",
                CalibrationWarning,
            )

    @Revealed
    def radius_neighbors(
        self,
        X: Any = None,
        radius: float | None = None,
        return_distance: bool = True,
        sort_results: bool = False,
        fhe: str = "disable",
    ) -> Any:
        """The references within a radius of rows, as scikit-learn gives them, and their distances.

        Parameters
        ----------
        X : array-like of shape (rows, features), optional
            Default: the references, of which none is its own neighbour.
        radius : float, optional
            Default: the estimator's.
        return_distance : bool, default=True
        sort_results : bool, default=False
            Whether the nearest come first.
        fhe : {"disable", "simulate", "execute"}, default="disable"

        Returns
        -------
        (numpy.ndarray of object, numpy.ndarray of object), or the latter alone
            An array of distances and one of places a row.

        Raises
        ------
        InvalidParameterError
            If what is sorted is not returned.
        """
        if sort_results and not return_distance:
            raise InvalidParameterError(
                "sort_results=True sorts by distances: take return_distance=True as well"
            )
        radius = self.radius if radius is None else radius
        distances = self._metric().distances(super()._raw(X, fhe))
        self._check_reach(X, radius)
        places = [np.flatnonzero((of <= radius) & np.isfinite(of)) for of in distances]
        if sort_results:
            places = [
                near[np.argsort(of[near], kind="stable")]
                for of, near in zip(distances, places, strict=True)
            ]
        found = [of[near] for of, near in zip(distances, places, strict=True)]
        return (_objects(found), _objects(places)) if return_distance else _objects(places)

    @Revealed
    def radius_neighbors_graph(
        self,
        X: Any = None,
        radius: float | None = None,
        mode: str = "connectivity",
        sort_results: bool = False,
        fhe: str = "disable",
    ) -> Any:
        """The neighbours of rows as a sparse matrix: see `radius_neighbors`, and scikit-learn.

        Parameters
        ----------
        X, radius, sort_results, fhe
            As for `radius_neighbors`.
        mode : {"connectivity", "distance"}, default="connectivity"

        Returns
        -------
        sparse matrix of shape (rows, references)
        """
        self.check_model_is_fitted()
        model = copy.copy(self.sklearn_model)
        model.radius_neighbors = functools.partial(self.radius_neighbors, fhe=fhe)
        radius = self.radius if radius is None else radius
        return model.radius_neighbors_graph(X, radius, mode, sort_results)


def _objects(arrays: list[np.ndarray]) -> np.ndarray:
    """An array of arrays."""
    found = np.empty(len(arrays), dtype=object)
    for place, array in enumerate(arrays):
        found[place] = array
    return found
