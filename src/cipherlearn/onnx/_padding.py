"""Folding zeros that a Pad node adds into the window operators that read them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx

from cipherlearn.onnx import _edit
from cipherlearn.onnx.graph import node_attributes

# Their results are never below zero, so that zeros beside them never are a maximum of their own.
_NEVER_NEGATIVE: Final = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softplus", "Abs", "Softmax"})


def fold_padding(model: onnx.ModelProto) -> bool:
    """Fold Pad nodes that add zeros into the Conv, AveragePool or MaxPool that reads them.

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
    readers = {name: node for node in graph.node for name in node.input if name}
    counted = _edit.reads(graph)
    changed = False
    for pad in [node for node in graph.node if node.op_type == "Pad" and not node.domain]:
        reader = readers.get(pad.output[0])
        if reader is None or counted[pad.output[0]] != 1:
            continue
        if _transpose_first(graph, pad, reader):
            changed = True
            continue
        pads = _zeros(graph, pad)
        if pads is not None and _add_pads(graph, pad, reader, pads):
            reader.input[0] = pad.input[0]
            graph.node.remove(pad)
            changed = True
    return changed


def _transpose_first(graph: onnx.GraphProto, pad: onnx.NodeProto, reader: onnx.NodeProto) -> bool:
    """Let a Pad that a Transpose reads follow it instead; tell whether that was possible.

    Frameworks with the channels last pad before they bring the channels to the front.
    """
    perm = node_attributes(reader).get("perm")
    constants = _edit.constants(graph, pad.input)
    named_axes = len(pad.input) > 3 and pad.input[3]
    if reader.op_type != "Transpose" or reader.domain or perm is None or named_axes:
        return False
    if pad.input[1] not in constants:
        return False
    amounts = constants[pad.input[1]].reshape(2, -1)[:, list(perm)].reshape(-1)
    moved, padded = onnx.NodeProto(), onnx.NodeProto()
    moved.CopyFrom(reader)
    padded.CopyFrom(pad)
    moved.input[0], moved.output[0] = pad.input[0], pad.output[0]
    padded.input[0], padded.output[0] = pad.output[0], reader.output[0]
    padded.input[1] = _edit.add_constant(graph, pad.input[1], amounts)
    pad.CopyFrom(moved)
    reader.CopyFrom(padded)
    return True


def _zeros(graph: onnx.GraphProto, pad: onnx.NodeProto) -> list[tuple[int, int]] | None:
    """How many zeros a Pad adds before and after each axis from the third on.

    ``None`` where it does anything else: other numbers, other axes, or taking away.
    """
    operands = [*pad.input, "", "", ""][:4]
    constants = _edit.constants(graph, operands)
    if any(name and name not in constants for name in operands[1:]):
        return None
    if node_attributes(pad).get("mode", "constant") != "constant":
        return None
    if operands[2] and np.any(constants[operands[2]]):
        return None
    amounts = constants[operands[1]].reshape(2, -1)
    rank = amounts.shape[1]
    axes = list(range(rank))
    if operands[3]:
        # Negative axes count from the end, and the rank is not known here.
        axes = constants[operands[3]].tolist()
        if min(axes, default=0) < 0:
            return None
        rank = max((2, *(axis + 1 for axis in axes)))
    found = dict(zip(axes, amounts.T.tolist(), strict=True))
    pairs = [(int(a), int(b)) for a, b in (found.get(axis, (0, 0)) for axis in range(rank))]
    if any(map(any, pairs[:2])) or any(min(pair) < 0 for pair in pairs):
        return None
    return pairs[2:]


def _add_pads(
    graph: onnx.GraphProto, pad: onnx.NodeProto, reader: onnx.NodeProto, pads: list[tuple[int, int]]
) -> bool:
    """Let a window operator add the zeros itself; tell whether it can."""
    attributes = node_attributes(reader)
    spatial = _window_axes(graph, reader, attributes)
    if reader.domain or reader.input[0] != pad.output[0] or spatial is None or len(pads) > spatial:
        return False
    if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return False
    own = attributes.get("pads", (0,) * 2 * spatial)
    pads = [*pads, *[(0, 0)] * (spatial - len(pads))]
    total = [own[axis] + pads[axis][0] for axis in range(spatial)]
    total += [own[spatial + axis] + pads[axis][1] for axis in range(spatial)]
    if reader.op_type != "Conv" and not _pools_alike(graph, pad, reader, total):
        return False
    _edit.set_attribute(reader, "auto_pad")
    _edit.set_attribute(reader, "pads", total)
    if reader.op_type == "AveragePool":
        _edit.set_attribute(reader, "count_include_pad", 1)
    return True


def _window_axes(
    graph: onnx.GraphProto, reader: onnx.NodeProto, attributes: dict[str, Any]
) -> int | None:
    if reader.op_type in ("AveragePool", "MaxPool"):
        return len(attributes["kernel_shape"])
    if reader.op_type != "Conv":
        return None
    kernel = attributes.get("kernel_shape")
    weight = _edit.constants(graph, [reader.input[1]]).get(reader.input[1])
    if weight is not None:
        return weight.ndim - 2
    return None if kernel is None else len(kernel)


def _pools_alike(
    graph: onnx.GraphProto, pad: onnx.NodeProto, reader: onnx.NodeProto, total: list[int]
) -> bool:
    """Tell whether a pool treats its own padding as it would treat zeros."""
    attributes = node_attributes(reader)
    kernel = attributes["kernel_shape"]
    # Every window must meet an element, and none may reach beyond the padding.
    small = all(amount < size for amount, size in zip(total, (*kernel, *kernel), strict=True))
    if (
        attributes.get("ceil_mode")
        or not small
        or any(d != 1 for d in attributes.get("dilations", ()))
    ):
        return False
    if reader.op_type == "AveragePool":
        return bool(attributes.get("count_include_pad")) or not any(attributes.get("pads", ()))
    return not any(reader.output[1:]) and _is_never_negative(graph, pad.input[0])


def _is_never_negative(graph: onnx.GraphProto, name: str) -> bool:
    producers = {output: node for node in graph.node for output in node.output}
    producer = producers.get(name)
    while producer is not None and producer.op_type == "Transpose":
        producer = producers.get(producer.input[0])
    return producer is not None and producer.op_type in _NEVER_NEGATIVE
