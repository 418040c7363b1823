"""What the model declares: grids of constants and of quantizers, and the ranges of its sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from cipherlearn import ops
from cipherlearn.errors import UnsupportedAttributeError
from cipherlearn.onnx import Graph, Node
from cipherlearn.ops import qonnx
from cipherlearn.ops.qonnx import DeclaredGrid
from cipherlearn.ops.seen_range import SEEN_RANGE
from cipherlearn.quantization.base_quantized_op import QuantizedOp
from cipherlearn.quantization.quantized_array import QuantizedArray
from cipherlearn.quantization.quantizers import (
    MinMaxQuantizationStats,
    QuantizationOptions,
    UniformQuantizationParameters,
    UniformQuantizer,
)


class QuantizedToGrid(QuantizedOp, is_utility=True):
    """A quantizer of the model.

    Attributes
    ----------
    grid : UniformQuantizer or None
        Set where the grid is taken over: the result then consists of its integers. Else the
        operator is a function like any other.
    """

    grid: UniformQuantizer | None = None

    def can_fuse(self) -> bool:
        """Whether it is computed on reals, like a function."""
        return self.grid is None

    @property
    def declared(self) -> DeclaredGrid:
        """The grid as the model has it."""
        return qonnx.declared_grid(self.op_type(), self.attrs, self.constant_inputs)

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> QuantizedArray:
        """The integers of the grid; what lies on it already stays as it is."""
        if self.grid is None:
            return super().q_impl(*q_inputs, **attrs)
        if q_inputs[0].holds_integers and q_inputs[0].quantizer == self.grid:
            return q_inputs[0]
        operands = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=False
        )
        integers = self.grid.quant(self.call_impl(*operands, **attrs))
        return QuantizedArray(
            self.grid.n_bits,
            integers,
            False,
            options=self.grid,
            stats=self.grid,
            params=self.grid,
        )


class QuantizedBrevitasQuant(QuantizedToGrid):
    """Quantized ``Quant`` of QONNX: see `QuantizedToGrid`."""

    _impl_for_op_named: ClassVar[str | None] = qonnx.QUANT


class QuantizedBipolarQuant(QuantizedToGrid):
    """Quantized ``BipolarQuant`` of QONNX: see `QuantizedToGrid`."""

    _impl_for_op_named: ClassVar[str | None] = qonnx.BIPOLAR


class QuantizedTrunc(QuantizedToGrid):
    """Quantized ``Trunc`` of QONNX: see `QuantizedToGrid`."""

    _impl_for_op_named: ClassVar[str | None] = qonnx.TRUNC


#: The classes of this file that are operators.
WRITTEN = (QuantizedBrevitasQuant, QuantizedBipolarQuant, QuantizedTrunc)


def quantizer_of(grid: DeclaredGrid) -> UniformQuantizer:
    """The quantizer whose integers are those of a declared grid.

    Parameters
    ----------
    grid : DeclaredGrid

    Returns
    -------
    UniformQuantizer
        Two of them are equal if and only if their grids are: its range is that of the grid.
    """
    scale, zero = _plain(grid.scale), _plain(grid.zero_point.astype(np.int64))
    lo, hi = grid.limits
    is_signed = grid.is_signed
    if grid.is_narrow and not is_signed:
        # Unsigned integers less the highest one, counted from their middle on.
        zero, lo, hi, is_signed = zero - hi // 2, -hi // 2, hi // 2, True
    options = QuantizationOptions(grid.n_bits, is_signed=is_signed, is_qat=True)
    options.is_narrow, options.is_precomputed_qat = grid.is_narrow, True
    reach = np.asarray(scale) * (np.array([lo, hi]).reshape(2, *(1,) * np.ndim(scale)) - zero)
    stats = MinMaxQuantizationStats(float(reach.max()), float(reach.min()))
    offset = 2 ** (grid.n_bits - 1) if is_signed else 0
    if grid.zero_after_rounding and not grid.is_narrow and np.ndim(zero) == 0 and zero % 2:
        # Counted from the zero-point on, halves are rounded as the model rounds them.
        offset, zero = offset + zero, 0
    return UniformQuantizer(options, stats, UniformQuantizationParameters(scale, zero, offset))


def _plain(array: np.ndarray) -> Any:
    """A number where an array holds one, however often."""
    first = array.reshape(-1)[0]
    return first.item() if bool((array == first).all()) else array


def grid_of(node: Node, graph: Graph) -> DeclaredGrid | None:
    """The grid that a node quantizes to; None if it is no quantizer."""
    if node.op not in qonnx.GRID_OPERATORS:
        return None
    held = {i: graph.constants[n] for i, n in enumerate(node.inputs) if n in graph.constants}
    attributes = {**ops.get(node.op).signature(graph.opset).defaults, **node.attributes}
    return qonnx.declared_grid(node.op, attributes, held)


def without_constant_nodes(graph: Graph) -> tuple[Graph, dict[str, QuantizedArray]]:
    """A graph whose quantized constants are plain constants.

    Parameters
    ----------
    graph : Graph

    Returns
    -------
    graph : Graph
    grids : dict of str to QuantizedArray
        The integers of constants that were behind a quantizer, by the name that they have now.
    """
    constants, grids, nodes = dict(graph.constants), {}, []
    for node in graph.nodes:
        grid = grid_of(node, graph)
        if grid is None or node.inputs[0] not in graph.constants:
            nodes.append(node)
            continue
        values = np.asarray(graph.constants[node.inputs[0]])
        held = _constant(node, grid, values)
        constants[node.outputs[0]] = held.values.astype(values.dtype)
        grids[node.outputs[0]] = held
    return replace(graph, nodes=tuple(nodes), constants=constants), grids


def _constant(node: Node, grid: DeclaredGrid, values: np.ndarray) -> QuantizedArray:
    if node.op == qonnx.TRUNC:
        raise UnsupportedAttributeError(
            f"node {node.name!r} (Trunc) takes bits off a constant: store the result in its place"
        )
    known = quantizer_of(grid)
    if node.op == qonnx.BIPOLAR:
        integers = np.where(values >= 0, 1, -1)
    else:
        integers = qonnx.integers_on(grid, values)
        integers = integers - (grid.zero_point - known.zero_point)
    integers = np.rint(integers).astype(np.int64)
    return QuantizedArray(known.n_bits, integers, False, options=known, stats=known, params=known)


def declares_grids(graph: Graph, grids: Mapping[str, Any]) -> bool:
    """Whether a model says how anything in it is quantized."""
    return bool(grids) or any(node.op in qonnx.GRID_OPERATORS for node in graph.nodes)


def without_seen_ranges(
    graph: Graph,
) -> tuple[Graph, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """A graph in which nothing stands between sums and what reads them.

    Parameters
    ----------
    graph : Graph

    Returns
    -------
    graph : Graph
    ranges : dict of str to tuple of numpy.ndarray
        How low and how high sums reached in training, by the name of the node that sums.
    """
    nodes: list[Node] = []
    ranges: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    sources: dict[str, str] = {}
    for node in graph.nodes:
        inputs = tuple(sources.get(name, name) for name in node.inputs)
        if node.op != SEEN_RANGE:
            nodes.append(replace(node, inputs=inputs))
            continue
        if node.outputs[0] in graph.output_names:  # for its name
            nodes.append(replace(node, inputs=inputs))
        sources[node.outputs[0]] = inputs[0]
        found = _sum_before(inputs[0], graph)
        if found is not None:
            summing, bias = found
            lowest, highest = (np.float64(graph.constants[name]) for name in inputs[1:])
            ranges[summing.name] = (lowest - bias, highest - bias)
    return replace(graph, nodes=tuple(nodes)), ranges


def _sum_before(tensor: str, graph: Graph) -> tuple[Node, Any] | None:
    """What sums before a bias is added, if it is a node of its own, and that bias."""
    bias: Any = 0.0
    while (node := graph.producer(tensor)) is not None and node.op == "Add":
        constant = [name for name in node.inputs if name in graph.constants]
        if not constant:
            break
        bias = bias + np.float64(graph.constants[constant[0]])
        tensor = next(name for name in node.inputs if name != constant[0])
    return None if node is None else (node, bias)
