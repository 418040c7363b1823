"""Sums, means and extrema over axes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cipherlearn.ops._integer import Affine, IntegerForm, linear_map, minimum
from cipherlearn.ops._registry import Kind, register


def _axes(operands: Sequence[Any], attributes: Mapping[str, Any]) -> tuple[int, ...]:
    """The axes from operand or attribute, whichever the operator set has, counted from 0."""
    ndim = len(operands[0].integers.shape)
    given = operands[1] if len(operands) > 1 else attributes.get("axes")
    if given is None or np.size(given) == 0:
        return () if attributes.get("noop_with_empty_axes") else tuple(range(ndim))
    return tuple(sorted(int(axis) % ndim for axis in np.atleast_1d(given)))


def _sum(operands: Sequence[Any], attributes: Mapping[str, Any]) -> Affine:
    return _summed(operands, attributes, 1)


def _mean(operands: Sequence[Any], attributes: Mapping[str, Any]) -> Affine:
    shape = operands[0].integers.shape
    count = int(np.prod([shape[axis] for axis in _axes(operands, attributes)]))
    return _summed(operands, attributes, count)


def _summed(operands: Sequence[Any], attributes: Mapping[str, Any], divisor: int) -> Affine:
    value: Affine = operands[0]
    axes, keep = _axes(operands, attributes), bool(attributes.get("keepdims", 1))
    if not axes:
        return replace(value, scale=value.scale / divisor)
    total = linear_map(value, lambda q: q.sum(axis=axes, keepdims=True), value.scale / divisor)
    return total if keep else _dropped(total, axes)


def _dropped(value: Affine, axes: tuple[int, ...]) -> Affine:
    """Axes of extent 1 left out, in scale and zero-point too."""

    def squeezed(part: Any) -> Any:
        shape = getattr(part, "shape", ())
        if not shape:
            return part
        kept = [extent for axis, extent in enumerate(shape) if axis not in axes]
        return part.reshape(kept)

    return Affine(squeezed(value.integers), squeezed(value.scale), squeezed(value.zero_point))


def _extremum(function: Any) -> Any:
    def compute(operands: Sequence[Any], attributes: Mapping[str, Any]) -> Affine:
        value: Affine = operands[0]
        axes, keep = _axes(operands, attributes), bool(attributes.get("keepdims", 1))
        integers = value.integers
        for axis in axes:
            integers = _halved(function, integers, axis)
        result = replace(value, integers=integers)
        return result if keep else _dropped(result, axes)

    return compute


def _halved(function: Any, integers: Any, axis: int) -> Any:
    """The extremum along an axis: halves are compared with each other, then their halves."""
    lead = (slice(None),) * axis
    while (extent := integers.shape[axis]) > 1:
        limits = (0, extent // 2, extent - extent % 2, extent)
        keys = [(*lead, slice(a, b)) for a, b in itertools.pairwise(limits)]
        left, right, rest = (integers[key] for key in keys)
        integers = function(left, right)
        if extent % 2:
            integers = np.concatenate((integers, rest), axis=axis)
    return integers


register(
    "ReduceSum",
    kind=Kind.MIXING,
    raw_inputs={1},
    integer=IntegerForm(_sum, channel_axis=1, sums=True),
)
register(
    "ReduceMean",
    kind=Kind.MIXING,
    raw_inputs={1},
    integer=IntegerForm(_mean, channel_axis=1, sums=True),
)
register(
    "ReduceMax",
    kind=Kind.MIXING,
    raw_inputs={1},
    integer=IntegerForm(_extremum(np.maximum), keeps_grid=True),
)
register(
    "ReduceMin",
    kind=Kind.MIXING,
    raw_inputs={1},
    integer=IntegerForm(_extremum(minimum), keeps_grid=True),
)
