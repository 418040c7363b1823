"""Integer weights of a layer by least squares, on the quantized inputs that the layer will see.

The layer's float outputs on float inputs are the target, so weights also make up for what was lost
upstream (as Qronos does, arXiv 2505.11695). Rounding is sequential with feedback (GPTQ, arXiv
2210.17323), then refined by cyclic coordinate descent: for one output channel the error is a
quadratic form in its weights, and every step to another integer that lowers it is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg

#: Ridge for many rows, as a share of the mean variance of the inputs; it grows with the number of
#: inputs a row. What few calibration rows do not tell, the float weights decide.
RIDGE = 0.1

#: Passes of coordinate descent at most; it ends earlier where nothing changes.
SWEEPS = 8


@dataclass(frozen=True, eq=False)
class QuadraticForm:
    """The error ``r' H r`` of weights that are off by ``r``.

    Parameters
    ----------
    matrix : numpy.ndarray of shape (inputs, inputs)
        Positive definite.
    """

    matrix: np.ndarray

    def of(self, rest: np.ndarray) -> np.ndarray:
        """The error of each row."""
        return np.einsum("ci,ci->c", rest @ self.matrix, rest)

    @cached_property
    def feedback(self) -> tuple[np.ndarray, np.ndarray]:
        """The order in which inputs are rounded, and how the later ones make up for an error.

        Row i of the second, a triangular matrix in that order, belongs to an error at input i.
        """
        order = np.argsort(-self.matrix.diagonal(), kind="stable")
        inverse = scipy.linalg.inv(self.matrix[np.ix_(order, order)])
        return order, scipy.linalg.cholesky(inverse, lower=False)


@dataclass(frozen=True, eq=False)
class Moments:
    """What least squares needs to know of a layer: means and products over calibration data.

    Parameters
    ----------
    rows : int
        Number of input rows (for convolutions: windows).
    mean_input : numpy.ndarray of shape (inputs,)
    mean_target : numpy.ndarray of shape (channels,)
    gram : numpy.ndarray of shape (inputs, inputs)
        Covariance of the quantized inputs.
    cross : numpy.ndarray of shape (channels, inputs)
        Covariance of targets and quantized inputs.
    """

    rows: int
    mean_input: np.ndarray
    mean_target: np.ndarray
    gram: np.ndarray
    cross: np.ndarray

    @classmethod
    def of(cls, inputs: np.ndarray, targets: np.ndarray) -> Moments:
        """Moments of inputs (rows, inputs) and float targets (rows, channels)."""
        mean_input, mean_target = inputs.mean(axis=0), targets.mean(axis=0)
        centred = inputs - mean_input
        gram = centred.T @ centred / len(inputs)
        cross = (targets - mean_target).T @ centred / len(inputs)
        return cls(len(inputs), mean_input, mean_target, gram, cross)

    def solution(self, weights: np.ndarray) -> tuple[np.ndarray, QuadraticForm]:
        """The real weights of least error, near given ones, and the quadratic form of the error.

        Parameters
        ----------
        weights : numpy.ndarray of shape (channels, inputs)
            Float weights, for inputs in the units of the quantized ones.

        Returns
        -------
        weights : numpy.ndarray of shape (channels, inputs)
        hessian : QuadraticForm
            Positive definite, also where inputs never change.
        """
        diagonal = self.gram.diagonal()
        typical = float(diagonal.mean())
        share = RIDGE * (1.0 + len(diagonal) / self.rows)
        ridge = share * typical if typical > 0 else 1.0
        hessian = self.gram + ridge * np.eye(len(diagonal))
        wanted = self.cross + ridge * weights
        solved = scipy.linalg.solve(hessian, wanted.T, assume_a="pos").T
        return solved, QuadraticForm(hessian)


def round_weights(
    wanted: np.ndarray, hessian: QuadraticForm, scale: np.ndarray, limit: int
) -> np.ndarray:
    """Integers ``q`` with ``|q| <= limit`` and small ``(w - scale q)' H (w - scale q)``.

    Parameters
    ----------
    wanted : numpy.ndarray of shape (channels, inputs)
        Real weights.
    hessian : QuadraticForm
    scale : numpy.ndarray of shape (channels,)
        Step of each channel's weights.
    limit : int
        Largest magnitude.

    Returns
    -------
    numpy.ndarray of int64, of the shape of ``wanted``
    """
    steps = wanted / scale[:, None]
    # Descent ends in the next minimum: from two starts, the better one is taken for each channel.
    starts = (_sequential(steps, hessian, limit), np.clip(np.rint(steps), -limit, limit))
    first, second = (_descend(steps, start, hessian, limit) for start in starts)
    better = hessian.of(steps - second) < hessian.of(steps - first)
    return np.where(better[:, None], second, first).astype(np.int64)


def _sequential(steps: np.ndarray, hessian: QuadraticForm, limit: int) -> np.ndarray:
    """Round input by input; what rounding did wrong is passed on to the inputs that follow."""
    order, factor = hessian.feedback
    left = steps[:, order].copy()
    result = np.empty_like(left)
    for i in range(left.shape[1]):
        result[:, i] = np.clip(np.rint(left[:, i]), -limit, limit)
        error = (left[:, i] - result[:, i]) / factor[i, i]
        left[:, i:] -= np.outer(error, factor[i, i:])
    restored = np.empty_like(result)
    restored[:, order] = result
    return restored


def _descend(
    steps: np.ndarray, integers: np.ndarray, hessian: QuadraticForm, limit: int
) -> np.ndarray:
    """Change one weight at a time to the integer of least error, until none changes."""
    matrix, diagonal = hessian.matrix, hessian.matrix.diagonal()
    gradient = (steps - integers) @ matrix
    for _ in range(SWEEPS):
        changed = False
        for i in range(steps.shape[1]):
            best = np.clip(np.rint(integers[:, i] + gradient[:, i] / diagonal[i]), -limit, limit)
            change = best - integers[:, i]
            if change.any():
                changed = True
                integers[:, i] = best
                gradient -= np.outer(change, matrix[i])
        if not changed:
            break
    return integers
