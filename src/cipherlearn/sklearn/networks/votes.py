"""Several classes from a score for each pair of them, as LIBSVM and scikit-learn count."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from sklearn.utils.multiclass import _ovr_decision_function

#: How near to 0 and 1 the probability of a class against another one comes.
_LEAST = 1e-7


def pair_coefficients(dual: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """A column of coefficients for each pair of classes.

    Parameters
    ----------
    dual : numpy.ndarray, shape (classes - 1, points)
        As LIBSVM stores them: for a point of some class, one against each other class.
    counts : numpy.ndarray, shape (classes,)
        Points of each class, which stand one after the other.

    Returns
    -------
    numpy.ndarray of float64, shape (points, pairs)
    """
    ends = np.cumsum(counts)
    of_class = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
    columns = []
    for first, second in itertools.combinations(range(len(counts)), 2):
        column = np.zeros(dual.shape[1])
        column[of_class[first]] = dual[second - 1, of_class[first]]
        column[of_class[second]] = dual[first, of_class[second]]
        columns.append(column)
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class Votes:
    """What pairs say of classes. A score above zero is a vote for the first of a pair.

    Parameters
    ----------
    n_classes : int
    """

    n_classes: int

    def scores(self, pairs: np.ndarray) -> np.ndarray:
        """Votes of classes, with what decides between equal ones (``decision_function``)."""
        return np.asarray(_ovr_decision_function(pairs < 0, -pairs, self.n_classes))

    def most(self, pairs: np.ndarray) -> np.ndarray:
        """The place of the class with most votes; of equal ones, the first."""
        votes = np.zeros((len(pairs), self.n_classes), dtype=np.int64)
        each = itertools.combinations(range(self.n_classes), 2)
        for (first, second), score in zip(each, pairs.T, strict=True):
            votes[:, first] += score > 0
            votes[:, second] += score <= 0
        return votes.argmax(axis=1)
