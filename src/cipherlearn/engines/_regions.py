"""How many bits each part of a legalized circuit needs.

Encrypted arithmetic is modular: a value needs its full width only where it is READ, by a look-up,
a rounding, or as a result. Values that are connected by linear operations form a region, which has
one width: that of its widest reader. In between, sums may wrap without harm, and weights may be
reduced modulo the width (`reduced`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cipherlearn.circuit import ir
from cipherlearn.circuit.interval import width_of
from cipherlearn.engines._legalize import top_step
from cipherlearn.engines.base import IntArray

#: What starts a region of its own: look-ups give fresh values, a rounding is part of one.
_BOUNDARIES = (ir.Lookup, ir.Round, ir.Assume)


@dataclass(frozen=True, eq=False)
class Regions:
    """Widths of a legalized circuit's encrypted nodes.

    Parameters
    ----------
    width : dict of int to int
        Bits of the region that a node belongs to; nodes that only declare a range stand for what
        they declare it of.
    read : dict of (int, int) to int
        Bits that a reader (first position) needs of the node that it reads (second position).
    results : tuple of int
        Bits of each output.
    widest : dict of int to int
        For each node, the position of the reader that decides its region's width (the node itself
        where it is an input or a result).
    """

    width: dict[int, int]
    read: dict[tuple[int, int], int]
    results: tuple[int, ...]
    widest: dict[int, int]


def behind(circuit: ir.Circuit, position: int) -> int:
    """The node that a chain of declared ranges speaks of."""
    while isinstance(circuit.nodes[position].primitive, ir.Assume):
        position = circuit.nodes[position].inputs[0]
    return position


def find_regions(circuit: ir.Circuit) -> Regions:
    """Widths of all regions of a legalized circuit."""
    leader = _leaders(circuit)
    widths: dict[int, int] = {}
    deciding: dict[int, int] = {}
    read: dict[tuple[int, int], int] = {}

    def need(position: int, bits: int, reader: int) -> None:
        root = leader[behind(circuit, position)]
        if bits > widths.get(root, 0):
            widths[root], deciding[root] = bits, reader

    for position, node in enumerate(circuit.nodes):
        if not node.encrypted:
            continue
        if isinstance(node.primitive, ir.Input):
            need(position, node.interval.width, position)
        elif isinstance(node.primitive, (ir.Lookup, ir.Round)):
            operand = node.inputs[0]
            if isinstance(circuit.nodes[operand].primitive, ir.Round):
                continue
            bits = _bits_to_read(circuit, node)
            read[position, operand] = bits
            need(operand, bits, position)
        else:
            for index in node.inputs:
                other = circuit.nodes[index]
                if not other.encrypted and not other.is_constant:
                    need(position, other.interval.width, index)
    for position in circuit.outputs:
        need(position, circuit.nodes[position].interval.width, position)
    results = tuple(circuit.nodes[position].interval.width for position in circuit.outputs)
    roots = {p: leader[behind(circuit, p)] for p, n in enumerate(circuit.nodes) if n.encrypted}
    # A rounding has no region: it is part of the look-up after it.
    return Regions(
        {position: widths.get(root, 1) for position, root in roots.items()},
        read,
        results,
        {position: deciding.get(root, position) for position, root in roots.items()},
    )


def reduced(values: IntArray, width: int) -> IntArray:
    """Integers of the same effect on values of ``width`` bits, and of the least magnitude.

    One bit above the width (the padding bit) takes part in the arithmetic, hence the modulus.
    """
    half = 1 << width
    if not values.size or (-half <= values.min() and values.max() < half):
        return values
    return np.asarray((values + half) % (2 * half) - half, dtype=np.int64)


def _bits_to_read(circuit: ir.Circuit, node: ir.Node) -> int:
    interval = circuit.nodes[node.inputs[0]].interval
    primitive = node.primitive
    if isinstance(primitive, ir.Round):
        kept = width_of(0, top_step(interval, primitive))
        return max(interval.width, primitive.lsbs + kept)
    return interval.width


def _leaders(circuit: ir.Circuit) -> list[int]:
    """For every node, one node that stands for its region."""
    parent = list(range(len(circuit.nodes)))

    def find(position: int) -> int:
        while parent[position] != position:
            parent[position] = parent[parent[position]]
            position = parent[position]
        return position

    for position, node in enumerate(circuit.nodes):
        if node.encrypted and not isinstance(node.primitive, _BOUNDARIES):
            # A clear value that two regions read makes one of them: the engine gives it one width.
            for index in node.inputs:
                if not circuit.nodes[index].is_constant:
                    parent[find(behind(circuit, index))] = find(position)
    return [find(position) for position in range(len(circuit.nodes))]
