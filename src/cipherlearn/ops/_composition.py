"""What the expansions of operators have in common: reading operands, and small compositions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import helper

from cipherlearn.errors import EncryptedOperandError, UnsupportedAttributeError
from cipherlearn.ops._expand import Composer, Expand, Tensor
from cipherlearn.ops._operands import Array

Operands = Sequence[Tensor | None]
Attributes = Mapping[str, Any]


def attribute(attributes: Attributes, name: str, default: Any) -> Any:
    """Value of an attribute, its default where it is not given."""
    value = attributes.get(name)
    return default if value is None else value


def operand(operands: Operands, position: int) -> Tensor | None:
    """Operand at a position; None where it is left out."""
    return operands[position] if position < len(operands) else None


def required(operands: Operands, position: int = 0) -> Tensor:
    """Operand at a position, which the schema promises."""
    value = operand(operands, position)
    if value is None:
        raise UnsupportedAttributeError(f"the operand number {position} is missing")
    return value


def clear(operands: Operands, position: int, name: str, advice: str = "") -> Array | None:
    """Value of an operand that must be part of the model; None where it is left out.

    Parameters
    ----------
    operands : sequence of Tensor or None
    position : int
    name : str
        What the schema calls it.
    advice : str, default ""
        A sentence that says what to do instead.

    Returns
    -------
    ndarray or None

    Raises
    ------
    EncryptedOperandError
        If it is not constant.
    """
    value = operand(operands, position)
    if value is None or value.constant:
        return None if value is None else value.sample
    raise EncryptedOperandError(
        f"the operand {name!r} depends on an input of the model; it must be a constant"
        + (f". {advice}" if advice else "")
    )


def plain_axis(axis: int, ndim: int) -> int:
    """The axis counted from 0."""
    if not -ndim <= axis < ndim:
        raise UnsupportedAttributeError(f"the axis {axis} does not exist: there are {ndim} axes")
    return axis % ndim


def inner_axis(axis: int, ndim: int) -> int:
    """The axis counted from 0, which must not be that of the rows."""
    found = plain_axis(axis, ndim)
    if found == 0:
        raise UnsupportedAttributeError(
            f"axis={axis} is the axis of the rows of the batch, which are encrypted one by one;"
            " work along another axis"
        )
    return found


def reduced_axes(operands: Operands, attributes: Attributes) -> tuple[int, ...]:
    """Axes of a reduction, in any operator set; empty where it reduces nothing."""
    value = required(operands)
    given = clear(operands, 1, "axes")
    axes = attribute(attributes, "axes", ()) if given is None else given.ravel()
    listed = tuple(plain_axis(int(axis), value.ndim) for axis in axes)
    if listed or attribute(attributes, "noop_with_empty_axes", 0):
        return listed
    return tuple(range(value.ndim))


def reduce(
    composer: Composer, op: str, value: Tensor, axes: Sequence[int], keepdims: int = 1
) -> Tensor:
    """A reduction, in the form that the operator set has."""
    if not axes:
        return value
    if composer.opset >= 18 or op == "ReduceSum":
        listed = composer.constant(np.array(axes, dtype=np.int64))
        return composer.add(op, value, listed, keepdims=keepdims)
    return composer.add(op, value, axes=tuple(axes), keepdims=keepdims)


def cast(composer: Composer, value: Tensor, dtype: Any) -> Tensor:
    """The value in another dtype."""
    if value.sample.dtype == np.dtype(dtype):
        return value
    return composer.add("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def floating(composer: Composer, value: Tensor) -> Tensor:
    """The value in a floating dtype: as it is, or in one that holds its integers."""
    return value if value.sample.dtype.kind == "f" else cast(composer, value, np.float64)


def subtractable(composer: Composer, value: Tensor) -> Tensor:
    """The value in a dtype that holds differences: those of unsigned types wrap around."""
    dtype = value.sample.dtype
    return (
        value
        if dtype.kind == "f" or dtype in (np.int32, np.int64)
        else cast(composer, value, np.int64)
    )


def part(composer: Composer, value: Tensor, axis: int, start: int, stop: int) -> Tensor:
    """Elements ``start`` to ``stop`` along an axis."""
    limits = [np.array([number], dtype=np.int64) for number in (start, stop, axis)]
    return composer.add("Slice", value, *limits)


def take(composer: Composer, value: Tensor, index: Array, axis: int) -> Tensor:
    """Elements at clear places along an axis."""
    return composer.add("Gather", value, index.astype(np.int64), axis=axis)


def total(composer: Composer, values: Sequence[Tensor]) -> Tensor:
    """Sum of several tensors of floats, rounded once."""
    return values[0] if len(values) == 1 else composer.add("Sum", *values)


def root(composer: Composer, squares: Tensor) -> Tensor:
    """The square root of a sum of squares, which rounding may have moved below zero."""
    return composer.add("Sqrt", composer.add("Relu", squares))


def transpose(composer: Composer, value: Tensor, order: Sequence[int]) -> Tensor:
    """The axes in another order."""
    if tuple(order) == tuple(range(value.ndim)):
        return value
    return composer.add("Transpose", value, perm=tuple(order))


def along_channels(values: Array, ndim: int, axis: int = 1) -> Array:
    """A vector of parameters, laid along one axis."""
    return values.reshape([-1 if i == axis else 1 for i in range(ndim)])


def pick(composer: Composer, parts: Sequence[Tensor], index: Array) -> Tensor:
    """Elements of several tensors, put together by movement alone.

    Parameters
    ----------
    composer : Composer
    parts : sequence of Tensor
        At least one of them is encrypted; constants have extent 1 along axis 0.
    index : ndarray of int
        For each element of a result row, its place in the rows of all parts, one after the other.

    Returns
    -------
    Tensor
        Of the shape of ``index``, with the batch axis before it.
    """
    flat = [
        composer.constant(one.sample.reshape(1, -1)) if one.constant else composer.reshape(one, -1)
        for one in parts
    ]
    joined = flat[0] if len(flat) == 1 else composer.add("Concat", *flat, axis=1)
    return take(composer, joined, index, axis=1)


def places(shape: Sequence[int], start: int = 0) -> Array:
    """The number of each element of one row of a tensor, in a row-shaped array (batch axis 1)."""
    count = int(np.prod(shape[1:], dtype=np.int64))
    return (start + np.arange(count)).reshape(1, *shape[1:])


def encrypted(operands: Operands) -> list[Tensor]:
    """The operands that are not part of the model."""
    return [one for one in operands if one is not None and not one.constant]


def refuse_encrypted(sentence: str) -> Expand:
    """An expansion that says that an operator works on one encrypted value only.

    Parameters
    ----------
    sentence : str
        What is accepted, and what to change.

    Returns
    -------
    callable
    """

    def refuse(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
        del composer, attributes
        names = ", ".join(one.name for one in encrypted(operands))
        raise EncryptedOperandError(
            f"its operands {names} are different encrypted values. {sentence}"
        )

    return refuse
