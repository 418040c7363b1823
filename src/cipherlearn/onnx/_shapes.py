"""Working out those parts of shapes that are known, whatever the batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from cipherlearn.onnx import _edit
from cipherlearn.onnx.graph import Array, tensor_shapes


def fold_known_sizes(model: onnx.ModelProto) -> bool:
    """Turn what picks known sizes out of a shape into constants (in place).

    In a model with an open batch size, ``Shape`` itself is no constant, but its entry for the
    columns is.

    Parameters
    ----------
    model : ModelProto
        Model whose initializers are not inputs.

    Returns
    -------
    bool
        Whether there were any.
    """
    graph = model.graph
    shapes = [n for n in graph.node if n.op_type == "Shape" and not n.domain]
    if not shapes:
        return False
    known = tensor_shapes(model)
    entries = {n.output[0]: e for n in shapes if (e := _entries(n, known)) is not None}
    kept = []
    for node in graph.node:
        value = _picked(graph, node, entries)
        if value is None:
            kept.append(node)
        else:
            graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
    folded = len(kept) < len(graph.node)
    if folded:
        _edit.keep_nodes(graph, kept)
    return folded


def _entries(
    node: onnx.NodeProto, known: Mapping[str, Sequence[int | None]]
) -> Sequence[int | None] | None:
    limits = {item.name: item.i for item in node.attribute}
    sizes = known.get(node.input[0])
    return None if sizes is None else sizes[limits.get("start", 0) : limits.get("end")]


def _picked(
    graph: onnx.GraphProto, node: onnx.NodeProto, entries: Mapping[str, Sequence[int | None]]
) -> Array | None:
    """Value of a node, where it holds known sizes only."""
    if node.domain:
        return None
    if node.op_type == "Shape":
        chosen = np.array(entries.get(node.output[0], [None]), dtype=object)
    elif node.op_type == "Gather" and node.input[0] in entries:
        indices = _edit.constants(graph, [node.input[1]]).get(node.input[1])
        sizes = np.array(entries[node.input[0]], dtype=object)
        if indices is None or np.any(indices >= sizes.size) or np.any(indices < -sizes.size):
            return None
        chosen = sizes[indices]
    elif node.op_type == "Slice" and node.input[0] in entries:
        chosen = _sliced(graph, node, entries[node.input[0]])
    else:
        return None
    chosen = np.asarray(chosen, dtype=object)
    return None if None in chosen.reshape(-1).tolist() else chosen.astype(np.int64)


def _sliced(graph: onnx.GraphProto, node: onnx.NodeProto, sizes: Sequence[int | None]) -> Array:
    operands = list(node.input[1:])
    constants = _edit.constants(graph, operands)
    if any(name and name not in constants for name in operands):
        return np.array([None])
    start, end, axis, step = (
        int(constants[name].item()) if name else default
        for name, default in zip([*operands, "", ""][:4], (0, 0, 0, 1), strict=True)
    )
    if axis not in (0, -1) or step <= 0:
        return np.array([None])
    return np.array(sizes[start:end:step], dtype=object)
