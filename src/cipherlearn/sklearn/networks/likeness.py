"""Rows that are like others, and none of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.neighbors import NearestNeighbors

#: Stand-ins at most.
_MOST_STAND_INS = 200


def rows_like(rows: np.ndarray, count: int) -> np.ndarray:
    """Random rows in the ranges of others: the same ones for the same rows.

    Half of them lie anywhere between two of the rows. The others have their mean and covariance, as
    far as ranges allow, so that there are some where no two rows are near.

    Parameters
    ----------
    rows : numpy.ndarray of float64, shape (rows, features)
    count : int

    Returns
    -------
    numpy.ndarray of float64, shape (count, features)
    """
    random = np.random.default_rng(0)
    first, second = rows[random.integers(len(rows), size=(2, count // 2))]
    between = first + random.uniform(size=(len(first), 1)) * (second - first)
    return np.concatenate([between, _sums(rows, count - len(first))])


def rows_between(rows: np.ndarray) -> np.ndarray:
    """Rows halfway between each and the one that is nearest to it (as of SMOTE, JAIR 2002).

    Parameters
    ----------
    rows : numpy.ndarray of float64, shape (rows, features)
        Different ones, at least two.

    Returns
    -------
    numpy.ndarray of float64, shape (rows, features)
    """
    _, nearest = NearestNeighbors(n_neighbors=1).fit(rows).kneighbors()
    return np.asarray((rows + rows[nearest[:, 0]]) / 2.0)


@dataclass(frozen=True, eq=False)
class Seen:
    """Rows that ranges were taken from.

    Parameters
    ----------
    rows : numpy.ndarray of float64, shape (rows, features)
    are_data : bool, default=True
        Whether they are somebody's, and no stand-ins.
    """

    rows: np.ndarray
    are_data: bool = True

    def without_rows(self) -> Seen:
        """Stand-ins, that tell of the rows what ranges need, and of none of them what it is.

        They have the same ranges and a like mean and covariance; so affine functions have like
        ranges on them. Each is a sum of all rows, and there are too few to solve for these.
        """
        if not self.are_data:
            return self
        found = _sums(self.rows, max(2, min(len(self.rows) // 2, _MOST_STAND_INS)))
        features = np.arange(found.shape[1])
        found[found.argmin(axis=0), features] = self.rows.min(axis=0)
        found[found.argmax(axis=0), features] = self.rows.max(axis=0)
        return Seen(found, are_data=False)


def _sums(rows: np.ndarray, count: int) -> np.ndarray:
    """Rows as of a normal distribution with the mean and covariance of others, in their ranges.

    Each is the mean, and the distances of all rows from it with random weights.
    """
    mean = rows.mean(axis=0)
    weights = np.random.default_rng(0).normal(scale=len(rows) ** -0.5, size=(count, len(rows)))
    return np.clip(mean + weights @ (rows - mean), rows.min(axis=0), rows.max(axis=0))
