"""The read-only view of graphs."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from cipherlearn.errors import (
    InvalidTypeError,
    ModelError,
    ModelFormatError,
    UnsupportedAttributeError,
)
from cipherlearn.onnx import Graph, attribute_value, get_onnx_opset_version
from cipherlearn.onnx.graph import element_dtype, unique_node_names
from tests.onnx_models import make_model, node, perceptron


def test_a_graph_is_decoded() -> None:
    graph = Graph.from_model(perceptron("N"))
    (x,) = graph.inputs
    assert (x.name, x.dtype, x.shape) == ("x", np.dtype(np.float32), ("N", 4))
    assert graph.output_names == ("y",)
    assert graph.input_names == ("x",)
    assert graph.opset == 18
    assert [n.op for n in graph.nodes] == ["Gemm", "Relu", "MatMul", "Add"]
    assert graph.nodes[0].inputs == ("x", "w1", "b1")
    assert set(graph.constants) == {"w1", "b1", "w2", "b2"}
    assert graph.dtypes["h"] == graph.dtypes["x"] == graph.dtypes["w1"] == np.float32


def test_a_graph_cannot_be_changed() -> None:
    graph = Graph.from_model(perceptron())
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.nodes = ()  # type: ignore[misc]
    with pytest.raises(TypeError):
        graph.constants["w1"] = np.ones(1)  # type: ignore[index]
    with pytest.raises(ValueError, match="read-only"):
        graph.constants["w1"][0, 0] = 1


def test_producers_and_consumers() -> None:
    model = make_model(
        [node("Relu", ["x"], "a"), node("Mul", ["a", "a"], "b"), node("Add", ["a", "b"], "y")],
        {"x": ["N"]},
        ["y"],
    )
    graph = Graph.from_model(model)
    assert graph.producer("x") is None
    assert graph.producer("a") is graph.nodes[0]
    assert graph.consumers("a") == graph.nodes[1:]
    assert graph.consumers("y") == ()


def test_inferred_dtypes() -> None:
    model = make_model(
        [
            node("Greater", ["x", "c"], "g"),
            node("Cast", ["g"], "i", to=TensorProto.INT32),
            node("Cast", ["i"], "y", to=TensorProto.FLOAT),
        ],
        {"x": ["N"]},
        ["y"],
        {"c": np.float32(1)},
    )
    dtypes = Graph.from_model(model).dtypes
    assert dtypes["g"] == np.bool_
    assert dtypes["i"] == np.int32


@given(st.lists(st.sampled_from(["", "a", "Relu_1", "Relu_0", "b"]), max_size=6))
def test_node_names_are_unique_and_kept(names: list[str]) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"], name=name) for name in names]
    unique = unique_node_names(nodes)
    assert len(set(unique)) == len(names)
    assert all(unique)
    for position, name in enumerate(names):
        if name and name not in names[:position]:
            assert unique[position] == name


@given(
    st.one_of(
        st.integers(-(2**40), 2**40),
        st.floats(width=32, allow_nan=False),
        st.text(max_size=5),
        st.lists(st.integers(-9, 9), min_size=1).map(tuple),
        st.lists(st.floats(width=32, allow_nan=False), min_size=1).map(tuple),
        st.lists(st.text(max_size=3), min_size=1).map(tuple),
    )
)
def test_attribute_values_come_back(value: object) -> None:
    assert attribute_value(helper.make_attribute("a", value)) == value


def test_tensors_as_attributes() -> None:
    tensor = onnx.numpy_helper.from_array(np.array([1.0, 2.0]))
    assert attribute_value(helper.make_attribute("a", tensor)).tolist() == [1, 2]
    both = attribute_value(helper.make_attribute("a", [tensor, tensor]))
    assert [item.tolist() for item in both] == [[1, 2], [1, 2]]


def test_attributes_without_a_value_are_refused() -> None:
    inner = helper.make_attribute("then_branch", onnx.GraphProto(name="g"))
    with pytest.raises(UnsupportedAttributeError, match=r"'then_branch'.*GRAPH"):
        attribute_value(inner)
    reference = onnx.AttributeProto(name="a", ref_attr_name="b", type=onnx.AttributeProto.INT)
    with pytest.raises(UnsupportedAttributeError, match="'a' refers to the attribute 'b'"):
        attribute_value(reference)
    model = make_model([], {"x": ["N"]}, ["x"])
    bad = model.graph.node.add(op_type="If", name="branch")
    bad.attribute.append(inner)
    with pytest.raises(UnsupportedAttributeError, match=r"Node 'branch' \(If\)"):
        Graph.from_model(model)


def test_inputs_must_be_numeric_tensors() -> None:
    model = make_model([], {"x": (TensorProto.STRING, ["N"])}, ["x"])
    with pytest.raises(ModelError, match="'x' have no numeric tensor type"):
        Graph.from_model(model)


def test_unreadable_constants_are_named() -> None:
    model = perceptron()
    model.graph.initializer[0].raw_data = b"123"
    with pytest.raises(ModelFormatError, match="'w1' cannot be read"):
        Graph.from_model(model)


def test_dtypes_without_numpy_numbers() -> None:
    assert element_dtype(TensorProto.FLOAT16) == np.float16
    assert element_dtype(TensorProto.BOOL) == np.bool_
    for missing in (TensorProto.STRING, TensorProto.UNDEFINED, TensorProto.COMPLEX64):
        assert element_dtype(missing) is None


def test_unknown_axes() -> None:
    model = make_model([node("Relu", ["x"], "y")], {"x": [None, 3]}, ["y"])
    graph = Graph.from_model(model)
    assert graph.inputs[0].shape == (None, 3)
    assert graph.outputs[0].shape is None


def test_the_operator_set_of_a_model() -> None:
    assert get_onnx_opset_version(perceptron()) == 18
    model = make_model([], {"x": ["N"]}, ["x"], domains=["mine"])
    del model.opset_import[0]
    assert get_onnx_opset_version(model) == onnx.defs.onnx_opset_version()
    model.opset_import.add(domain="ai.onnx", version=15)
    assert get_onnx_opset_version(model) == 15
    with pytest.raises(InvalidTypeError, match="not str"):
        get_onnx_opset_version("model.onnx")  # type: ignore[arg-type]


def test_stored_graphs_are_the_same() -> None:
    graph = Graph.from_model(perceptron())
    again = pickle.loads(pickle.dumps(graph))  # noqa: S301
    assert [str(node) for node in again.nodes] == [str(node) for node in graph.nodes]
    assert [dict(node.attributes) for node in again.nodes] == [n.attributes for n in graph.nodes]
    assert again.constants.keys() == graph.constants.keys()
    assert again.input_names == graph.input_names
