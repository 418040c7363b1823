"""The windows of convolutions and pools: where they lie, and what is computed over them.

The same functions work on integers, on values of a circuit and on real arrays: they are the
integer form and the float meaning of an operator at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cipherlearn.circuit import IntValue, ir, kernels
from cipherlearn.circuit.functions import convolve
from cipherlearn.errors import InvalidShapeError
from cipherlearn.ops._integer import pairwise

#: Elements of all windows of the rows that are computed at once (copies are made of them).
MOST_WINDOW_ELEMENTS = 2**24


@dataclass(frozen=True)
class Axis:
    """Windows along one axis.

    Parameters
    ----------
    extent : int
        Of the input.
    kernel, stride, dilation : int
        Of the windows.
    begin, end : int
        Padding on both sides, as the node asks for it.
    count : int
        Number of windows.
    """

    extent: int
    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int
    count: int

    @property
    def overhang(self) -> int:
        """Padding that the last window needs at the end (negative: elements that none reads)."""
        span = self.dilation * (self.kernel - 1) + 1
        return (self.count - 1) * self.stride + span - self.extent - self.begin

    @property
    def positions(self) -> np.ndarray:
        """Input position of each window and tap: shape (count, kernel), beyond the input too."""
        starts = np.arange(self.count) * self.stride - self.begin
        return starts[:, None] + np.arange(self.kernel) * self.dilation

    @property
    def within(self) -> np.ndarray:
        """As `positions`; in place of padding, an element that the window holds anyway."""
        places = self.positions
        inside = (places >= 0) & (places < self.extent)
        first = places[np.arange(self.count), inside.argmax(axis=1)]
        return np.where(inside, places, first[:, None])

    def taps(self, padded: bool) -> np.ndarray:
        """Number of taps of each window that lie in the input, or in the padded input."""
        before, after = (self.begin, self.end) if padded else (0, 0)
        inside = (self.positions >= -before) & (self.positions < self.extent + after)
        return inside.sum(axis=1)


def axes_of(
    attributes: Mapping[str, Any], extents: Sequence[int], kernel: Sequence[int]
) -> list[Axis]:
    """The windows along each axis of space, from the attributes of a convolution or a pool.

    Raises
    ------
    InvalidShapeError
        If no window fits, or attributes are made for another number of axes.
    """
    space = len(extents)
    strides = _each(attributes.get("strides"), space, 1)
    dilations = _each(attributes.get("dilations"), space, 1)
    pads = _each(attributes.get("pads"), 2 * space, 0)
    if len(kernel) != space:
        raise InvalidShapeError(
            f"a kernel of shape {tuple(kernel)} does not fit an input with {space} axes of space"
        )
    mode = attributes.get("auto_pad") or "NOTSET"
    ceil = bool(attributes.get("ceil_mode"))
    result = []
    for axis, extent in enumerate(extents):
        stride, span = strides[axis], dilations[axis] * (kernel[axis] - 1) + 1
        begin, end = pads[axis], pads[space + axis]
        if mode.startswith("SAME"):
            total = max(0, (-(-extent // stride) - 1) * stride + span - extent)
            begin = total // 2 if mode == "SAME_UPPER" else -(-total // 2)
            end = total - begin
        elif mode == "VALID":
            begin = end = 0
        room = extent + begin + end - span
        count = (-(-room // stride) if ceil else room // stride) + 1
        if ceil and (count - 1) * stride >= extent + begin:
            count -= 1
        if count < 1:
            raise InvalidShapeError(
                f"a window of {span} does not fit an input of {extent} with {begin} + {end} padding"
            )
        result.append(Axis(extent, kernel[axis], stride, dilations[axis], begin, end, count))
    return result


def _each(values: Any, count: int, default: int) -> list[int]:
    given = [default] * count if values is None or len(values) == 0 else [int(v) for v in values]
    if len(given) != count:
        raise InvalidShapeError(f"{given} was given where {count} numbers are needed")
    return given


def cross_correlation(
    values: Any, weights: np.ndarray, axes: Sequence[Axis], groups: int = 1
) -> Any:
    """Cross-correlation with constant weights.

    Parameters
    ----------
    values : numpy.ndarray or IntValue, shape (batch, channels, *space)
    weights : numpy.ndarray, shape (out, channels/groups, *kernel)
    axes : sequence of Axis
    groups : int, default=1
    """
    # Where windows leave elements out at the end, nothing needs to be cut off.
    pads = (*(axis.begin for axis in axes), *(max(0, axis.overhang) for axis in axes))
    strides = tuple(axis.stride for axis in axes)
    dilations = tuple(axis.dilation for axis in axes)
    if isinstance(values, IntValue):
        return convolve(
            values, weights, strides=strides, pads=pads, dilations=dilations, groups=groups
        )
    if values.dtype.kind == "f":
        return _real_correlation(values, weights, axes, groups)
    primitive = ir.Convolve(strides, pads, dilations, groups)
    return kernels.apply(primitive, values[:, None], weights[None])[:, 0]


def _real_correlation(
    values: np.ndarray, weights: np.ndarray, axes: Sequence[Axis], groups: int
) -> np.ndarray:
    space, channels = len(axes), weights.shape[1]
    windows = windows_of(values, axes)
    contracted = (1, *range(2 + space, 2 + 2 * space)), tuple(range(1, 2 + space))
    result = np.empty((len(values), len(weights), *(a.count for a in axes)), values.dtype)
    row_size = max(1, windows[:1].size)
    step = max(1, MOST_WINDOW_ELEMENTS // row_size)
    for start in range(0, len(values), step):
        rows = windows[start : start + step]
        parts = [
            np.tensordot(rows[:, group * channels : (group + 1) * channels], part, contracted)
            for group, part in enumerate(np.split(weights, groups))
        ]
        result[start : start + step] = np.moveaxis(np.concatenate(parts, axis=-1), -1, 1)
    return result


def windows_of(values: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
    """All windows, with zeros as padding: a view of shape (batch, channels, *places, *taps)."""
    pads = [(axis.begin, max(0, axis.overhang)) for axis in axes]
    padded = np.pad(values, [(0, 0), (0, 0), *pads])
    spans: Any = [axis.dilation * (axis.kernel - 1) + 1 for axis in axes]
    inner = tuple(range(2, 2 + len(axes)))
    views = np.lib.stride_tricks.sliding_window_view(padded, spans, inner)  # type: ignore[call-overload]
    # The windows behind the last one start in elements that none of them reads.
    steps = [slice(None, axis.count * axis.stride, axis.stride) for axis in axes]
    taps = [slice(None, None, axis.dilation) for axis in axes]
    key = (slice(None), slice(None), *steps, *taps)
    return views[key]


def window_maximum(values: Any, axes: Sequence[Axis]) -> Any:
    """The maximum axis by axis, which takes fewer comparisons than window by window.

    Parameters
    ----------
    values : numpy.ndarray or IntValue, shape (batch, channels, *space)
    axes : sequence of Axis
    """
    for position, axis in enumerate(axes, start=2):
        lead = (slice(None),) * position
        keys = [(*lead, taps) for taps in axis.within.T]
        values = pairwise(np.maximum, [values[key] for key in keys])
    return values


def window_sum(values: Any, axes: Sequence[Axis]) -> Any:
    """The sum over windows, with zeros as padding.

    Parameters
    ----------
    values : numpy.ndarray or IntValue, shape (batch, channels, *space)
    axes : sequence of Axis
    """
    channels = values.shape[1]
    if all(map(_tiles, axes)):
        tiles = [part for axis in axes for part in (axis.count, axis.kernel)]
        inner = tuple(range(3, 3 + 2 * len(axes), 2))
        return values.reshape(*values.shape[:2], *tiles).sum(axis=inner)
    dtype = getattr(values, "dtype", np.int64)
    ones = np.ones((channels, 1, *(axis.kernel for axis in axes)), dtype=dtype)
    return cross_correlation(values, ones, axes, channels)


def _tiles(axis: Axis) -> bool:
    """Whether windows lie side by side and cover the axis."""
    plain = axis.kernel == axis.stride and axis.dilation == 1 and axis.begin == 0
    return plain and axis.overhang == 0


def window_sizes(axes: Sequence[Axis], padded: bool) -> np.ndarray:
    """Number of elements in each window: shape (1, 1, *windows).

    Parameters
    ----------
    axes : sequence of Axis
    padded : bool
        Whether padding counts.
    """
    sizes = np.ones((1, 1, *(1,) * len(axes)))
    for position, axis in enumerate(axes):
        taps = axis.taps(padded)
        place = [1] * sizes.ndim
        place[2 + position] = taps.size
        sizes = sizes * taps.reshape(place)
    return sizes
