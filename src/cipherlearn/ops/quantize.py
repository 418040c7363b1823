"""Quantization and dequantization that are part of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from onnx import TensorProto, helper

from cipherlearn.errors import UnsupportedAttributeError
from cipherlearn.ops._composition import (
    Attributes,
    Operands,
    along_channels,
    attribute,
    cast,
    clear,
    plain_axis,
    required,
)
from cipherlearn.ops._expand import Composer, Tensor
from cipherlearn.ops._operands import Array
from cipherlearn.ops._registry import Kind, register

_TYPES: Final = (TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16)
_FLOATS: Final = (TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE)


def _check_type(values: Mapping[str, Any]) -> str | None:
    number = values.get("output_dtype")
    if not number or number in (*_TYPES, *_FLOATS):
        return None
    accepted = ", ".join(map(TensorProto.DataType.Name, _TYPES))
    return (
        f"output_dtype={TensorProto.DataType.Name(number)} is not supported: NumPy has no numbers"
        f" of that type. Accepted: {accepted}."
    )


def _parameters(
    operands: Operands, attributes: Attributes, names: tuple[str, str]
) -> tuple[Array, Array | None]:
    """Scale and zero-point, laid along the axis that they belong to."""
    if attribute(attributes, "block_size", 0):
        raise UnsupportedAttributeError(
            f"block_size={attributes['block_size']} is not supported; accepted: 0, one scale for"
            " the tensor or for each place on an axis"
        )
    x = required(operands)
    laid = []
    for position, name in enumerate(names, start=1):
        value = clear(operands, position, name)
        if value is not None and value.size == 1:
            value = value.reshape(())
        elif value is not None:
            axis = plain_axis(attribute(attributes, "axis", 1), x.ndim)
            value = along_channels(value, x.ndim, axis)
        laid.append(value)
    return np.asarray(laid[0]), laid[1]


def _quantize(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    scale, zero = _parameters(operands, attributes, ("y_scale", "y_zero_point"))
    number = attribute(attributes, "output_dtype", 0) or TensorProto.UINT8
    dtype = helper.tensor_dtype_to_np_dtype(number) if zero is None else zero.dtype
    limits = np.iinfo(dtype)
    x = required(operands)
    if x.sample.dtype.kind != "f":
        x = cast(composer, x, scale.dtype)
    steps = composer.add("Round", composer.add("Div", x, scale.astype(x.sample.dtype)))
    if zero is not None and zero.any():
        steps = composer.add("Add", steps, zero.astype(x.sample.dtype))
    return cast(composer, composer.add("Clip", steps, float(limits.min), float(limits.max)), dtype)


def _dequantize(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    scale, zero = _parameters(operands, attributes, ("x_scale", "x_zero_point"))
    number = attribute(attributes, "output_dtype", 0)
    dtype = helper.tensor_dtype_to_np_dtype(number) if number else scale.dtype
    x = cast(composer, required(operands), dtype)
    if zero is not None and zero.any():
        x = composer.add("Sub", x, zero.astype(dtype))
    return composer.add("Mul", x, scale.astype(dtype))


def _integer_product(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    del attributes
    centred = []
    for position, name in enumerate(("a_zero_point", "b_zero_point")):
        value = cast(composer, required(operands, position), np.int32)
        zero = clear(operands, 2 + position, name)
        if zero is not None and zero.any():
            # A vector holds one zero-point a row of the first matrix, or a column of the second.
            column = zero.reshape(-1, 1) if position == 0 and zero.ndim == 1 else zero
            value = composer.add("Sub", value, column.astype(np.int32))
        centred.append(value)
    return composer.add("MatMul", *centred)


register("QuantizeLinear", kind=Kind.MIXING, raw_inputs={1, 2}, check=_check_type, expand=_quantize)
register(
    "DequantizeLinear", kind=Kind.MIXING, raw_inputs={1, 2}, check=_check_type, expand=_dequantize
)
register("MatMulInteger", kind=Kind.MIXING, raw_inputs={2, 3}, expand=_integer_product)
