"""Arithmetic of one, two or many tensors, rounding, and changes of type."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from onnx import TensorProto

from cipherlearn.ops._integer import Affine, IntegerForm, minimum, pairwise
from cipherlearn.ops._registry import register

_TYPES: Final = frozenset(
    {
        TensorProto.BOOL,
        TensorProto.DOUBLE,
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.INT8,
        TensorProto.INT16,
        TensorProto.INT32,
        TensorProto.INT64,
        TensorProto.UINT8,
        TensorProto.UINT16,
        TensorProto.UINT32,
        TensorProto.UINT64,
    }
)


def _check_target(values: Mapping[str, Any]) -> str | None:
    if values.get("to") in _TYPES:
        return None
    accepted = ", ".join(TensorProto.DataType.Name(number) for number in sorted(_TYPES))
    return (
        f"the target type {_type_name(values.get('to'))} is not supported: NumPy has no numbers of"
        f" that type. Supported: {accepted}."
    )


def _type_name(number: Any) -> str:
    known = {value: key for key, value in TensorProto.DataType.items()}
    return known.get(number, str(number))


def _add(operands: Sequence[Any], attributes: Mapping[str, Any]) -> Affine:
    del attributes
    integers = pairwise(operator.add, [part.integers for part in operands])
    zero = sum(part.zero_point for part in operands)
    return Affine(integers, operands[0].scale, zero)


def _subtract(operands: Sequence[Any], attributes: Mapping[str, Any]) -> Affine:
    del attributes
    left, right = operands
    return Affine(left.integers - right.integers, left.scale, left.zero_point - right.zero_point)


def _multiply(operands: Sequence[Any], attributes: Mapping[str, Any]) -> Affine:
    del attributes
    left, right = operands
    return Affine(left.centred * right.centred, left.scale * right.scale, 0)


def _extremum(function: Any) -> Any:
    def of_two(left: Any, right: Any) -> Any:
        # With a constant, it is a table in a circuit, whose entries are integers again.
        return function(left, right).astype(np.int64)

    def compute(operands: Sequence[Any], attributes: Mapping[str, Any]) -> Affine:
        del attributes
        integers = pairwise(of_two, [part.integers for part in operands])
        return replace(operands[0], integers=integers, constant=False)

    return compute


register("Add", "Sum", integer=IntegerForm(_add, common_scale=True, univariate=True, sums=True))
register("Max", integer=IntegerForm(_extremum(np.maximum), keeps_grid=True, univariate=True))
register("Min", integer=IntegerForm(_extremum(minimum), keeps_grid=True, univariate=True))
register("Sub", integer=IntegerForm(_subtract, common_scale=True, univariate=True, sums=True))
register("Mul", integer=IntegerForm(_multiply, univariate=True))
# A quotient is a product with the reciprocal, which is a look-up on the divisor.
register("Div", integer=IntegerForm(_multiply, univariate=True, prepare={1: np.reciprocal}))
register("Abs", "Ceil", "Floor", "Neg", "Reciprocal", "Round", "Sign")
register("Erf", "Exp", "Log", "Sqrt")
register("BitCast", "Cast", check=_check_target)
# Only the type of the second operand counts, never its values.
register("CastLike", raw_inputs={1})
