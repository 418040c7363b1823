"""Convolutions with constant weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cipherlearn.errors import EncryptedOperandError
from cipherlearn.ops._integer import Affine, IntegerForm, add_bias, linear_map
from cipherlearn.ops._registry import Kind, register
from cipherlearn.ops._transposed import transposed_correlation
from cipherlearn.ops._windows import axes_of, cross_correlation


def _conv(operands: Sequence[Any], attributes: Mapping[str, Any]) -> Affine:
    image, kernel = operands[0], _constant_kernel(operands)
    weights = kernel.centred.astype(np.int64)
    axes = axes_of(attributes, image.integers.shape[2:], weights.shape[2:])
    groups = int(attributes.get("group") or 1)
    step = _along_channels(kernel.scale, weights.ndim) * image.scale
    product = linear_map(image, lambda q: cross_correlation(q, weights, axes, groups), step)
    return _with_bias(product, operands)


def _conv_transpose(operands: Sequence[Any], attributes: Mapping[str, Any]) -> Affine:
    image, kernel = operands[0], _constant_kernel(operands)
    weights = kernel.centred.astype(np.int64)
    groups = int(attributes.get("group") or 1)

    def function(integers: Any) -> Any:
        return transposed_correlation(integers, weights, attributes)

    product = linear_map(image, function, _transposed_scale(kernel.scale, groups) * image.scale)
    return _with_bias(product, operands)


def _constant_kernel(operands: Sequence[Any]) -> Affine:
    kernel: Affine = operands[1]
    if not kernel.constant:
        raise EncryptedOperandError(
            "the kernel of a convolution depends on an input of the model; it must be a constant "
            "(MatMul multiplies encrypted values)"
        )
    return kernel


def _with_bias(product: Affine, operands: Sequence[Any]) -> Affine:
    bias = operands[2] if len(operands) > 2 else None
    if bias is None:
        return product
    ones = (1,) * (len(product.integers.shape) - 2)
    return add_bias(product, np.asarray(bias).reshape(1, -1, *ones))


def _along_channels(scale: Any, ndim: int) -> Any:
    """Scales of the kernel (one, or one a channel) beside the channels of the result."""
    array = np.asarray(scale)
    return scale if array.size == 1 else array.reshape(1, -1, *(1,) * (ndim - 2))


def _transposed_scale(scale: Any, groups: int) -> Any:
    """As `_along_channels`, for kernels whose second axis holds the channels of the result."""
    array = np.asarray(scale)
    if array.size == 1:
        return scale
    along = np.broadcast_to(array, (1, *array.shape[1:])).reshape(1, -1)
    return np.tile(along, groups).reshape(1, -1, *(1,) * (array.ndim - 2))


register("Conv", kind=Kind.MIXING, integer=IntegerForm(_conv, frozenset({2}), channel_axis=1))
register(
    "ConvTranspose",
    kind=Kind.MIXING,
    integer=IntegerForm(_conv_transpose, frozenset({2}), channel_axis=1),
)
