"""Operators that say where the largest or the smallest element is."""

from __future__ import annotations

import itertools
from typing import Any, Final

import numpy as np

from cipherlearn.errors import UnsupportedAttributeError
from cipherlearn.ops._composition import (
    Attributes,
    Operands,
    attribute,
    cast,
    inner_axis,
    part,
    reduce,
    required,
    take,
    total,
)
from cipherlearn.ops._expand import Composer, Expand, Tensor
from cipherlearn.ops._registry import Kind, register

_MOST: Final = 256
"""Elements that are compared with each other at most."""

_ALL_PAIRS: Final = 4
"""Up to so many elements, comparing all pairs takes no more look-ups than finding the extremum."""


def _pending(
    composer: Composer, x: Tensor, axis: int, *, smallest: bool, last: bool
) -> list[Tensor]:
    """For each place along an axis but the last one, 1 while the extremum is still to come.

    Parameters
    ----------
    composer : Composer
    x : Tensor
    axis : int
        Of at least two elements.
    smallest : bool
        Whether the smallest element is looked for.
    last : bool
        Whether elements are passed from the last one to the first one, which decides on ties.

    Returns
    -------
    list of Tensor
        In the order in which elements are passed.
    """
    count = x.shape[axis]
    if count > _MOST:
        raise UnsupportedAttributeError(
            f"{count} elements along axis {axis} are too many to compare under encryption;"
            f" accepted: up to {_MOST}. Let the model end before this node,"
            " and compare after decryption"
        )
    if x.sample.dtype.kind == "u":
        # Differences of unsigned integers would wrap around.
        x = cast(composer, x, np.int64)
    columns = [part(composer, x, axis, i, i + 1) for i in range(count)]
    columns = columns[::-1] if last else columns
    ahead = "LessOrEqual" if smallest else "GreaterOrEqual"
    if count <= _ALL_PAIRS:
        hits = _hits_by_pairs(composer, columns, ahead)[:-1]
        return [composer.add("Sub", 1.0, prefix) for prefix in _prefixes(composer, hits)]
    best = reduce(composer, "ReduceMin" if smallest else "ReduceMax", x, (axis,))
    hits = [_number(composer, composer.add(ahead, column, best)) for column in columns[:-1]]
    prefixes = _prefixes(composer, hits)
    return [_number(composer, composer.add("Less", prefix, 0.5)) for prefix in prefixes]


def _hits_by_pairs(composer: Composer, columns: list[Tensor], ahead: str) -> list[Tensor]:
    """For each element, 1 if it is ahead of all others; of equal ones the first one is."""
    count = len(columns)
    wins: list[list[Tensor]] = [[] for _ in columns]
    for i in range(count):
        for j in range(i + 1, count):
            won = _number(composer, composer.add(ahead, columns[i], columns[j]))
            wins[i].append(won)
            wins[j].append(composer.add("Sub", 1.0, won))
    if count == 2:
        return [won[0] for won in wins]
    sums = [total(composer, won) for won in wins]
    return [_number(composer, composer.add("Greater", one, count - 1.5)) for one in sums]


def _prefixes(composer: Composer, values: list[Tensor]) -> list[Tensor]:
    result = values[:1]
    for value in values[1:]:
        result.append(composer.add("Add", result[-1], value))
    return result


def _number(composer: Composer, truth: Tensor) -> Tensor:
    return cast(composer, truth, np.float32)


def _nothing(composer: Composer, x: Tensor) -> Tensor:
    """A zero in the place of each element."""
    return composer.add("Mul", cast(composer, x, np.float32), 0.0)


def _arg(smallest: bool) -> Expand:
    def expand(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
        x = required(operands)
        axis = inner_axis(attribute(attributes, "axis", 0), x.ndim)
        last = bool(attribute(attributes, "select_last_index", 0))
        count = x.shape[axis]
        if count == 1:
            result = _nothing(composer, x)
        else:
            pending = _pending(composer, x, axis, smallest=smallest, last=last)
            result = total(composer, pending)
            if last:
                result = composer.add("Sub", float(count - 1), result)
        result = cast(composer, result, np.int64)
        if attribute(attributes, "keepdims", 1):
            return result
        return take(composer, result, np.array(0), axis)

    return expand


def _hardmax(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    x = required(operands)
    axis = inner_axis(attribute(attributes, "axis", -1), x.ndim)
    if x.shape[axis] == 1:
        ones = composer.add("Add", _nothing(composer, x), 1.0)
        return cast(composer, ones, x.sample.dtype)
    pending = _pending(composer, x, axis, smallest=False, last=False)
    hits: list[Any] = [composer.add("Sub", 1.0, pending[0])]
    hits += [composer.add("Sub", a, b) for a, b in itertools.pairwise(pending)]
    joined = composer.add("Concat", *hits, pending[-1], axis=axis)
    return cast(composer, joined, x.sample.dtype)


register("ArgMax", kind=Kind.MIXING, expand=_arg(smallest=False), client=True)
register("ArgMin", kind=Kind.MIXING, expand=_arg(smallest=True), client=True)
register("Hardmax", kind=Kind.MIXING, expand=_hardmax, client=True)
