"""Grids that a model declares, whatever it declares them with, as ``Quant`` nodes.

Pairs of ``QuantizeLinear`` and ``DequantizeLinear``, with a ``Clip`` between them or without, and
integers that a ``DequantizeLinear`` reads, become what QONNX has for them
(`cipherlearn.ops.qonnx`). Constants stay behind such a node: it knows their integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cipherlearn import ops
from cipherlearn.onnx import _edit
from cipherlearn.onnx._fold import fold_constants
from cipherlearn.onnx.graph import Array, node_attributes, tensor_shapes
from cipherlearn.onnx.support import attribute_problem
from cipherlearn.ops import qonnx
from cipherlearn.ops.qonnx import IntegerRange

_PAIR: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})

#: Where onnxruntime has the same two operators for integers that older operator sets do not have.
_ONNXRUNTIME: Final = "com.microsoft"

#: Width and sign of integer types that grids are declared with.
_TYPES: Final[dict[int, tuple[int, bool]]] = {
    getattr(TensorProto, name): known
    for name, known in {
        "INT2": (2, True),
        "UINT2": (2, False),
        "INT4": (4, True),
        "UINT4": (4, False),
        "INT8": (8, True),
        "UINT8": (8, False),
        "INT16": (16, True),
        "UINT16": (16, False),
        "INT32": (32, True),
    }.items()
    if hasattr(TensorProto, name)
}


def declare_grids(model: onnx.ModelProto) -> None:
    """Write every declared grid of a model as a ``Quant`` node (in place).

    Parameters
    ----------
    model : ModelProto
        Model without functions, whose initializers are not inputs.
    """
    graph = model.graph
    for node in graph.node:
        if node.domain in qonnx.SAME_DOMAINS:
            node.domain = qonnx.DOMAIN
        elif node.domain == _ONNXRUNTIME and node.op_type in _PAIR:
            node.domain = ""
    if not any(_is_grid(n) or (n.op_type in _PAIR and not n.domain) for n in graph.node):
        return
    _edit.import_domain(model, qonnx.DOMAIN)
    changed = True
    while changed:
        changed = fold_constants(model, _PAIR)
        changed |= _Pairs(model).rewrite() | move_behind(model)
        changed |= _edit.remove_dead(graph)
    _join_biases(model)


def hide_constants(model: onnx.ModelProto) -> list[_Hidden]:
    """Put quantized constants in place of the nodes that quantize them (in place).

    What moves the axis of the batch around takes a node for something that is computed for rows.

    Returns
    -------
    list
        For `show_constants`.
    """
    graph = model.graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    hidden, kept = [], []
    for node in graph.node:
        is_constant = _is_grid(node) and all(name in held for name in node.input)
        if not is_constant or attribute_problem(node, model) is not None:
            kept.append(node)
            continue
        values = [numpy_helper.to_array(held[name]) for name in node.input]
        function = ops.get(ops.qualified_name(node.domain, node.op_type)).numpy
        result = np.asarray(function(*values, **node_attributes(node))[0])
        parts = [_copied(onnx.TensorProto, held[name]) for name in node.input]
        hidden.append(_Hidden(_copied(onnx.NodeProto, node), parts))
        graph.initializer.append(numpy_helper.from_array(result, node.output[0]))
    if hidden:
        _edit.keep_nodes(graph, kept)
    return hidden


def show_constants(model: onnx.ModelProto, hidden: list[_Hidden]) -> None:
    """Bring back the nodes of those constants that `hide_constants` hid and that still exist."""
    graph = model.graph
    found = []
    for one in hidden:
        name = one.node.output[0]
        plain = next((t for t in graph.initializer if t.name == name), None)
        if plain is None:
            continue
        graph.initializer.remove(plain)
        found.append(one.node)
        known = {tensor.name for tensor in graph.initializer}
        graph.initializer.extend(tensor for tensor in one.parts if tensor.name not in known)
    if found:
        _edit.keep_nodes(graph, [*found, *graph.node])


@dataclass(frozen=True)
class _Hidden:
    """A node that quantizes a constant, and the constants that it reads."""

    node: onnx.NodeProto
    parts: list[onnx.TensorProto]


def _copied(kind: Any, proto: Any) -> Any:
    copy = kind()
    copy.CopyFrom(proto)
    return copy


def _is_grid(node: onnx.NodeProto) -> bool:
    return ops.qualified_name(node.domain, node.op_type) in qonnx.GRID_OPERATORS


def move_behind(model: onnx.ModelProto) -> bool:
    """Move constants before they are quantized instead of afterwards (in place).

    Parameters
    ----------
    model : ModelProto

    Returns
    -------
    bool
        Whether there were any.
    """
    graph = model.graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    behind = {
        node.output[0]: node
        for node in graph.node
        if _is_grid(node) and all(name in held for name in node.input)
    }
    changed = False
    for node in list(graph.node):
        source = behind.get(node.input[0]) if node.input else None
        name = ops.qualified_name(node.domain, node.op_type)
        known = name in ops.ONNX_OPS_TO_NUMPY_IMPL and ops.get(name).kind is ops.Kind.MOVEMENT
        if source is None or not known or any(n not in held for n in node.input[1:] if n):
            continue
        _move(model, node, source)
        changed = True
    return changed


def _move(model: onnx.ModelProto, node: onnx.NodeProto, source: onnx.NodeProto) -> None:
    """Turn a movement of a quantized constant into a quantization of the moved constant."""
    graph = model.graph
    held = _edit.constants(graph, [*source.input, *node.input])
    values = held[source.input[0]]
    rest = [held.get(name) for name in node.input[1:]]
    opset = next(e.version for e in model.opset_import if not e.domain)

    def moved(array: Array) -> Array:
        function = ops.get(node.op_type).numpy
        return np.asarray(function(array, *rest, opset=opset, **node_attributes(node))[0])

    names = [_edit.add_constant(graph, source.input[0], moved(values))]
    for name in source.input[1:]:
        array = held[name]
        if array.size == 1:
            names.append(name)
        else:
            laid = _without_repetition(moved(np.broadcast_to(array, values.shape)))
            names.append(_edit.add_constant(graph, name, laid))
    node.op_type, node.domain = source.op_type, source.domain
    del node.input[:], node.attribute[:]
    node.input.extend(names)
    node.attribute.extend(source.attribute)


def _without_repetition(array: Array) -> Array:
    for axis in range(array.ndim):
        first = array.take([0], axis)
        array = first if bool((array == first).all()) else array
    return array


class _Pairs:
    """One pass over the quantizations and dequantizations of a graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        self.held = {tensor.name: tensor for tensor in self.graph.initializer}
        self.producers = {name: node for node in self.graph.node for name in node.output if name}
        self.ranks = {name: len(shape) for name, shape in tensor_shapes(model).items()}
        self.reads = _edit.reads(self.graph)

    def rewrite(self) -> bool:
        """Rewrite what is one; tell whether anything was."""
        changed = False
        for node in list(self.graph.node):
            if node.op_type == "DequantizeLinear" and not node.domain:
                changed |= self._of_constant(node) or self._of_pair(node) or self._of_moved(node)
        return changed

    def _of_constant(self, node: onnx.NodeProto) -> bool:
        """Integers of the model, as real numbers behind the grid that they lie on."""
        tensor = self.held.get(node.input[0])
        known = None if tensor is None else _TYPES.get(tensor.data_type)
        if tensor is None or known is None:
            return False
        integers = numpy_helper.to_array(tensor)
        laid = self._parameters(node, integers.ndim)
        if laid is None:
            return False
        scale, zero = laid
        reals = ((integers.astype(np.float64) - zero) * scale).astype(scale.dtype)
        name = _edit.add_constant(self.graph, node.input[0], reals)
        self._write(node, name, scale, zero, IntegerRange(*known))
        return True

    def _of_pair(self, node: onnx.NodeProto) -> bool:
        """Quantized, maybe clipped, and dequantized on the same grid."""
        middle = self.producers.get(node.input[0])
        bounds = self._bounds(middle)
        first = self.producers.get(middle.input[0]) if bounds and middle is not None else middle
        if first is None or first.op_type != "QuantizeLinear" or first.domain:
            return False
        kind = self._integer_type(first)
        rank = self.ranks.get(first.input[0])
        if kind is None or attribute_problem(first, self.model) is not None:
            return False
        given, taken = self._parameters(first, rank), self._parameters(node, rank)
        if given is None or taken is None or not _is_same(given, taken):
            return False
        scale, zero = given
        known: IntegerRange | None = IntegerRange(*kind)
        if bounds:
            lowest, highest = qonnx.limits_of(*kind)
            lo, hi = max(lowest, bounds[0]), min(highest, bounds[1])
            known = IntegerRange.of(lo, hi)
            if known is None:
                return False
        if known is None:
            return False
        self._write(node, first.input[0], scale, zero + known.shift, known)
        return True

    def _of_moved(self, node: onnx.NodeProto) -> bool:
        """Quantized, moved, and dequantized: reals are moved instead."""
        source = node.input[0]
        while self.reads[source] == 1 and self._is_moved(self.producers.get(source)):
            source = self.producers[source].input[0]
        first = self.producers.get(source)
        if first is None or first.op_type != "QuantizeLinear" or first.domain:
            return False
        kind, given, taken = (
            self._integer_type(first),
            self._parameters(first, None),
            self._parameters(node, None),
        )
        alone = self.reads[source] == 1 and source != node.input[0]
        if kind is None or given is None or taken is None or not alone:
            return False
        if not _is_same(given, taken) or attribute_problem(first, self.model) is not None:
            return False
        self._write(first, first.input[0], *given, IntegerRange(*kind))
        node.op_type = "Identity"
        del node.input[1:], node.attribute[:]
        return True

    def _is_moved(self, node: onnx.NodeProto | None) -> bool:
        """Whether a node puts integers elsewhere, or takes the largest of some."""
        if node is None or node.domain or any(name not in self.held for name in node.input[1:]):
            return False
        known = node.op_type in ops.ONNX_OPS_TO_NUMPY_IMPL
        return known and (
            node.op_type == "MaxPool" or ops.get(node.op_type).kind is ops.Kind.MOVEMENT
        )

    def _bounds(self, node: onnx.NodeProto | None) -> tuple[int, int] | None:
        """The limits of a Clip of integers."""
        if node is None or node.op_type != "Clip" or node.domain:
            return None
        held = _edit.constants(self.graph, node.input[1:])
        if len(node.input) != 3 or any(name not in held for name in node.input[1:]):
            return None
        lo, hi = (int(held[name]) for name in node.input[1:])
        return lo, hi

    def _integer_type(self, node: onnx.NodeProto) -> tuple[int, bool] | None:
        if len(node.input) > 2 and node.input[2]:
            tensor = self.held.get(node.input[2])
            return None if tensor is None else _TYPES.get(tensor.data_type)
        return _TYPES.get(node_attributes(node).get("output_dtype") or TensorProto.UINT8)

    def _parameters(self, node: onnx.NodeProto, rank: int | None) -> tuple[Array, Array] | None:
        """Scale and zero-point of a node, laid along the axis that they belong to."""
        attributes = node_attributes(node)
        held = _edit.constants(self.graph, node.input[1:])
        if node.input[1] not in held or attributes.get("block_size"):
            return None
        scale = held[node.input[1]]
        zero = np.zeros((), np.int64)
        if len(node.input) > 2 and node.input[2]:
            if node.input[2] not in held:
                return None
            zero = held[node.input[2]].astype(np.int64)
        laid = []
        for array in (scale, zero):
            if array.size == 1:
                laid.append(array.reshape(()))
            elif rank is None or array.ndim != 1:
                return None
            else:
                axis = int(attributes.get("axis", 1)) % rank
                laid.append(array.reshape([-1 if i == axis else 1 for i in range(rank)]))
        return laid[0], laid[1]

    def _write(
        self, node: onnx.NodeProto, source: str, scale: Array, zero: Array, known: IntegerRange
    ) -> None:
        dtype = scale.dtype
        names = [source]
        values = {"scale": scale, "zero_point": zero, "bit_width": np.asarray(known.n_bits)}
        for name, value in values.items():
            constant = np.asarray(value, dtype)
            names.append(_edit.add_constant(self.graph, f"{node.output[0]}_{name}", constant))
        node.domain, node.op_type = qonnx.DOMAIN, "Quant"
        del node.input[:], node.attribute[:]
        node.input.extend(names)
        node.attribute.extend(
            helper.make_attribute(name, value) for name, value in known.attributes.items()
        )


def _is_same(left: tuple[Array, Array], right: tuple[Array, Array]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def _join_biases(model: onnx.ModelProto) -> None:
    """Let a product with quantized weights add the constant itself that is added to it."""
    graph = model.graph
    reads, ranks = _edit.reads(graph), {n: len(s) for n, s in tensor_shapes(model).items()}
    producers = {name: node for node in graph.node for name in node.output if name}
    held = {tensor.name: tensor for tensor in graph.initializer}

    def is_constant(name: str) -> bool:
        source = producers.get(name)
        grid = source is not None and _is_grid(source)
        return name in held or (grid and source is not None and source.input[0] in held)

    for node in list(graph.node):
        if node.op_type != "Add" or node.domain:
            continue
        product = next((producers[n] for n in node.input if n in producers), None)
        if product is None or product.op_type != "MatMul" or product.domain:
            continue
        bias = node.input[1] if node.input[0] == product.output[0] else node.input[0]
        fits = ranks.get(product.input[0]) == 2 and is_constant(product.input[1])
        if fits and is_constant(bias) and reads[product.output[0]] == 1:
            product.op_type = "Gemm"
            product.input.append(bias)
            product.output[0] = node.output[0]
            graph.node.remove(node)
