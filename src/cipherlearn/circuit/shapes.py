"""Shapes of results, and the checks that make a primitive well-formed.

Everything is checked before any array is made, so that neither a mistake nor a damaged file ends in
a broadcast that nobody meant, or takes the memory of the machine.
"""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any, NoReturn

import numpy as np

from cipherlearn.circuit import ir
from cipherlearn.circuit.interval import MAXIMUM_MAGNITUDE
from cipherlearn.errors import CircuitError

#: Elements of one computed value. Real circuits stay far below: each is a ciphertext of kilobytes.
MAXIMUM_ELEMENTS = 2**24

#: Factors of all windows that one convolution multiplies.
MAXIMUM_WINDOW_ELEMENTS = 2**28

#: More bits than any legal value has cannot be removed.
MAXIMUM_LSBS = 61

Shape = tuple[int, ...]


def result_shape(primitive: ir.Primitive, *operands: Shape) -> Shape:
    """Shape of a primitive's result, without batch axes.

    Parameters
    ----------
    primitive : Primitive
    *operands : tuple of int
        Shapes of the operands.

    Raises
    ------
    CircuitError
        If the primitive is malformed, does not fit the operands, or its result is too large.
    """
    shape = _shape(primitive, *operands)
    if not isinstance(primitive, ir.Constant) and math.prod(shape) > MAXIMUM_ELEMENTS:
        raise CircuitError(
            f"{primitive.name} makes {math.prod(shape)} elements; a value of a circuit has at most "
            f"{MAXIMUM_ELEMENTS}"
        )
    return shape


@singledispatch
def _shape(primitive: ir.Primitive, *operands: Shape) -> Shape:
    raise CircuitError(f"no shape rule for {primitive.name} with operands of shapes {operands}")


@_shape.register
def _(primitive: ir.Input) -> Shape:
    _check_integers(primitive, "shape", primitive.shape, 0)
    _check_integers(primitive, "bounds", (primitive.lo, primitive.hi), None)
    _check_flag(primitive, "encrypted", primitive.encrypted)
    label: Any = primitive.label
    if not isinstance(label, str):
        _refuse(primitive, f"a label must be text, not {label!r}")
    if not -MAXIMUM_MAGNITUDE < primitive.lo <= primitive.hi < MAXIMUM_MAGNITUDE:
        _refuse(primitive, f"[{primitive.lo}, {primitive.hi}] is not a range within 62 bits")
    return primitive.shape


@_shape.register
def _(primitive: ir.Constant) -> Shape:
    return _checked_array(primitive, primitive.values).shape


@_shape.register(ir.Add)
@_shape.register(ir.Subtract)
@_shape.register(ir.Multiply)
@_shape.register(ir.Maximum)
def _(primitive: ir.Primitive, left: Shape, right: Shape) -> Shape:
    return _broadcast(primitive, left, right)


@_shape.register
def _(primitive: ir.MatMul, left: Shape, right: Shape) -> Shape:
    if min(len(left), len(right)) < 2 or left[-1] != right[-2]:
        _refuse(primitive, f"cannot multiply matrices of shapes {left} and {right}")
    return (*_broadcast(primitive, left[:-2], right[:-2]), left[-2], right[-1])


@_shape.register
def _(primitive: ir.Convolve, image: Shape, kernel: Shape) -> Shape:
    space = len(image) - 2
    if space < 1 or len(kernel) != len(image):
        _refuse(
            primitive, f"cannot convolve shapes {image} and {kernel}: (batch, channels, *space)"
        )
    _check_integers(primitive, "strides", primitive.strides, 1, space)
    _check_integers(primitive, "dilations", primitive.dilations, 1, space)
    _check_integers(primitive, "pads", primitive.pads, 0, 2 * space)
    _check_integers(primitive, "groups", (primitive.groups,), 1)
    if image[1] != kernel[1] * primitive.groups or kernel[0] % primitive.groups:
        _refuse(primitive, f"{image} does not fit a kernel {kernel} in {primitive.groups} groups")
    padded = [image[2 + i] + primitive.pads[i] + primitive.pads[space + i] for i in range(space)]
    spans = [d * (k - 1) + 1 for d, k in zip(primitive.dilations, kernel[2:], strict=True)]
    if any(span > extent or span < 1 for span, extent in zip(spans, padded, strict=True)):
        _refuse(
            primitive, f"the kernel {kernel} is larger than the padded image {padded}, or empty"
        )
    pairs = zip(padded, spans, primitive.strides, strict=True)
    extents = [(extent - span) // stride + 1 for extent, span, stride in pairs]
    windows = math.prod(extents) * math.prod(kernel[2:])
    if image[0] * image[1] * max(math.prod(padded), windows) > MAXIMUM_WINDOW_ELEMENTS:
        _refuse(
            primitive, f"an image of shape {image} and a kernel of shape {kernel} are too large"
        )
    return (image[0], kernel[0], *extents)


@_shape.register
def _(primitive: ir.Sum, value: Shape) -> Shape:
    _check_axes(primitive, primitive.axes, len(value))
    _check_flag(primitive, "keepdims", primitive.keepdims)
    if primitive.keepdims:
        return tuple(1 if axis in primitive.axes else n for axis, n in enumerate(value))
    return tuple(n for axis, n in enumerate(value) if axis not in primitive.axes)


@_shape.register
def _(primitive: ir.Index, value: Shape) -> Shape:
    key = primitive.key
    arrays = sum(isinstance(part, np.ndarray) for part in key)
    integers = sum(_is_integer(part) for part in key)
    slices = sum(isinstance(part, slice) for part in key)
    well_formed = arrays + integers + slices == len(key) <= len(value)
    if not well_formed or arrays > 1 or (arrays and integers):
        _refuse(primitive, f"the key {key} does not fit a value of shape {value}")
    extents = [_selected(primitive, part, n) for part, n in zip(key, value, strict=False)]
    return (*(n for n in extents if n is not None), *value[len(key) :])


@_shape.register
def _(primitive: ir.Reshape, value: Shape) -> Shape:
    _check_integers(primitive, "shape", primitive.shape, 0)
    if math.prod(primitive.shape) != math.prod(value):
        _refuse(primitive, f"a value of shape {value} cannot take the shape {primitive.shape}")
    return primitive.shape


@_shape.register
def _(primitive: ir.Transpose, value: Shape) -> Shape:
    _check_axes(primitive, primitive.axes, len(value))
    if len(primitive.axes) != len(value):
        _refuse(primitive, f"the axes {primitive.axes} do not order a value of shape {value}")
    return tuple(value[axis] for axis in primitive.axes)


@_shape.register
def _(primitive: ir.Concatenate, *values: Shape) -> Shape:
    _check_axes(primitive, (primitive.axis,), min((len(value) for value in values), default=0))
    axis = primitive.axis
    others = {(*value[:axis], *value[axis + 1 :]) for value in values}
    if len(others) > 1:
        _refuse(primitive, f"shapes {values} do not match outside of axis {axis}")
    return (*values[0][:axis], sum(value[axis] for value in values), *values[0][axis + 1 :])


@_shape.register
def _(primitive: ir.Broadcast, value: Shape) -> Shape:
    _check_integers(primitive, "shape", primitive.shape, 0)
    if _broadcast(primitive, value, primitive.shape) != primitive.shape:
        _refuse(primitive, f"a value of shape {value} cannot be repeated to {primitive.shape}")
    return primitive.shape


@_shape.register
def _(primitive: ir.Lookup, value: Shape) -> Shape:
    table = _checked_array(primitive, primitive.table)
    _check_integers(primitive, "start", (primitive.start,), None)
    _check_integers(primitive, "step", (primitive.step,), 1)
    extents = table.shape[1:] or (1,) * len(value)
    fits = len(extents) == len(value) and all(
        n in {1, extent} for n, extent in zip(extents, value, strict=False)
    )
    if not table.ndim or not table.shape[0] or not fits:
        _refuse(primitive, f"a table of shape {table.shape} does not fit a value of shape {value}")
    return value


@_shape.register
def _(primitive: ir.Round, value: Shape) -> Shape:
    _check_integers(primitive, "lsbs", (primitive.lsbs,), 0)
    if primitive.lsbs > MAXIMUM_LSBS:
        _refuse(primitive, f"cannot remove {primitive.lsbs} bits")
    _check_flag(primitive, "exact", primitive.exact)
    return value


@_shape.register
def _(primitive: ir.Assume, value: Shape) -> Shape:
    lo, hi = _checked_array(primitive, primitive.lo), _checked_array(primitive, primitive.hi)
    if lo.shape != value or hi.shape != value:
        _refuse(primitive, f"bounds of shapes {lo.shape} and {hi.shape} for a value of {value}")
    if bool((lo > hi).any()):
        _refuse(primitive, "a lower bound lies above its upper bound")
    return value


def _broadcast(primitive: ir.Primitive, left: Shape, right: Shape) -> Shape:
    # As many axes on both sides: a leading batch axis would otherwise meet an axis of the value.
    fits = len(left) == len(right) and all(
        a == b or 1 in {a, b} for a, b in zip(left, right, strict=False)
    )
    if not fits:
        _refuse(primitive, f"shapes {left} and {right} do not fit")
    return tuple(b if a == 1 else a for a, b in zip(left, right, strict=True))


def _selected(primitive: ir.Primitive, part: Any, extent: int) -> int | None:
    """Extent that is left of an axis; None if the axis is gone."""
    if isinstance(part, np.ndarray):
        inside = part.ndim == 1 and part.dtype == np.int64
        if not inside or (part.size and not 0 <= part.min() <= part.max() < extent):
            _refuse(primitive, f"an array of positions does not fit an axis of {extent}")
        return part.size
    if isinstance(part, slice):
        bounds = (part.start, part.stop, part.step)
        if any(bound is not None and not _is_integer(bound) for bound in bounds) or part.step == 0:
            _refuse(primitive, f"{part} is not a slice of integers")
        return len(range(*part.indices(extent)))
    if not -extent <= part < extent:
        _refuse(primitive, f"position {part} lies outside of an axis of {extent}")
    return None


def _check_axes(primitive: ir.Primitive, axes: Any, ndim: int) -> None:
    _check_integers(primitive, "axes", axes, 0)
    if any(axis >= ndim for axis in axes) or len(set(axes)) < len(axes):
        _refuse(primitive, f"the axes {axes} do not fit a value with {ndim} axes")


def _check_integers(
    primitive: ir.Primitive, name: str, values: Any, lowest: int | None, count: int | None = None
) -> None:
    integers = isinstance(values, tuple) and all(_is_integer(value) for value in values)
    if not integers or (lowest is not None and any(value < lowest for value in values)):
        least = "" if lowest is None else f" from {lowest} on"
        _refuse(primitive, f"{name} must be integers{least}, not {values!r}")
    if count is not None and len(values) != count:
        _refuse(primitive, f"{name} must be {count} integers, not {len(values)}")


def _check_flag(primitive: ir.Primitive, name: str, value: Any) -> None:
    if not isinstance(value, bool):
        _refuse(primitive, f"{name} must be True or False, not {value!r}")


def _checked_array(primitive: ir.Primitive, array: Any) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype != np.int64:
        _refuse(primitive, "its integers must be a NumPy array of int64")
    return array


def _is_integer(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _refuse(primitive: ir.Primitive, reason: str) -> NoReturn:
    raise CircuitError(f"{primitive.name}: {reason}")
