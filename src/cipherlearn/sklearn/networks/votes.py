"""Several classes from a score for each pair of them, as LIBSVM and scikit-learn count."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from sklearn.utils.multiclass import _ovr_decision_function

from cipherlearn.sklearn.links import Link

#: How near to 0 and 1 the probability of a class against another one comes.
_LEAST = 1e-7

#: Iterations of the coupling, and when it is near enough.
_MOST_ITERATIONS, _NEAR = 100, 0.005


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


@dataclass(frozen=True, eq=False)
class Coupling(Link):
    """Probabilities of classes from scores of their pairs.

    A logistic function of each score tells the first of a pair from the second (Platt, 1999); their
    coupling is the second one of Wu, Lin and Weng, "Probability estimates for multi-class
    classification by pairwise coupling", JMLR 5 (2004), with the iterations that LIBSVM makes.

    Parameters
    ----------
    n_classes : int
    slopes, offsets : numpy.ndarray, shape (pairs,)
        Of the logistic functions.
    """

    n_classes: int
    slopes: np.ndarray
    offsets: np.ndarray

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities of the classes."""
        # One score is of the second class; those of pairs are of their first.
        pairs = -scores if self.n_classes == 2 else scores
        of_first = np.clip(expit(-(self.slopes * pairs + self.offsets)), _LEAST, 1.0 - _LEAST)
        shares = np.zeros((len(scores), self.n_classes, self.n_classes))
        first, second = np.triu_indices(self.n_classes, 1)
        shares[:, first, second], shares[:, second, first] = of_first, 1.0 - of_first
        return _coupled(shares)


def _coupled(shares: np.ndarray) -> np.ndarray:
    """Probabilities p with least sum of ``(shares[j, i] p[i] - shares[i, j] p[j]) ** 2``."""
    rows, size = shares.shape[:2]
    swapped = shares.transpose(0, 2, 1)
    form = -swapped * shares
    diagonal = np.square(shares).sum(axis=1)
    form[:, np.arange(size), np.arange(size)] = diagonal
    result = np.full((rows, size), 1.0 / size)
    product = np.einsum("rij,rj->ri", form, result)
    for _ in range(max(_MOST_ITERATIONS, size)):
        total = (result * product).sum(axis=1)
        going = np.abs(product - total[:, None]).max(axis=1, initial=0.0) >= _NEAR / size
        if not going.any():
            break
        for i in range(size):
            step = np.where(going, (total - product[:, i]) / diagonal[:, i], 0.0)
            result[:, i] += step
            grown = step * (step * diagonal[:, i] + 2.0 * product[:, i])
            total = (total + grown) / np.square(1.0 + step)
            product = (product + step[:, None] * form[:, i]) / (1.0 + step)[:, None]
            result /= (1.0 + step)[:, None]
    return result
