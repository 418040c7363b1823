"""Roundings in place of wide look-ups, where a table changes in even steps only.

A table that changes at every ``2**k``-th integer only (a comparison, a sign, a quantization by a
power of two) needs no more than the bits above. Exact rounding takes the others off, each for one
narrow look-up; together they cost a small part of one wide look-up.

Where halves are rounded to even integers, the distances between changes are ``2**k - 1`` and
``2**k + 1`` in turns. Such a table is the sum of two that change at every ``2**(k + 1)``-th
integer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cipherlearn.circuit import ir, kernels
from cipherlearn.circuit.builder import Builder, IntValue
from cipherlearn.circuit.interval import width_of

#: The narrowest look-up that is worth a rounding: below, it costs no more than the rounding does.
LEAST_WIDTH = 6
#: Bits that two roundings, each with a look-up, must save to be worth it.
LEAST_SAVED_BY_TWO = 3


def round_steps(circuit: ir.Circuit) -> ir.Circuit:
    """The same function with narrower look-ups.

    Parameters
    ----------
    circuit : Circuit

    Returns
    -------
    Circuit
        Gives the same results on every input. Look-ups whose tables change in steps of a power of
        two, counted from any offset (one a channel), read a rounded value; those whose tables are
        the sum of two such tables become two look-ups.
    """
    builder = Builder()
    values: list[IntValue] = []
    for node in circuit.nodes:
        with builder.scope(node.label):
            operands = [values[index] for index in node.inputs]
            steps = _steps_of(circuit, node)
            if not steps:
                values.append(builder.add(node.primitive, *operands))
            else:
                first, *others = (part.look_up(operands[0]) for part in steps)
                values.append(sum(others, start=first))
    return builder.finish([values[index] for index in circuit.outputs], circuit.output_names)


@dataclass(frozen=True, eq=False)
class _Steps:
    """A look-up that reads ``round(value + offset)``.

    Parameters
    ----------
    offset : numpy.ndarray of int64
        Moves every step to where rounding to ``2**lsbs`` changes; broadcasts against the value.
    lsbs : int
        Bits that are rounded off.
    table : numpy.ndarray of int64, shape (n, *broadcast)
        One row a multiple of ``2**lsbs``, from 0 on.
    """

    offset: np.ndarray
    lsbs: int
    table: np.ndarray

    @property
    def width(self) -> int:
        """Bits that the look-up reads."""
        return width_of(0, len(self.table) - 1)

    def look_up(self, value: IntValue) -> IntValue:
        moved = value + self.offset if self.offset.any() else value
        rounded = moved.builder.add(ir.Round(self.lsbs, exact=True), moved)
        return rounded.lookup(self.table, 0, 1 << self.lsbs)


def _steps_of(circuit: ir.Circuit, node: ir.Node) -> list[_Steps]:
    """How a look-up can read fewer bits, as parts of a sum; empty if that saves nothing."""
    if not isinstance(node.primitive, ir.Lookup) or not node.encrypted:
        return []
    interval = circuit.nodes[node.inputs[0]].interval
    width = interval.lookup_width
    if width < LEAST_WIDTH or interval.step > 1:
        return []
    shared = _shared_axes(node.primitive.table, interval.lo.ndim)
    lo = interval.lo.min(axis=shared, keepdims=True)
    hi = interval.hi.max(axis=shared, keepdims=True)
    domain = interval.domain.reshape(-1, *(1,) * interval.lo.ndim)
    table = _read(node.primitive, np.clip(domain, lo, hi))
    one = _even_part(table, domain, lo, hi)
    if one is not None and one.width < width:
        return [one]
    parts = [_even_part(part, domain, lo, hi) for part in _two_parts(table)]
    found = [part for part in parts if part is not None]
    widest = max((part.width for part in found), default=width)
    return found if len(found) == 2 and width - widest >= LEAST_SAVED_BY_TWO else []


def _even_part(
    table: np.ndarray, domain: np.ndarray, lo: np.ndarray, hi: np.ndarray
) -> _Steps | None:
    """A table that changes in even steps, read off a rounded value; None if it does not."""
    first, lsbs = _even_steps(table, domain, lo, hi)
    if not lsbs:
        return None
    half = 1 << (lsbs - 1)
    # Steps lie where rounding changes, and no value is negative.
    offset = half - first
    offset += -((lo + offset) >> lsbs) << lsbs
    count = int(((hi + offset + half) >> lsbs).max()) + 1
    multiples = np.arange(count, dtype=np.int64).reshape(-1, *(1,) * lo.ndim) << lsbs
    rows = np.clip(multiples - offset, lo, hi) - domain.reshape(-1)[0]
    rows = np.broadcast_to(rows, (count, *np.broadcast_shapes(rows.shape[1:], table.shape[1:])))
    wide = np.broadcast_to(table, (table.shape[0], *rows.shape[1:]))
    return _Steps(offset, lsbs, np.take_along_axis(wide, rows, axis=0))


def _two_parts(table: np.ndarray) -> list[np.ndarray]:
    """Two tables with this sum, of which each has every second change; empty without changes."""
    deltas = np.diff(table, axis=0)
    changes = deltas != 0
    if not changes.any():
        return []
    parity = np.cumsum(changes, axis=0) % 2 == 1
    zero = np.zeros_like(table[:1])
    odd, even = (
        np.concatenate([zero, np.cumsum(np.where(chosen, deltas, 0), axis=0)])
        for chosen in (parity, ~parity)
    )
    return [table[:1] + odd, even]


def _shared_axes(table: np.ndarray, ndim: int) -> tuple[int, ...]:
    """Axes of the value along which all elements read the same table."""
    if table.size == table.shape[0]:
        return tuple(range(ndim))
    return tuple(axis for axis, extent in enumerate(table.shape[1:]) if extent == 1)


def _read(primitive: ir.Lookup, values: np.ndarray) -> np.ndarray:
    return kernels.gather(primitive.table, kernels.table_rows(primitive, values))


def _even_steps(
    table: np.ndarray, domain: np.ndarray, lo: np.ndarray, hi: np.ndarray
) -> tuple[np.ndarray, int]:
    """Where each column changes first, and the largest power of two between its changes.

    Returns
    -------
    first : numpy.ndarray of int64
        The smallest integer with an entry other than that of the integer before.
    lsbs : int
        Exponent of the power of two; 0 if changes lie closer.
    """
    changes = table[1:] != table[:-1]
    some = changes.any(axis=0)
    start = domain.reshape(-1)[0]
    first = np.where(some, changes.argmax(axis=0) + 1 + start, lo)
    places = domain[1:] - first
    distance = int(np.gcd.reduce(np.where(changes, places, 0), axis=None))
    # A single step: all bits can go, but that which tells its two sides apart.
    below, above = int((first - lo).max()), int((hi - first).max())
    most = max((below - 1).bit_length() + 1 if below > 0 else 0, above.bit_length())
    even = (distance & -distance).bit_length() - 1 if distance else most
    return first, min(even, most)
