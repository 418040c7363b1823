"""Convolutions with constant weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cipherlearn.errors import EncryptedOperandError
from cipherlearn.ops._integer import Affine, IntegerForm, add_bias, linear_map
from cipherlearn.ops._registry import Kind, register
from cipherlearn.ops._transposed import transposed_correlation
from cipherlearn.ops._weights import Attributes, WeightLayout
from cipherlearn.ops._windows import axes_of, cross_correlation, windows_of


def _conv(operands: Sequence[Any], attributes: Mapping[str, Any]) -> Affine:
    image, kernel = operands[0], _constant_kernel(operands)
    weights = kernel.centred.astype(np.int64)
    axes = axes_of(attributes, image.integers.shape[2:], weights.shape[2:])
    groups = _groups(attributes)
    step = _along_channels(kernel.scale, weights.ndim) * image.scale
    product = linear_map(image, lambda q: cross_correlation(q, weights, axes, groups), step)
    return _with_bias(product, operands)


def _conv_transpose(operands: Sequence[Any], attributes: Mapping[str, Any]) -> Affine:
    image, kernel = operands[0], _constant_kernel(operands)
    weights = kernel.centred.astype(np.int64)
    groups = _groups(attributes)

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


class _KernelLayout(WeightLayout):
    """Windows of channels times a kernel of shape (out, channels/groups, *kernel)."""

    operand_axis = 1

    def inputs(
        self, operand: np.ndarray, shape: tuple[int, ...], attributes: Attributes
    ) -> np.ndarray:
        groups = _groups(attributes)
        windows = windows_of(operand, axes_of(attributes, operand.shape[2:], shape[2:]))
        space = len(shape) - 2
        # (batch, channels, *places, *taps) -> (batch, *places, channels, *taps)
        ordered = np.moveaxis(windows, 1, 1 + space)
        rows = int(np.prod(ordered.shape[: 1 + space]))
        return np.moveaxis(ordered.reshape(rows, groups, -1), 1, 0)

    def targets(self, result: np.ndarray, groups: int) -> np.ndarray:
        channels = np.moveaxis(result, 1, -1).reshape(-1, groups, result.shape[1] // groups)
        return np.moveaxis(channels, 1, 0)

    def matrix(self, weights: np.ndarray, attributes: Attributes) -> np.ndarray:
        groups = _groups(attributes)
        return weights.reshape(groups, len(weights) // groups, -1)

    def weights(
        self, matrix: np.ndarray, shape: tuple[int, ...], attributes: Attributes
    ) -> np.ndarray:
        del attributes
        return matrix.reshape(shape)

    def along_inputs(
        self, entries: np.ndarray, shape: tuple[int, ...], attributes: Attributes
    ) -> np.ndarray:
        taps = int(np.prod(shape[2:]))
        return np.repeat(entries.reshape(_groups(attributes), 1, -1), taps, axis=-1)

    def along_weights(
        self, channels: np.ndarray, shape: tuple[int, ...], attributes: Attributes
    ) -> np.ndarray:
        del attributes
        return channels.reshape(-1, *(1,) * (len(shape) - 1))

    def along_result(self, channels: np.ndarray, ndim: int) -> np.ndarray:
        return channels.reshape(1, -1, *(1,) * (ndim - 2))


def _groups(attributes: Attributes) -> int:
    return int(attributes.get("group") or 1)


register(
    "Conv",
    kind=Kind.MIXING,
    integer=IntegerForm(_conv, frozenset({2}), channel_axis=1, layout=_KernelLayout()),
)
register(
    "ConvTranspose",
    kind=Kind.MIXING,
    integer=IntegerForm(_conv_transpose, frozenset({2}), channel_axis=1),
)
