"""What an engine with modular arithmetic computes from a legalized circuit, in NumPy.

A second meaning of legalized circuits, next to the exact evaluator: values wrap modulo the width of
their region (and one bit of padding), and whatever reads a value must find it within its bits.
"""

from __future__ import annotations

import numpy as np

from cipherlearn.circuit import Circuit, ir, kernels
from cipherlearn.engines._regions import Regions, behind, reduced


def run_modular(circuit: Circuit, regions: Regions, *inputs: np.ndarray) -> list[np.ndarray]:
    """Results of a legalized circuit on a batch."""
    given = iter(inputs)
    values: dict[int, np.ndarray] = {}
    for position, node in enumerate(circuit.nodes):
        if isinstance(node.primitive, ir.Input):
            values[position] = next(given)
            continue
        operands = [values[index] for index in node.inputs]
        if not node.encrypted:
            values[position] = kernels.apply(node.primitive, *operands)
        elif isinstance(node.primitive, ir.Assume):
            values[position] = operands[0]
        elif isinstance(node.primitive, (ir.Lookup, ir.Round)):
            values[position] = _read(circuit, regions, position, node, operands[0])
        else:
            modulus = 2 << regions.width[position]
            arguments = [
                reduced(operand, regions.width[position])
                if circuit.nodes[index].is_constant
                else operand
                for index, operand in zip(node.inputs, operands, strict=True)
            ]
            values[position] = kernels.apply(node.primitive, *arguments) % modulus
    rows = inputs[0].shape[0]
    results = []
    for position, bits in zip(circuit.outputs, regions.results, strict=True):
        value = values[position]
        _check_read(value, bits, f"output %{position}")
        results.append(np.broadcast_to(value, (rows, *value.shape[1:])))
    return results


def _read(
    circuit: Circuit, regions: Regions, position: int, node: ir.Node, value: np.ndarray
) -> np.ndarray:
    operand = node.inputs[0]
    bits = regions.read.get((position, operand))
    if bits is None:
        assert isinstance(circuit.nodes[operand].primitive, ir.Round)
    else:
        assert bits <= regions.width[behind(circuit, operand)]
        _check_read(value, bits, f"%{position}")
    result = kernels.apply(node.primitive, value)
    if isinstance(node.primitive, ir.Round):
        assert bits is not None
        # The rounded value has no more bits than the engine keeps for it.
        _check_read(result, bits, f"rounded %{position}")
        return result
    return result % (2 << regions.width[position])


def _check_read(value: np.ndarray, bits: int, where: str) -> None:
    if not value.size:
        return
    assert value.min() >= 0, where
    assert value.max() < 1 << bits, f"{where}: {value.max()} does not fit {bits} bits"
