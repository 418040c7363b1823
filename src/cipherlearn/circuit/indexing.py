"""Indices and axes as a caller of NumPy writes them, in the one form that circuits hold."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from cipherlearn.circuit.ir import IndexPart
from cipherlearn.errors import CircuitError


def shape_holder(shape: tuple[int, ...]) -> np.ndarray:
    """An array of that shape that takes no memory."""
    return np.broadcast_to(np.int8(0), shape)


def axis_of(axis: Any, ndim: int) -> int:
    """An axis counted from the front.

    Raises
    ------
    CircuitError
        If there is no such axis.
    """
    index = operator.index(axis)
    if not -ndim <= index < ndim:
        raise CircuitError(f"axis {index} does not exist in a value with {ndim} axes")
    return index % ndim


def simple_key(parts: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[IndexPart, ...] | None:
    """The key of `cipherlearn.circuit.ir.Index` that means the same as an index of NumPy.

    Parameters
    ----------
    parts : tuple
        The index: one part an axis.
    shape : tuple of int
        Shape of the value.

    Returns
    -------
    tuple or None
        Positions counted from the front. None for what such a key cannot say (several arrays,
        masks, new axes, an ellipsis) and for what NumPy refuses.
    """
    if len(parts) > len(shape):
        return None
    key = [_simple_part(part, extent) for part, extent in zip(parts, shape, strict=False)]
    arrays = sum(isinstance(part, np.ndarray) for part in key)
    integers = sum(isinstance(part, int) for part in key)
    if arrays > 1 or (arrays and integers):
        return None
    known = tuple(part for part in key if part is not None)
    return known if len(known) == len(key) else None


def selects_all(key: tuple[IndexPart, ...], shape: tuple[int, ...]) -> bool:
    """Whether a simple key leaves a value of that shape as it is."""
    pairs = zip(key, shape, strict=False)
    return all(isinstance(part, slice) and part == slice(0, n, 1) for part, n in pairs)


def _simple_part(part: Any, extent: int) -> IndexPart | None:
    if isinstance(part, slice):
        chosen = range(extent)[part]
        if not chosen:
            return slice(0, 0, 1)
        # Backwards, the stop before the first element has no number: -1 would be the last one.
        return slice(chosen.start, chosen.stop if chosen.stop >= 0 else None, chosen.step)
    if isinstance(part, (int, np.integer)) and not isinstance(part, bool):
        return int(part) % extent if -extent <= part < extent else None
    if not isinstance(part, (list, np.ndarray)):
        return None
    array = np.asarray(part)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        return None
    inside = bool(((array >= -extent) & (array < extent)).all())
    return array.astype(np.int64) % extent if inside and extent else None
