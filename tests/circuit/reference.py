"""A second evaluator of circuits: one sample, Python's integers, plain loops. Slow and obvious."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from cipherlearn.circuit import Circuit, ir


def reference_values(circuit: Circuit, sample: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Values of all nodes for one sample, as arrays of Python's integers."""
    given = iter(sample)
    values: list[np.ndarray] = []
    for node in circuit.nodes:
        if isinstance(node.primitive, ir.Input):
            values.append(_exact(next(given)))
        else:
            operands = [values[index] for index in node.inputs]
            values.append(reference_result(node.primitive, *operands))
    return values


def reference_outputs(circuit: Circuit, *inputs: np.ndarray) -> list[np.ndarray]:
    """Results of a batch, row by row."""
    rows = [
        reference_values(circuit, [array[row] for array in inputs])
        for row in range(inputs[0].shape[0])
    ]
    return [
        np.array([row[index] for row in rows], dtype=np.int64).reshape(
            len(rows), *circuit.nodes[index].shape
        )
        for index in circuit.outputs
    ]


def reference_result(primitive: ir.Primitive, *operands: np.ndarray) -> np.ndarray:
    name = type(primitive).__name__
    return np.asarray(_RULES[name](primitive, *operands), dtype=object)


def _exact(array: np.ndarray) -> np.ndarray:
    flat = [int(value) for value in np.asarray(array).reshape(-1)]
    result = np.empty(len(flat), dtype=object)
    result[:] = flat
    return result.reshape(np.shape(array))


def _each(function: Any, *operands: np.ndarray) -> np.ndarray:
    shaped = np.broadcast_arrays(*operands)
    result = np.empty(shaped[0].shape, dtype=object)
    for place in np.ndindex(*result.shape):
        result[place] = function(*(array[place] for array in shaped))
    return result


def _matmul(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    lead = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left = np.broadcast_to(left, (*lead, *left.shape[-2:]))
    right = np.broadcast_to(right, (*lead, *right.shape[-2:]))
    result = np.empty((*lead, left.shape[-2], right.shape[-1]), dtype=object)
    for *outer, row, column in np.ndindex(*result.shape):
        pairs = zip(left[(*outer, row)], right[(*outer, slice(None), column)], strict=True)
        result[(*outer, row, column)] = sum(a * b for a, b in pairs)
    return result


def _convolve(p: ir.Convolve, image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    space = image.ndim - 2
    taps = kernel.shape[2:]
    extents = [
        (n + p.pads[i] + p.pads[space + i] - p.dilations[i] * (taps[i] - 1) - 1) // p.strides[i] + 1
        for i, n in enumerate(image.shape[2:])
    ]
    result = np.empty((image.shape[0], kernel.shape[0], *extents), dtype=object)
    per_group = kernel.shape[0] // p.groups
    for sample, out, *place in np.ndindex(*result.shape):
        total = 0
        for channel, *tap in np.ndindex(*kernel.shape[1:]):
            at = [
                place[i] * p.strides[i] + tap[i] * p.dilations[i] - p.pads[i] for i in range(space)
            ]
            if all(0 <= a < n for a, n in zip(at, image.shape[2:], strict=True)):
                source = out // per_group * kernel.shape[1] + channel
                total += image[(sample, source, *at)] * kernel[(out, channel, *tap)]
        result[(sample, out, *place)] = total
    return result


def _sum(p: ir.Sum, value: np.ndarray) -> np.ndarray:
    kept = [1 if axis in p.axes else n for axis, n in enumerate(value.shape)]
    result = np.zeros(kept, dtype=object)
    for place in np.ndindex(*value.shape):
        result[tuple(0 if axis in p.axes else i for axis, i in enumerate(place))] += value[place]
    dropped = [n for axis, n in enumerate(value.shape) if axis not in p.axes]
    return result if p.keepdims else result.reshape(dropped)


def _index(p: ir.Index, value: np.ndarray) -> np.ndarray:
    choices: list[list[int]] = []
    shape: list[int] = []
    for axis, extent in enumerate(value.shape):
        part = p.key[axis] if axis < len(p.key) else slice(None)
        if isinstance(part, slice):
            choices.append(list(range(extent))[part])
            shape.append(len(choices[-1]))
        elif isinstance(part, np.ndarray):
            choices.append(part.tolist())
            shape.append(len(choices[-1]))
        else:
            choices.append([part])
    flat = [value[place] for place in itertools.product(*choices)]
    result = np.empty(len(flat), dtype=object)
    result[:] = flat
    return result.reshape(shape)


def _lookup(p: ir.Lookup, value: np.ndarray) -> np.ndarray:
    result = np.empty(value.shape, dtype=object)
    for place in np.ndindex(*value.shape):
        row = min(max((value[place] - p.start) // p.step, 0), p.table.shape[0] - 1)
        column = tuple(i if n > 1 else 0 for i, n in zip(place, p.table.shape[1:], strict=False))
        result[place] = int(p.table[(row, *column)])
    return result


def _round(p: ir.Round, value: np.ndarray) -> np.ndarray:
    step = 2**p.lsbs
    return _each(lambda v: (2 * v + step) // (2 * step) * step, value)


_RULES: dict[str, Any] = {
    "Constant": lambda p: _exact(p.values),
    "Add": lambda _, a, b: _each(lambda x, y: x + y, a, b),
    "Subtract": lambda _, a, b: _each(lambda x, y: x - y, a, b),
    "Multiply": lambda _, a, b: _each(lambda x, y: x * y, a, b),
    "Maximum": lambda _, a, b: _each(max, a, b),
    "MatMul": lambda _, a, b: _matmul(a, b),
    "Convolve": _convolve,
    "Sum": _sum,
    "Index": _index,
    "Reshape": lambda p, v: v.reshape(p.shape),
    "Transpose": lambda p, v: v.transpose(p.axes),
    "Concatenate": lambda p, *v: np.concatenate(v, axis=p.axis),
    "Broadcast": lambda p, v: np.broadcast_to(v, p.shape),
    "Lookup": _lookup,
    "Round": _round,
    "Assume": lambda p, v: _each(lambda x, lo, hi: min(max(x, lo), hi), v, p.lo, p.hi),
}
