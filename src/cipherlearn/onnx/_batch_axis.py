"""Keeping the batch on the first axis, in graphs that put it elsewhere.

Exported attention brings the sequence to the front, and trees written as products of matrices lay
the rows out as columns. Where that happens, a graph for one row says what is done to each row: its
tensors get the batch as a first axis of their own, and its operators leave that axis alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cipherlearn import ops
from cipherlearn.errors import CipherlearnError, UnsupportedAttributeError
from cipherlearn.onnx import _edit
from cipherlearn.onnx.graph import Array, Graph, Node
from cipherlearn.onnx.interpreter import intermediate_values, run_node
from cipherlearn.onnx.version import get_onnx_opset_version
from cipherlearn.ops import Kind

Shape = tuple[int, ...]
# Name of a tensor of the new graph, and its shape without the batch.
Form = tuple[str, Shape]

# They put the elements of one tensor into another shape, in the same order.
_RESHAPING: Final = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_ALONG_AN_AXIS: Final = frozenset(
    {
        *("ArgMax", "ArgMin", "Gather", "Hardmax", "LayerNormalization", "LogSoftmax"),
        *("LpNormalization", "RMSNormalization", "Softmax", "Split"),
    }
)


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
        raise UnsupportedAttributeError(
            f"Node {node} gives a tensor whose first axis is not that of the rows of the batch."
            " Accepted: graphs in which the batch stays on the first axis of every tensor, or in"
            " which it is only moved by transposing, reshaping, element-wise operators, sums and"
            " products of matrices. Let the model keep it there, for instance with"
            " batch_first=True in torch, and transpose the other axes only."
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
    rewriting = _Rewriting(result, values)
    decoded = Graph.from_model(free).nodes
    if not all(rewriting.add(*pair) for pair in zip(free.graph.node, decoded, strict=True)):
        return None
    if not all(rewriting.give(output.name) for output in free.graph.output):
        return None
    _edit.keep_nodes(result.graph, rewriting.nodes)
    _edit.remove_dead(result.graph)
    return result


class _Rewriting:
    """One pass over a graph.

    A tensor of the graph for one row is held as ``(batch, *tail)``, with any tail that has the same
    elements in the same order: whoever reads it asks for the tail that it needs.

    Parameters
    ----------
    model : ModelProto
        Model that gets the new constants.
    values : list of dict of str to ndarray
        Every tensor of the graph, for some rows.
    """

    def __init__(self, model: onnx.ModelProto, values: list[dict[str, Array]]) -> None:
        self.graph = model.graph
        self.opset = get_onnx_opset_version(model)
        self.nodes: list[onnx.NodeProto] = []
        self.values = values
        self.constants = _edit.constants(self.graph, (t.name for t in self.graph.initializer))
        self.held: dict[str, Form] = {}
        for value in self.graph.input:
            self.held[value.name] = (value.name, self.shape(value.name)[1:])
        self.reshaped: dict[Form, str] = {}
        self.taken = _edit.names(self.graph)
        self.bases: dict[str, str] = {}

    def shape(self, name: str) -> Shape:
        """Shape of a tensor for one row."""
        return self.values[0][name].shape

    def add(self, proto: onnx.NodeProto, node: Node) -> bool:
        """Write a node for rows on the first axis; tell whether that was possible."""
        if self._is_better_moved(node) or not self._treats_rows_alike(node):
            rule = _rule(node)
            return rule is not None and rule(self, proto, node)
        inputs = [
            self.fit(self.held[name], self.shape(name)[1:]) if name in self.held else name
            for name in node.inputs
        ]
        self.copy(proto, inputs, node.outputs)
        for name in filter(None, node.outputs):
            self.held[name] = (name, self.shape(name)[1:])
        return True

    def give(self, name: str) -> bool:
        """Compute an output of the graph; tell whether it has one place for each row."""
        held, tail = self.held[name]
        if self.shape(name)[:1] != (1,):
            return False
        if tail != self.shape(name)[1:]:
            target = self.constant(np.array([-1, *self.shape(name)[1:]]))
            self.nodes.append(helper.make_node("Reshape", [held, target], [name]))
        elif held != name:
            self.nodes.append(helper.make_node("Identity", [held], [name]))
        return True

    def _is_better_moved(self, node: Node) -> bool:
        """Tell whether a node is simpler without the shapes that it has for one row."""
        if node.op in _RESHAPING:
            return True
        if node.op == "MatMul":
            # The weights go to the right, as everywhere.
            return node.inputs[0] in self.constants
        return ops.get(node.op).kind is Kind.ELEMENTWISE and any(
            self.held[name][1] != self.shape(name)[1:] for name in node.inputs if name in self.held
        )

    def _treats_rows_alike(self, node: Node) -> bool:
        """Tell whether a node does the same at each place of a first axis that holds the rows."""
        named = [name for name in (*node.inputs, *node.outputs) if name]
        varying = [name for name in named if name not in self.constants]
        if any(self.shape(name)[:1] != (1,) for name in varying):
            return False
        if any(v[name].shape != self.shape(name) for v in self.values for name in varying):
            return False  # its extents depend on the values themselves
        operands = [self._all_rows(name) if name else None for name in node.inputs]
        try:
            outputs = run_node(node, operands, opset=self.opset)
        except CipherlearnError:
            return False
        pairs = [
            (self._all_rows(name), found)
            for name, found in zip(node.outputs, outputs, strict=False)
            if name
        ]
        return all(a.shape == b.shape and np.allclose(a, b, equal_nan=True) for a, b in pairs)

    def _all_rows(self, name: str) -> Array:
        if name in self.constants:
            return self.constants[name]
        return np.concatenate([values[name] for values in self.values])

    def constant(self, value: Array) -> str:
        """Add a constant; return its name."""
        name = self._fresh("constant")
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _fresh(self, base: str) -> str:
        base = self.bases.get(base, base)
        number = 1
        while f"{base}_{number}" in self.taken:
            number += 1
        name = f"{base}_{number}"
        self.taken.add(name)
        self.bases[name] = base
        return name

    def fit(self, form: Form, tail: Shape) -> str:
        """Name of a tensor with another tail of the same elements."""
        held, known = form
        if known == tail:
            return held
        if (held, tail) not in self.reshaped:
            target = self.constant(np.array([-1, *tail]))
            self.reshaped[held, tail] = self.emit("Reshape", [held, target], held)
        return self.reshaped[held, tail]

    def emit(self, op_type: str, inputs: Sequence[str], base: str, **attributes: Any) -> str:
        """Add a node with one output; return the name of that."""
        output = self._fresh(base)
        self.nodes.append(helper.make_node(op_type, inputs, [output], output, **attributes))
        return output

    def copy(
        self,
        proto: onnx.NodeProto,
        inputs: Sequence[str],
        outputs: Sequence[str],
        **attributes: Any,
    ) -> None:
        """Add a node like a given one, with other operands and some other attributes."""
        copy = onnx.NodeProto()
        copy.CopyFrom(proto)
        del copy.input[:], copy.output[:]
        copy.input.extend(inputs)
        copy.output.extend(outputs)
        for name, value in attributes.items():
            _edit.set_attribute(copy, name, value)
        self.nodes.append(copy)

    def hold(self, proto: onnx.NodeProto, inputs: Sequence[str], **attributes: Any) -> bool:
        """Add a node like a given one whose results have the shapes for one row as their tails."""
        outputs = [name and self._fresh(name) for name in proto.output]
        self.copy(proto, inputs, outputs, **attributes)
        for name, held in zip(proto.output, outputs, strict=True):
            if name:
                self.held[name] = (held, self.shape(name))
        return True

    def whole(self, name: str) -> str:
        """Name of a tensor whose tail is its shape for one row."""
        return self.fit(self.held[name], self.shape(name))

    def transposed(self, form: Form, shape: Shape, perm: Sequence[int]) -> Form:
        """Put the axes of a tensor of some shape into another order."""
        # Axes of one element can be anywhere.
        axes = [axis for axis in range(len(shape)) if shape[axis] != 1]
        order = [axes.index(axis) for axis in perm if axis in axes]
        if order == sorted(order):
            return form
        source = self.fit(form, tuple(shape[axis] for axis in axes))
        held = self.emit("Transpose", [source], source, perm=[0, *(i + 1 for i in order)])
        return held, tuple(shape[axes[i]] for i in order)


Rule = Callable[[_Rewriting, onnx.NodeProto, Node], bool]


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
    return _elementwise if ops.get(node.op).kind is Kind.ELEMENTWISE else None


def _same_elements(new: _Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
    del proto
    new.held[node.outputs[0]] = new.held[node.inputs[0]]
    return True


def _transpose(new: _Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
    del proto
    name = node.inputs[0]
    shape = new.shape(name)
    perm = node.attributes.get("perm", range(len(shape))[::-1])
    new.held[node.outputs[0]] = new.transposed(new.held[name], shape, perm)
    return True


def _elementwise(new: _Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
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


def _along_an_axis(new: _Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
    name, *others = node.inputs
    default = ops.get(node.op).signature(new.opset).attributes["axis"].default
    axis = node.attributes.get("axis", default)
    if name in new.constants:
        # Rows of a table, chosen by numbers.
        return axis == 0 and new.hold(proto, [name, *map(new.whole, others)])
    if any(other in new.held for other in others):
        return False
    return new.hold(proto, [new.whole(name), *others], axis=axis % len(new.shape(name)) + 1)


def _concat(new: _Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
    parts = [
        new.whole(name) if name in new.held else new.constant(new.constants[name][np.newaxis])
        for name in node.inputs
    ]
    axis = node.attributes["axis"] % len(new.shape(node.inputs[0])) + 1
    return new.hold(proto, parts, axis=axis)


def _reduction(new: _Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
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


def _slice(new: _Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
    name, starts, ends, axes, steps = (*node.inputs, "", "")[:5]
    if any(other in new.held for other in node.inputs[1:]):
        return False
    along = new.constants[axes] if axes else np.arange(new.constants[starts].size)
    moved = new.constant(along % len(new.shape(name)) + 1)
    return new.hold(proto, [new.whole(name), starts, ends, moved, *filter(None, [steps])])


def _expand(new: _Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
    name, shape = node.inputs[0], new.shape(node.outputs[0])
    tail = (1,) * (len(shape) - len(new.shape(name))) + new.shape(name)
    target = new.constant(np.array([1, *shape]))
    return new.hold(proto, [new.fit(new.held[name], tail), target])


def _matmul(new: _Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
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


def _gemm(new: _Rewriting, proto: onnx.NodeProto, node: Node) -> bool:
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


def _times(new: _Rewriting, form: Form, shape: Shape, weight: Array) -> Form:
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


def _weights_first(new: _Rewriting, weight: Array, form: Form, shape: Shape) -> Form:
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


_RULES: Final[dict[str, Rule]] = {
    "Concat": _concat,
    "Expand": _expand,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Slice": _slice,
    "Transpose": _transpose,
}
