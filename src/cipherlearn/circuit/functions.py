"""What NumPy's functions, other than ufuncs, do to values of a circuit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cipherlearn.circuit import ir
from cipherlearn.circuit.indexing import axis_of, shape_holder
from cipherlearn.circuit.values import (
    ARRAY_FUNCTIONS,
    IntValue,
    RealValue,
    Traced,
    lift,
    tabulate_integers,
)
from cipherlearn.errors import InvalidTypeError


def concatenate(values: Sequence[Any], axis: int = 0) -> IntValue:
    """As `numpy.concatenate`, for integer values.

    Equal roundings of all parts are done after the move, next to their look-up.
    """
    traced = [value for value in values if isinstance(value, IntValue)]
    if not traced or any(isinstance(value, RealValue) for value in values):
        raise InvalidTypeError("concatenate joins integer values: quantize, then astype(np.int64)")
    builder = traced[0].builder
    parts = [lift(builder, value) for value in values]
    first = parts[0].node.primitive
    if isinstance(first, ir.Round) and all(_is_same_rounding(first, part) for part in parts):
        inner = [IntValue(builder, part.node.inputs[0]) for part in parts]
        return builder.add(first, concatenate(inner, axis))
    return builder.add(ir.Concatenate(axis_of(axis, parts[0].ndim)), *parts)


def convolve(
    image: IntValue,
    kernel: np.ndarray,
    *,
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
    groups: int = 1,
) -> IntValue:
    """Cross-correlation with a constant kernel: see `cipherlearn.circuit.ir.Convolve`."""
    primitive = ir.Convolve(tuple(strides), tuple(pads), tuple(dilations), int(groups))
    return image.builder.add(primitive, image, image.builder.constant(kernel))


def _is_same_rounding(rounding: ir.Round, value: IntValue) -> bool:
    other = value.node.primitive
    if not isinstance(other, ir.Round):
        return False
    return (other.lsbs, other.exact) == (rounding.lsbs, rounding.exact)


def _elementwise(function: Callable[..., Any]) -> Callable[..., RealValue]:
    def apply(*operands: Any, **options: Any) -> RealValue:
        return tabulate_integers(lambda *arrays: function(*arrays, **options), operands)

    return apply


def _where(condition: Any, *branches: Any) -> RealValue:
    if len(branches) != 2:
        raise InvalidTypeError(
            "np.where of an encrypted value needs two branches: positions leak it"
        )
    return tabulate_integers(np.where, (condition, *branches))


def _reshape(value: Traced, newshape: Any) -> Any:
    return value.reshape(newshape)


def _transpose(value: Traced, axes: Any = None) -> Any:
    return value.transpose(axes)


def _broadcast_to(value: Traced, shape: tuple[int, ...]) -> Any:
    return value.broadcast_to(shape)


def _expand_dims(value: Traced, axis: Any) -> Any:
    return value.reshape(np.expand_dims(shape_holder(value.shape), axis).shape)


def _squeeze(value: Traced, axis: Any = None) -> Any:
    return value.reshape(np.squeeze(shape_holder(value.shape), axis).shape)


def _sum(value: Any, axis: Any = None, *, keepdims: bool = False) -> IntValue:
    result: IntValue = value.sum(axis, keepdims)
    return result


ARRAY_FUNCTIONS.update(
    {
        np.broadcast_to: _broadcast_to,
        np.clip: _elementwise(np.clip),
        np.concatenate: concatenate,
        np.expand_dims: _expand_dims,
        np.nan_to_num: _elementwise(np.nan_to_num),
        np.reshape: _reshape,
        np.round: _elementwise(np.round),
        np.squeeze: _squeeze,
        np.sum: _sum,
        np.transpose: _transpose,
        np.where: _where,
    }
)
