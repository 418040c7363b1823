"""Putting the branch of an If whose condition is known in its place."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from cipherlearn.onnx import _edit


def inline_branches(model: onnx.ModelProto) -> bool:
    """Replace If nodes with a constant condition by the nodes of the branch taken (in place).

    Parameters
    ----------
    model : ModelProto
        Model to change.

    Returns
    -------
    bool
        Whether there were any.
    """
    graph = model.graph
    changed = False
    while True:
        found = ((place, _branch_taken(graph, node)) for place, node in enumerate(graph.node))
        place, branch = next((pair for pair in found if pair[1] is not None), (0, None))
        if branch is None:
            return changed
        _inline(graph, place, branch)
        changed = True


def _branch_taken(graph: onnx.GraphProto, node: onnx.NodeProto) -> onnx.GraphProto | None:
    if node.op_type != "If" or node.domain:
        return None
    condition = _edit.constants(graph, node.input).get(node.input[0])
    if condition is None:
        return None
    taken = "then_branch" if np.all(condition) else "else_branch"
    return next((item.g for item in node.attribute if item.name == taken), None)


def _inline(graph: onnx.GraphProto, place: int, branch: onnx.GraphProto) -> None:
    """Put what a branch computes in the place of its node."""
    inner = onnx.GraphProto()
    inner.CopyFrom(branch)
    node = graph.node[place]
    del node.attribute[:]
    own = [tensor.name for tensor in inner.initializer]
    own += [name for item in inner.node for name in item.output if name]
    # Both branches, and those of other nodes, may use the same names.
    for name in set(own) & _edit.names(graph):
        _edit.rename(inner, name, _edit.fresh_name(graph, name, own))
    graph.initializer.extend(inner.initializer)
    results = zip(inner.output, node.output, strict=False)
    copies = [
        helper.make_node("Identity", [result.name], [name]) for result, name in results if name
    ]
    nodes = list(graph.node)
    _edit.keep_nodes(graph, [*nodes[:place], *inner.node, *copies, *nodes[place + 1 :]])
