"""What a circuit costs, before any engine is asked: look-ups by width."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from cipherlearn.circuit import ir


@dataclass(frozen=True)
class LookupCount:
    """Look-ups of a circuit on one sample.

    Parameters
    ----------
    by_width : dict of int to int
        Number of look-ups for each width of their input, in bits.
    by_label : dict of str to int
        Number of look-ups of each layer.
    rounded_bits : int
        Bits removed by exact rounding over all elements; each costs the engine about one look-up.
    """

    by_width: dict[int, int]
    by_label: dict[str, int]
    rounded_bits: int

    @property
    def total(self) -> int:
        """Look-ups of all widths, without those of exact rounding."""
        return sum(self.by_width.values())


def count_lookups(circuit: ir.Circuit) -> LookupCount:
    """Count the table look-ups of a circuit by width and by layer.

    An encrypted product is two look-ups (squares of sum and difference) on one more bit than its
    wider operand; a maximum is one look-up on the difference.
    """
    by_width: Counter[int] = Counter()
    by_label: Counter[str] = Counter()
    rounded_bits = 0
    for position, node in enumerate(circuit.nodes):
        if node.encrypted and isinstance(node.primitive, ir.Round) and node.primitive.exact:
            rounded_bits += node.primitive.lsbs * node.size
        count, width = lookups_of(circuit, position)
        if count:
            by_width[width] += count
            by_label[node.label] += count
    return LookupCount(dict(sorted(by_width.items())), dict(by_label), rounded_bits)


def lookups_of(circuit: ir.Circuit, position: int) -> tuple[int, int]:
    """Number of look-ups that one node makes, without those of exact rounding, and their width.

    Returns
    -------
    count, width : int
        Both 0 for a node without look-ups.
    """
    node = circuit.nodes[position]
    if not circuit.is_noisy(position) or isinstance(node.primitive, ir.Round):
        return 0, 0
    operands = [circuit.nodes[index] for index in node.inputs]
    if isinstance(node.primitive, ir.Lookup):
        return node.size, operands[0].interval.lookup_width
    wider = max(operand.interval.width for operand in operands) + 1
    if isinstance(node.primitive, ir.Maximum):
        return node.size, wider
    terms = operands[0].shape[-1] if isinstance(node.primitive, ir.MatMul) else 1
    return 2 * terms * node.size, wider
