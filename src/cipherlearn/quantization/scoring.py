"""How results are scored: against labels, or against those of the float model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cipherlearn.errors import InvalidParameterError, InvalidShapeError, InvalidTypeError

#: By how much of their size values differ that are all the same, but for rounding.
_ROUNDED = 1e-9


@dataclass(frozen=True, eq=False)
class Labels:
    """What rows are to give, and what that is: decided once, so that all results count alike.

    Parameters
    ----------
    values : numpy.ndarray of shape (rows,) or (rows, outputs)
        Class numbers, or values.
    is_classes : bool
    threshold : float or None
        Of the one score that tells the second of two classes from the first.
    """

    values: np.ndarray
    is_classes: bool
    threshold: float | None = None

    @classmethod
    def of(cls, y: Any, outputs: np.ndarray) -> Labels:
        """Labels as they fit a model's outputs.

        Parameters
        ----------
        y : array-like of shape (rows,), (rows, 1) or (rows, outputs)
            For several scores: class numbers, or one-hot rows. For one: 0 and 1 or -1 and 1 for two
            classes, or values. Values for several outputs have their shape.
        outputs : numpy.ndarray of shape (rows, ...)
            The float model's. One score for two classes is a probability if all lie from 0 to 1,
            and a logit otherwise.

        Raises
        ------
        InvalidTypeError, InvalidShapeError, InvalidParameterError
            If the labels are no numbers, not finite, of another shape, or no classes of the model.
        """
        labels = _numbers(y, len(outputs))
        if is_classifier(outputs):
            return cls._of_scores(labels, outputs)
        if labels.size != outputs.size:
            raise _misfit(labels, outputs)
        labels, single = labels.reshape(-1), outputs.reshape(-1)
        found = set(np.unique(labels).tolist())
        if found <= {0, 1} or found <= {-1, 1}:
            is_probability = bool(((single >= 0) & (single <= 1)).all())
            return cls(labels > 0, True, 0.5 if is_probability else 0.0)
        # A model that gives the class itself; counts that are estimated are no whole numbers.
        are_whole = (np.rint(single) == single).all() and (np.rint(labels) == labels).all()
        return cls(labels, bool(are_whole))

    @classmethod
    def _of_scores(cls, labels: np.ndarray, outputs: np.ndarray) -> Labels:
        if labels.shape == outputs.shape:
            one_hot = np.isin(labels, [0, 1]).all() and (labels.sum(axis=-1) == 1).all()
            return cls(labels.argmax(axis=-1), True) if one_hot else cls(labels, False)
        if labels.ndim != 1:
            raise _misfit(labels, outputs)
        last = outputs.shape[-1] - 1
        if (np.rint(labels) != labels).any() or labels.min() < 0 or labels.max() > last:
            raise InvalidParameterError(
                f"labels reach from {labels.min():g} to {labels.max():g}; the model gives scores "
                f"for the classes 0 to {last}. Give the class numbers, counted from 0"
            )
        return cls(labels.astype(np.int64), True)

    @property
    def measure(self) -> str:
        """What `score` returns: ``accuracy`` or ``R2``."""
        return "accuracy" if self.is_classes else "R2"

    def score(self, outputs: np.ndarray, rows: Any = slice(None)) -> float:
        """Accuracy, or R2; of several values, the least of them.

        Parameters
        ----------
        outputs : numpy.ndarray of shape (rows, ...)
        rows : index, default=all
            The rows that the outputs belong to.
        """
        wanted = self.values[rows]
        if not self.is_classes:
            return least_r2(outputs, wanted.astype(np.float64))
        if is_classifier(outputs):
            return float(np.mean(outputs.argmax(-1) == wanted))
        found = outputs.reshape(-1)
        if self.threshold is None:
            return float(np.mean(np.rint(found) == wanted))
        return float(np.mean((found > self.threshold) == wanted))


def is_classifier(outputs: np.ndarray) -> bool:
    """Whether outputs are read as scores of several classes."""
    return outputs.ndim > 1 and outputs.shape[-1] > 1


def agreement_score(outputs: np.ndarray, reference: np.ndarray) -> float:
    """Share of rows with the same largest output; R2 where there is one output only.

    Parameters
    ----------
    outputs, reference : numpy.ndarray of shape (rows, ...)
    """
    if is_classifier(reference):
        return float(np.mean(outputs.argmax(-1) == reference.argmax(-1)))
    return _r2(outputs.reshape(-1), reference.reshape(-1))


def _numbers(y: Any, rows: int) -> np.ndarray:
    labels = np.asarray(y)
    if labels.dtype.kind not in "iufb":
        raise InvalidTypeError(
            f"labels have dtype {labels.dtype}; give numbers (for classes, those of the outputs)"
        )
    if labels.ndim == 0 or len(labels) != rows:
        raise InvalidShapeError(f"{rows} rows were given with labels of shape {labels.shape}")
    if not np.isfinite(labels).all():
        raise InvalidParameterError("labels hold values that are NaN or infinite; leave them out")
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _misfit(labels: np.ndarray, outputs: np.ndarray) -> InvalidShapeError:
    return InvalidShapeError(
        f"labels of shape {labels.shape} do not fit outputs of shape {outputs.shape}"
    )


def least_r2(values: np.ndarray, truth: np.ndarray) -> float:
    """R2 of the output that is explained worst: large values of one hide nothing of another."""
    rows = len(truth)
    values, truth = values.reshape(rows, -1), truth.reshape(rows, -1)
    vary = np.ptp(truth, axis=0) > _ROUNDED * np.abs(truth).max(axis=0, initial=0.0)
    kept = np.flatnonzero(vary) if vary.any() else range(truth.shape[1])
    return min(_r2(values[:, column], truth[:, column]) for column in kept)


def _r2(values: np.ndarray, truth: np.ndarray) -> float:
    spread = float(((truth - truth.mean()) ** 2).sum())
    residual = float(((values - truth) ** 2).sum())
    if spread == 0.0:
        return 1.0 if residual == 0.0 else 0.0
    return 1.0 - residual / spread
