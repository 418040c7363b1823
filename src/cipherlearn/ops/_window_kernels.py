"""Convolutions and pools in float, through the same windows as their integer forms.

The reference kernels are wrong for some legal operands (groups or a batch in ConvTranspose,
asymmetric padding in MaxPool) and refuse others (automatic padding in LpPool), and loop in Python
over every window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from cipherlearn.errors import InvalidShapeError
from cipherlearn.ops._transposed import transposed_correlation
from cipherlearn.ops._windows import (
    Axis,
    axes_of,
    cross_correlation,
    window_maximum,
    window_sizes,
    window_sum,
)


class Conv(OpRun):
    """Convolution with groups, strides, dilations and padding."""

    def _run(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None, **attributes: Any
    ) -> tuple[np.ndarray]:
        axes = axes_of(attributes, x.shape[2:], w.shape[2:])
        channels, (out, part, *_) = x.shape[1], w.shape
        fitting = [channels // part] if not channels % part and not out % (channels // part) else []
        groups = _groups(attributes, channels, w.shape, fitting)
        return (_with_bias(cross_correlation(x, w, axes, groups), b),)


class ConvTranspose(OpRun):
    """Transposed convolution."""

    def _run(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None, **attributes: Any
    ) -> tuple[np.ndarray]:
        channels = x.shape[1]
        divisors = [count for count in range(1, channels + 1) if channels % count == 0]
        _groups(attributes, channels, w.shape, divisors if len(w) == channels else [])
        return (_with_bias(transposed_correlation(x, w, attributes), b),)


def _groups(
    attributes: Mapping[str, Any], channels: int, kernel: tuple[int, ...], fitting: Sequence[int]
) -> int:
    """The number of groups of a convolution, where it fits the operands.

    Parameters
    ----------
    attributes : mapping
        Of the convolution.
    channels : int
        Of the input.
    kernel : tuple of int
        Shape of the kernel.
    fitting : sequence of int
        Numbers of groups that fit both.

    Raises
    ------
    InvalidShapeError
        If the attribute ``group`` or ``kernel_shape`` is made for other operands.
    """
    given = attributes.get("kernel_shape")
    if given is not None and tuple(given) != kernel[2:]:
        raise InvalidShapeError(
            f"the attribute kernel_shape={list(given)} is not that of the kernel, whose shape is"
            f" {kernel}; accepted: {list(kernel[2:])}, or leave it out"
        )
    groups = int(attributes.get("group") or 1)
    if groups not in fitting:
        accepted = ", ".join(map(str, fitting)) or "none, as the kernel is for other channels"
        raise InvalidShapeError(
            f"the attribute group={groups} does not fit an input of {channels} channels and a"
            f" kernel of shape {kernel}; accepted: {accepted}"
        )
    return groups


def _with_bias(result: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    return result if bias is None else result + bias.reshape(1, -1, *(1,) * (result.ndim - 2))


class MaxPool(OpRun):
    """Maximum over windows, and where it was found."""

    def _run(self, x: np.ndarray, **attributes: Any) -> tuple[np.ndarray, ...]:
        axes = axes_of(attributes, x.shape[2:], attributes["kernel_shape"])
        if len(self.onnx_node.output) < 2:
            return (window_maximum(x, axes),)
        order: Any = "F" if attributes.get("storage_order") else "C"
        within = np.arange(math.prod(x.shape[2:]), dtype=np.int64).reshape(x.shape[2:], order=order)
        images = np.arange(math.prod(x.shape[:2]), dtype=np.int64) * within.size
        places = images.reshape(*x.shape[:2], *(1,) * within.ndim) + within
        # The last axis first, and later elements only if they are larger: the first one wins.
        for position, axis in reversed(list(enumerate(axes, start=2))):
            x, places = _larger_of(x, places, position, axis)
        return x, places


def _larger_of(
    values: np.ndarray, places: np.ndarray, position: int, axis: Axis
) -> tuple[np.ndarray, np.ndarray]:
    lead = (slice(None),) * position
    first, *others = ((*lead, taps) for taps in axis.within.T)
    best, where = values[first], places[first]
    for key in others:
        larger = values[key] > best
        best, where = np.where(larger, values[key], best), np.where(larger, places[key], where)
    return best, where


class AveragePool(OpRun):
    """Mean over windows."""

    def _run(self, x: np.ndarray, **attributes: Any) -> tuple[np.ndarray]:
        axes = axes_of(attributes, x.shape[2:], attributes["kernel_shape"])
        sizes = window_sizes(axes, bool(attributes.get("count_include_pad")))
        return ((window_sum(x, axes) / sizes).astype(x.dtype),)


class LpPool(OpRun):
    """Norm over windows."""

    def _run(self, x: np.ndarray, **attributes: Any) -> tuple[np.ndarray]:
        axes = axes_of(attributes, x.shape[2:], attributes["kernel_shape"])
        order = float(attributes.get("p") or 2)
        return ((window_sum(np.abs(x) ** order, axes) ** (1 / order)).astype(x.dtype),)


KERNELS: tuple[type[OpRun], ...] = (Conv, ConvTranspose, MaxPool, AveragePool, LpPool)
