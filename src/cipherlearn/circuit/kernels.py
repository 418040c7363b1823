"""What every primitive computes, on batches of int64 arrays.

All arrays carry a leading batch axis (of 1 for constants). The same kernels evaluate a circuit
exactly, propagate its ranges (a pair of lower and upper bounds is a batch of two), and lie under
the error model of `cipherlearn.circuit.simulate`.
"""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

import numpy as np

from cipherlearn.circuit import ir
from cipherlearn.errors import CircuitError

#: Below this magnitude every integer, and so every partial sum, is exact in a double.
EXACT_IN_DOUBLE = 2**53


@singledispatch
def apply(primitive: ir.Primitive, *operands: np.ndarray) -> np.ndarray:
    """Result of a primitive on batched operands.

    Parameters
    ----------
    primitive : Primitive
    *operands : numpy.ndarray of int64, shape (batch or 1, *shape)

    Returns
    -------
    numpy.ndarray of int64, shape (batch or 1, *shape)
    """
    raise CircuitError(
        f"no kernel for the primitive {primitive.name} with {len(operands)} operands"
    )


@apply.register
def _(primitive: ir.Constant) -> np.ndarray:
    return primitive.values[None]


@apply.register
def _(_primitive: ir.Add, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return left + right


@apply.register
def _(_primitive: ir.Subtract, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return left - right


@apply.register
def _(_primitive: ir.Multiply, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return left * right


@apply.register
def _(_primitive: ir.MatMul, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    left, right = _exact_operands(left, right, left.shape[-1])
    if left.ndim == right.ndim == 3 and right.shape[0] == 1:
        # One product of two matrices is faster than one a row of the batch.
        rows = left.reshape(math.prod(left.shape[:-1]), left.shape[-1])
        product = (rows @ right[0]).reshape(*left.shape[:-1], right.shape[-1])
    else:
        product = np.matmul(left, right)
    return product.astype(np.int64, copy=False)


@apply.register
def _(primitive: ir.Convolve, image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    batch, samples = image.shape[:2]
    flat = image.reshape(batch * samples, *image.shape[2:])
    flat, weights = _exact_operands(flat, kernel[0], math.prod(kernel.shape[2:]))
    windows = _windows(primitive, flat, weights.shape[2:])
    space = weights.ndim - 2
    channels = weights.shape[1]
    contracted = (1, *range(2 + space, 2 + 2 * space)), tuple(range(1, 2 + space))
    parts = [
        np.tensordot(windows[:, group * channels : (group + 1) * channels], part, contracted)
        for group, part in enumerate(np.split(weights, primitive.groups))
    ]
    result = np.moveaxis(np.concatenate(parts, axis=-1), -1, 1).astype(np.int64, copy=False)
    return result.reshape(batch, samples, *result.shape[1:])


@apply.register
def _(primitive: ir.Sum, value: np.ndarray) -> np.ndarray:
    axes = tuple(axis + 1 for axis in primitive.axes)
    return value.sum(axis=axes, keepdims=primitive.keepdims)


@apply.register
def _(primitive: ir.Index, value: np.ndarray) -> np.ndarray:
    key = (slice(None), *primitive.key)
    return value[key]


@apply.register
def _(primitive: ir.Reshape, value: np.ndarray) -> np.ndarray:
    return value.reshape(value.shape[0], *primitive.shape)


@apply.register
def _(primitive: ir.Transpose, value: np.ndarray) -> np.ndarray:
    return value.transpose(0, *(axis + 1 for axis in primitive.axes))


@apply.register
def _(primitive: ir.Concatenate, *values: np.ndarray) -> np.ndarray:
    (batch,) = np.broadcast_shapes(*(value.shape[:1] for value in values))
    parts = [np.broadcast_to(value, (batch, *value.shape[1:])) for value in values]
    return np.concatenate(parts, axis=primitive.axis + 1)


@apply.register
def _(primitive: ir.Broadcast, value: np.ndarray) -> np.ndarray:
    return np.broadcast_to(value, (value.shape[0], *primitive.shape))


@apply.register
def _(primitive: ir.Lookup, value: np.ndarray) -> np.ndarray:
    return gather(primitive.table, table_rows(primitive, value))


@apply.register
def _(primitive: ir.Round, value: np.ndarray) -> np.ndarray:
    if primitive.lsbs == 0:
        return value
    half = 1 << (primitive.lsbs - 1)
    return ((value + half) >> primitive.lsbs) << primitive.lsbs


@apply.register
def _(primitive: ir.Assume, value: np.ndarray) -> np.ndarray:
    return np.clip(value, primitive.lo, primitive.hi)


@apply.register
def _(_primitive: ir.Maximum, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.maximum(left, right)


def table_rows(primitive: ir.Lookup, value: np.ndarray) -> np.ndarray:
    """Row of the table that each element reads, of the value's shape."""
    rows = (value - primitive.start) // primitive.step
    return np.clip(rows, 0, primitive.table.shape[0] - 1)


def gather(table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Entries of a table at ``rows``.

    Parameters
    ----------
    table : numpy.ndarray, shape (n, *broadcast)
        With as many axes as ``rows``, or with one.
    rows : numpy.ndarray of int64, shape (batch, *shape)

    Returns
    -------
    numpy.ndarray, shape (batch, *shape)
        ``shape`` broadcast with that of the table: rows of shape (batch, 1, ...), the same for all
        elements, give the entries of all elements.
    """
    if table.size == table.shape[0]:
        return table.reshape(-1)[rows]
    extents = table.shape[1:]
    index: list[np.ndarray] = [rows]
    for axis, extent in enumerate(extents):
        along = (1,) * (axis + 1) + (extent,) + (1,) * (len(extents) - axis - 1)
        index.append(np.arange(extent).reshape(along))
    return table[tuple(index)]


def _windows(primitive: ir.Convolve, flat: np.ndarray, taps: tuple[int, ...]) -> np.ndarray:
    """What each kernel position sees: shape (rows, channels, *positions, *taps), without a copy."""
    space = len(taps)
    pads = [(primitive.pads[i], primitive.pads[space + i]) for i in range(space)]
    padded = np.pad(flat, [(0, 0), (0, 0), *pads])
    spans = [d * (k - 1) + 1 for d, k in zip(primitive.dilations, taps, strict=True)]
    axes: Any = tuple(range(2, 2 + space))  # NumPy's stub knows a single axis only
    views = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=axes)
    steps = [slice(None, None, step) for step in (*primitive.strides, *primitive.dilations)]
    key = (slice(None), slice(None), *steps)
    return views[key]


def _exact_operands(
    left: np.ndarray, right: np.ndarray, terms: int
) -> tuple[np.ndarray, np.ndarray]:
    """Factors of sums of ``terms`` products, in the fastest type in which no sum is inexact.

    NumPy multiplies integer matrices without BLAS; doubles have it, and hold integers up to 2**53.
    """
    if _magnitude(left) * _magnitude(right) * terms >= EXACT_IN_DOUBLE:
        return left, right
    return left.astype(np.float64), right.astype(np.float64)


def _magnitude(values: np.ndarray) -> int:
    return max(-int(values.min()), int(values.max())) if values.size else 0
