"""Reductions that are sums of functions, products, and running sums."""

from __future__ import annotations

from typing import Final

import numpy as np

from cipherlearn.errors import UnsupportedAttributeError
from cipherlearn.ops._composition import (
    Attributes,
    Operands,
    attribute,
    cast,
    clear,
    floating,
    inner_axis,
    part,
    reduce,
    reduced_axes,
    required,
    root,
    take,
    transpose,
)
from cipherlearn.ops._expand import Composer, Expand, Tensor
from cipherlearn.ops._registry import Kind, register

_MOST_FACTORS: Final = 16
"""Factors of an encrypted product at most: each product doubles the bits."""


def _sum_of(before: str | None, after: str | None, *, square: bool = False) -> Expand:
    """The expansion of ``after(sum(before(x)))``."""

    def expand(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
        value = required(operands)
        dtype = value.sample.dtype
        axes = reduced_axes(operands, attributes)
        if after or before in ("Exp", "Log"):
            value = floating(composer, value)
        if square:
            value = composer.add("Mul", value, value)
        if before:
            value = composer.add(before, value)
        value = reduce(composer, "ReduceSum", value, axes, attribute(attributes, "keepdims", 1))
        if after == "Sqrt":
            value = root(composer, value)
        elif after:
            value = composer.add(after, value)
        return cast(composer, value, dtype)

    return expand


def _product(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    value = required(operands)
    axes = reduced_axes(operands, attributes)
    count = int(np.prod([value.shape[axis] for axis in axes], dtype=np.int64))
    if not count:
        raise UnsupportedAttributeError("the product of no elements is 1: write a constant")
    if count > _MOST_FACTORS:
        raise UnsupportedAttributeError(
            f"the product of {count} encrypted numbers is too wide to compute; accepted: up to"
            f" {_MOST_FACTORS} factors. Add logarithms instead, if all numbers are positive"
        )
    for axis in axes:
        while value.shape[axis] > 1:
            value = _halved(composer, value, axis)
    if attribute(attributes, "keepdims", 1):
        return value
    for axis in sorted(axes, reverse=True):
        value = take(composer, value, np.array(0), axis)
    return value


def _halved(composer: Composer, value: Tensor, axis: int) -> Tensor:
    """Products of the first half of an axis with the second half."""
    extent = value.shape[axis]
    half = extent // 2
    left, right = (part(composer, value, axis, a, a + half) for a in (0, half))
    product = composer.add("Mul", left, right)
    if extent % 2 == 0:
        return product
    rest = part(composer, value, axis, extent - 1, extent)
    return composer.add("Concat", product, rest, axis=axis)


def _running_sum(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    value = required(operands)
    axis = inner_axis(int(np.asarray(clear(operands, 1, "axis")).item()), value.ndim)
    extent = value.shape[axis]
    offset = 1 if attribute(attributes, "exclusive", 0) else 0
    counted = np.tri(extent, extent, -offset)
    counted = counted if attribute(attributes, "reverse", 0) else counted.T
    order = [i for i in range(value.ndim) if i != axis] + [axis]
    back = np.argsort(order).tolist()
    product = composer.add(
        "MatMul", transpose(composer, value, order), counted.astype(value.sample.dtype)
    )
    return transpose(composer, product, back)


register(
    "ReduceSumSquare", kind=Kind.MIXING, raw_inputs={1}, expand=_sum_of(None, None, square=True)
)
register("ReduceL1", kind=Kind.MIXING, raw_inputs={1}, expand=_sum_of("Abs", None))
register("ReduceL2", kind=Kind.MIXING, raw_inputs={1}, expand=_sum_of(None, "Sqrt", square=True))
register("ReduceLogSum", kind=Kind.MIXING, raw_inputs={1}, expand=_sum_of(None, "Log"))
register("ReduceLogSumExp", kind=Kind.MIXING, raw_inputs={1}, expand=_sum_of("Exp", "Log"))
register("ReduceProd", kind=Kind.MIXING, raw_inputs={1}, expand=_product)
register("CumSum", kind=Kind.MIXING, raw_inputs={1}, expand=_running_sum)
