"""From the scores of an ensemble to what users ask for: computed by the client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import expit, softmax


@dataclass(frozen=True)
class Link(ABC):
    """A function of the scores of each row."""

    #: Whether the scores of a row are weighed against each other, and have one unit.
    one_unit: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Predictions, or probabilities of shape (rows, classes), of scores (rows, outputs)."""


@dataclass(frozen=True)
class Identity(Link):
    """The scores themselves."""

    one_unit: ClassVar[bool] = False

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """As they are."""
        return scores


@dataclass(frozen=True)
class Exponential(Link):
    """Positive values: counts, durations, amounts."""

    one_unit: ClassVar[bool] = False

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Their exponentials."""
        return np.asarray(np.exp(scores))


@dataclass(frozen=True)
class Probability(Link):
    """Values between 0 and 1, each by itself: scores are the logarithms of their odds in some unit.

    Parameters
    ----------
    scale : float, default=1.0
        The unit.
    """

    scale: float = 1.0

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """The logistic function of the scores."""
        return np.asarray(expit(self.scale * scores))


@dataclass(frozen=True)
class Logistic(Probability):
    """One score: the logarithm of the odds of the second of two classes, in some unit."""

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities of both classes."""
        second = super().__call__(scores[:, 0])
        return np.stack([1.0 - second, second], axis=1)


@dataclass(frozen=True)
class OneVersusRest(Link):
    """One logistic score a class, divided by their sum."""

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities of the classes."""
        each = expit(scores)
        return np.asarray(each / each.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class ClippedMargin(Link):
    """One margin a class, or one of the second of two: from -1, surely not, to 1, surely."""

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities of the classes; equal ones where no class has any."""
        each = (np.clip(scores, -1.0, 1.0) + 1.0) / 2.0
        if each.shape[1] == 1:
            return np.concatenate([1.0 - each, each], axis=1)
        total = each.sum(axis=1, keepdims=True)
        equal = np.full_like(each, 1.0 / each.shape[1])
        return np.divide(each, total, out=equal, where=total > 0)


@dataclass(frozen=True)
class Softmax(Link):
    """One score a class."""

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities of the classes."""
        return np.asarray(softmax(scores, axis=1))


@dataclass(frozen=True)
class SoftmaxOfNonzero(Link):
    """One score a class; classes whose score is zero have no part in it (ONNX, SOFTMAX_ZERO)."""

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities of the classes."""
        highest = scores.max(axis=1, keepdims=True)
        weights = np.where(
            np.abs(scores) > 1e-7, np.exp(scores - highest), scores * np.exp(-highest)
        )
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Margin(Link):
    """One score: positive for the second of two classes. No probabilities."""

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """The score of each class, which are opposite."""
        return np.concatenate([-scores, scores], axis=1)


@dataclass(frozen=True)
class Shares(Link):
    """Scores are probabilities already, of all classes but the first: it has what is left.

    Leaves are rounded, so that sums may leave [0, 1] by a little.

    Parameters
    ----------
    classes : tuple of int, optional
        How many classes each of several targets has, whose scores stand side by side. Default: one
        target, with a class more than there are scores.
    """

    classes: tuple[int, ...] = ()

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities of the classes of all targets, side by side."""
        sizes = self.classes or (scores.shape[1] + 1,)
        ends = np.cumsum([size - 1 for size in sizes])
        targets = np.split(scores[:, : ends[-1]], ends[:-1], axis=1)
        return np.concatenate([self._of_target(part) for part in targets], axis=1)

    @staticmethod
    def _of_target(scores: np.ndarray) -> np.ndarray:
        shares = np.clip(np.concatenate([1.0 - scores.sum(axis=1)[:, None], scores], axis=1), 0, 1)
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Isolation(Link):
    """One score: the mean length of a path, in units of what is usual. The rarer, the lower."""

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Between -1 for what is isolated at once and 0."""
        return np.asarray(-(2.0**-scores))
