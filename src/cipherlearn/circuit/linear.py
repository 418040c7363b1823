"""Constant factors folded into the weights before them."""

from __future__ import annotations

import numpy as np

from cipherlearn.circuit import ir
from cipherlearn.circuit.builder import Builder, IntValue


def fold_factors(circuit: ir.Circuit) -> ir.Circuit:
    """Write ``(x @ weights) * factor`` as ``x @ (weights * factor)``.

    One product in place of two matters to an engine that sizes noise by the largest factor: a
    column of zeros stays one, whatever its factor.

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
    values: list[IntValue] = []
    for position, node in enumerate(circuit.nodes):
        operands = [values[index] for index in node.inputs]
        with builder.scope(node.label):
            folded = _scaled_weights(circuit, readers, position)
            if folded is None:
                values.append(builder.add(node.primitive, *operands))
            else:
                source, weights = folded
                values.append(builder.add(ir.MatMul(), values[source], builder.constant(weights)))
    return builder.finish([values[index] for index in circuit.outputs], circuit.output_names)


def _scaled_weights(
    circuit: ir.Circuit, readers: list[list[int]], position: int
) -> tuple[int, np.ndarray] | None:
    """Operand and scaled weights of a matrix product that a node multiplies by constants."""
    node = circuit.nodes[position]
    if not isinstance(node.primitive, ir.Multiply):
        return None
    for product, factor in (node.inputs, node.inputs[::-1]):
        scale, matmul = circuit.nodes[factor].primitive, circuit.nodes[product]
        if not isinstance(scale, ir.Constant) or not isinstance(matmul.primitive, ir.MatMul):
            continue
        weights = circuit.nodes[matmul.inputs[1]].primitive
        one_a_column = scale.values.size in (1, node.shape[-1]) and (
            scale.values.shape[-1:] != (1,) or scale.values.size == 1
        )
        unread = readers[product] == [position] and product not in circuit.outputs
        if isinstance(weights, ir.Constant) and one_a_column and unread:
            return matmul.inputs[0], weights.values * scale.values.reshape(-1)
    return None
