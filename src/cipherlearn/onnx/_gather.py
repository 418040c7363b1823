"""Letting GatherElements pick the same elements of any number of rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from cipherlearn import ops
from cipherlearn.onnx import _edit
from cipherlearn.onnx.graph import Array, tensor_shapes


def gather_from_every_row(model: onnx.ModelProto) -> None:
    """Write GatherElements with the same constant indices for each row as Gather (in place).

    As indices have as many rows as there were when the model was traced, it would give no more rows
    than that, whatever the batch size.

    Parameters
    ----------
    model : ModelProto
        Model to change.
    """
    graph = model.graph
    if not any(_is_gather_elements(node) for node in graph.node):
        return
    shapes = tensor_shapes(model)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes += (_is_gather_elements(node) and _by_row(graph, node, shapes)) or [node]
    _edit.keep_nodes(graph, nodes)


def _is_gather_elements(node: onnx.NodeProto) -> bool:
    return node.op_type == "GatherElements" and not node.domain


def _by_row(
    graph: onnx.GraphProto, node: onnx.NodeProto, shapes: Mapping[str, Sequence[int | None]]
) -> list[onnx.NodeProto]:
    """The nodes in place of a GatherElements; none where its rows are not alike."""
    data, indices = node.input
    index = _edit.constants(graph, [indices]).get(indices)
    rows, *row = shapes.get(data) or [None]
    axis = next((item.i for item in node.attribute if item.name == "axis"), 0)
    if index is None or index.ndim != len(row) + 1 or axis % index.ndim == 0:
        return []
    extents = [extent for extent in row if extent is not None]
    alike = len(index) == (rows or 1) and bool((index == index[:1]).all())
    if len(extents) < len(row) or not alike:
        return []
    numbers = np.arange(math.prod(extents)).reshape(1, *extents)
    (picked,) = ops.ONNX_OPS_TO_NUMPY_IMPL["GatherElements"](numbers, index[:1], axis=axis)
    return _gather(graph, node, numbers.size, picked[0])


def _gather(
    graph: onnx.GraphProto, node: onnx.NodeProto, size: int, picked: Array
) -> list[onnx.NodeProto]:
    """Nodes that pick elements by their numbers in a row."""
    data, indices = node.input
    nodes = []
    if picked.ndim > 1:
        flat = _edit.fresh_name(graph, f"{node.output[0]}_rows")
        target = _edit.add_constant(graph, f"{flat}_shape", np.array([-1, size]))
        nodes.append(helper.make_node("Reshape", [data, target], [flat]))
        data = flat
    index = _edit.add_constant(graph, f"{indices}_of_a_row", picked)
    return [*nodes, helper.make_node("Gather", [data, index], node.output, node.name, axis=1)]
