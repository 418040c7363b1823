"""A circuit as an ONNX graph: for Netron, and for whoever runs integers elsewhere."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper

from cipherlearn.circuit import Circuit, ir
from cipherlearn.errors import CircuitError

#: Operator set, and version of the format, that the runtimes of the last years know.
_OPSET, _IR_VERSION = 17, 8


def from_circuit(circuit: Circuit, name: str = "circuit") -> ModelProto:
    """The integer program, for one sample.

    Parameters
    ----------
    circuit : Circuit
    name : str, default="circuit"
        Of the graph.

    Returns
    -------
    ModelProto
        Takes and gives int64, in the shapes and under the names of the circuit. A look-up is a
        ``Gather`` from its table. Nodes are named after the layers that they come from.
    """
    writer = _Writer()
    names: list[str] = []
    for position, node in enumerate(circuit.nodes):
        primitive = node.primitive
        if isinstance(primitive, ir.Input):
            names.append(primitive.label)
            continue
        writer.scope = f"{node.label or primitive.name}/{position}"
        operands = [(names[index], circuit.nodes[index].shape) for index in node.inputs]
        writer.shape = node.shape
        names.append(_written(primitive, writer, *operands))
    for output, index in zip(circuit.output_names, circuit.outputs, strict=True):
        writer.node("Identity", names[index], output=output)
    nodes = circuit.output_nodes
    graph = helper.make_graph(
        writer.nodes,
        name,
        [_info(known.label, known.shape) for known in circuit.inputs],
        [_info(n, node.shape) for n, node in zip(circuit.output_names, nodes, strict=True)],
        writer.constants,
    )
    opset = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION)
    checker.check_model(model)
    return model


def _info(name: str, shape: tuple[int, ...]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.INT64, shape)


class _Writer:
    """Nodes and constants, in the order in which they are written.

    Attributes
    ----------
    scope : str
        What new nodes are named after.
    shape : tuple of int
        Of the result of the primitive that is written.
    """

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.scope = ""
        self.shape: tuple[int, ...] = ()

    def constant(self, values: object) -> str:
        """The name of integers that are known."""
        name = f"%constant{len(self.constants)}"
        array = np.array(values, dtype=np.int64, order="C")
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """The name of what a new node gives."""
        output = output or f"%{len(self.nodes)}"
        name = f"{self.scope}/{operator}" + output
        self.nodes.append(helper.make_node(operator, inputs, [output], name, **attributes))
        return output


#: The name of a value, and its shape.
_Operand = tuple[str, tuple[int, ...]]


@singledispatch
def _written(primitive: ir.Primitive, writer: _Writer, *operands: _Operand) -> str:
    """The name of what the nodes of a primitive give."""
    raise CircuitError(
        f"the primitive {primitive.name} of {len(operands)} operands ({writer.scope}) cannot be "
        "written as ONNX"
    )


@_written.register
def _(primitive: ir.Constant, writer: _Writer) -> str:
    return writer.constant(primitive.values)


def _of_two(primitive: type[ir.Primitive], operator: str) -> None:
    @_written.register(primitive)
    def _(_: ir.Primitive, writer: _Writer, *operands: _Operand) -> str:
        return writer.node(operator, *(name for name, _ in operands))


for _primitive, _operator in (
    (ir.Add, "Add"),
    (ir.Subtract, "Sub"),
    (ir.Multiply, "Mul"),
    (ir.MatMul, "MatMul"),
    (ir.Maximum, "Max"),
):
    _of_two(_primitive, _operator)


@_written.register
def _(primitive: ir.Convolve, writer: _Writer, *operands: _Operand) -> str:
    # ONNX has no convolution of wide integers; all of ours are exact in a double.
    image, kernel = (writer.node("Cast", name, to=TensorProto.DOUBLE) for name, _ in operands)
    result = writer.node(
        "Conv",
        image,
        kernel,
        strides=primitive.strides,
        pads=primitive.pads,
        dilations=primitive.dilations,
        group=primitive.groups,
    )
    return writer.node("Cast", result, to=TensorProto.INT64)


@_written.register
def _(primitive: ir.Sum, writer: _Writer, value: _Operand) -> str:
    if not primitive.axes:  # to ONNX, no axes are all of them
        return value[0]
    axes = writer.constant(primitive.axes)
    return writer.node("ReduceSum", value[0], axes, keepdims=int(primitive.keepdims))


@_written.register
def _(primitive: ir.Index, writer: _Writer, value: _Operand) -> str:
    # Which elements: a selection from the flattened value says all that keys can.
    places = np.arange(int(np.prod(value[1], dtype=np.int64))).reshape(value[1])[primitive.key]
    flat = writer.node("Reshape", value[0], writer.constant([-1]))
    return writer.node("Gather", flat, writer.constant(places))


@_written.register
def _(_primitive: ir.Reshape, writer: _Writer, value: _Operand) -> str:
    return writer.node("Reshape", value[0], writer.constant(writer.shape))


@_written.register
def _(primitive: ir.Transpose, writer: _Writer, value: _Operand) -> str:
    return writer.node("Transpose", value[0], perm=primitive.axes)


@_written.register
def _(primitive: ir.Concatenate, writer: _Writer, *operands: _Operand) -> str:
    return writer.node("Concat", *(name for name, _ in operands), axis=primitive.axis)


@_written.register
def _(_primitive: ir.Broadcast, writer: _Writer, value: _Operand) -> str:
    return writer.node("Expand", value[0], writer.constant(writer.shape))


@_written.register
def _(primitive: ir.Lookup, writer: _Writer, value: _Operand) -> str:
    table = primitive.table
    # The step that a value lies in: a division that rounds down, which ONNX does not have.
    above = writer.node("Sub", value[0], writer.constant(primitive.start))
    step = writer.constant(primitive.step)
    rest = writer.node("Mod", above, step)
    rows = writer.node("Div", writer.node("Sub", above, rest), step)
    rows = _within(writer, rows, np.array(0), np.array(len(table) - 1))
    columns = int(np.prod(table.shape[1:], dtype=np.int64))
    if columns > 1:  # of each element, or channel, its own table
        places = np.broadcast_to(np.arange(columns).reshape(table.shape[1:]), writer.shape)
        rows = writer.node("Mul", rows, writer.constant(columns))
        rows = writer.node("Add", rows, writer.constant(places))
    return writer.node("Gather", writer.constant(table.reshape(-1)), rows)


@_written.register
def _(primitive: ir.Round, writer: _Writer, value: _Operand) -> str:
    if primitive.lsbs == 0:
        return value[0]
    above = writer.node("Add", value[0], writer.constant(1 << (primitive.lsbs - 1)))
    rest = writer.node("Mod", above, writer.constant(1 << primitive.lsbs))
    return writer.node("Sub", above, rest)


@_written.register
def _(primitive: ir.Assume, writer: _Writer, value: _Operand) -> str:
    return _within(writer, value[0], primitive.lo, primitive.hi)


def _within(writer: _Writer, name: str, lo: np.ndarray, hi: np.ndarray) -> str:
    """Values moved to the border of a range."""
    raised = writer.node("Max", name, writer.constant(lo))
    return writer.node("Min", raised, writer.constant(hi))
