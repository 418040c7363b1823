"""Operators that choose among elements, by clear or by encrypted conditions and places."""

from __future__ import annotations

from typing import Final

import numpy as np

from cipherlearn.errors import EncryptedOperandError, UnsupportedAttributeError
from cipherlearn.ops._composition import (
    Attributes,
    Operands,
    attribute,
    cast,
    clear,
    pick,
    places,
    plain_axis,
    required,
    subtractable,
)
from cipherlearn.ops._expand import Composer, Tensor
from cipherlearn.ops._operands import Array
from cipherlearn.ops._registry import Kind, register

_MOST_ROWS: Final = 1024
"""Rows of a table that an encrypted index may choose from at most."""


def _where(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    del attributes
    condition, chosen, other = (required(operands, i) for i in range(3))
    if condition.constant:
        return _where_clear(composer, condition.sample, chosen, other)
    # One product: the difference counts where the condition holds.
    dtype = chosen.sample.dtype
    chosen, other = (subtractable(composer, one) for one in (chosen, other))
    number = cast(composer, condition, chosen.sample.dtype)
    product = composer.add("Mul", number, composer.add("Sub", chosen, other))
    return cast(composer, composer.add("Add", product, other), dtype)


def _where_clear(composer: Composer, condition: Array, chosen: Tensor, other: Tensor) -> Tensor:
    """Selection by a constant condition: movement alone."""
    parts = [chosen, other]
    shape = np.broadcast_shapes(condition.shape, chosen.shape, other.shape)
    rows = [condition.shape, *(one.shape for one in parts if one.constant)]
    if any(len(one) == len(shape) and one[0] != 1 for one in rows):
        raise UnsupportedAttributeError(
            "its constant operands differ from row to row of the batch; accepted: the same for all"
            " rows (extent 1 along axis 0)"
        )
    row = (1, *shape[1:])
    indices, start = [], 0
    for i, one in enumerate(parts):
        if one.constant:
            parts[i] = composer.constant(np.broadcast_to(one.sample, row))
        elif one.ndim != len(shape):
            raise UnsupportedAttributeError(
                f"its encrypted operands have {one.ndim} axes, its result has {len(shape)}: the"
                " first axis would not be that of the rows. Give all operands as many axes"
            )
        own = places(parts[i].shape, start)
        start += own.size
        indices.append(np.broadcast_to(own, row))
    return pick(composer, parts, np.where(np.broadcast_to(condition, row), *indices)[0])


def _one_hot(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    index = required(operands)
    depth = int(np.asarray(clear(operands, 1, "depth")).item())
    values = np.asarray(clear(operands, 2, "values"))
    axis = plain_axis(attribute(attributes, "axis", -1), index.ndim + 1)
    if axis == 0:
        raise UnsupportedAttributeError(
            f"axis={attributes['axis']} puts the new axis before that of the rows of the batch;"
            " accepted: any other axis"
        )
    hits = _hits(composer, index, depth, axis)
    off, on = (composer.constant(value) for value in values)
    return composer.add("Where", hits, on, off)


def _hits(composer: Composer, index: Tensor, depth: int, axis: int) -> Tensor:
    """Whether an index is that of each place along a new axis."""
    shape = [*index.shape[1:axis], 1, *index.shape[axis:]]
    index = _from_start(composer, composer.reshape(index, *shape), depth)
    numbers = np.arange(depth).reshape([-1 if i == axis else 1 for i in range(index.ndim)])
    return composer.add("Equal", index, numbers.astype(index.sample.dtype))


def _from_start(composer: Composer, index: Tensor, depth: int) -> Tensor:
    """The index with negative places, which count from the end, counted from the start."""
    index = subtractable(composer, index)
    negative = composer.add("Less", index, 0)
    return composer.add("Where", negative, composer.add("Add", index, depth), index)


def _gather(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    """An encrypted index into a constant table (a clear index is plain movement)."""
    data, index = required(operands), required(operands, 1)
    if not data.constant:
        raise EncryptedOperandError(
            f"both its data ({data.name}) and its indices ({index.name}) depend on inputs of the"
            " model; make one of them constant, or multiply the data by a one-hot matrix"
        )
    axis = plain_axis(attribute(attributes, "axis", 0), data.ndim)
    if axis:
        raise UnsupportedAttributeError(
            f"an encrypted index along axis={axis} would not leave the rows of the batch first;"
            " accepted: 0. Transpose the table in the model, and its result afterwards"
        )
    table = data.sample
    depth = table.shape[0]
    if depth > _MOST_ROWS:
        raise EncryptedOperandError(
            f"its indices ({index.name}) depend on an input of the model and choose among {depth}"
            f" rows; accepted: up to {_MOST_ROWS}. Let the index be an input of the model, which"
            " the client encodes, or make it constant"
        )
    if table[0].size <= depth:
        return _chosen(composer, index, table)
    dtype = table.dtype if table.dtype.kind == "f" else np.dtype(np.float64)
    hits = cast(composer, _hits(composer, index, depth, index.ndim), dtype)
    rows = composer.add("MatMul", hits, table.reshape(depth, -1).astype(dtype))
    return cast(composer, composer.reshape(rows, *index.shape[1:], *table.shape[1:]), table.dtype)


def _chosen(composer: Composer, index: Tensor, table: Array) -> Tensor:
    """Rows of a table as functions of the index: one look-up for each element."""
    depth = table.shape[0]
    index = composer.reshape(index, *index.shape[1:], *(1 for _ in table.shape[1:]))
    index = _from_start(composer, index, depth)
    result = composer.constant(table[0])
    for i in range(1, depth):
        reached = composer.add("GreaterOrEqual", index, i)
        result = composer.add("Where", reached, table[i], result)
    return result


register("Where", expand=_where)
register("Gather", kind=Kind.MOVEMENT, raw_inputs={1}, expand=_gather)
register("OneHot", kind=Kind.MIXING, raw_inputs={1, 2}, expand=_one_hot, encoding=True)
