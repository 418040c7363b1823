"""Replacing sub-graphs that depend on no input by their values."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx
from onnx import numpy_helper

from cipherlearn import ops
from cipherlearn.errors import CipherlearnError
from cipherlearn.onnx import _edit
from cipherlearn.onnx.graph import Array, node_attributes
from cipherlearn.onnx.support import attribute_problem
from cipherlearn.onnx.version import get_onnx_opset_version
from cipherlearn.ops import qonnx, qualified_name

RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)


def fold_constants(model: onnx.ModelProto, kept: Collection[str] = ()) -> bool:
    """Turn nodes whose operands are all constants into initializers (in place).

    Any deterministic operator of the standard domain is evaluated, whether it is supported on
    encrypted values or not: exporters compute shapes and masks with all of them. Constants that are
    quantized to a grid stay behind it.

    Parameters
    ----------
    model : ModelProto
        Model whose initializers are not inputs.
    kept : collection of str, default=()
        Operators that stay as well.

    Returns
    -------
    bool
        Whether anything was folded.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    left = []
    stay = qonnx.GRID_OPERATORS.union(kept)
    for node in graph.node:
        name = qualified_name(node.domain, node.op_type)
        values = None if name in stay else _evaluate(model, node, constants)
        if values is None:
            left.append(node)
            continue
        for name, value in values.items():
            tensor = numpy_helper.from_array(value, name)
            constants[name] = tensor
            graph.initializer.append(tensor)
    folded = len(left) < len(graph.node)
    if folded:
        _edit.keep_nodes(graph, left)
    return folded


def _evaluate(
    model: onnx.ModelProto, node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]
) -> dict[str, Array] | None:
    """Compute the outputs of a node by name; ``None`` where it is not a constant."""
    if any(name and name not in constants for name in node.input):
        return None
    name = qualified_name(node.domain, node.op_type)
    if name in RANDOM or any(True for _ in _edit.inner_graphs(node)):
        return None
    registered = name in ops.ONNX_OPS_TO_NUMPY_IMPL
    if not registered and node.domain:
        return None
    if registered and attribute_problem(node, model) is not None:
        return None
    inputs = [numpy_helper.to_array(constants[i]) if i else None for i in node.input]
    opset = get_onnx_opset_version(model)
    try:
        attributes = node_attributes(node)
        if registered:
            values = ops.get(name).numpy(*inputs, opset=opset, **attributes)
        else:
            values = ops.evaluate(name, inputs, attributes, opset=opset, n_outputs=len(node.output))
    except (CipherlearnError, MemoryError):
        # Whoever evaluates the node later says what is wrong with it.
        return None
    named = {key: value for key, value in zip(node.output, values, strict=False) if key}
    return named if all(value.dtype.kind not in "OSU" for value in named.values()) else None
