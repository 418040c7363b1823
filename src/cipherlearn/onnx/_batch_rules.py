"""How operators are written where every tensor has the batch on its first axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import onnx

from cipherlearn import ops
from cipherlearn.onnx._batch_first import Form, Rewriting, Shape
from cipherlearn.onnx.graph import Array, Node
from cipherlearn.onnx.interpreter import run_node
from cipherlearn.ops import Kind

Rule = Callable[[Rewriting, onnx.NodeProto, Node], bool]

# They put the elements of one tensor into another shape, in the same order.
_RESHAPING: Final = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_ALONG_AN_AXIS: Final = frozenset(
    {
        *("ArgMax", "ArgMin", "Gather", "Hardmax", "LayerNormalization", "LogSoftmax"),
        *("LpNormalization", "RMSNormalization", "Softmax", "Split"),
    }
)


def write(new: Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
    """Write a node for rows on the first axis; tell whether that was possible.

    Parameters
    ----------
    new : Rewriting
        Graph that gets the nodes.
    proto : NodeProto
        Node to write.
    node : Node
        The same node, decoded.

    Returns
    -------
    bool
    """
    if _is_better_moved(new, node) or not new.treats_rows_alike(node):
        rule = _rule(node)
        return rule is not None and rule(new, proto, node)
    inputs = [
        new.fit(new.held[name], new.shape(name)[1:]) if name in new.held else name
        for name in node.inputs
    ]
    new.copy(proto, inputs, node.outputs)
    for name in filter(None, node.outputs):
        new.held[name] = (name, new.shape(name)[1:])
    return True


def _is_better_moved(new: Rewriting, node: Node) -> bool:
    """Tell whether a node is simpler without the shapes that it has for one row."""
    if node.op in _RESHAPING:
        return True
    if node.op == "MatMul":
        # The weights go to the right, as everywhere.
        return node.inputs[0] in new.constants
    return ops.get(node.op).kind is Kind.ELEMENTWISE and any(
        new.held[name][1] != new.shape(name)[1:] for name in node.inputs if name in new.held
    )


def _rule(node: Node) -> Rule | None:
    """How a node is written for tensors with the batch as an axis of its own."""
    if node.op in _RULES:
        return _RULES[node.op]
    if node.op in _RESHAPING:
        return _same_elements
    if node.op in _ALONG_AN_AXIS:
        return _along_an_axis
    if node.op.startswith("Reduce"):
        return _reduction
    return _OF_KIND.get(ops.get(node.op).kind)


def _same_elements(new: Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
    del proto
    new.held[node.outputs[0]] = new.held[node.inputs[0]]
    return True


def _transpose(new: Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
    del proto
    name = node.inputs[0]
    shape = new.shape(name)
    perm = node.attributes.get("perm", range(len(shape))[::-1])
    new.held[node.outputs[0]] = new.transposed(new.held[name], shape, perm)
    return True


def _elementwise(new: Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
    (output,) = node.outputs
    given = [name for name in node.inputs if name]
    encrypted = [name for name in given if name in new.held]
    rank = len(new.shape(output))
    padded = {name: (1,) * (rank - len(new.shape(name))) + new.shape(name) for name in given}
    axes = [axis for axis in range(rank) if new.shape(output)[axis] != 1]
    tails = {name: tuple(shape[axis] for axis in axes) for name, shape in padded.items()}
    tail = tuple(new.shape(output)[axis] for axis in axes)
    if len(encrypted) == 1 and all(new.values[0][n].size == 1 for n in given if n not in new.held):
        tail = tails[encrypted[0]] = new.held[encrypted[0]][1]
    operands = []
    for name in node.inputs:
        if name in new.held:
            operands.append(new.fit(new.held[name], tails[name]))
        elif name and new.values[0][name].ndim:
            value = new.constants[name]
            operands.append(new.constant(value.reshape(1 if value.size == 1 else tails[name])))
        else:
            operands.append(name)
    new.hold(proto, operands)
    new.held[output] = (new.held[output][0], tail)
    return True


def _elements(new: Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
    """Movement of any kind: what it does to the numbers of elements says where each one goes."""
    del proto
    name, *others = node.inputs
    if any(other in new.held for other in others) or len(node.outputs) > 1:
        return False
    size = math.prod(new.shape(name))
    operands = [new.constants[other] if other else None for other in others]
    numbers = np.arange(size).reshape(new.shape(name))
    index = run_node(node, [numbers, *operands], opset=new.opset)[0].squeeze()
    source = new.fit(new.held[name], (size,))
    held = new.emit("Gather", [source, new.constant(index)], source, axis=1)
    new.held[node.outputs[0]] = (held, index.shape)
    return True


def _along_an_axis(new: Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
    name, *others = node.inputs
    default = ops.get(node.op).signature(new.opset).attributes["axis"].default
    axis = node.attributes.get("axis", default)
    if name in new.constants:
        # Rows of a table, chosen by numbers.
        return axis == 0 and new.hold(proto, [name, *map(new.whole, others)])
    if any(other in new.held for other in others):
        return False
    return new.hold(proto, [new.whole(name), *others], axis=axis % len(new.shape(name)) + 1)


def _concat(new: Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
    parts = [
        new.whole(name) if name in new.held else new.constant(new.constants[name][np.newaxis])
        for name in node.inputs
    ]
    axis = node.attributes["axis"] % len(new.shape(node.inputs[0])) + 1
    return new.hold(proto, parts, axis=axis)


def _reduction(new: Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
    name = node.inputs[0]
    rank = len(new.shape(name))
    operand = node.inputs[1] if len(node.inputs) > 1 else ""
    if operand in new.held:
        return False
    given = new.constants[operand].tolist() if operand else node.attributes.get("axes", ())
    if not given and node.attributes.get("noop_with_empty_axes"):
        return _same_elements(new, proto, node)
    axes = [int(axis) % rank + 1 for axis in given or range(rank)]
    if "axes" in ops.get(node.op).signature(new.opset).attributes:
        return new.hold(proto, [new.whole(name)], axes=axes)
    return new.hold(proto, [new.whole(name), new.constant(np.array(axes))])


def _slice(new: Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
    name, starts, ends, axes, steps = (*node.inputs, "", "")[:5]
    if any(other in new.held for other in node.inputs[1:]):
        return False
    along = new.constants[axes] if axes else np.arange(new.constants[starts].size)
    moved = new.constant(along % len(new.shape(name)) + 1)
    return new.hold(proto, [new.whole(name), starts, ends, moved, *filter(None, [steps])])


def _expand(new: Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
    name, shape = node.inputs[0], new.shape(node.outputs[0])
    tail = (1,) * (len(shape) - len(new.shape(name))) + new.shape(name)
    target = new.constant(np.array([1, *shape]))
    return new.hold(proto, [new.fit(new.held[name], tail), target])


def _matmul(new: Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
    left, right = node.inputs
    if right in new.constants:
        weight = new.constants[right]
        weight = weight[:, np.newaxis] if weight.ndim == 1 else weight
        form = _times(new, new.held[left], new.shape(left), weight)
    elif left in new.constants:
        form = _weights_first(new, new.constants[left], new.held[right], new.shape(right))
    else:
        rank = len(new.shape(node.outputs[0]))
        shapes = [(1,) * (rank - len(new.shape(n))) + new.shape(n) for n in node.inputs]
        if min(len(new.shape(name)) for name in node.inputs) < 2:
            return False
        forms = zip(node.inputs, shapes, strict=True)
        return new.hold(proto, [new.fit(new.held[name], shape) for name, shape in forms])
    new.held[node.outputs[0]] = form
    return True


def _gemm(new: Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
    del proto
    left, right, bias = (*node.inputs, "")[:3]
    if bias in new.held or (left in new.held and right in new.held):
        return False
    swapped = [node.attributes.get(name, 0) for name in ("transA", "transB")]
    forms: list[Any] = []
    for name, swap in zip((left, right), swapped, strict=True):
        if name in new.constants:
            forms.append(new.constants[name].T if swap else new.constants[name])
        elif swap:
            forms.append(new.transposed(new.held[name], new.shape(name), (1, 0)))
        else:
            forms.append(new.held[name])
    alpha = node.attributes.get("alpha", 1.0)
    output = node.outputs[0]
    rows, columns = new.shape(output)
    inner = new.shape(left)[0 if swapped[0] else 1]
    if left in new.held:
        form = _times(new, forms[0], (rows, inner), _scaled(forms[1], alpha))
    else:
        form = _weights_first(new, _scaled(forms[0], alpha), forms[1], (inner, columns))
    if bias:
        value = _scaled(new.constants[bias], node.attributes.get("beta", 1.0))
        value = np.broadcast_to(value, (rows, columns)).reshape(form[1])
        form = (new.emit("Add", [form[0], new.constant(value)], output), form[1])
    new.held[output] = form
    return True


def _scaled(value: Array, factor: float) -> Array:
    return (value * factor).astype(value.dtype)


def _times(new: Rewriting, form: Form, shape: Shape, weight: Array) -> Form:
    """A tensor of some shape, times a constant matrix, or one for each place of outer axes."""
    if math.prod(weight.shape[:-2]) == 1:
        weight = weight.reshape(weight.shape[-2:])
        tail = (*(size for size in shape[:-1] if size != 1), shape[-1])
        outer = tail[:-1]
    else:
        tail = (1,) * (weight.ndim - len(shape)) + shape
        outer = (*np.broadcast_shapes(tail[:-2], weight.shape[:-2]), tail[-2])
    source = new.fit(form, tail)
    return new.emit("MatMul", [source, new.constant(weight)], source), (*outer, weight.shape[-1])


def _weights_first(new: Rewriting, weight: Array, form: Form, shape: Shape) -> Form:
    """Constant matrices times a tensor of some shape, with the weights brought to the right."""
    weight = weight[np.newaxis] if weight.ndim == 1 else weight
    shape = (*shape, 1) if len(shape) == 1 else shape
    swapped = _last_swapped(len(shape))
    turned = tuple(shape[axis] for axis in swapped)
    product = _times(new, new.transposed(form, shape, swapped), turned, np.swapaxes(weight, -1, -2))
    outer = np.broadcast_shapes(shape[:-2], weight.shape[:-2])
    result = (*outer, shape[-1], weight.shape[-2])
    return new.transposed(product, result, _last_swapped(len(result)))


def _last_swapped(rank: int) -> list[int]:
    return [*range(rank - 2), rank - 1, rank - 2]


_OF_KIND: Final[dict[Kind, Rule]] = {Kind.ELEMENTWISE: _elementwise, Kind.MOVEMENT: _elements}
_RULES: Final[dict[str, Rule]] = {
    "Concat": _concat,
    "Expand": _expand,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Slice": _slice,
    "Transpose": _transpose,
}
