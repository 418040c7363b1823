"""Integer forms: what an operator that mixes encrypted values does to quantized operands.

The functions work on integer arrays (in the clear) and on values of a circuit under construction
alike. They know integers, scales and zero-points, and nothing of calibration or rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cipherlearn.circuit import IntValue, ir, kernels
from cipherlearn.ops._weights import WeightLayout

#: Integers in the clear or in a circuit.
Integers = np.ndarray | IntValue


@dataclass(frozen=True, eq=False)
class Affine:
    """A real tensor held as integers: ``real = scale * (integers - zero_point)``.

    Parameters
    ----------
    integers : numpy.ndarray of int64, or IntValue
    scale : float or numpy.ndarray
        Size of one step; arrays broadcast against the integers (one scale a channel).
    zero_point : int, float or numpy.ndarray
        What stands for zero. Real-valued in accumulators, where it also absorbs the bias.
    constant : bool, default=False
        Whether the integers are part of the model (weights), not given with each sample.
    """

    integers: Any
    scale: Any
    zero_point: Any
    constant: bool = False

    @property
    def centred(self) -> Any:
        """Integers less the zero-point: the multiple of the scale itself."""
        return self.integers - self.zero_point


#: ``(operands, attributes) -> accumulator``; operands are `Affine`, real arrays, or None.
Compute = Callable[[Sequence[Any], Mapping[str, Any]], Affine]


@dataclass(frozen=True, eq=False)
class IntegerForm:
    """How an operator computes on quantized operands.

    Parameters
    ----------
    compute : callable
        Takes the operands and the attributes, returns the accumulator.
    real_inputs : frozenset of int
        Positions of constant operands that stay real (a bias).
    common_scale : bool
        Whether operands must share one scale.
    prepare : mapping of int to callable
        Real functions applied to operands before they are quantized (the reciprocal of a divisor).
    univariate : bool
        Whether the operator is element-wise, hence one look-up when all operands come from one
        integer value; the integer form is for the other case.
    channel_axis : int or None
        Axis of the accumulator along which ranges are kept apart; None for one range.
    keeps_grid : bool
        Whether the result consists of integers of the operands, which then share scale and
        zero-point (a maximum, a concatenation): there is no accumulator.
    sums : bool
        Whether integers are only added up, all with one weight: the result, little wider than the
        operands, can be multiplied by the next layer's weights as it is.
    layout : WeightLayout or None
        How a constant second operand is seen as a matrix, for layers whose weights can be chosen.
    """

    compute: Compute
    real_inputs: frozenset[int] = frozenset()
    common_scale: bool = False
    prepare: Mapping[int, Callable[[Any], Any]] = field(default_factory=dict)
    univariate: bool = False
    channel_axis: int | None = None
    keeps_grid: bool = False
    sums: bool = False
    layout: WeightLayout | None = None


def matrix_product(left: Affine, right: Affine, scale: float = 1.0) -> Affine:
    """``scale * left @ right``.

    A constant operand is centred beforehand (its zero-point costs nothing); the zero-point of the
    encrypted one then adds a constant to each result, which joins the accumulator's zero-point.
    """
    step = scale * left.scale * right.scale
    if not left.constant and not right.constant:
        return Affine(_matmul(left.centred, right.centred), step, 0)
    if right.constant:
        weights = right.centred.astype(np.int64)
        column_sums = weights.sum(axis=max(-2, -weights.ndim), keepdims=weights.ndim > 2)
        if np.size(left.zero_point) == 1:
            zero = np.multiply(left.zero_point, column_sums)
        else:  # one a feature, in an array of the operand's rank
            zero = np.matmul(left.zero_point, weights)
        return Affine(_matmul(left.integers, weights), step, zero)
    weights = left.centred.astype(np.int64)
    # Broadcasts along the columns of the product; without rows there is one sum.
    zero = np.multiply(right.zero_point, weights.sum(axis=-1, keepdims=weights.ndim > 1))
    return Affine(_matmul(weights, right.integers), step, zero)


def _matmul(left: Any, right: Any) -> Any:
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        # Integer products of NumPy are slow; these are as exact.
        return kernels.apply(ir.MatMul(), left, right)
    return np.matmul(left, right)


def linear_map(operand: Affine, function: Callable[[Any], Any], step: Any) -> Affine:
    """A linear function of integers, zero-point included.

    Parameters
    ----------
    operand : Affine
        Of shape (batch, channels, ...).
    function : callable
        Linear; works on integer arrays and on values of a circuit. What it pads with zeros stands
        for zero, whatever the zero-point of the operand.
    step : float or numpy.ndarray
        Scale of the result.
    """
    integers = function(operand.integers)
    if not np.any(operand.zero_point):
        return Affine(integers, step, 0)
    shape = (1, *operand.integers.shape[1:])
    zero = function(np.broadcast_to(np.rint(operand.zero_point).astype(np.int64), shape))
    apart = tuple(axis for axis in range(zero.ndim) if axis != 1)
    channels = zero.max(axis=apart, keepdims=True)
    # One zero-point a channel means one table a channel: what borders lack is added as integers.
    if bool((zero != channels).any()):
        integers = integers + (channels - zero)
    return Affine(integers, step, channels)


def pairwise(function: Callable[[Any, Any], Any], parts: Sequence[Any]) -> Any:
    """An associative function of many values, as a tree of the least depth."""
    left = list(parts)
    while len(left) > 1:
        pairs = [function(*left[i : i + 2]) for i in range(0, len(left) - 1, 2)]
        left = pairs + left[len(left) - len(left) % 2 :]
    return left[0]


def minimum(left: Any, right: Any) -> Any:
    """The smaller of two, through the maximum that circuits have."""
    return 0 - np.maximum(0 - left, 0 - right)


def add_bias(accumulator: Affine, bias: Any) -> Affine:
    """Add a real constant: exact, since it only shifts the zero-point."""
    zero = accumulator.zero_point - np.asarray(bias, dtype=np.float64) / accumulator.scale
    return Affine(accumulator.integers, accumulator.scale, zero)
