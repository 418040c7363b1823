"""Distances that the client decrypts: functions without a look-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cipherlearn.engines.execution import FheMode
from cipherlearn.errors import InvalidParameterError
from cipherlearn.sklearn.linear.affine import Affine
from cipherlearn.sklearn.linear.maps import FeatureMap, Function
from cipherlearn.sklearn.linear.module import MOST_BITS, Box, LinearBits, LinearModule
from cipherlearn.sklearn.neighbors.distances import Grid, Metric, References
from cipherlearn.sklearn.neighbors.module import count_beyond

#: Most bits of features in unary code.
MOST_UNARY_BITS = 8


@dataclass(frozen=True, eq=False)
class Unary(FeatureMap):
    """The unary code of features on a grid.

    Parameters
    ----------
    grid : Grid
    """

    is_binary: ClassVar[bool] = True

    grid: Grid

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """0 or 1 for each unary bit."""
        return self.grid.code(rows).astype(np.float64)

    def read(self, function: Function) -> Affine:
        """By the results of rows that differ from the first points in one feature."""
        start = np.array([code.points[0] for code in self.grid.codes])
        weights = []
        for feature, code in enumerate(self.grid.codes):
            rows = np.tile(start, (len(code.points), 1))
            rows[:, feature] = code.points
            weights.append(np.diff(function(rows), axis=0))
        return Affine(np.concatenate(weights), function(start[None])[0])


class Distances(LinearModule):
    """Sums over features of the differences from references, that the client completes.

    Parameters
    ----------
    ranges : Box
        Of the features.
    metric : Metric
    affine, box, bits, mapped
        As for `LinearModule`.
    """

    def __init__(
        self,
        ranges: Box,
        metric: Metric,
        affine: Affine,
        box: Box,
        bits: LinearBits,
        mapped: FeatureMap | None = None,
    ) -> None:
        self.ranges, self.metric = ranges, metric
        super().__init__(affine, box, bits, mapped)

    def forward(self, *x: np.ndarray, fhe: str | FheMode = "disable") -> Any:
        """Sums of rows: (rows, references).

        Where rows lie beyond the ranges of the features, they are lower bounds.
        """
        return super().forward(*x, fhe=fhe) + self.lengths(x[0])

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """What the client adds to all results of a row: (rows, 1), or one each.

        It is what a row that is moved to the border of the ranges loses at least.
        """
        places = self.ranges.units(np.asarray(rows, np.float64))
        past = np.abs(places - np.clip(places, 0.0, 1.0))
        # Of what does not vary, the unit is one.
        past *= np.where(self.ranges.span > 0, self.ranges.span, 1.0)
        power = self.metric.power
        # A reference may be at either end of the ranges.
        least = np.minimum(
            past**power, (self.ranges.span + past) ** power - self.ranges.span**power
        )
        return self._weighted(least)

    def _weighted(self, terms: np.ndarray) -> np.ndarray:
        """Sums of what the features add, in the units of the metric."""
        weights = self.metric.weights
        weights = np.ones(terms.shape[1]) if weights is None else weights
        return np.asarray(terms @ np.atleast_2d(weights).T)

    def _count_clipped(self, x: Sequence[Any]) -> None:
        self.clipped_count += count_beyond(self.ranges, x)


class SquaredDistances(Distances):
    """Sums of squared differences: the client adds what depends on its row alone.

    Parameters
    ----------
    references : References
        Of a metric of power 2.
    box : Box
    bits : LinearBits
    offsets : numpy.ndarray of float64, shape (references,), optional
        Added to the sums.
    """

    def __init__(
        self, references: References, box: Box, bits: LinearBits, offsets: np.ndarray | None
    ) -> None:
        # Seen from the middle of the ranges, weights are small: less cancels out.
        self.middle = box.low + box.span / 2
        points = references.points - self.middle
        weights = references.metric.weights
        scales = np.ones(points.shape[1]) if weights is None else weights
        coefficients = -2.0 * scales * points
        constant = (scales * points**2).sum(axis=1) - coefficients @ self.middle
        constant += 0.0 if offsets is None else offsets
        super().__init__(box, references.metric, Affine(coefficients.T, constant), box, bits)

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """What the client adds to all results of a row: (rows, 1), or one each.

        Rows are rounded as they are before encryption.
        """
        top = 2**self.bits.inputs - 1
        places = np.rint(np.clip(self.box.units(rows), 0.0, 1.0) * top) / top
        sent = self.box.low + self.box.span * places - self.middle
        return super().lengths(rows) + self._weighted(sent**2)


def distance_module(
    references: References, box: Box, bits: LinearBits, offsets: np.ndarray | None = None
) -> Distances:
    """The module whose results are the sums of references.

    Raises
    ------
    InvalidParameterError
        If the power of the metric is not 2, and features have more bits than unary code has.
    """
    if references.metric.power == 2:
        return SquaredDistances(references, box, bits, offsets)
    if bits.inputs > MOST_UNARY_BITS:
        raise InvalidParameterError(
            f"n_bits: features of {bits.inputs} bits are too many for this metric, whose terms are "
            f"not squares; take {MOST_UNARY_BITS} at most"
        )
    grid = Grid(box, bits.inputs)
    mapped = Unary(grid)
    affine = mapped.read(lambda rows: references.sums(grid, rows))
    if offsets is not None:
        affine = Affine(affine.weights, affine.constant + offsets)
    # A term is a sum of as many weights as it has unary bits.
    finer = LinearBits(1, min(bits.inputs + bits.weights, MOST_BITS))
    return Distances(box, references.metric, affine, Box.unit(grid.n_bits), finer, mapped)
