"""Outputs of classifiers: dictionaries become arrays, names of classes are left out."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cipherlearn.errors import CipherlearnWarning
from cipherlearn.onnx import Graph, load_model, simplify
from tests.onnx_models import dimensions, make_model, node, op_types, weights


def classifier(labels: bool) -> onnx.ModelProto:
    """Scores with a ZipMap behind them, and names of classes where asked for."""
    nodes = [node("MatMul", ["x", "w"], "s"), node("Sigmoid", ["s"], "p")]
    nodes.append(
        node("ZipMap", ["p"], "probabilities", domain="ai.onnx.ml", classlabels_strings=["a", "b"])
    )
    constants = {"w": weights(3, 2)}
    outputs = ["probabilities"]
    if labels:
        nodes.append(node("ArgMax", ["p"], "i", axis=1, keepdims=0))
        nodes.append(node("ArrayFeatureExtractor", ["c", "i"], "label", domain="ai.onnx.ml"))
        constants["c"] = np.array(["cat", "dog"], dtype=object)
        outputs = ["label", "probabilities"]
    model = make_model(nodes, {"x": ["N", 3]}, outputs, constants, domains=["ai.onnx.ml"])
    for output in model.graph.output:
        output.type.Clear()
        if output.name == "label":
            output.type.tensor_type.elem_type = TensorProto.STRING
            output.type.tensor_type.shape.dim.add(dim_param="N")
        else:
            entry = output.type.sequence_type.elem_type.map_type
            entry.key_type = TensorProto.STRING
            entry.value_type.tensor_type.elem_type = TensorProto.FLOAT
    return model


def test_a_dictionary_becomes_the_table_behind_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = simplify(load_model(classifier(labels=False)))
    assert op_types(result) == ["MatMul", "Sigmoid"]
    (output,) = result.graph.output
    assert output.name == "probabilities"
    assert dimensions(output) == ["N", 2]
    (info,) = Graph.from_model(result).outputs
    assert info.dtype == np.float32


def test_names_of_classes_are_left_out() -> None:
    model = classifier(labels=True)
    with pytest.warns(CipherlearnWarning, match=r"'label' holds strings.*\('probabilities'\)"):
        result = simplify(load_model(model))
    assert op_types(result) == ["MatMul", "Sigmoid"]
    assert [o.name for o in result.graph.output] == ["probabilities"]
    assert [o.name for o in model.graph.output] == ["label", "probabilities"]


@pytest.mark.parametrize(
    ("op", "numbers"),
    [("LinearClassifier", "classlabels_ints"), ("TreeEnsembleClassifier", "classlabels_int64s")],
)
def test_classes_are_numbered_where_their_names_are_left_out(op: str, numbers: str) -> None:
    model = classifier(labels=True)
    scores = node(
        op, ["x"], ["label", "p"], domain="ai.onnx.ml", classlabels_strings=["cat", "dog"]
    )
    del model.graph.node[3:], model.graph.node[:2]
    model.graph.node.insert(0, scores)
    with pytest.warns(CipherlearnWarning, match="'label' holds strings"):
        result = simplify(model)
    (attribute,) = result.graph.node[0].attribute
    assert (attribute.name, list(attribute.ints)) == (numbers, [0, 1])


def test_a_model_that_only_gives_names_is_left_as_it_is() -> None:
    model = classifier(labels=True)
    del model.graph.output[1]
    del model.graph.node[2]
    result = simplify(load_model(model))
    assert [o.name for o in result.graph.output] == ["label"]


def test_a_dictionary_that_nothing_describes_has_numbers() -> None:
    model = classifier(labels=False)
    model.graph.node[1].domain = "unknown.domain"
    model.opset_import.append(helper.make_opsetid("unknown.domain", 1))
    (output,) = simplify(model).graph.output
    assert output.type.tensor_type.elem_type == TensorProto.FLOAT
    assert not output.type.tensor_type.HasField("shape")
