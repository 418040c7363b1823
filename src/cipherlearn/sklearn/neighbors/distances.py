"""Distances as sums over features: on the client's unary bits, each is a product with integers.

The client places each feature on a public grid of ``2**bits`` points over its range and encrypts it
in unary (thermometer) code: bit ``i`` says whether the feature lies above point ``i``. Any function
of one feature is linear in its bits, and so is any sum of such functions: powers of Minkowski
distances to points that the server knows among them, whatever the power.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cipherlearn.errors import InvalidParameterError
from cipherlearn.sklearn._entry import Transform, codes_before, ends_before
from cipherlearn.sklearn.encoding import OrdinalCode
from cipherlearn.sklearn.linear.module import Box

#: Metrics by name, with the power that their terms have.
_POWERS = {
    "cityblock": 1.0,
    "euclidean": 2.0,
    "l1": 1.0,
    "l2": 2.0,
    "manhattan": 1.0,
    "sqeuclidean": 2.0,
}


#: More than any value of a feature; and its double is a number still.
_NEVER_REACHED = 1e300


@dataclass(frozen=True, eq=False)
class Metric:
    """A distance whose power is a sum over features: ``sum_f w_f |x_f - r_f| ** power``.

    Parameters
    ----------
    power : float
    weights : numpy.ndarray of float64, shape (features,) or (references, features), optional
        Default: all one.
    squared : bool, default=False
        Whether the distance is the sum itself.
    """

    power: float
    weights: np.ndarray | None = None
    squared: bool = False

    @classmethod
    def of(cls, model: Any) -> Metric:
        """The metric of a model of scikit-learn: ``metric``, ``p`` and ``metric_params``.

        Raises
        ------
        InvalidParameterError
            If it is not a sum over features.
        """
        name, params = model.metric, dict(getattr(model, "metric_params", None) or {})
        if name == "minkowski":
            power, weights = params.pop("p", getattr(model, "p", 2)), params.pop("w", None)
            if params or not 0 < power < np.inf:
                raise _not_a_sum(f"minkowski with p={power}" + (f" and {params}" if params else ""))
            return cls(float(power), None if weights is None else np.asarray(weights, np.float64))
        if not isinstance(name, str) or name not in _POWERS or params:
            raise _not_a_sum(f"{name!r}" + (f" with metric_params={params}" if params else ""))
        return cls(_POWERS[name], squared=name == "sqeuclidean")

    def terms(self, points: np.ndarray, references: np.ndarray, feature: int) -> np.ndarray:
        """What one feature adds, for values (points,) and (references,): (points, references)."""
        found = np.abs(points[:, None] - references[None]) ** self.power
        return found if self.weights is None else found * self.weights[..., feature]

    def sum_of(self, distance: float) -> float:
        """The sum over features of a distance."""
        return distance if self.squared else distance**self.power

    def reach(self, total: float, n_features: int) -> np.ndarray:
        """How far apart features are that add so much: (features,); 0 of those that never do."""
        weights = np.ones(n_features) if self.weights is None else self.weights
        units = np.where(weights > 0, total, 0.0) / np.where(weights > 0, weights, 1.0)
        return np.asarray(units ** (1.0 / self.power))

    def distances(self, sums: np.ndarray) -> np.ndarray:
        """Distances of sums over features."""
        positive = np.maximum(sums, 0.0)
        return positive if self.squared else np.asarray(positive ** (1.0 / self.power))


def _not_a_sum(given: str) -> InvalidParameterError:
    return InvalidParameterError(
        f"metric: the distance must be a sum over features, and {given} is not. Accepted are "
        f"{', '.join(map(repr, sorted(_POWERS)))}, and 'minkowski' with a finite p and weights w"
    )


@dataclass(frozen=True, eq=False)
class Grid:
    """Public points that features are placed on, and their unary code.

    Parameters
    ----------
    box : Box
        Ranges of the features.
    bits : int
        There are ``2**bits`` points.
    entry : tuple of OrdinalCode, optional
        The code of each feature, where steps come before the model: states are those after them.
        The ranges are those before.
    """

    box: Box
    bits: int
    entry: tuple[OrdinalCode, ...] | None = None

    @property
    def top(self) -> int:
        """Unary bits of a feature."""
        return 2**self.bits - 1

    @property
    def n_bits(self) -> int:
        """Unary bits of a row."""
        return len(self.box.low) * self.top

    @functools.cached_property
    def codes(self) -> tuple[OrdinalCode, ...]:
        """The code of each feature: it is cut in the middle between its points."""
        if self.entry is not None:
            return self.entry
        steps = np.arange(self.top + 1) / self.top
        points = self.box.low[:, None] + self.box.span[:, None] * steps
        return tuple(OrdinalCode((of[1:] + of[:-1]) / 2, of) for of in points)

    def before(self, transform: Transform, rows: np.ndarray) -> Grid:
        """The grid of features before steps: rows have the places that they have after them.

        Parameters
        ----------
        transform : callable
            The steps.
        rows : numpy.ndarray of float64, shape (rows, features)
            Before them.

        Raises
        ------
        ModelError
            If a feature does not go through the steps by itself, or does not grow with them.
        """
        found = codes_before(self.codes, transform, rows)
        entry = tuple(code for code in found if isinstance(code, OrdinalCode))
        ends = np.stack([self.box.low, self.box.low + self.box.span])
        low, high = ends_before(ends, transform, rows)
        # No value is beyond an end that the steps never reach.
        low, high = (np.clip(end, -_NEVER_REACHED, _NEVER_REACHED) for end in (low, high))
        return Grid(Box(low, high - low), self.bits, entry)

    def points(self, feature: int) -> np.ndarray:
        """Values of one feature's points."""
        return self.codes[feature].points

    def places(self, rows: np.ndarray) -> np.ndarray:
        """The nearest points of rows; rows beyond the ranges are at their border."""
        each = [code.states(values) for code, values in zip(self.codes, rows.T, strict=True)]
        return np.stack(each, axis=1)

    def code(self, rows: np.ndarray) -> np.ndarray:
        """Unary bits of rows, of shape (rows, features * top)."""
        places = self.places(rows).T
        bits = [code.bits(states) for code, states in zip(self.codes, places, strict=True)]
        return np.concatenate(bits, axis=1).astype(np.int8)


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over features, in integers.

    Parameters
    ----------
    weights : numpy.ndarray of int64, shape (unary bits, sums)
    constant, low, high : numpy.ndarray of int64, shape (sums,)
        What there is without any bit; the smallest and the largest sum of a row.
    """

    weights: np.ndarray
    constant: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of_terms(cls, terms: Iterator[np.ndarray], start: np.ndarray) -> Sums:
        """From what each feature adds at its points.

        Parameters
        ----------
        terms : iterator of numpy.ndarray of float64, each of shape (points, sums)
            One array a feature.
        start : numpy.ndarray of float64, shape (sums,)
            Added to all.
        """
        constant = np.rint(start).astype(np.int64)
        low, high, weights = constant.copy(), constant.copy(), []
        for real in terms:
            table = np.rint(real).astype(np.int64)
            constant = constant + table[0]
            low, high = low + table.min(axis=0), high + table.max(axis=0)
            weights.append(np.diff(table, axis=0))
        return cls(np.concatenate(weights), constant, low, high)

    def of_bits(self, bits: Any) -> Any:
        """The sums of unary bits, of shape (rows, bits); also of a circuit's."""
        return bits @ self.weights + self.constant


@dataclass(frozen=True, eq=False)
class References:
    """Points that the server knows, and the distance from them.

    Parameters
    ----------
    points : numpy.ndarray of float64, shape (references, features)
    metric : Metric
    """

    points: np.ndarray
    metric: Metric

    def __len__(self) -> int:
        return len(self.points)

    @property
    def are_equal(self) -> bool:
        """Whether all of them are as far from any row."""
        weights = self.metric.weights
        counted = slice(None) if weights is None else weights > 0
        return not np.ptp(self.points[:, counted], axis=0).any()

    def terms(self, grid: Grid, most: float = np.inf) -> Iterator[np.ndarray]:
        """For each feature, what it adds at the grid's points: (points, references).

        Parameters
        ----------
        grid : Grid
        most : float
            A feature adds no more than that. Whatever is nearer than that keeps its distance, and
            whatever is not stays at least as far.
        """
        for feature, values in enumerate(self.points.T):
            yield np.minimum(self.metric.terms(grid.points(feature), values, feature), most)

    def sums(self, grid: Grid, rows: np.ndarray, most: float = np.inf) -> np.ndarray:
        """Real sums of rows on the grid: (rows, references)."""
        places = grid.places(rows)
        total = np.zeros((len(rows), len(self)))
        for feature, table in enumerate(self.terms(grid, most)):
            total += table[places[:, feature]]
        return total
