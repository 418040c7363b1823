"""Operators that say where the largest or the smallest element is."""

from __future__ import annotations

import itertools
from typing import Final

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
    subtractable,
    take,
    total,
)
from cipherlearn.ops._expand import Composer, Expand, Tensor
from cipherlearn.ops._registry import Kind, register

_MOST: Final = 128
"""Elements that are compared with each other at most."""

_ALL_PAIRS: Final = 4
"""Up to so many elements, comparing all pairs takes no more look-ups than finding the extremum."""


def _reached(
    composer: Composer, x: Tensor, axis: int, *, smallest: bool, last: bool
) -> list[Tensor]:
    """For each place along an axis but the last one, 1 from the extremum on, 0 before it.

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
    x = subtractable(composer, x)
    if last:
        x = take(composer, x, np.arange(count)[::-1], axis)
    ahead = "LessOrEqual" if smallest else "GreaterOrEqual"
    if count <= _ALL_PAIRS:
        return _prefixes(composer, _hits_by_pairs(composer, x, axis, ahead))
    # All elements are compared at once: on one grid, where equal ones stay equal.
    best = reduce(composer, "ReduceMin" if smallest else "ReduceMax", x, (axis,))
    hits = _number(composer, composer.add(ahead, x, best))
    columns = [part(composer, hits, axis, i, i + 1) for i in range(count - 1)]
    # Of equal elements the first one counts: more hits may follow.
    prefixes = _prefixes(composer, columns)
    return [_number(composer, composer.add("Greater", prefix, 0.5)) for prefix in prefixes]


def _hits_by_pairs(composer: Composer, x: Tensor, axis: int, ahead: str) -> list[Tensor]:
    """For each element but the last one, 1 if it is ahead of all others that follow or went before.

    One comparison decides on a pair: it counts for the one and against the other.
    """
    count = x.shape[axis]
    pairs = list(itertools.combinations(range(count), 2))
    left, right = (take(composer, x, np.array(one), axis) for one in zip(*pairs, strict=True))
    compared = _number(composer, composer.add(ahead, left, right))
    won = {pair: part(composer, compared, axis, k, k + 1) for k, pair in enumerate(pairs)}
    if count == 2:
        return [won[0, 1]]
    hits = []
    for i in range(count - 1):
        score = total(composer, [won[i, j] for j in range(i + 1, count)])
        if i:
            against = total(composer, [won[j, i] for j in range(i)])
            score = composer.add("Sub", score, against)
        hits.append(_number(composer, composer.add("Greater", score, count - 1.5 - i)))
    return hits


def _prefixes(composer: Composer, values: list[Tensor]) -> list[Tensor]:
    """Sums of the first one, of the first two, and so on.

    Each is a sum of its own: running sums would be rounded once a step.
    """
    return [total(composer, values[: i + 1]) for i in range(len(values))]


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
            reached = _reached(composer, x, axis, smallest=smallest, last=last)
            result = total(composer, reached)
            if not last:
                result = composer.add("Sub", float(count - 1), result)
            result = composer.add("Round", result)
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
    reached = _reached(composer, x, axis, smallest=False, last=False)
    hits = [reached[0], *(composer.add("Sub", b, a) for a, b in itertools.pairwise(reached))]
    hits.append(composer.add("Sub", 1.0, reached[-1]))
    joined = composer.add("Concat", *hits, axis=axis)
    return cast(composer, joined, x.sample.dtype)


register("ArgMax", kind=Kind.MIXING, expand=_arg(smallest=False), client=True)
register("ArgMin", kind=Kind.MIXING, expand=_arg(smallest=True), client=True)
register("Hardmax", kind=Kind.MIXING, expand=_hardmax, client=True)
