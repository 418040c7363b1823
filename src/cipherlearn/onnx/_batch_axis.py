"""Keeping the batch on the first axis, in graphs that put it elsewhere.

Exported attention brings the sequence to the front, and trees written as products of matrices lay
the rows out as columns. Where that happens, a graph for one row says what is done to each row: its
tensors get the batch as a first axis of their own, and its operators leave that axis alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from cipherlearn.errors import UnsupportedAttributeError
from cipherlearn.onnx import _edit
from cipherlearn.onnx._batch_first import Rewriting
from cipherlearn.onnx._batch_rules import write
from cipherlearn.onnx.graph import Array, Graph, Node
from cipherlearn.onnx.interpreter import intermediate_values


def misplaced(graph: Graph, inputs: Sequence[Array]) -> Node | None:
    """The first node that gives a tensor without the batch on its first axis.

    Parameters
    ----------
    graph : Graph
        Graph that takes any number of rows.
    inputs : sequence of ndarray
        Two rows or more of each input.

    Returns
    -------
    Node or None
        ``None`` where every tensor has its rows on the first axis.
    """
    count = len(inputs[0])
    many = intermediate_values(graph, *inputs)
    one = intermediate_values(graph, *(array[:1] for array in inputs))
    for node in graph.nodes:
        for name in filter(None, node.outputs):
            single = one[name].shape
            if single[:1] != (1,) or many[name].shape != (count, *single[1:]):
                return node
    return None


def check_batch_first(graph: Graph, *inputs: Array) -> None:
    """Check that every tensor of a graph has the rows of the batch on its first axis.

    Encrypted rows are computed one by one, and have no batch axis to be moved.

    Parameters
    ----------
    graph : Graph
        Graph that takes any number of rows.
    *inputs : ndarray
        Two rows or more of each input.

    Raises
    ------
    UnsupportedAttributeError
        When a node puts the rows elsewhere; the message names the first one.
    """
    node = misplaced(graph, inputs)
    if node is not None:
        # Attention is what takes its batch second unless it is told otherwise.
        attention = any(one.op == "Softmax" for one in graph.nodes)
        told = ", and give attention layers of torch batch_first=True" if attention else ""
        raise UnsupportedAttributeError(
            f"Node {node} gives a tensor whose first axis is not that of the rows of the batch."
            " Accepted: graphs in which the batch stays on the first axis of every tensor, or in"
            " which it is only moved by transposing, reshaping, constant indices, element-wise"
            " operators, sums and products of matrices. Let the model keep it there: transpose and"
            f" index the other axes only, as in x.transpose(1, 2) and x[:, 0]{told}."
        )


def with_batch_first(
    free: onnx.ModelProto, static: onnx.ModelProto, rows: Sequence[Sequence[Array]]
) -> onnx.ModelProto | None:
    """A model in which every tensor has the batch on its first axis.

    Parameters
    ----------
    free : ModelProto
        The nodes of ``static``, with inputs of any number of rows and no shape that fixes the first
        axis.
    static : ModelProto
        Model for one row, in which shapes are constants.
    rows : sequence of sequences of ndarray
        One or more single rows of the inputs.

    Returns
    -------
    ModelProto or None
        ``None`` where a node cannot be written that way. Whether the model computes the same is for
        the caller to find out.
    """
    result = onnx.ModelProto()
    result.CopyFrom(free)
    values = [intermediate_values(static, *row) for row in rows]
    rewriting = Rewriting(result, values)
    decoded = Graph.from_model(free).nodes
    if not all(write(rewriting, *pair) for pair in zip(free.graph.node, decoded, strict=True)):
        return None
    if not all(rewriting.give(output.name) for output in free.graph.output):
        return None
    _edit.keep_nodes(result.graph, rewriting.nodes)
    _edit.remove_dead(result.graph)
    return result
