"""Fewer and narrower look-ups for the same results.

The builder already turns every function of one integer value into one table. This pass does the
same for circuits that were written look-up by look-up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cipherlearn.circuit import ir, kernels
from cipherlearn.circuit.builder import Builder, IntValue, RealValue
from cipherlearn.circuit.cost import lookups_of
from cipherlearn.circuit.values import MAXIMUM_LOOKUP_WIDTH

#: Entries of one table: beyond, a table an element is no longer worth its memory.
MAXIMUM_TABLE_ENTRIES = 2**22

_ELEMENTWISE = (ir.Add, ir.Subtract, ir.Multiply, ir.Maximum, ir.Lookup)


def fuse(circuit: ir.Circuit) -> ir.Circuit:
    """The same function with fewer look-ups.

    A look-up (or a maximum, or a product of two encrypted values) becomes a look-up on an earlier
    value wherever everything between is an element-wise function of that value alone, so chains and
    branches of one source become one table. That is done where the earlier value is no wider, or
    where it saves a look-up that is as wide. Declared ranges and roundings are not crossed:
    overflows are counted at the former, and reading past the latter would be wider.

    Parameters
    ----------
    circuit : Circuit

    Returns
    -------
    Circuit
        Gives the same results on every input.
    """
    builder = Builder()
    readers = circuit.consumers()
    sources = _possible_sources(circuit)
    values: list[IntValue] = []
    for position, node in enumerate(circuit.nodes):
        with builder.scope(node.label):
            region = _best_region(circuit, readers, sources, position)
            if region is not None:
                values.append(_tabulated(circuit, region, values[region.source]))
            else:
                values.append(builder.add(node.primitive, *(values[i] for i in node.inputs)))
    return builder.finish([values[index] for index in circuit.outputs], circuit.output_names)


@dataclass(frozen=True)
class _Region:
    """Nodes between a source and a result, all of them functions of the source alone.

    Parameters
    ----------
    source : int
        Position of the value that is read.
    nodes : tuple of int
        Positions in topological order, constants left out; the last one is the result.
    saved : tuple of int
        Positions of the look-ups that nothing else reads.
    """

    source: int
    nodes: tuple[int, ...]
    saved: tuple[int, ...]


def _possible_sources(circuit: ir.Circuit) -> list[frozenset[int]]:
    """For every node, the earlier nodes that it is an element-wise function of."""
    sources: list[frozenset[int]] = []
    for node in circuit.nodes:
        varying = _varying_inputs(circuit, node)
        same_shape = all(circuit.nodes[index].shape == node.shape for index in varying)
        if not isinstance(node.primitive, _ELEMENTWISE) or not varying or not same_shape:
            sources.append(frozenset())
            continue
        sources.append(frozenset.intersection(*(sources[i] | {i} for i in varying)))
    return sources


def _varying_inputs(circuit: ir.Circuit, node: ir.Node) -> list[int]:
    return [index for index in node.inputs if not circuit.nodes[index].is_constant]


def _best_region(
    circuit: ir.Circuit,
    readers: list[list[int]],
    sources: list[frozenset[int]],
    position: int,
) -> _Region | None:
    """The region that saves most, if any is worth a look-up of its own."""
    count, width = lookups_of(circuit, position)
    if not count or circuit.nodes[position].interval.step > 1:  # a look-up forgets steps
        return None
    best, best_gain = None, (0, 0, 0)
    for source in sources[position]:
        region = _region(circuit, readers, position, source)
        narrower = circuit.nodes[source].interval.lookup_width
        saved = [lookups_of(circuit, index) for index in region.saved]
        crossed = sum(bool(lookups_of(circuit, index)[0]) for index in region.nodes[:-1])
        affordable = narrower <= width or any(other >= narrower for _, other in saved)
        gain = (sum(number for number, _ in saved), width - narrower, crossed)
        if affordable and gain > best_gain and _is_small(circuit, region):
            best, best_gain = region, gain
    return best


def _region(circuit: ir.Circuit, readers: list[list[int]], position: int, source: int) -> _Region:
    """All nodes on the ways from a source to a node."""
    inside, left = {position}, [position]
    while left:
        for index in _varying_inputs(circuit, circuit.nodes[left.pop()]):
            if index != source and index not in inside:
                inside.add(index)
                left.append(index)
    # Backwards, all readers of a node are known before the node itself.
    unread = {position}
    for index in sorted(inside - {position}, reverse=True):
        if index not in circuit.outputs and unread.issuperset(readers[index]):
            unread.add(index)
    saved = tuple(i for i in sorted(unread - {position}) if lookups_of(circuit, i)[0])
    return _Region(source, tuple(sorted(inside)), saved)


def _is_small(circuit: ir.Circuit, region: _Region) -> bool:
    """Whether the source can be looked up, and the table of the region fits into memory."""
    interval = circuit.nodes[region.source].interval
    if interval.lookup_width > MAXIMUM_LOOKUP_WIDTH:
        return False
    columns = np.broadcast_shapes(*(shape for i in region.nodes for shape in _own(circuit, i)))
    return interval.domain_size * int(np.prod(columns)) <= MAXIMUM_TABLE_ENTRIES


def _own(circuit: ir.Circuit, position: int) -> Iterator[tuple[int, ...]]:
    """Shapes of the constants and the table that a node brings."""
    node = circuit.nodes[position]
    if isinstance(node.primitive, ir.Lookup):
        yield node.primitive.table.shape[1:]
    for index in node.inputs:
        if circuit.nodes[index].is_constant:
            yield circuit.nodes[index].shape


def _tabulated(circuit: ir.Circuit, region: _Region, source: IntValue) -> IntValue:
    """The look-up that does what a region does; none, if that is only a shift."""
    domain = source.interval.domain.reshape(-1, *(1,) * source.ndim)
    values = {region.source: domain}
    for position in region.nodes:
        node = circuit.nodes[position]
        operands = [_operand(circuit, values, index) for index in node.inputs]
        values[position] = kernels.apply(node.primitive, *operands)
    # Rows beyond the range of every element may hold anything, even what does not fit 62 bits.
    known = circuit.nodes[region.nodes[-1]].interval
    return RealValue(source, np.clip(values[region.nodes[-1]], known.min, known.max)).lookup()


def _operand(circuit: ir.Circuit, values: dict[int, np.ndarray], position: int) -> np.ndarray:
    primitive = circuit.nodes[position].primitive
    return primitive.values[None] if isinstance(primitive, ir.Constant) else values[position]
