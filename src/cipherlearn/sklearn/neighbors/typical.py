"""How far the neighbours of new rows are, as far as references tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cipherlearn.sklearn.neighbors.distances import Grid, References

#: Most references that are looked at.
CALIBRATION_ROWS = 512


@dataclass(frozen=True, eq=False)
class TypicalRows:
    """Rows that tell how far the neighbours of new rows are.

    They are references, each without itself. Of what several references are equal to, that would
    only tell that the others are there: so these are also taken without all that are equal, and
    moved by up to half of the way to the next values of their features.

    Parameters
    ----------
    rows : numpy.ndarray of float64, shape (rows, features)
    places : numpy.ndarray of int64, shape (rows,)
        Which references they are.
    groups : numpy.ndarray of int64, shape (references,)
        Equal references have equal numbers.
    repeated : numpy.ndarray of bool, shape (rows,)
        Whether there are several that are equal.
    moved : numpy.ndarray of float64, shape (repeated rows, features)
    """

    rows: np.ndarray
    places: np.ndarray
    groups: np.ndarray
    repeated: np.ndarray
    moved: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray) -> TypicalRows:
        """From references of shape (references, features)."""
        places = np.arange(0, len(points), -(-len(points) // CALIBRATION_ROWS))
        rows = points[places]
        _, groups, counts = np.unique(points, axis=0, return_inverse=True, return_counts=True)
        groups = groups.reshape(-1)
        repeated = counts[groups[places]] > 1
        return cls(rows, places, groups, repeated, _moved(rows[repeated], points))

    def kth(
        self, references: References, grid: Grid, count: int, most: float = np.inf
    ) -> np.ndarray:
        """How far their k-th neighbours are."""
        last = len(references) - 1
        sums = references.sums(grid, self.rows, most)
        found = [np.sort(sums, axis=1)[:, min(count, last)]]  # a row is its own first
        if self.repeated.any():
            equal = self.groups[self.places[self.repeated], None] == self.groups
            others = np.where(equal, np.inf, sums[self.repeated])
            kth = np.sort(others, axis=1)[:, min(count - 1, last)]
            # Of fewer others than neighbours, the farthest one.
            farthest = np.where(equal, -np.inf, others).max(axis=1)
            found.append(np.minimum(kth, farthest))
            near = np.sort(references.sums(grid, self.moved, most), axis=1)
            found.append(near[:, min(count, last + 1) - 1])
        return np.concatenate(found)


def _moved(rows: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Rows moved by up to half of the way to the next values that points have."""
    shifts = np.random.default_rng(0).uniform(-0.5, 0.5, rows.shape)
    found = np.empty_like(rows)
    for feature, shift in enumerate(shifts.T):
        values = np.unique(points[:, feature])
        place = np.searchsorted(values, rows[:, feature])
        to = np.clip(place + np.where(shift > 0, 1, -1), 0, len(values) - 1)
        found[:, feature] = values[place] + np.abs(shift) * (values[to] - values[place])
    return found
