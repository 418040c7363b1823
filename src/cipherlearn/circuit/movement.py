"""Movements of elements, derived from what a NumPy function does to their positions."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from cipherlearn.circuit.builder import IntValue, RealValue

#: Beyond this many axes, orders of axes are not tried one by one.
_MAXIMUM_AXES = 5


def follow(function: Callable[[np.ndarray], np.ndarray], value: Any) -> Any:
    """Apply a function that only moves, drops or repeats elements to a value of a circuit.

    The function runs once on the positions of the elements. Positions in their old order are a
    reshape, permuted axes a transposition, anything else a selection; none of them costs anything
    on encrypted values.

    Parameters
    ----------
    function : callable
        Takes one array and returns one whose elements all come from it.
    value : IntValue, RealValue or numpy.ndarray
        Arrays are given to the function as they are.

    Returns
    -------
    IntValue, RealValue or numpy.ndarray
        Of the same kind as ``value``.
    """
    if isinstance(value, RealValue):
        return value.move(lambda part: follow(function, part))
    if not isinstance(value, IntValue):
        return function(value)
    before = np.arange(value.size, dtype=np.int64).reshape(value.shape)
    after = np.asarray(function(before))
    if np.array_equal(after.reshape(-1), before.reshape(-1)):
        return value.reshape(after.shape)
    axes = _permutation(before, after)
    if axes is not None:
        return value.transpose(axes)
    return value.reshape(-1)[after.reshape(-1)].reshape(after.shape)


def _permutation(before: np.ndarray, after: np.ndarray) -> tuple[int, ...] | None:
    if before.ndim > _MAXIMUM_AXES or sorted(before.shape) != sorted(after.shape):
        return None
    for axes in itertools.permutations(range(before.ndim)):
        moved = before.transpose(axes)
        if moved.shape == after.shape and np.array_equal(moved, after):
            return axes
    return None
