"""Parts of a tensor, and borders around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from cipherlearn.errors import UnsupportedAttributeError
from cipherlearn.ops._composition import (
    Attributes,
    Operands,
    attribute,
    clear,
    part,
    pick,
    places,
    plain_axis,
    required,
    take,
)
from cipherlearn.ops._expand import Composer, Tensor
from cipherlearn.ops._operands import Array
from cipherlearn.ops._registry import Kind, register

_MODES: Final = ("constant", "edge", "reflect", "wrap")


def _split(composer: Composer, operands: Operands, attributes: Attributes) -> list[Tensor]:
    x = required(operands)
    axis = plain_axis(attribute(attributes, "axis", 0), x.ndim)
    sizes = clear(operands, 1, "split")
    if sizes is None:
        sizes = _equal_sizes(x.shape[axis], attribute(attributes, "num_outputs", 0))
    ends = np.cumsum(sizes).tolist()
    starts = [0, *ends[:-1]]
    return [part(composer, x, axis, *limits) for limits in zip(starts, ends, strict=True)]


def _equal_sizes(extent: int, count: int) -> Array:
    if count < 1:
        raise UnsupportedAttributeError(
            "neither `split` nor `num_outputs` says how many parts there are; give the sizes of the"
            " parts as the operand `split`"
        )
    size = -(-extent // count)
    return np.array([size] * (count - 1) + [extent - size * (count - 1)])


def _check_pad(values: Mapping[str, Any]) -> str | None:
    mode = values.get("mode", "constant")
    if mode in _MODES:
        return None
    return f"mode={mode!r} is not supported; accepted: {', '.join(map(repr, _MODES))}."


def _pad(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    x = required(operands)
    pads = np.asarray(clear(operands, 1, "pads")).ravel().tolist()
    value = clear(
        operands, 2, "constant_value", "Write a Concat node to border by encrypted values"
    )
    fill = x.sample.dtype.type(0 if value is None else value.item())
    axes = _axes(operands, 3, x.ndim)
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        x = _pad_axis(composer, x, axis, (before, after), attribute(attributes, "mode", ""), fill)
    return x


def _axes(operands: Operands, position: int, ndim: int) -> list[int]:
    given = clear(operands, position, "axes")
    listed = range(ndim) if given is None else given.ravel().tolist()
    return [plain_axis(int(axis), ndim) for axis in listed]


def _pad_axis(
    composer: Composer, x: Tensor, axis: int, pads: tuple[int, int], mode: str, fill: Any
) -> Tensor:
    if pads == (0, 0):
        return x
    if axis == 0:
        raise UnsupportedAttributeError(
            f"pads={list(pads)} along axis 0, the rows of the batch, which are encrypted one by"
            " one; accepted: 0. Add rows before encryption"
        )
    before, after = pads
    if min(pads) < 0:
        x = part(composer, x, axis, max(-before, 0), x.shape[axis] - max(-after, 0))
        before, after = max(before, 0), max(after, 0)
    if not before and not after:
        return x
    if mode in ("", "constant"):
        return composer.add(
            "Concat", *_bordered(composer, x, axis, (before, after), fill), axis=axis
        )
    return take(composer, x, np.pad(np.arange(x.shape[axis]), (before, after), mode=mode), axis)  # type: ignore[call-overload]


def _bordered(
    composer: Composer, x: Tensor, axis: int, pads: Sequence[int], fill: Any
) -> list[Tensor]:
    """The value between constants, which have one row for all rows of the batch."""
    borders = []
    for extent in pads:
        shape = (1, *(extent if i == axis else n for i, n in enumerate(x.shape) if i))
        borders.append(composer.constant(np.full(shape, fill)) if extent else None)
    return [one for one in (borders[0], x, borders[1]) if one is not None]


def _trilu(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    x = required(operands)
    offset = clear(operands, 1, "k")
    k = 0 if offset is None else int(offset.item())
    if x.ndim == 2:
        raise UnsupportedAttributeError(
            "the triangle would be taken across the rows of the batch, which are encrypted one by"
            " one; accepted: matrices along the last two of three axes or more"
        )
    rows, columns = x.shape[-2:]
    inside = np.tri(rows, columns, k if not attributes["upper"] else k - 1, dtype=np.bool_)
    inside = ~inside if attributes["upper"] else inside
    zero = composer.constant(np.zeros((1, 1), x.sample.dtype))
    index = places(x.shape)
    # Putting zeros in place is free, a product with a mask would be a look-up for each element.
    return pick(composer, [x, zero], np.where(inside, index, index.size)[0])


def _center_crop_pad(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    x = required(operands)
    shape = np.asarray(clear(operands, 1, "shape")).ravel().tolist()
    axes = attribute(attributes, "axes", None) or range(x.ndim)
    fill = x.sample.dtype.type(0)
    for axis, extent in zip([plain_axis(int(a), x.ndim) for a in axes], shape, strict=True):
        missing = int(extent) - x.shape[axis]
        # What is left over after halving goes behind; a crop begins half of the excess in.
        pads = (int(missing / 2), missing - int(missing / 2))
        x = _pad_axis(composer, x, axis, pads, "constant", fill)
    return x


register("Split", kind=Kind.MIXING, raw_inputs={1}, expand=_split)
register("Pad", kind=Kind.MIXING, raw_inputs={1, 2, 3}, check=_check_pad, expand=_pad)
register("Trilu", kind=Kind.MIXING, raw_inputs={1}, expand=_trilu)
register("CenterCropPad", kind=Kind.MIXING, raw_inputs={1}, expand=_center_crop_pad)
