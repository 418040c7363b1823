"""Which references are selected, under encryption: the nearest, those within a radius, the first.

All of it is comparisons of sums over features, each one table look-up on a difference that is
rounded to a few bits. Rounding is approximate: of references whose difference is nearly zero,
either may count as the nearer one. What follows tolerates that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from cipherlearn.circuit import Builder, evaluate
from cipherlearn.circuit.builder import IntValue, tabulate
from cipherlearn.engines.base import DEFAULT_P_ERROR
from cipherlearn.sklearn.neighbors.distances import Grid, References, Sums
from cipherlearn.sklearn.neighbors.typical import TypicalRows

#: Bits that rounding removes from a difference, so that nothing of it depends on the last ones.
REMOVED = 8

#: Rounds of bisection: there are two to that power of thresholds.
ROUNDS = 4

#: Least bits of the counts of neighbours; by how much they may exceed what is counted.
COUNT_BITS, COUNT_REACH = 4, 3

#: What a feature adds to a distance is limited to this quantile of the distances of the k-th
#: neighbours; the last threshold lies so much above all of them.
LIMIT_QUANTILE, BEYOND = 0.9, 1.25

#: Error of a difference, in units of its standard deviation, that the last comparison allows for if
#: one neighbour is sought, lest it is lost; of several, some will be left.
MARGIN = 3.0


def deviation() -> float:
    """Standard deviation of the error of a rounded difference: half a step is as rare as p_error.

    In integers, at the default error probability.
    """
    half_step = 2 ** (REMOVED - 1)
    return float(half_step / -NormalDist().inv_cdf(DEFAULT_P_ERROR / 2.0))


def steps_of(bits: int) -> int:
    """Largest range of differences that rounding leaves so many bits of."""
    return int((2**bits - 2) << REMOVED)


def not_negative(difference: IntValue) -> IntValue:
    """1 where a difference is not negative, 0 elsewhere: one look-up an element."""
    # Rounding decides at half a step: there lies zero.
    moved = difference - 2 ** (REMOVED - 1)
    return (moved.round(REMOVED, exact=False) >= 0).astype(np.int64)


class Selection(ABC):
    """A way to select references."""

    #: What is compared, of references or of pairs of them.
    sums: Sums

    #: How many references there are.
    n_references: int

    def mask(self, bits: IntValue) -> IntValue:
        """1 for each selected reference, 0 for others: shape (1, references).

        Parameters
        ----------
        bits : IntValue, shape (1, unary bits)
        """
        sums = bits @ self.sums.weights + self.sums.constant
        # The intervals of single bits do not tell that they are those of a unary code.
        return self.chosen(sums.assume(self.sums.low[None], self.sums.high[None], encoded=True))

    @abstractmethod
    def chosen(self, sums: IntValue) -> IntValue:
        """The same of the sums themselves, of shape (1, sums)."""

    @abstractmethod
    def without(self, sums: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Sums of rows as if one reference of each row were farther than all others.

        Parameters
        ----------
        sums : numpy.ndarray of int64, shape (rows, sums)
        places : numpy.ndarray of int64, shape (rows,)
        """

    def mask_without(self, bits: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Exact masks of rows, as if each had one reference less: (rows, references).

        Parameters
        ----------
        bits : numpy.ndarray of integers, shape (rows, unary bits)
        places : numpy.ndarray of int64, shape (rows,)
            The reference that each row is without; -1 for none.
        """
        # Sums are far below 2**53: products of floating-point numbers are exact, and quick.
        sums = self.sums.of_bits(bits.astype(np.float64)).astype(np.int64)
        lacking = places >= 0
        sums[lacking] = self.without(sums[lacking], places[lacking])
        builder = Builder()
        given = builder.input("sums", (1, sums.shape[1]), int(sums.min()), int(sums.max()))
        circuit = builder.finish([self.chosen(given)], ["mask"])
        return np.asarray(evaluate(circuit, sums[:, None]).outputs[0][:, 0])


@dataclass(frozen=True, eq=False)
class Within(Selection):
    """References that are not farther than a threshold.

    Parameters
    ----------
    sums : Sums
        The threshold less the distance, one a reference.
    """

    sums: Sums

    @classmethod
    def fitted(cls, references: References, grid: Grid, threshold: float, bits: int) -> Within:
        """References whose sum is not above a threshold, compared with so many bits."""
        ends = [table.max(axis=0) for table in references.terms(grid)]
        # What one feature alone puts beyond the threshold stays beyond it.
        limit = _limit(references, grid, threshold * BEYOND)
        reach = threshold + float(np.sum(np.minimum(ends, limit), axis=0).max())
        scale = steps_of(bits) / (reach if reach > 0 else 1.0)
        terms = (-scale * table for table in references.terms(grid, limit))
        # Distances that equal the threshold count.
        start = np.full(len(references), scale * threshold + _rounding(len(ends)))
        return cls(Sums.of_terms(terms, start))

    @property
    def n_references(self) -> int:  # type: ignore[override]
        """How many references there are."""
        return len(self.sums.constant)

    def chosen(self, sums: IntValue) -> IntValue:
        """See `Selection`."""
        return not_negative(sums)

    def without(self, sums: np.ndarray, places: np.ndarray) -> np.ndarray:
        """See `Selection`."""
        np.put_along_axis(sums, places[:, None], -1, axis=1)
        return sums


@dataclass(frozen=True, eq=False)
class Nearest(Selection):
    """The k nearest references, and those that are about as near as the last of them.

    Which of a few thresholds is the least that k references reach is found by bisection: each round
    compares all references with a threshold that the rounds before have chosen.

    Parameters
    ----------
    sums : Sums
        Distances, one a reference.
    thresholds : numpy.ndarray of int64, shape (2**rounds,)
        Not decreasing.
    margin : int
        Added to the threshold in the last comparison.
    n_neighbors : int
    """

    sums: Sums
    thresholds: np.ndarray
    margin: int
    n_neighbors: int

    @classmethod
    def fitted(cls, references: References, grid: Grid, n_neighbors: int, bits: int) -> Nearest:
        """Thresholds for rows that lie as references do, compared with so many bits.

        Parameters
        ----------
        references : References
            Not all of them equal.
        grid : Grid
        n_neighbors : int
        bits : int
        """
        typical = TypicalRows.of(references, grid, n_neighbors)
        limit = float(np.quantile(typical.farthest(), LIMIT_QUANTILE))
        limit = _limit(references, grid, limit)
        farthest = typical.farthest(limit)
        shares = np.arange(1, 2**ROUNDS + 1) / 2**ROUNDS
        thresholds = np.quantile(farthest, shares)
        ends = [table.max(axis=0) for table in references.terms(grid, limit)]
        reach = float(np.sum(ends, axis=0).max())
        thresholds[-1] = min(thresholds[-1] * BEYOND, reach)
        margin = int(np.ceil(MARGIN * deviation() / n_neighbors))
        scale = (steps_of(bits) - margin) / (reach + thresholds[-1] - thresholds[0])
        terms = (scale * table for table in references.terms(grid, limit))
        sums = Sums.of_terms(terms, np.zeros(len(references)))
        rounded = np.floor(scale * thresholds + _rounding(len(ends))).astype(np.int64)
        return cls(sums, rounded, margin, n_neighbors)

    @property
    def n_references(self) -> int:  # type: ignore[override]
        """How many references there are."""
        return len(self.sums.constant)

    @property
    def n_rounds(self) -> int:
        """Rounds of bisection."""
        return len(self.thresholds).bit_length() - 1

    def chosen(self, sums: IntValue) -> IntValue:
        """See `Selection`."""
        place: IntValue | None = None
        for level in reversed(range(self.n_rounds)):
            # Of the thresholds that are left, the last one of the lower half.
            threshold = self._threshold(place, self.thresholds, 2**level - 1)
            count = saturated_count(not_negative(threshold - sums), self.n_neighbors)
            upper = ((count < self.n_neighbors) * 2**level).astype(np.int64)
            place = upper if place is None else place + upper
        threshold = self._threshold(place, self.thresholds + self.margin, 0)
        return not_negative(threshold - sums)

    def without(self, sums: np.ndarray, places: np.ndarray) -> np.ndarray:
        """See `Selection`."""
        beyond = int(self.thresholds[-1]) + self.margin + 1
        np.put_along_axis(sums, places[:, None], beyond, axis=1)
        return sums

    @staticmethod
    def _threshold(place: IntValue | None, thresholds: np.ndarray, offset: int) -> Any:
        """A threshold of those from a place on: one look-up."""
        if place is None:
            return int(thresholds[offset])
        last = len(thresholds) - 1

        def read(places: np.ndarray) -> np.ndarray:
            return thresholds[np.minimum(np.asarray(places, np.int64) + offset, last)]

        return tabulate(read, place).astype(np.int64)


def _rounding(features: int) -> float:
    """How much a sum may grow when its terms are rounded: at most, or of many, hardly more."""
    return float(min(features / 2, np.sqrt(features)))


def _limit(references: References, grid: Grid, limit: float) -> float:
    """A limit of terms that leaves more than zero of them."""
    widest = max(float(table.max()) for table in references.terms(grid))
    smallest = widest / grid.top**references.metric.power
    return float(np.max([limit, smallest, np.finfo(np.float64).tiny]))


def saturated_count(ones: IntValue, most: int) -> IntValue:
    """How many there are, up to ``most``; of more, some number that is not less.

    Sums of many have many bits, and look-ups of many bits are dear: so groups are counted first,
    and groups of groups after that.

    Parameters
    ----------
    ones : IntValue, shape (1, n)
        Each 0 or 1.
    most : int

    Returns
    -------
    IntValue, shape (1, 1)
    """
    largest = 2 ** max(COUNT_BITS, (COUNT_REACH * most).bit_length()) - 1
    counts = _grouped(ones, largest)
    while counts.shape[1] > 1:
        limited: Any = tabulate(lambda count: np.minimum(count, most), counts)
        counts = _grouped(limited.astype(np.int64), largest // most)
    return counts


def _grouped(values: IntValue, size: int) -> IntValue:
    """Sums of groups of so many: (1, n) -> (1, groups)."""
    n = values.shape[1]
    groups = np.arange(n) // size
    matrix = (groups[:, None] == np.arange(groups[-1] + 1)).astype(np.int64)
    return values @ matrix


@dataclass(frozen=True, eq=False)
class Ranked(Selection):
    """The k nearest of few references: each is compared with each.

    Parameters
    ----------
    sums : Sums
        For each pair ``i < j``, in order, the distance from ``j`` less that from ``i``.
    n_references : int
    n_neighbors : int
    """

    sums: Sums
    n_references: int
    n_neighbors: int

    @classmethod
    def fitted(
        cls,
        references: References,
        grid: Grid,
        n_neighbors: int,
        bits: int,
        start: np.ndarray | None = None,
    ) -> Ranked:
        """References compared with so many bits.

        Parameters
        ----------
        references : References
        grid : Grid
        n_neighbors : int
        bits : int
        start : numpy.ndarray of float64, shape (references,), optional
            Added to each reference's sum.
        """
        count = len(references)
        first, second = np.triu_indices(count, 1)
        added = np.zeros(count) if start is None else start
        low = high = added[second] - added[first]
        for table in references.terms(grid):
            between = table[:, second] - table[:, first]
            low, high = low + between.min(axis=0), high + between.max(axis=0)
        reach = np.maximum(np.abs(low), np.abs(high))
        scale = steps_of(bits) / 2 / np.where(reach > 0, reach, 1.0)
        terms = (scale * (table[:, second] - table[:, first]) for table in references.terms(grid))
        return cls(Sums.of_terms(terms, scale * (added[second] - added[first])), count, n_neighbors)

    def chosen(self, sums: IntValue) -> IntValue:
        """See `Selection`."""
        first, second = np.triu_indices(self.n_references, 1)
        nearer = not_negative(sums)
        # How many are nearer than each: the second of a pair counts the first, or else it is
        # counted by it. Of equal ones, the first is the nearer.
        places = np.arange(self.n_references)
        signs = (second[:, None] == places).astype(np.int64) - (first[:, None] == places)
        before = nearer @ signs + (first[:, None] == places).sum(axis=0)
        if self.n_references == 2 and self.n_neighbors == 1:
            return 1 - before
        return (before < self.n_neighbors).astype(np.int64)

    def without(self, sums: np.ndarray, places: np.ndarray) -> np.ndarray:
        """See `Selection`."""
        first, second = np.triu_indices(self.n_references, 1)
        sums = np.where(first == places[:, None], -1, sums)
        return np.where(second == places[:, None], 0, sums)
