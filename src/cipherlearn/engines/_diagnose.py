"""What to say when an engine finds no parameters: the node that asks for the most precision."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cipherlearn.circuit import ir, kernels
from cipherlearn.circuit.interval import width_of
from cipherlearn.engines._legalize import Legalized, describe, top_step


@dataclass(frozen=True)
class Demand:
    """The precision that one reader of a legalized circuit asks for.

    Parameters
    ----------
    position : int
        The reader, in the circuit that was given.
    bits : int
        Bits that it reads.
    norm : float
        By how much the noise of the look-ups and inputs before is multiplied: the root of the sum
        of the squared weights.
    """

    position: int
    bits: int
    norm: float

    @property
    def score(self) -> float:
        """Bits of precision that the ciphertexts before must have."""
        return self.bits + math.log2(max(self.norm, 1.0))


def hardest(legal: Legalized) -> Demand:
    """The reader that asks for the most precision."""
    circuit = legal.circuit
    norms = _squared_norms(circuit)
    demands = []
    for position, node in enumerate(circuit.nodes):
        if not node.encrypted or not isinstance(node.primitive, (ir.Lookup, ir.Round)):
            continue
        operand = node.inputs[0]
        if isinstance(circuit.nodes[operand].primitive, ir.Round):
            continue
        interval = circuit.nodes[operand].interval
        bits = interval.width
        if isinstance(node.primitive, ir.Round):
            bits = width_of(0, top_step(interval, node.primitive))
        demands.append((position, bits, operand))
    demands += [(p, circuit.nodes[p].interval.width, p) for p in circuit.outputs]
    return max(
        (
            Demand(int(circuit.nodes[p].label or 0), bits, float(np.sqrt(norms[operand].max())))
            for p, bits, operand in demands
        ),
        key=lambda demand: demand.score,
    )


def explain_no_parameters(given: ir.Circuit, legal: Legalized, p_error: str) -> str:
    """Message for a circuit that asks for more precision than the engine can give."""
    demand = hardest(legal)
    where = describe(given, demand.position)
    return (
        f"no cryptographic parameters reach the precision that the circuit asks for at {p_error}. "
        f"The most is asked by {where}: {demand.bits} bits of sums whose weights have the norm "
        f"{demand.norm:.0f}. Use fewer bits (n_bits), keep fewer bits of the accumulators "
        "(rounding_threshold_bits), make that layer narrower or sparser, or allow a larger p_error"
    )


def _squared_norms(circuit: ir.Circuit) -> list[np.ndarray]:
    """For every node and element, the squared factor on the noise of what it was computed from."""
    norms: list[np.ndarray] = []
    for node in circuit.nodes:
        operands = [circuit.nodes[index] for index in node.inputs]
        if not node.encrypted:
            norms.append(np.zeros(node.shape))
        elif isinstance(node.primitive, (ir.Input, ir.Lookup)):
            norms.append(np.ones(node.shape))
        elif isinstance(node.primitive, (ir.Add, ir.Subtract)):
            norms.append(norms[node.inputs[0]] + norms[node.inputs[1]])
        elif isinstance(node.primitive, (ir.Assume, ir.Round)):
            norms.append(norms[node.inputs[0]])
        else:
            weighs = isinstance(node.primitive, (ir.Multiply, ir.MatMul, ir.Convolve))
            factors = [
                norms[index] if operand.encrypted or not weighs else _largest_squares(operand)
                for index, operand in zip(node.inputs, operands, strict=True)
            ]
            norms.append(kernels.apply(node.primitive, *(factor[None] for factor in factors))[0])
    return norms


def _largest_squares(node: ir.Node) -> np.ndarray:
    magnitude = np.maximum(np.abs(node.interval.lo), np.abs(node.interval.hi))
    return magnitude.astype(np.float64) ** 2
