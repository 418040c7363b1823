"""Local rewritings of nodes that keep the meaning of a graph. All change their argument."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cipherlearn.onnx import _edit
from cipherlearn.onnx.graph import Array, infer_shapes


def remove_identities(model: onnx.ModelProto) -> bool:
    """Remove Identity nodes, and Dropout nodes in inference mode.

    Parameters
    ----------
    model : ModelProto
        Model to change.

    Returns
    -------
    bool
        Whether there were any that could be removed.
    """
    graph = model.graph
    changed = False
    for node in list(graph.node):
        if _is_identity(graph, node) and _bypass(graph, node):
            graph.node.remove(node)
            changed = True
    return changed


def _is_identity(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    if node.domain:
        return False
    if node.op_type == "Identity":
        return True
    if node.op_type != "Dropout":
        return False
    if len(node.output) > 1 and _edit.reads(graph)[node.output[1]]:
        return False
    training = node.input[2] if len(node.input) > 2 else ""
    value = _constants(graph, {training}).get(training)
    return not training or (value is not None and not np.any(value))


def _bypass(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    """Connect the source of a node with its readers; ``False`` where names forbid it."""
    source, target = node.input[0], node.output[0]
    outputs = {output.name for output in graph.output}
    if target not in outputs:
        _edit.rename_reads(graph, target, source)
        return True
    producer = next((other for other in graph.node if source in other.output), None)
    # The names of graph outputs stay: the node that computes the value takes the output's name.
    if producer is None or source in outputs:
        return False
    producer.output[list(producer.output).index(source)] = target
    _edit.rename_reads(graph, source, target)
    return True


def cast_like_to_cast(model: onnx.ModelProto) -> bool:
    """Replace CastLike by Cast where the type to imitate is known: its values never count.

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
    nodes = [n for n in graph.node if n.op_type == "CastLike" and not n.domain]
    if not nodes:
        return False
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    inferred = infer_shapes(model).graph
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        types[value.name] = value.type.tensor_type.elem_type
    changed = False
    for node in nodes:
        target = types.get(node.input[1], onnx.TensorProto.UNDEFINED)
        if target != onnx.TensorProto.UNDEFINED:
            node.op_type = "Cast"
            del node.input[1:]
            node.attribute.append(helper.make_attribute("to", target))
            changed = True
    return changed


def fuse_bias(model: onnx.ModelProto) -> bool:
    """Replace MatMul by a constant matrix, then Add of a constant row, by one Gemm.

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
    adds = [node for node in graph.node if node.op_type == "Add" and not node.domain]
    products = {
        node.output[0]: node for node in graph.node if node.op_type == "MatMul" and not node.domain
    }
    if not adds or not products:
        return False
    ranks = _ranks(model)
    counted = _edit.reads(graph)
    changed = False
    for add in adds:
        for product, bias in (tuple(add.input), tuple(add.input)[::-1]):
            matmul = products.get(product)
            if matmul is None or counted[product] != 1:
                continue
            if ranks.get(matmul.input[0]) == 2 and _fits_gemm(graph, matmul.input[1], bias):
                _make_gemm(graph, add, matmul, bias)
                changed = True
                break
    return changed


def _fits_gemm(graph: onnx.GraphProto, weight: str, bias: str) -> bool:
    """Tell whether the bias is one row that is added to every row of the product."""
    constants = _constants(graph, {weight, bias})
    if len(constants) < 2 or constants[weight].ndim != 2:
        return False
    shape = constants[bias].shape
    columns = constants[weight].shape[1]
    return len(shape) <= 2 and (*(1,) * (2 - len(shape)), *shape) in ((1, columns), (1, 1))


def _make_gemm(
    graph: onnx.GraphProto, add: onnx.NodeProto, matmul: onnx.NodeProto, bias: str
) -> None:
    gemm = helper.make_node(
        "Gemm", [*matmul.input, bias], list(add.output), name=matmul.name or add.name
    )
    add.CopyFrom(gemm)
    graph.node.remove(matmul)


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    inferred = infer_shapes(model).graph
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }


def _constants(graph: onnx.GraphProto, names: set[str]) -> dict[str, Array]:
    return {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.name in names}
