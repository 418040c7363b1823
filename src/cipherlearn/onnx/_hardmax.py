"""Hardmax as it was before operator set 13, which the version converter takes for that of today."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import helper

from cipherlearn.onnx import _edit


def with_flat_hardmax(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy of an old model in which each Hardmax works on a matrix.

    Until operator set 12, the axes from ``axis`` (by default 1) on were taken as one.

    Parameters
    ----------
    model : ModelProto
        Model of operator set 12 or older.

    Returns
    -------
    ModelProto
        The same model where it has no Hardmax.
    """
    if not any(_is_hardmax(node) for graph in _graphs(model.graph) for node in graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    taken = _edit.names(copy.graph)
    for graph in _graphs(copy.graph):
        nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            nodes += _flat(node, taken) if _is_hardmax(node) else [node]
        _edit.keep_nodes(graph, nodes)
    return copy


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and those inside its nodes, which come first."""
    for node in graph.node:
        for inner in _edit.inner_graphs(node):
            yield from _graphs(inner)
    yield graph


def _is_hardmax(node: onnx.NodeProto) -> bool:
    return node.op_type == "Hardmax" and not node.domain


def _flat(node: onnx.NodeProto, taken: set[str]) -> list[onnx.NodeProto]:
    """What computes a Hardmax: the shape is put aside, and put back afterwards."""
    axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
    base = f"{node.output[0]}/hardmax"
    while any(name.startswith(base) for name in taken):
        base += "_"
    shape, matrix, hits = (f"{base}/{part}" for part in ("shape", "matrix", "hits"))
    return [
        helper.make_node("Shape", node.input, [shape]),
        helper.make_node("Flatten", node.input, [matrix], axis=axis),
        helper.make_node("Hardmax", [matrix], [hits], node.name, axis=1),
        helper.make_node("Reshape", [hits, shape], node.output),
    ]
