"""What the client computes of its features before it encrypts them: maps that no target decides.

A model that is affine in the mapped features needs no look-up, whatever it is in the features
themselves: naive Bayes and discriminants are quadratic, and any sum of functions of one feature
each is linear in the bits of these features. A map tells the weights from what a function gives
for a few rows, all of them in the range of the rows that it was made for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cipherlearn.sklearn.encoding import FeatureCode, feature_code
from cipherlearn.sklearn.linear.affine import Affine

#: Rows that a function is asked for at once.
_AT_ONCE = 1024

#: Of rows (rows, features); gives (rows, outputs).
Function = Callable[[np.ndarray], np.ndarray]


class FeatureMap(ABC):
    """A function of the features of each row."""

    #: Whether it gives zeros and ones, which one bit each stands for.
    is_binary: ClassVar[bool] = False

    #: What the client learns of the training data by it.
    tells: ClassVar[str] = "ranges of the features"

    @abstractmethod
    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Mapped rows: (rows, features) -> (rows, mapped features)."""

    @abstractmethod
    def read(self, function: Function) -> Affine:
        """A function of features, as one of mapped features.

        Whether it is affine in them has to be checked: see `Affine.check`.
        """

    def rounded(self, rows: np.ndarray) -> np.ndarray:
        """Rows that are mapped alike, where values stand for others near them."""
        return rows


@dataclass(frozen=True, eq=False)
class _Polynomial(FeatureMap):
    """Features, and perhaps products of their distances to a center.

    Far from zero, a feature and its square are nearly proportional, and weights of both, large,
    cancel each other. Around the middle of its range they do not.

    Parameters
    ----------
    center, reach : numpy.ndarray of float64, shape (features,)
        The middle of each range, and half of its width.
    """

    center: np.ndarray
    reach: np.ndarray

    @classmethod
    def around(cls, rows: np.ndarray) -> FeatureMap:
        """For rows like these."""
        low, high = rows.min(axis=0), rows.max(axis=0)
        return cls((low + high) / 2, np.where(high > low, (high - low) / 2, 1.0))

    @staticmethod
    def factors(n_features: int) -> tuple[np.ndarray, np.ndarray]:
        """The features whose distances are multiplied: none, unless there are squares."""
        del n_features
        none = np.zeros(0, dtype=np.int64)
        return none, none

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """The features, and then the products."""
        first, second = self.factors(rows.shape[1])
        if not len(first):
            return rows
        distances = rows - self.center
        return np.concatenate([rows, distances[:, first] * distances[:, second]], axis=1)

    def read(self, function: Function) -> Affine:
        """By differences from the center: exact, for a polynomial of these terms."""
        center, reach = self.center, self.reach
        every = np.arange(len(reach))
        first, second = self.factors(len(reach))
        middle = function(center[None])
        above = _moved(function, center, reach, every) - middle
        squares = np.zeros_like(above)
        if len(first):
            squares = (above + _moved(function, center, -reach, every) - middle) / 2
        slopes = (above - squares) / reach[:, None]
        products = squares[first]
        mixed = first != second
        pairs = first[mixed], second[mixed]
        products[mixed] = _moved(function, center, reach, *pairs) - middle
        products[mixed] -= above[pairs[0]] + above[pairs[1]]
        products /= (reach[first] * reach[second])[:, None]
        return Affine(np.concatenate([slopes, products]), middle[0] - center @ slopes)


def _moved(
    function: Function, start: np.ndarray, steps: np.ndarray, *features: np.ndarray
) -> np.ndarray:
    """Results of rows that differ from one row by a step in a feature, or in several."""
    found = [function(start[None])[:0]]
    for begin in range(0, len(features[0]), _AT_ONCE):
        parts = [each[begin : begin + _AT_ONCE] for each in features]
        rows = np.tile(start, (len(parts[0]), 1))
        for part in parts:
            rows[np.arange(len(part)), part] += steps[part]
        found.append(function(rows))
    return np.concatenate(found)


class Plain(_Polynomial):
    """The features themselves."""


class Squares(_Polynomial):
    """The features and their squares."""

    tells: ClassVar[str] = "ranges of the features and of their squares"

    @staticmethod
    def factors(n_features: int) -> tuple[np.ndarray, np.ndarray]:
        """Each with itself."""
        each = np.arange(n_features)
        return each, each


class Products(_Polynomial):
    """The features, their squares, and the product of each two: for n features, n (n + 3) / 2."""

    tells: ClassVar[str] = "ranges of the features and of their products"

    @staticmethod
    def factors(n_features: int) -> tuple[np.ndarray, np.ndarray]:
        """All pairs, each with itself as well."""
        first, second = np.triu_indices(n_features)
        return first, second


@dataclass(frozen=True)
class Above(FeatureMap):
    """Whether features are above a threshold that users choose.

    Parameters
    ----------
    threshold : float
    n_features : int
    """

    threshold: float
    n_features: int
    is_binary: ClassVar[bool] = True
    tells: ClassVar[str] = "nothing"

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """0 or 1 for each feature."""
        return np.asarray((rows > self.threshold).astype(np.float64))

    def read(self, function: Function) -> Affine:
        """From what one feature above the threshold changes."""
        below, steps = np.full((2, self.n_features), [[self.threshold - 1.0], [2.0]])
        none = function(below[None])
        changes = _moved(function, below, steps, np.arange(self.n_features)) - none
        return Affine(changes, none[0])


@dataclass(frozen=True, eq=False)
class Bits(FeatureMap):
    """The bits of the state that each feature is in: see `cipherlearn.sklearn.encoding`.

    Parameters
    ----------
    codes : sequence of FeatureCode
    """

    codes: Sequence[FeatureCode]
    is_binary: ClassVar[bool] = True
    tells: ClassVar[str] = "cuts of the features, half of them by how their values are distributed"

    @classmethod
    def around(cls, rows: np.ndarray, bits: int) -> Bits:
        """At most ``2**bits`` states of each feature, for rows like these."""
        return cls([feature_code(values, bits, precision=np.float64) for values in rows.T])

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """0 or 1 for each bit of each feature."""
        found = [c.bits(c.states(values)) for c, values in zip(self.codes, rows.T, strict=True)]
        return np.concatenate(found, axis=1).astype(np.float64)

    def rounded(self, rows: np.ndarray) -> np.ndarray:
        """Each value replaced by the one that stands for its state."""
        columns = zip(self.codes, rows.T, strict=True)
        return np.stack([c.representatives[c.states(values)] for c, values in columns], axis=1)

    def read(self, function: Function) -> Affine:
        """From what each state of a feature gives, while the others stay in theirs."""
        usual = np.array([code.representatives[code.n_states // 2] for code in self.codes])
        constant = middle = function(usual[None])[0]
        weights = []
        for feature, code in enumerate(self.codes):
            rows = np.tile(usual, (code.n_states, 1))
            rows[:, feature] = code.representatives
            parts, base = code.coefficients(function(rows) - middle)
            weights.append(parts)
            constant = constant + base
        return Affine(np.concatenate(weights), constant)
