"""How far the neighbours of new rows are, as far as references tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cipherlearn.sklearn.neighbors.distances import Grid, References

#: Most references that are looked at.
CALIBRATION_ROWS = 512


@dataclass(frozen=True, eq=False)
class TypicalRows:
    """Rows that tell how far the k-th neighbours of new rows are.

    They are references, each without itself. Where so many more are at the same point of the grid
    (integers, categories, copies), that only tells that these are there: so such a row is also
    taken without all of them, and moved by up to half of the way to the next values of its
    features.

    Parameters
    ----------
    references : References
    grid : Grid
    count : int
        Which neighbour it is, of how many are sought.
    rows : numpy.ndarray of float64, shape (rows, features)
    equal : numpy.ndarray of bool, shape (crowded rows, references)
        Which references are at the points of rows that many others are at.
    crowded : numpy.ndarray of bool, shape (rows,)
        Which rows these are.
    """

    references: References
    grid: Grid
    count: int
    rows: np.ndarray
    equal: np.ndarray
    crowded: np.ndarray

    @classmethod
    def of(cls, references: References, grid: Grid, count: int) -> TypicalRows:
        """Of so many neighbours."""
        points = references.points
        taken = slice(None, None, -(-len(points) // CALIBRATION_ROWS))
        _, groups, sizes = np.unique(
            grid.places(points), axis=0, return_inverse=True, return_counts=True
        )
        groups = groups.reshape(-1)
        crowded = sizes[groups[taken]] > count
        equal = groups[taken][crowded, None] == groups
        return cls(references, grid, count, points[taken], equal, crowded)

    def farthest(self, most: float = np.inf) -> np.ndarray:
        """How far the k-th neighbours are, where no feature adds more than so much."""
        last = len(self.references) - 1
        sums = self.references.sums(self.grid, self.rows, most)
        found = [np.sort(sums, axis=1)[:, min(self.count, last)]]  # a row is its own first
        if self.crowded.any():
            others = np.where(self.equal, np.inf, sums[self.crowded])
            kth = np.sort(others, axis=1)[:, min(self.count - 1, last)]
            # There may be fewer others than neighbours, or none.
            known = np.where(self.equal, 0.0, sums[self.crowded]).max(axis=1)
            moved = self.references.sums(self.grid, self._moved(), most)
            found += [np.minimum(kth, known), np.sort(moved, axis=1)[:, min(self.count - 1, last)]]
        return np.concatenate(found)

    def _moved(self) -> np.ndarray:
        """Crowded rows, moved towards the next values that references have."""
        rows = self.rows[self.crowded]
        shifts = np.random.default_rng(0).uniform(-0.5, 0.5, rows.shape)
        found = np.empty_like(rows)
        for feature, shift in enumerate(shifts.T):
            values = np.unique(self.references.points[:, feature])
            place = np.searchsorted(values, rows[:, feature])
            to = np.clip(place + np.where(shift > 0, 1, -1), 0, len(values) - 1)
            found[:, feature] = values[place] + np.abs(shift) * (values[to] - values[place])
        return found
