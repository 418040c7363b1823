from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from cipherlearn.errors import ModelError
from cipherlearn.onnx import execute, load_model, run_with_onnxruntime
from cipherlearn.quantization import (
    PostTrainingAffineQuantization,
    QuantizedArray,
    QuantizedModule,
    annotation,
)
from cipherlearn.torch import NumpyModule
from tests.onnx_models import make_model, node, perceptron, weights
from tests.quantization.models import DENSE, rounded_perceptron
from tests.quantization.quantize import normal, quantize

X = normal(60, 4)


@pytest.fixture(scope="module")
def module() -> QuantizedModule:
    return rounded_perceptron()


@pytest.fixture(scope="module")
def annotated(module: QuantizedModule) -> onnx.ModelProto:
    model: onnx.ModelProto = module.annotated_onnx()
    return model


def metadata(owner: Any) -> dict[str, Any]:
    return {entry.key: json.loads(entry.value) for entry in owner.metadata_props}


def by_name(entries: Any) -> dict[str, Any]:
    return {entry.name: entry for entry in entries}


def test_the_annotated_model_is_valid_and_computes_the_same(
    module: QuantizedModule, annotated: onnx.ModelProto
) -> None:
    onnx.checker.check_model(annotated, full_check=True)
    for run in (execute, run_with_onnxruntime):
        for found, expected in zip(run(annotated, X), run(module.onnx_model, X), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert not metadata(module.onnx_model.graph.node[0]), "the module's own model stays as it is"


def test_nodes_and_tensors_carry_their_quantization(
    module: QuantizedModule, annotated: onnx.ModelProto
) -> None:
    trace = module.trace(X)
    nodes = {item.output[0]: item for item in annotated.graph.node}
    infos = by_name([*annotated.graph.input, *annotated.graph.value_info, *annotated.graph.output])
    for tensor in trace:
        owners = [infos[tensor.name], *([nodes[tensor.name]] if tensor.name in nodes else [])]
        assert tensor.held is not None
        for owner in owners:
            found = metadata(owner)
            assert found["cipherlearn.bits"] == tensor.bitwidth
            assert found["cipherlearn.range"] == list(tensor.held.range)
            assert found["cipherlearn.range_is"] == (
                "proved" if tensor.held.is_proved else "observed"
            )
            np.testing.assert_array_equal(found["cipherlearn.scale"], tensor.held.scale)
            np.testing.assert_array_equal(found["cipherlearn.zero_point"], tensor.held.zero_point)
            assert owner.doc_string.startswith(f"{tensor.bitwidth} bits, integers ")
    assert metadata(nodes["h"])["cipherlearn.bits_read"] == 6
    assert "6 bits read by look-ups" in nodes["h"].doc_string
    assert "(3 values)" in nodes["h"].doc_string


def test_weights_carry_their_quantization(
    module: QuantizedModule, annotated: onnx.ModelProto
) -> None:
    constants = by_name(annotated.graph.initializer)
    found = metadata(constants["w1"])
    weight = module.quant_layers_dict["h"][1].constant_inputs[1]
    assert isinstance(weight, QuantizedArray)
    assert found["cipherlearn.bits"] == 5
    assert found["cipherlearn.scale"] == weight.quantizer.scale
    assert found["cipherlearn.range"] == [weight.qvalues.min(), weight.qvalues.max()]
    assert not metadata(constants["b1"]), "the bias stays real"


def test_what_lies_inside_of_a_table_says_so() -> None:
    model = quantize(DENSE["a chain of functions is one table"][0], X).annotated_onnx()
    nodes = {item.output[0]: item for item in model.graph.node}
    assert metadata(nodes["s"]) == {"cipherlearn.held": "computed inside a table look-up"}
    assert nodes["s"].doc_string == "computed inside a table look-up"
    assert metadata(nodes["y"])["cipherlearn.bits"] == 8


def test_what_the_client_computes_says_so() -> None:
    model = make_model(
        [node("Gemm", ["x", "w"], "h"), node("Softmax", ["h"], "y")],
        {"x": ["N", 4]},
        ["y"],
        {"w": weights(4, 3)},
    )
    found = quantize(model, X).annotated_onnx().graph.node[-1]
    assert metadata(found) == {"cipherlearn.held": "computed by the client, in the clear"}


def test_constants_of_operators_written_with_simpler_ones_are_left_alone() -> None:
    model = make_model(
        [node("Gemm", ["x", "w"], "h"), node("LayerNormalization", ["h", "s"], "y", axis=-1)],
        {"x": ["N", 4]},
        ["y"],
        {"w": weights(4, 5), "s": np.full(5, 2, np.float32)},
    )
    annotated = quantize(model, X).annotated_onnx()
    assert not metadata(by_name(annotated.graph.initializer)["s"])
    assert metadata(annotated.graph.node[-1])["cipherlearn.bits"] >= 8


def test_documentation_of_the_model_is_kept() -> None:
    model = perceptron()
    model.graph.node[0].doc_string = "mine"
    found = quantize(model, X).annotated_onnx().graph.node[0].doc_string
    assert found.startswith("mine\n")
    assert "bits" in found


def test_a_saved_file_is_the_annotated_model(
    module: QuantizedModule, annotated: onnx.ModelProto, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    module.save_onnx(path)
    assert onnx.load(path) == annotated
    module.save_onnx(str(path))
    again = PostTrainingAffineQuantization(5, NumpyModule(load_model(path))).quantize_module(X)
    plain = PostTrainingAffineQuantization(5, NumpyModule(perceptron())).quantize_module(X)
    np.testing.assert_array_equal(again.forward(X), plain.forward(X))


def test_an_old_onnx_keeps_metadata_in_the_model(
    module: QuantizedModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotation, "has_metadata", lambda target: False)
    model = module.annotated_onnx()
    onnx.checker.check_model(model)
    found = metadata(model)
    assert found["cipherlearn.node.first"] == found["cipherlearn.tensor.h"]
    assert found["cipherlearn.tensor.h"]["bits_read"] == 6
    assert found["cipherlearn.constant.w1"]["bits"] == 5
    assert not model.graph.node[0].metadata_props
    assert "6 bits read" in model.graph.node[0].doc_string


def test_tensors_of_unknown_shape_are_described_by_their_nodes() -> None:
    model = make_model(
        [node("MatMul", ["x", "w"], "h"), node("Relu", ["h"], "y")],
        {"x": ["N", 4]},
        ["y"],
        {"w": weights(4, 2)},
    )
    annotated = quantize(model, X).annotated_onnx()
    assert metadata(annotated.graph.node[0])["cipherlearn.bits"] > 8


def test_several_outputs_of_a_node_are_told_apart(module: QuantizedModule) -> None:
    model = make_model(
        [node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2)], {"x": ["N", 4]}, ["a", "b"]
    )
    held = module.trace(X)["h"].held
    assert held is not None
    op = module.quant_layers_dict["h"][1]
    layers = {"a": (("x",), op), "b": (("x",), op)}
    found = annotation.annotated_model(model, {"a": held}, layers)
    entries = metadata(found.graph.node[0])
    assert entries["cipherlearn.a.bits"] == held.bitwidth
    assert entries["cipherlearn.b.held"] == "computed inside a table look-up"
    assert found.graph.node[0].doc_string.splitlines()[0].startswith(f"a: {held.bitwidth} bits")


def test_the_float_model_must_have_been_kept() -> None:
    converter = PostTrainingAffineQuantization(5, NumpyModule(perceptron()))
    bare = converter.quantize_module(X, keep_onnx=False)
    with pytest.raises(ModelError, match="keep_onnx=True"):
        bare.annotated_onnx()
