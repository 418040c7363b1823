"""What neighbours answer: votes for classes, averages of targets."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin

from cipherlearn.sklearn import _kinds as kinds
from cipherlearn.sklearn._agreement import Agreement, agreement_of, as_probable

#: Bits of the targets whose neighbours' sums the server computes, bit by bit.
TARGET_BITS = 8


class Voting(kinds.MirroredTags, kinds.Predicting, ClassifierMixin):  # type: ignore[misc]
    """Neighbours vote for their classes: one target, or several side by side."""

    _kinds_told: ClassVar[str] = "the classes"
    _counts_told: ClassVar[str] = "how many of the selected rows of training are of each class"
    _targets_told: ClassVar[str] = "the classes"

    @staticmethod
    def _library_predictions(model: Any, rows: np.ndarray) -> np.ndarray:
        return np.asarray(_answering(model).predict(rows))

    @staticmethod
    def _classes(model: Any) -> Sequence[np.ndarray]:
        """The classes of each target."""
        return model.classes_ if model.outputs_2d_ else [model.classes_]

    def _counted(self: Any, model: Any) -> np.ndarray:
        labels = np.asarray(model._y).reshape(len(model._y), -1)  # noqa: SLF001
        each = [
            of_target[:, None] == np.arange(len(classes))
            for of_target, classes in zip(labels.T, self._classes(model), strict=True)
        ]
        return np.concatenate(each, axis=1).astype(np.int64)

    def _voted(self, model: Any) -> np.ndarray:
        return self._counted(model)

    def _parts(self: Any, votes: np.ndarray) -> list[np.ndarray]:
        """Votes of each target: (rows, classes)."""
        ends = np.cumsum([len(classes) for classes in self._classes(self.sklearn_model)])[:-1]
        return np.split(votes, ends, axis=1)

    def _shares(self, votes: np.ndarray) -> list[np.ndarray]:
        """For each target, the share of votes that each class has; 0 if there are none."""
        return [_in_parts_of_one(part) for part in self._parts(votes)]

    def _predictions(self: Any, scores: np.ndarray) -> np.ndarray:
        parts, classes = self._parts(self._votes(scores)), self._classes(self.sklearn_model)
        # The first of equal ones, as scikit-learn has it.
        found = [of[each.argmax(axis=1)] for of, each in zip(classes, parts, strict=True)]
        return np.stack(found, axis=1) if self.outputs_2d_ else found[0]

    def _agreement_of(self: Any, ours: np.ndarray, theirs: np.ndarray) -> Agreement:
        # Rows without any vote are alike; where two classes have as many, either will do.
        same = ours.any(axis=1) == theirs.any(axis=1)
        for our_part, their_part in zip(self._parts(ours), self._parts(theirs), strict=True):
            same &= as_probable(our_part, _in_parts_of_one(their_part))
        return Agreement(float(same.mean()), len(same), of_values=False)

    def _answered(self: Any, scores: np.ndarray) -> Any:
        shares = self._shares(self._votes(scores))
        return shares if self.outputs_2d_ else shares[0]

    def predict_proba(self: Any, X: Any, fhe: str = "disable") -> Any:
        """Shares of the votes of each class: see `predict`.

        Returns
        -------
        numpy.ndarray of float64, shape (rows, classes), or a list of them, one a target
        """
        return self._answered(self._raw(X, fhe))

    def predict_log_proba(self: Any, X: Any, fhe: str = "disable") -> Any:
        """Logarithms of `predict_proba`."""
        shares = self.predict_proba(X, fhe)
        with np.errstate(divide="ignore"):  # a class may have no vote
            return [np.log(each) for each in shares] if isinstance(shares, list) else np.log(shares)


class Averaging(kinds.Regressor):
    """Targets of the neighbours are averaged.

    Targets are rounded to 8 bits, and each bit is counted by itself: sums of single bits cost no
    precision under encryption.
    """

    _kinds_told: ClassVar[str] = "the range of the targets"
    _counts_told: ClassVar[str] = (
        "how many rows of training are selected, and the sums of the bits of their targets (of a "
        f"single one, its target, to {TARGET_BITS} bits)"
    )
    _targets_told: ClassVar[str] = "the targets"

    #: Powers of two of the bits of a target.
    _BITS: ClassVar[np.ndarray] = 2 ** np.arange(TARGET_BITS)

    @staticmethod
    def _library_predictions(model: Any, rows: np.ndarray) -> np.ndarray:
        return np.asarray(_answering(model).predict(rows))

    @staticmethod
    def _targets(model: Any) -> np.ndarray:
        """Targets of the references: (references, targets)."""
        return np.asarray(model._y, np.float64).reshape(len(model._y), -1)  # noqa: SLF001

    def _voted(self: Any, model: Any) -> np.ndarray:
        """One for each reference, and then its targets."""
        targets = self._targets(model)
        return np.concatenate([np.ones((len(targets), 1)), targets], axis=1)

    def _counted(self: Any, model: Any) -> np.ndarray:
        """One for each reference, and then the bits of its targets."""
        targets = self._targets(model)
        low, step = self._steps(targets)
        integers = np.rint((targets - low) / step).astype(np.int64)
        bits = (integers[:, :, None] // self._BITS % 2).reshape(len(targets), -1)
        return np.concatenate([np.ones((len(targets), 1), np.int64), bits], axis=1)

    @staticmethod
    def _steps(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low, span = targets.min(axis=0), np.ptp(targets, axis=0)
        return low, np.where(span > 0, span, 1.0) / (2**TARGET_BITS - 1)

    def _averages(self: Any, votes: np.ndarray) -> np.ndarray:
        if self._reveals:
            return _averages(votes)
        low, step = self._steps(self._targets(self.sklearn_model))
        sums = votes[:, 1:].reshape(len(votes), -1, TARGET_BITS) @ self._BITS
        return np.asarray(low + step * _averages(np.concatenate([votes[:, :1], sums], axis=1)))

    def _predictions(self: Any, scores: np.ndarray) -> np.ndarray:
        values = self._averages(self._votes(scores))
        return np.asarray(values[:, 0] if self._is_flat else values)

    def _agreement_of(self: Any, ours: np.ndarray, theirs: np.ndarray) -> Agreement:
        mean = self._targets(self.sklearn_model).mean(axis=0)
        # Rows without a neighbour are alike: any value will do, of both.
        found = [np.where(np.isnan(v), mean, v) for v in (self._averages(ours), _averages(theirs))]
        return agreement_of(*found, of_values=True)


def _averages(votes: np.ndarray) -> np.ndarray:
    """Sums by the weights that are in the first column; NaN where these are zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(votes[:, 1:] / votes[:, :1])


def _in_parts_of_one(votes: np.ndarray) -> np.ndarray:
    total = votes.sum(axis=1, keepdims=True)
    return np.asarray(votes / np.where(total == 0, 1.0, total))


def _answering(model: Any) -> Any:
    """A float model that answers, whatever `fit` lets through."""
    model = copy.copy(model)
    if (model.n_neighbors or 0) > model.n_samples_fit_:  # there is none of a radius
        model.n_neighbors = model.n_samples_fit_
    if model._y.dtype == object:  # noqa: SLF001
        # Numbers all the same, as an array of objects: of their averages nothing else is known.
        model._y = model._y.astype(np.float64)  # noqa: SLF001
    return model
