"""A light, read-only view of an ONNX graph: what the interpreter and the quantizer walk."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cipherlearn.errors import ModelError, ModelFormatError, UnsupportedAttributeError
from cipherlearn.onnx.version import get_onnx_opset_version
from cipherlearn.ops import qonnx, qualified_name

Array = np.ndarray[Any, np.dtype[Any]]

_Attr = onnx.AttributeProto
# They give floats of the shape of their input.
_SCALERS = frozenset({"Normalizer", "Scaler"})


@dataclass(frozen=True)
class TensorInfo:
    """Declared name, dtype and shape of a graph input or output.

    Attributes
    ----------
    name : str
        Name of the tensor.
    dtype : numpy.dtype or None
        Declared dtype; ``None`` when the model does not say.
    shape : tuple or None
        An int for a fixed axis, a str for a symbolic one, ``None`` for an unknown one. ``None``
        as a whole when even the number of axes is unknown.
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | str | None, ...] | None


# Nodes and graphs are compared by identity: arrays inside them have no single truth value.
@dataclass(frozen=True, eq=False)
class Node:
    """One operation of a graph.

    Attributes
    ----------
    op : str
        Qualified operator name, as in the registry: ``"Relu"``, ``"my.domain.Op"``.
    name : str
        Name of the node: never empty, unique in its graph.
    inputs : tuple of str
        Tensor names; ``""`` for an optional input that is not given.
    outputs : tuple of str
        Tensor names; ``""`` for an optional output that is not asked for.
    attributes : mapping
        Decoded attribute values.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name!r} ({self.op})"

    def __getstate__(self) -> dict[str, Any]:
        return _storable(self)


@dataclass(frozen=True, eq=False)
class Graph:
    """An ONNX graph, decoded once.

    Attributes
    ----------
    inputs : tuple of TensorInfo
        Graph inputs, without initializers.
    outputs : tuple of TensorInfo
        Graph outputs.
    nodes : tuple of Node
        Operations, in topological order.
    constants : mapping of str to ndarray
        Initializers, as read-only arrays.
    opset : int
        Operator set that gives the nodes of the standard domain their meaning.
    dtypes : mapping of str to numpy.dtype
        Declared or inferred dtype of every tensor that has one.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    opset: int
    dtypes: Mapping[str, np.dtype[Any]] = field(default_factory=dict)

    @classmethod
    def from_model(cls, model: onnx.ModelProto) -> Graph:
        """Decode a model.

        Parameters
        ----------
        model : ModelProto
            A model as :func:`cipherlearn.onnx.load_model` returns it.

        Returns
        -------
        Graph

        Raises
        ------
        ModelError
            When an input is not a tensor, or an attribute holds something that has no value here.
        """
        graph = model.graph
        constants = {tensor.name: _constant(tensor) for tensor in graph.initializer}
        inputs = tuple(_tensor_info(i) for i in graph.input if i.name not in constants)
        untyped = [info.name for info in inputs if info.dtype is None]
        if untyped:
            raise ModelError(
                f"The inputs {', '.join(map(repr, untyped))} have no numeric tensor type"
                " (sequences, maps, strings and optional inputs are not supported)."
            )
        return cls(
            inputs=inputs,
            outputs=tuple(_tensor_info(o) for o in graph.output),
            nodes=_nodes(graph.node),
            constants=MappingProxyType(constants),
            opset=get_onnx_opset_version(model),
            dtypes=MappingProxyType(_dtypes(model, constants)),
        )

    def __getstate__(self) -> dict[str, Any]:
        return _storable(self)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the graph inputs, in order."""
        return tuple(info.name for info in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph outputs, in order."""
        return tuple(info.name for info in self.outputs)

    @functools.cached_property
    def _producers(self) -> dict[str, Node]:
        return {name: node for node in self.nodes for name in node.outputs if name}

    @functools.cached_property
    def _consumers(self) -> dict[str, tuple[Node, ...]]:
        found: dict[str, dict[str, Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                found.setdefault(name, {})[node.name] = node
        return {name: tuple(nodes.values()) for name, nodes in found.items()}

    def producer(self, tensor: str) -> Node | None:
        """Return the node that computes a tensor; ``None`` for graph inputs and constants."""
        return self._producers.get(tensor)

    def consumers(self, tensor: str) -> tuple[Node, ...]:
        """Return the nodes that read a tensor, in topological order, each once."""
        return self._consumers.get(tensor, ())


def attribute_value(attribute: onnx.AttributeProto) -> Any:
    """Decode the value of an attribute.

    Parameters
    ----------
    attribute : AttributeProto
        Attribute of a node.

    Returns
    -------
    float, int, str, ndarray or tuple of them

    Raises
    ------
    UnsupportedAttributeError
        When it holds a graph, a type or a sparse tensor, or refers to a function's attribute.
    """
    kind = attribute.type
    if attribute.ref_attr_name:
        raise UnsupportedAttributeError(
            f"The attribute {attribute.name!r} refers to the attribute {attribute.ref_attr_name!r}"
            " of a function; simplify the model first, which inlines functions."
        )
    if kind in (_Attr.FLOAT, _Attr.INT):
        return helper.get_attribute_value(attribute)
    if kind == _Attr.STRING:
        return attribute.s.decode()
    if kind in (_Attr.FLOATS, _Attr.INTS):
        return tuple(helper.get_attribute_value(attribute))
    if kind == _Attr.STRINGS:
        return tuple(item.decode() for item in attribute.strings)
    if kind == _Attr.TENSOR:
        return numpy_helper.to_array(attribute.t)
    if kind == _Attr.TENSORS:
        return tuple(numpy_helper.to_array(tensor) for tensor in attribute.tensors)
    raise UnsupportedAttributeError(
        f"The attribute {attribute.name!r} holds a value of type"
        f" {_Attr.AttributeType.Name(kind)}, which is not supported."
    )


def node_attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Decode the attributes of a node.

    Parameters
    ----------
    node : NodeProto
        Any node.

    Returns
    -------
    dict
        Values by name, as :func:`attribute_value` gives them; of a Split into equal parts also the
        number of parts, which is an attribute from operator set 18 on only.

    Raises
    ------
    UnsupportedAttributeError
        As :func:`attribute_value` does.
    """
    attributes = {item.name: attribute_value(item) for item in node.attribute}
    if node.op_type == "Split" and not node.domain and not any(node.input[1:]):
        attributes.setdefault("num_outputs", len(node.output))
    return attributes


def unique_node_names(nodes: Iterable[onnx.NodeProto]) -> tuple[str, ...]:
    """Name every node: its own name where it has one, ``"<type>_<position>"`` elsewhere.

    Parameters
    ----------
    nodes : iterable of NodeProto
        Nodes of one graph, in order.

    Returns
    -------
    tuple of str
        One name per node; no two are equal.
    """
    nodes = list(nodes)
    # The names that exporters gave are kept wherever possible: generated ones make room for them.
    taken = {node.name for node in nodes if node.name}
    used: set[str] = set()
    result = []
    for position, node in enumerate(nodes):
        name = node.name
        if not name or name in used:
            base = name or node.op_type
            name = f"{base}_{position}"
            while name in taken or name in used:
                name += "_"
        used.add(name)
        result.append(name)
    return tuple(result)


def _nodes(nodes: Iterable[onnx.NodeProto]) -> tuple[Node, ...]:
    nodes = list(nodes)
    result = []
    for name, node in zip(unique_node_names(nodes), nodes, strict=True):
        try:
            attributes = node_attributes(node)
        except UnsupportedAttributeError as error:
            raise UnsupportedAttributeError(f"Node {name!r} ({node.op_type}): {error}") from error
        op = qualified_name(node.domain, node.op_type)
        inputs, outputs = tuple(node.input), tuple(node.output)
        result.append(Node(op, name, inputs, outputs, MappingProxyType(attributes)))
    return tuple(result)


def _storable(item: Any) -> dict[str, Any]:
    """Fields without read-only views of dictionaries, which cannot be stored."""
    views = {k: dict(v) for k, v in vars(item).items() if isinstance(v, MappingProxyType)}
    return {**vars(item), **views}


def _constant(tensor: onnx.TensorProto) -> Array:
    try:
        array = np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError) as error:
        raise ModelFormatError(f"The tensor {tensor.name!r} cannot be read: {error}") from error
    array.flags.writeable = False
    return array


def _tensor_info(value: onnx.ValueInfoProto) -> TensorInfo:
    shape = None
    if value.type.tensor_type.HasField("shape"):
        shape = tuple(_dimension(d) for d in value.type.tensor_type.shape.dim)
    return TensorInfo(value.name, _dtype(value), shape)


def _dimension(dimension: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dimension.HasField("dim_value"):
        return int(dimension.dim_value)
    return dimension.dim_param or None


def _dtype(value: onnx.ValueInfoProto) -> np.dtype[Any] | None:
    if not value.type.HasField("tensor_type"):
        return None
    return element_dtype(value.type.tensor_type.elem_type)


def element_dtype(elem_type: int) -> np.dtype[Any] | None:
    """NumPy dtype of an ONNX element type; ``None`` where NumPy has no such numbers."""
    if elem_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        return None
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(elem_type))
    # Types that NumPy does not have itself (bfloat16, float8 ...) have an extension dtype.
    return dtype if dtype.kind in "biuf" and dtype.isbuiltin == 1 else None


def _dtypes(model: onnx.ModelProto, constants: Mapping[str, Array]) -> dict[str, np.dtype[Any]]:
    found = {name: array.dtype for name, array in constants.items()}
    for name, kind in tensor_types(model).items():
        dtype = element_dtype(kind.elem_type)
        if dtype is not None:
            found[name] = dtype
    return found


def tensor_types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """Declared or inferred types of the tensors of a model, by name.

    Parameters
    ----------
    model : ModelProto
        Any model.

    Returns
    -------
    dict of str to TypeProto.Tensor
        Without constants, and without what is no tensor.
    """
    graph = infer_shapes(model).graph
    return {
        value.name: value.type.tensor_type
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.HasField("tensor_type")
    }


def tensor_shapes(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Declared or inferred shapes of the tensors of a model, by name.

    Parameters
    ----------
    model : ModelProto
        Any model.

    Returns
    -------
    dict of str to tuple of int or None
        ``None`` for an open axis. Without constants, and tensors with an unknown number of axes.
    """
    return {
        name: tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
        for name, kind in tensor_types(model).items()
        if kind.HasField("shape")
    }


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model with the shapes and types of its intermediate tensors.

    Inference is a service: where it is impossible (models beyond 2 GB, contradicting annotations),
    the model comes back as it is.

    Parameters
    ----------
    model : ModelProto
        Any model.

    Returns
    -------
    ModelProto
        Good for its inputs, outputs and ``value_info`` only: nodes that ONNX says nothing about
        are replaced by others with results of the same type and shape.
    """
    try:
        return onnx.shape_inference.infer_shapes(_with_known_shapes(model), data_prop=True)
    except (ValueError, RuntimeError, TypeError, onnx.shape_inference.InferenceError):
        return model


def _with_known_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace scalers and quantizers of other domains, for which ONNX infers no shapes."""
    if not any(node.domain for node in model.graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        if node.domain == "ai.onnx.ml" and node.op_type in _SCALERS:
            node.op_type, node.domain = "Cast", ""
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("to", onnx.TensorProto.FLOAT))
        elif qualified_name(node.domain, node.op_type) in qonnx.GRID_OPERATORS:
            node.op_type, node.domain = "Identity", ""
            del node.attribute[:], node.input[1:]
    return copy
