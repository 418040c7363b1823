"""What of a model is supported: all offenders at once."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cipherlearn.errors import ModelError, UnsupportedAttributeError, UnsupportedOperatorError
from cipherlearn.onnx import check_supported, prepare
from tests.onnx_models import make_model, node, op_types, perceptron


def test_a_supported_model_passes() -> None:
    check_supported(perceptron())


def test_all_unsupported_operators_are_listed_with_their_nodes() -> None:
    model = make_model(
        [
            node("NonZero", ["x"], "a", name="first"),
            node("Unique", ["a"], "b"),
            node("NonZero", ["b"], "c"),
            node("Cast", ["c"], "d", to=TensorProto.BFLOAT16),
            node("Mine", ["d"], "y", domain="my.domain"),
        ],
        {"x": ["N", 2]},
        ["y"],
        domains=["my.domain"],
    )
    with pytest.raises(UnsupportedOperatorError) as caught:
        check_supported(model)
    message = str(caught.value)
    assert "- NonZero: node 'first', 'NonZero_2'" in message
    assert "- Unique: node 'Unique_1'" in message
    assert "- my.domain.Mine: node 'Mine_4'" in message
    assert "Supported operators: Abs" in message
    assert "- node 'Cast_3' (Cast): the target type BFLOAT16" in message


def test_many_nodes_of_one_operator_are_counted() -> None:
    nodes = [node("NonZero", [f"t{i}"], f"t{i + 1}") for i in range(8)]
    model = make_model(nodes, {"t0": ["N"]}, ["t8"])
    with pytest.raises(UnsupportedOperatorError, match="'NonZero_4' and 3 more"):
        check_supported(model)


def test_all_unsupported_attributes_are_listed() -> None:
    yes = np.array(True)
    model = make_model(
        [
            node("Dropout", ["x", "ratio", "yes"], "a", name="drop"),
            node("Cast", ["a"], "b", to=TensorProto.FLOAT8E4M3FN),
            node("Relu", ["b"], "y"),
        ],
        {"x": ["N"]},
        ["y"],
        {"ratio": np.float32(0.5), "yes": yes},
    )
    with pytest.raises(UnsupportedAttributeError) as caught:
        check_supported(model)
    assert "- node 'drop' (Dropout): training mode" in str(caught.value)
    assert "- node 'Cast_1' (Cast): the target type FLOAT8E4M3FN" in str(caught.value)
    constant = node("Constant", [], "yes", value=onnx.numpy_helper.from_array(yes))
    del model.graph.initializer[1]
    model.graph.node.insert(0, constant)
    with pytest.raises(UnsupportedAttributeError, match=r"'drop' .Dropout.: training mode"):
        check_supported(model)


def test_attributes_that_hold_graphs_are_reported() -> None:
    model = make_model([node("Relu", ["x"], "y")], {"x": ["N"]}, ["y"])
    model.graph.node[0].attribute.append(helper.make_attribute("body", onnx.GraphProto(name="g")))
    with pytest.raises(UnsupportedAttributeError, match=r"'Relu_0' .Relu.: .*'body'.*GRAPH"):
        check_supported(model)


def test_the_bodies_of_functions_are_looked_at() -> None:
    inner = helper.make_function(
        "mine", "F", ["a"], ["b"], [node("NonZero", ["a"], "b")], [helper.make_opsetid("", 18)]
    )
    model = make_model(
        [node("F", ["x"], "y", domain="mine")],
        {"x": ["N"]},
        ["y"],
        domains=["mine"],
        functions=[inner],
    )
    with pytest.raises(UnsupportedOperatorError, match="- NonZero: "):
        check_supported(model)


def test_prepare_reads_simplifies_and_checks() -> None:
    model = prepare(perceptron().SerializeToString())
    assert op_types(model) == ["Gemm", "Relu", "Gemm"]
    with pytest.raises(UnsupportedOperatorError):
        prepare(make_model([node("NonZero", ["x"], "y")], {"x": ["N"]}, ["y"]))
    with pytest.raises(ModelError):
        prepare(b"nonsense")
