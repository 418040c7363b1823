"""Transposed convolutions, written as convolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cipherlearn.ops._windows import Axis, cross_correlation


def transposed_correlation(values: Any, weights: np.ndarray, attributes: Mapping[str, Any]) -> Any:
    """The transposed convolution: that of the input, spread out, with the mirrored kernel.

    Parameters
    ----------
    values : numpy.ndarray or IntValue, shape (batch, channels, *space)
    weights : numpy.ndarray, shape (channels, out/groups, *kernel)
    attributes : mapping
        Of the operator ConvTranspose.
    """
    groups = int(attributes.get("group") or 1)
    strides, axes = _transposed_axes(attributes, values.shape[2:], weights.shape[2:])
    for axis, stride in enumerate(strides, start=2):
        values = _spread(values, axis, stride)
    cut = (slice(max(0, -a.begin), a.extent - max(0, -a.end)) for a in axes)
    key = (slice(None), slice(None), *cut)
    padded = [_without_cut(a) for a in axes]
    return cross_correlation(values[key], _mirrored(weights, groups), padded, groups)


def _mirrored(weights: np.ndarray, groups: int) -> np.ndarray:
    """(channels, out/groups, *kernel) as (out, channels/groups, *kernel), back to front."""
    parts = [np.swapaxes(part, 0, 1) for part in np.split(weights, groups)]
    return np.flip(np.concatenate(parts), axis=tuple(range(2, weights.ndim)))


def _transposed_axes(
    attributes: Mapping[str, Any], extents: Sequence[int], kernel: Sequence[int]
) -> tuple[list[int], list[Axis]]:
    """Strides, and the windows over the spread-out input (stride 1)."""
    space = len(extents)
    strides = [int(s) for s in attributes.get("strides") or [1] * space]
    dilations = [int(d) for d in attributes.get("dilations") or [1] * space]
    extra = [int(e) for e in attributes.get("output_padding") or [0] * space]
    pads = [int(p) for p in attributes.get("pads") or [0] * (2 * space)]
    shape = attributes.get("output_shape")
    mode = attributes.get("auto_pad") or "NOTSET"
    axes = []
    for axis, extent in enumerate(extents):
        reach = dilations[axis] * (kernel[axis] - 1)
        full = strides[axis] * (extent - 1) + extra[axis] + reach + 1
        begin, end = pads[axis], pads[space + axis]
        if shape or mode.startswith("SAME"):
            wanted = int(shape[axis]) if shape else extent * strides[axis]
            # Nothing is padded where less is computed than wanted. As in shape inference and
            # runtimes, only a shape that is asked for gets zeros, and gets them at the end.
            total = max(0, full - wanted)
            begin = total // 2 if mode == "SAME_UPPER" else total - total // 2
            end = total - begin + (min(0, full - wanted) if shape else 0)
        elif mode == "VALID":
            begin = end = 0
        spread = (extent - 1) * strides[axis] + 1
        before, after = reach - begin, reach - end + extra[axis]
        count = spread + before + after - reach
        axes.append(Axis(spread, kernel[axis], 1, dilations[axis], before, after, count))
    return strides, axes


def _without_cut(axis: Axis) -> Axis:
    """The windows over what is left where negative padding cuts elements off."""
    begin, end = max(0, axis.begin), max(0, axis.end)
    extent = axis.extent + min(0, axis.begin) + min(0, axis.end)
    return Axis(extent, axis.kernel, 1, axis.dilation, begin, end, axis.count)


def _spread(values: Any, axis: int, stride: int) -> Any:
    """Zeros between the elements of an axis."""
    if stride == 1:
        return values
    shape = values.shape
    single = values.reshape(*shape[: axis + 1], 1, *shape[axis + 1 :])
    zeros = np.zeros(
        (*shape[: axis + 1], stride - 1, *shape[axis + 1 :]),
        dtype=getattr(values, "dtype", np.int64),
    )
    spread = np.concatenate((single, zeros), axis=axis + 1)
    flat = spread.reshape(*shape[:axis], shape[axis] * stride, *shape[axis + 1 :])
    kept = (slice(None),) * axis + (slice(0, (shape[axis] - 1) * stride + 1),)
    return flat[kept]
