"""Proved ranges: interval arithmetic over the primitives, element by element.

Lower and upper bounds travel as a batch of two through the kernels of the primitives; only the
operations that are not monotone in every operand need a rule of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import singledispatch

import numpy as np

from cipherlearn.circuit import ir, kernels
from cipherlearn.circuit.interval import MAXIMUM_MAGNITUDE, Interval
from cipherlearn.errors import AccumulatorOverflowError


def infer(primitive: ir.Primitive, *operands: Interval) -> Interval:
    """Range of a primitive's result, given those of its operands.

    Raises
    ------
    AccumulatorOverflowError
        If the result may leave 62 bits.
    """
    if isinstance(primitive, ir.Constant):
        return Interval.constant(primitive.values)
    lo, hi = _bound(primitive, *operands)
    return Interval(lo, hi, _step(primitive, *operands))


def pair_of(interval: Interval) -> np.ndarray:
    """Lower and upper bounds as a batch of two, of shape (2, *shape)."""
    return np.stack([interval.lo, interval.hi])


@singledispatch
def _bound(primitive: ir.Primitive, *operands: Interval) -> np.ndarray:
    # Monotone in every operand: sums, movements, rounding, declared ranges, maxima.
    return kernels.apply(primitive, *(pair_of(operand) for operand in operands))


@_bound.register
def _(primitive: ir.Input) -> np.ndarray:
    return pair_of(Interval.full(primitive.shape, primitive.lo, primitive.hi))


@_bound.register
def _(_primitive: ir.Subtract, left: Interval, right: Interval) -> np.ndarray:
    return pair_of(left) - pair_of(right)[::-1]


@_bound.register
def _(primitive: ir.Sum, value: Interval) -> np.ndarray:
    terms = math.prod(value.shape[axis] for axis in primitive.axes)
    _check_magnitude(primitive, _magnitude(value) * terms)
    return kernels.apply(primitive, pair_of(value))


@_bound.register
def _(primitive: ir.Multiply, left: Interval, right: Interval) -> np.ndarray:
    _check_magnitude(primitive, _magnitude(left) * _magnitude(right))
    return _product(left, right)


@_bound.register(ir.MatMul)
@_bound.register(ir.Convolve)
def _(primitive: ir.Primitive, left: Interval, right: Interval) -> np.ndarray:
    # A matrix product adds over rows of its right side, a convolution over all of its kernel but
    # the axis of outputs.
    convolves = isinstance(primitive, ir.Convolve)
    terms = math.prod(right.shape[1:]) if convolves else left.shape[-1]
    _check_magnitude(primitive, _magnitude(left) * _magnitude(right) * terms)
    if right.is_constant:
        return _bilinear(pair_of(left), right.lo, lambda v, w: kernels.apply(primitive, v, w))
    if left.is_constant:
        return _bilinear(pair_of(right), left.lo, lambda v, w: kernels.apply(primitive, w, v))
    return _matrix_product(left, right)


@_bound.register
def _(primitive: ir.Lookup, value: Interval) -> np.ndarray:
    first = kernels.table_rows(primitive, value.lo[None])
    last = kernels.table_rows(primitive, value.hi[None])
    lowest, highest = range_extremes(primitive.table, first, last)
    return np.concatenate([lowest, highest])


def _product(left: Interval, right: Interval) -> np.ndarray:
    """Range of an element-wise product, of shape (2, *shape): the extremes are at the corners."""
    corners = [a * b for a in (left.lo, left.hi) for b in (right.lo, right.hi)]
    return np.stack([np.minimum.reduce(corners), np.maximum.reduce(corners)])


def _bilinear(
    pair: np.ndarray, weights: np.ndarray, product: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Range of sums of products with constant weights, which some input attains.

    Each weight meets the bound of its own sign: the least sum takes lower bounds at positive
    weights and upper bounds at negative ones.
    """
    positive, negative = np.maximum(weights, 0)[None], np.minimum(weights, 0)[None]
    return product(pair, positive) + product(pair[::-1], negative)


def _matrix_product(left: Interval, right: Interval) -> np.ndarray:
    """Range of a product of two encrypted matrices: the sum of the ranges of its terms."""
    total = np.zeros_like(kernels.apply(ir.MatMul(), pair_of(left), pair_of(right)))
    for term in range(left.shape[-1]):
        column, row = (..., slice(term, term + 1)), (..., slice(term, term + 1), slice(None))
        columns = Interval(left.lo[column], left.hi[column])
        total += _product(columns, Interval(right.lo[row], right.hi[row]))
    return total


def _step(primitive: ir.Primitive, *operands: Interval) -> int:
    """Largest known divisor of every element of the result."""
    if isinstance(primitive, ir.Round):
        step = 1 << primitive.lsbs
        return operands[0].step if operands[0].step % step == 0 else step
    if isinstance(primitive, (ir.Add, ir.Subtract, ir.Maximum, ir.Sum, *ir.MOVEMENTS)):
        # Zero is a multiple of every step.
        zeros = [not operand.lo.any() and not operand.hi.any() for operand in operands]
        steps = (0 if zero else op.step for op, zero in zip(operands, zeros, strict=True))
        return math.gcd(*steps) or 1
    if isinstance(primitive, ir.Assume):
        borders = np.concatenate([primitive.lo.ravel(), primitive.hi.ravel()])
        return math.gcd(operands[0].step, int(np.gcd.reduce(borders))) or 1
    return 1


def _magnitude(interval: Interval) -> int:
    return max(-interval.min, interval.max)


def _check_magnitude(primitive: ir.Primitive, largest: int) -> None:
    # Before the arithmetic, and in Python's integers: int64 would wrap unseen.
    if largest >= MAXIMUM_MAGNITUDE:
        raise AccumulatorOverflowError(
            f"{primitive.name} may leave the 62 bits that circuits are evaluated on; "
            "use fewer bits for its operands"
        )


def range_extremes(
    table: np.ndarray, first: np.ndarray, last: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest entries of a table over ranges of its rows.

    Parameters
    ----------
    table : numpy.ndarray of int64, shape (n, *broadcast)
    first, last : numpy.ndarray of int64, shape (batch, *shape)
        Rows of each element's range, both inclusive.

    Returns
    -------
    lowest, highest : numpy.ndarray of int64, shape (batch, *shape)
    """
    lowest, highest = np.empty_like(first), np.empty_like(first)
    least = greatest = table
    # Extremes of 1, 2, 4 ... rows from each row on; any range is the union of two such spans.
    spans = 1 << (np.frexp((last - first + 1).astype(np.float64))[1].astype(np.int64) - 1)
    span = 1
    while True:
        chosen = spans == span
        if chosen.any():
            begin, end = np.where(chosen, first, 0), np.where(chosen, last - span + 1, 0)
            low = np.minimum(kernels.gather(least, begin), kernels.gather(least, end))
            high = np.maximum(kernels.gather(greatest, begin), kernels.gather(greatest, end))
            lowest, highest = np.where(chosen, low, lowest), np.where(chosen, high, highest)
        if not (spans > span).any():
            return lowest, highest
        least = np.minimum(least[:-span], least[span:])
        greatest = np.maximum(greatest[:-span], greatest[span:])
        span *= 2
