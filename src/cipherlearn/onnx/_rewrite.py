"""Local rewritings of nodes that keep the meaning of a graph. All change their argument."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from cipherlearn.onnx import _edit
from cipherlearn.onnx._fold import RANDOM
from cipherlearn.onnx.graph import tensor_types
from cipherlearn.ops import qualified_name

# The same operands give the same results every time, except for these.
_NOT_REPEATABLE: Final = RANDOM | {"Dropout"}


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
        if _is_identity(graph, node) and _edit.merge(graph, node.input[0], node.output[0]):
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
    value = _edit.constants(graph, [training]).get(training)
    return not training or (value is not None and not np.any(value))


def simplify_casts(model: onnx.ModelProto) -> bool:
    """Replace CastLike by Cast where the type to imitate is known, and Cast to the same type.

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
    nodes = [n for n in graph.node if n.op_type in ("Cast", "CastLike") and not n.domain]
    if not nodes:
        return False
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types.update((name, kind.elem_type) for name, kind in tensor_types(model).items())
    changed = False
    for node in nodes:
        # The values of what CastLike imitates never count.
        target = types.get(node.input[-1], 0) if node.op_type == "CastLike" else _target(node)
        if target == onnx.TensorProto.UNDEFINED:
            continue
        if types.get(node.input[0]) == target:
            node.op_type = "Identity"
            del node.attribute[:]
        elif node.op_type == "CastLike":
            node.op_type = "Cast"
            _edit.set_attribute(node, "to", target)
        else:
            continue
        del node.input[1:]
        changed = True
    return changed


def _target(node: onnx.NodeProto) -> int:
    return next(item.i for item in node.attribute if item.name == "to")


def merge_duplicates(model: onnx.ModelProto) -> bool:
    """Compute once what several nodes compute alike, and keep one of several equal constants.

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
    changed = _merge_constants(graph)
    known: dict[bytes, onnx.NodeProto] = {}
    for node in list(graph.node):
        op = qualified_name(node.domain, node.op_type)
        if op in _NOT_REPEATABLE or any(True for _ in _edit.inner_graphs(node)):
            continue
        twin = known.setdefault(_fingerprint(node), node)
        if twin is not node and _merge_nodes(graph, twin, node):
            changed = True
    return changed


def _fingerprint(node: onnx.NodeProto) -> bytes:
    """What makes a node compute what it computes: all of it but its names."""
    plain = onnx.NodeProto()
    plain.CopyFrom(node)
    plain.ClearField("name")
    plain.ClearField("doc_string")
    plain.ClearField("metadata_props")
    del plain.attribute[:], plain.output[:]
    plain.attribute.extend(sorted(node.attribute, key=lambda item: item.name))
    # An output that nobody asked for must not stand for one that somebody reads.
    plain.output.extend("asked" if name else "" for name in node.output)
    return plain.SerializeToString(deterministic=True)


def _merge_nodes(graph: onnx.GraphProto, twin: onnx.NodeProto, node: onnx.NodeProto) -> bool:
    pairs = [(a, b) for a, b in zip(twin.output, node.output, strict=True) if a]
    outputs = {output.name for output in graph.output}
    if any(a in outputs and b in outputs for a, b in pairs):
        return False
    # It goes first: afterwards its twin may look exactly like it.
    graph.node.remove(node)
    for a, b in pairs:
        _edit.merge(graph, a, b)
    return True


def _merge_constants(graph: onnx.GraphProto) -> bool:
    """Keep one of equal shapes, axes and factors, which exporters write again at every use."""
    outputs = {output.name for output in graph.output}
    known: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    changed = False
    for tensor in list(graph.initializer):
        # Parameters of layers keep the names that they have in the framework.
        integers = tensor.data_type == onnx.TensorProto.INT64 and len(tensor.dims) <= 1
        number = tensor.data_type != onnx.TensorProto.STRING and math.prod(tensor.dims) == 1
        if tensor.name in outputs or not (integers or number):
            continue
        content = numpy_helper.to_array(tensor).tobytes()
        first = known.setdefault((tensor.data_type, tuple(tensor.dims), content), tensor.name)
        if first != tensor.name:
            _edit.rename_reads(graph, tensor.name, first)
            graph.initializer.remove(tensor)
            changed = True
    return changed
