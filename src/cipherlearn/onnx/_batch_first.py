"""The graph in which every tensor has the batch on its first axis, while it is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cipherlearn.errors import CipherlearnError
from cipherlearn.onnx import _edit
from cipherlearn.onnx.graph import Array, Node
from cipherlearn.onnx.interpreter import run_node
from cipherlearn.onnx.version import get_onnx_opset_version

Shape = tuple[int, ...]
# Name of a tensor of the new graph, and its shape without the batch.
Form = tuple[str, Shape]


class Rewriting:
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

    def treats_rows_alike(self, node: Node) -> bool:
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
