"""Our widths in place of those that the engine would measure on samples.

The engine comes as arguments: this module imports none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cipherlearn.engines._lowering import Lowering
from cipherlearn.errors import CompilationError


def width_passes(lowering: Lowering, processor: Any, integer: Any) -> tuple[Any, Any]:
    """Two passes over the engine's graph: set the computed widths; check that they were kept.

    Parameters
    ----------
    lowering : Lowering
    processor : type
        The engine's base of such passes.
    integer : type
        The engine's integer types.
    """

    class SetWidths(processor):  # type: ignore[misc]
        """Replaces what the engine measured on one sample."""

        def apply(self, graph: Any) -> None:
            for node in graph.query_nodes(ordered=True):
                _set_width(node, graph, lowering, integer)
                for reader in graph.graph.successors(node):
                    for edge in graph.graph.get_edge_data(node, reader).values():
                        reader.inputs[edge["input_idx"]] = node.output
                if node.operation.value == "input":
                    node.inputs[0] = node.output

    class CheckWidths(processor):  # type: ignore[misc]
        """Reduced integers have the right effect on values of exactly the computed widths."""

        def apply(self, graph: Any) -> None:
            for node in graph.query_nodes(ordered=True):
                expected = lowering.assigned.get(node)
                if expected is not None and node.output.dtype.bit_width != expected:
                    raise CompilationError(
                        f"the engine gave {node.output.dtype.bit_width} bits to a value of "
                        f"{expected} bits: this version of concrete-python is not supported"
                    )

    return SetWidths(), CheckWidths()


def _set_width(node: Any, graph: Any, lowering: Lowering, integer: Any) -> None:
    if node.operation.value == "constant":
        width = _width_of_reader(node, graph, lowering)
        measured = node.output.dtype
        if lowering.reduce and width is not None and measured.bit_width > width:
            # Reduced integers use the padding bit, which the engine adds by itself.
            node.output.dtype = integer(measured.is_signed, width)
    elif node.output.is_encrypted:
        bits = _bits_to_declare(node, graph, lowering)
        node.bounds = (np.int64(0), np.int64(2**bits - 1))
        node.output.dtype = integer(False, bits)
    elif node in lowering.declared:
        # Clear values may be negative: the engine gives them one bit more than declared.
        node.output.dtype = integer(True, lowering.declared[node])


def _bits_to_declare(node: Any, graph: Any, lowering: Lowering) -> int:
    if node.properties.get("name") == "round_bit_pattern":
        node = graph.ordered_preds_of(node)[0]
    # A value that nothing reads takes the width of its region from the engine.
    return lowering.declared.get(node, 1)


def _width_of_reader(node: Any, graph: Any, lowering: Lowering) -> int | None:
    """Width of the region that a constant takes part in."""
    while node not in lowering.assigned:
        readers = list(graph.graph.successors(node))
        if not readers:
            return None
        node = readers[0]
    return lowering.assigned[node]
