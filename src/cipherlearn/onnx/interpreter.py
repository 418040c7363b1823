"""Evaluation of float models in NumPy, node by node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from cipherlearn import ops
from cipherlearn.errors import (
    CipherlearnError,
    InvalidShapeError,
    InvalidTypeError,
    ModelError,
)
from cipherlearn.onnx.graph import Array, Graph, Node, TensorInfo


def execute(model: onnx.ModelProto | Graph, *inputs: Any) -> tuple[Array, ...]:
    """Evaluate a model in NumPy.

    A floating input is computed with in its own precision when that is wider than the declared one:
    give float64 arrays to compute in float64.

    Parameters
    ----------
    model : ModelProto or Graph
        Model whose operators are all registered. A :class:`Graph` is not decoded again.
    *inputs : array_like
        One array per graph input.

    Returns
    -------
    tuple of ndarray
        One array per graph output.

    Raises
    ------
    InvalidShapeError
        When the number of inputs or a shape is wrong.
    InvalidTypeError
        When an input has another dtype than declared; the message names the input.
    UnsupportedOperatorError
        When an operator is not registered.
    ModelError
        When a node cannot be computed; the message names the node.
    """
    graph = _as_graph(model)
    values = check_inputs(graph, inputs)
    values.update(graph.constants)
    pending = Counter(name for node in graph.nodes for name in node.inputs)
    pending.update(graph.output_names)
    for node in graph.nodes:
        values.update(_run(graph, node, values))
        for name in node.inputs:
            pending[name] -= 1
        for name in (*node.inputs, *node.outputs):
            # Large intermediate arrays are let go as soon as nobody reads them any more.
            if pending[name] == 0:
                values.pop(name, None)
    return tuple(np.array(_output(values, name)) for name in graph.output_names)


def trace(model: onnx.ModelProto | Graph, *inputs: Any) -> Iterator[tuple[Node, tuple[Array, ...]]]:
    """Evaluate a model in NumPy, handing out what each node computes.

    Parameters
    ----------
    model : ModelProto or Graph
        Model whose operators are all registered.
    *inputs : array_like
        One array per graph input.

    Yields
    ------
    node : Node
        The next node, in topological order.
    outputs : tuple of ndarray
        Its outputs that have a name, in order.

    Raises
    ------
    CipherlearnError
        As :func:`execute` does, at the node where it happens.
    """
    graph = _as_graph(model)
    values = check_inputs(graph, inputs)
    values.update(graph.constants)
    for node in graph.nodes:
        outputs = _run(graph, node, values)
        values.update(outputs)
        yield node, tuple(outputs.values())


def intermediate_values(model: onnx.ModelProto | Graph, *inputs: Any) -> dict[str, Array]:
    """Evaluate a model in NumPy and keep every tensor.

    Parameters
    ----------
    model : ModelProto or Graph
        Model whose operators are all registered.
    *inputs : array_like
        One array per graph input.

    Returns
    -------
    dict of str to ndarray
        Inputs, constants, intermediate tensors and outputs by name.

    Raises
    ------
    CipherlearnError
        As :func:`execute` does.
    """
    graph = _as_graph(model)
    values = {**check_inputs(graph, inputs), **graph.constants}
    for node, outputs in trace(graph, *inputs):
        names = (name for name in node.outputs if name)
        values.update(zip(names, outputs, strict=False))
    return values


def run_node(node: Node, inputs: Sequence[Array | None], *, opset: int) -> tuple[Array, ...]:
    """Evaluate one node.

    Parameters
    ----------
    node : Node
        Node of a graph.
    inputs : sequence of ndarray or None
        Its operands; ``None`` for those that are not given.
    opset : int
        Operator set of the graph.

    Returns
    -------
    tuple of ndarray
        At least as many arrays as the node has outputs.

    Raises
    ------
    ModelError
        When the node cannot be computed; errors keep their class, and name the node.
    """
    try:
        outputs = ops.get(node.op).numpy(*inputs, opset=opset, **node.attributes)
    except CipherlearnError as error:
        raise type(error)(f"Node {node}: {error}") from error
    except Exception as error:
        # A user's own function can fail in any way.
        raise ModelError(f"Node {node} failed: {type(error).__name__}: {error}") from error
    if len(outputs) < len(node.outputs):
        raise ModelError(
            f"Node {node} has {len(node.outputs)} outputs, its function returned {len(outputs)}."
        )
    return outputs


def check_inputs(graph: Graph, inputs: Sequence[Any]) -> dict[str, Array]:
    """Check arrays against the inputs that a graph declares.

    Parameters
    ----------
    graph : Graph
        Graph to evaluate.
    inputs : sequence of array_like
        One array per graph input.

    Returns
    -------
    dict of str to ndarray
        The arrays by input name, with integers and narrower floats converted to the declared dtype.

    Raises
    ------
    InvalidShapeError
        When the number of inputs or a shape is wrong.
    InvalidTypeError
        When a dtype is wrong.
    """
    if len(inputs) != len(graph.inputs):
        listed = ", ".join(graph.input_names)
        raise InvalidShapeError(
            f"The model takes {len(graph.inputs)} input(s) ({listed}); {len(inputs)} were given."
        )
    return {
        info.name: _check_shape(info, _check_dtype(info, np.asarray(value)))
        for info, value in zip(graph.inputs, inputs, strict=True)
    }


def _check_dtype(info: TensorInfo, array: Array) -> Array:
    declared = info.dtype
    if declared is None or array.dtype == declared:
        return array
    if declared.kind == "f" and array.dtype.kind == "f" and array.dtype.isbuiltin == 1:
        return array.astype(np.result_type(array.dtype, declared))
    both_integers = declared.kind in "iu" and array.dtype.kind in "iu"
    if both_integers and np.can_cast(array.dtype, declared, "safe"):
        return array.astype(declared)
    hint = "numbers with a decimal point" if declared.kind == "f" else f"dtype {declared}"
    raise InvalidTypeError(
        f"The input {info.name!r} takes {declared} values; an array of dtype {array.dtype} was"
        f" given. Give {hint}, for instance with `x.astype({str(declared)!r})`."
    )


def _check_shape(info: TensorInfo, array: Array) -> Array:
    shape = info.shape
    if shape is None:
        return array
    fits = len(shape) == array.ndim and all(
        not isinstance(expected, int) or expected == size
        for expected, size in zip(shape, array.shape, strict=False)
    )
    if not fits:
        expected = ", ".join("?" if size is None else str(size) for size in shape)
        raise InvalidShapeError(
            f"The input {info.name!r} takes arrays of shape ({expected}); one of shape"
            f" {array.shape} was given."
        )
    return array


def _as_graph(model: onnx.ModelProto | Graph) -> Graph:
    return model if isinstance(model, Graph) else Graph.from_model(model)


def _run(graph: Graph, node: Node, values: Mapping[str, Array]) -> dict[str, Array]:
    inputs = [_operand(values, node, name) if name else None for name in node.inputs]
    outputs = run_node(node, inputs, opset=graph.opset)
    return {name: array for name, array in zip(node.outputs, outputs, strict=False) if name}


def _operand(values: Mapping[str, Array], node: Node, name: str) -> Array:
    if name not in values:
        raise ModelError(
            f"Node {node} reads {name!r}, which nothing before it computes: the nodes are not in"
            " topological order, or the model is incomplete."
        )
    return values[name]


def _output(values: Mapping[str, Array], name: str) -> Array:
    if name not in values:
        raise ModelError(f"Nothing in the model computes its output {name!r}.")
    return values[name]
