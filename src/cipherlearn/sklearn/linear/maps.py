"""What the client computes of its features before it encrypts them: maps that no model decides.

A model that is affine in the mapped features needs no look-up, whatever it is in the features
themselves: discriminants are quadratic, naive Bayes with deviations is as well.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np


class FeatureMap(ABC):
    """A function of the features of each row."""

    @abstractmethod
    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Mapped rows: (rows, features) -> (rows, mapped features)."""


@dataclass(frozen=True)
class Plain(FeatureMap):
    """The features themselves."""

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """As they are."""
        return rows


@dataclass(frozen=True)
class Squares(FeatureMap):
    """The features and their squares."""

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Twice as many features."""
        return np.concatenate([rows, rows**2], axis=1)


@dataclass(frozen=True)
class Products(FeatureMap):
    """The features, their squares, and the product of each two."""

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """For n features, n * (n + 3) / 2."""
        first, second = np.triu_indices(rows.shape[1])
        return np.concatenate([rows, rows[:, first] * rows[:, second]], axis=1)


@dataclass(frozen=True)
class Above(FeatureMap):
    """Whether features are above a threshold that users choose.

    Parameters
    ----------
    threshold : float
    """

    threshold: float

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """0 or 1 for each feature."""
        return np.asarray((rows > self.threshold).astype(np.float64))
