"""Pools: sums and maxima over windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from cipherlearn.errors import UnsupportedAttributeError
from cipherlearn.ops._composition import Attributes, Operands, reduce, required
from cipherlearn.ops._expand import Composer, Expand, Tensor
from cipherlearn.ops._integer import Affine, IntegerForm, linear_map
from cipherlearn.ops._registry import Kind, register
from cipherlearn.ops._windows import axes_of, window_maximum, window_sizes, window_sum

# Operator set from which on windows of AveragePool may have gaps.
_DILATED_SINCE: Final = 19


def _average_pool(operands: Sequence[Any], attributes: Mapping[str, Any]) -> Affine:
    image: Affine = operands[0]
    axes = axes_of(attributes, image.integers.shape[2:], attributes["kernel_shape"])
    sizes = window_sizes(axes, bool(attributes.get("count_include_pad")))
    step = image.scale / (float(sizes.flat[0]) if np.ptp(sizes) == 0 else sizes)
    return linear_map(image, lambda q: window_sum(q, axes), step)


def _max_pool(operands: Sequence[Any], attributes: Mapping[str, Any]) -> Affine:
    image: Affine = operands[0]
    axes = axes_of(attributes, image.integers.shape[2:], attributes["kernel_shape"])
    return replace(image, integers=window_maximum(image.integers, axes))


def _over_space(reduction: str) -> Expand:
    """A global pool: a reduction of everything behind the channels."""

    def expand(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
        del attributes
        image = required(operands)
        return reduce(composer, reduction, image, range(2, image.ndim))

    return expand


def _lp_pool(c: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    """The root of a sum of powers, the sum being an average times the size of the window."""
    image = required(operands)
    order = float(attributes.get("p") or 2)
    known = ("kernel_shape", "strides", "pads", "dilations", "auto_pad", "ceil_mode")
    same = {key: attributes[key] for key in known if attributes.get(key) is not None}
    if c.opset < _DILATED_SINCE and set(same.pop("dilations", ())) - {1}:
        raise UnsupportedAttributeError(
            f"dilations={list(attributes['dilations'])} is not supported in operator set {c.opset};"
            f" accepted: 1. Export with operator set {_DILATED_SINCE} or newer"
        )
    powers = c.add("Pow", c.add("Abs", image), order)
    mean = c.add("AveragePool", powers, count_include_pad=1, **same)
    sizes = window_sizes(axes_of(attributes, image.shape[2:], attributes["kernel_shape"]), True)
    size = float(sizes.flat[0]) if np.ptp(sizes) == 0 else sizes.astype(mean.sample.dtype)
    # Steps of few bits may put a sum of powers a little below zero.
    return c.add("Pow", c.add("Relu", c.add("Mul", mean, size)), 1.0 / order)


register(
    "AveragePool",
    kind=Kind.MIXING,
    integer=IntegerForm(_average_pool, channel_axis=1, sums=True),
)
register(
    "MaxPool",
    kind=Kind.MIXING,
    integer=IntegerForm(_max_pool, keeps_grid=True),
)
register("GlobalAveragePool", kind=Kind.MIXING, expand=_over_space("ReduceMean"))
register("GlobalMaxPool", kind=Kind.MIXING, expand=_over_space("ReduceMax"))
register("LpPool", kind=Kind.MIXING, expand=_lp_pool)
