"""Roundings in place of wide look-ups, where a table changes in even steps only.

A table that changes at every ``2**k``-th integer only (a comparison, a sign, a quantization by a
power of two) needs no more than the bits above. Exact rounding takes the others off, each for one
narrow look-up; together they cost a small part of one wide look-up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cipherlearn.circuit import ir, kernels
from cipherlearn.circuit.builder import Builder, IntValue
from cipherlearn.circuit.interval import width_of

#: The narrowest look-up that is worth a rounding: below, it costs no more than the rounding does.
LEAST_WIDTH = 6


def round_steps(circuit: ir.Circuit) -> ir.Circuit:
    """The same function with narrower look-ups.

    Parameters
    ----------
    circuit : Circuit

    Returns
    -------
    Circuit
        Gives the same results on every input. Look-ups whose tables change in steps of a power of
        two, counted from any offset (one a channel), read a rounded value.
    """
    builder = Builder()
    values: list[IntValue] = []
    for node in circuit.nodes:
        with builder.scope(node.label):
            operands = [values[index] for index in node.inputs]
            steps = _steps_of(circuit, node)
            if steps is None:
                values.append(builder.add(node.primitive, *operands))
            else:
                values.append(steps.look_up(operands[0]))
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

    def look_up(self, value: IntValue) -> IntValue:
        moved = value + self.offset if self.offset.any() else value
        rounded = moved.builder.add(ir.Round(self.lsbs, exact=True), moved)
        return rounded.lookup(self.table, 0, 1 << self.lsbs)


def _steps_of(circuit: ir.Circuit, node: ir.Node) -> _Steps | None:
    """How a look-up can read fewer bits; None if it cannot, or if that saves nothing."""
    if not isinstance(node.primitive, ir.Lookup) or not node.encrypted:
        return None
    interval = circuit.nodes[node.inputs[0]].interval
    width = interval.lookup_width
    if width < LEAST_WIDTH or interval.step > 1:
        return None
    shared = _shared_axes(node.primitive.table, interval.lo.ndim)
    lo = interval.lo.min(axis=shared, keepdims=True)
    hi = interval.hi.max(axis=shared, keepdims=True)
    domain = interval.domain.reshape(-1, *(1,) * interval.lo.ndim)
    table = _read(node.primitive, np.clip(domain, lo, hi))
    first, lsbs = _even_steps(table, domain, lo, hi)
    if not lsbs:
        return None
    half = 1 << (lsbs - 1)
    # Steps lie where rounding changes, and no value is negative.
    offset = half - first
    offset += -((lo + offset) >> lsbs) << lsbs
    count = int(((hi + offset + half) >> lsbs).max()) + 1
    if width_of(0, count - 1) >= width:
        return None
    multiples = np.arange(count, dtype=np.int64).reshape(-1, *(1,) * interval.lo.ndim) << lsbs
    entries = _read(node.primitive, np.clip(multiples - offset, lo, hi))
    return _Steps(offset, lsbs, entries)


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
