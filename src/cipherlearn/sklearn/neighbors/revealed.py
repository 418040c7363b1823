"""Distances that the client decrypts: functions without a look-up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cipherlearn.engines.execution import FheMode
from cipherlearn.errors import InvalidParameterError
from cipherlearn.sklearn.linear.affine import Affine
from cipherlearn.sklearn.linear.maps import FeatureMap, Function
from cipherlearn.sklearn.linear.module import MOST_BITS, Box, LinearBits, LinearModule
from cipherlearn.sklearn.neighbors.distances import Grid, References

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


class SquaredDistances(LinearModule):
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
        self.scales = np.ones(points.shape[1]) if weights is None else weights
        coefficients = -2.0 * self.scales * points
        constant = (self.scales * points**2).sum(axis=1) - coefficients @ self.middle
        constant += 0.0 if offsets is None else offsets
        super().__init__(Affine(coefficients.T, constant), box, bits)

    def forward(self, *x: np.ndarray, fhe: str | FheMode = "disable") -> Any:
        """Sums of rows: (rows, references)."""
        return super().forward(*x, fhe=fhe) + self.lengths(x[0])

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """What the client adds to all results of a row: (rows, 1).

        Rows are rounded as they are before encryption.
        """
        top = 2**self.bits.inputs - 1
        places = np.rint(np.clip(self.box.units(rows), 0.0, 1.0) * top) / top
        sent = self.box.low + self.box.span * places - self.middle
        return np.asarray((self.scales * sent**2).sum(axis=1, keepdims=True))


def distance_module(
    references: References, box: Box, bits: LinearBits, offsets: np.ndarray | None = None
) -> LinearModule:
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
    return LinearModule(affine, Box.unit(grid.n_bits), finer, mapped)
