from __future__ import annotations

import copy
import io
import json
from typing import Any

import numpy as np
import pytest

from cipherlearn.errors import (
    FormatError,
    InvalidParameterError,
    InvalidShapeError,
    ModelError,
    NotCalibratedError,
)
from cipherlearn.quantization import (
    MinMaxQuantizationStats,
    QuantizationOptions,
    QuantizedArray,
    QuantizedModule,
    UniformQuantizationParameters,
    UniformQuantizer,
)
from tests.onnx_models import make_model, node, perceptron, weights
from tests.quantization.models import rounded_perceptron
from tests.quantization.quantize import check_integers_agree, float_outputs, normal, quantize, r2

X = normal(60, 4)


@pytest.fixture(scope="module")
def module() -> QuantizedModule:
    return rounded_perceptron()


@pytest.fixture(scope="module")
def saved(module: QuantizedModule) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(module.dumps())
    return data


def test_names_layers_and_quantizers(module: QuantizedModule) -> None:
    assert module.ordered_module_input_names == ("x",)
    assert module.ordered_module_output_names == ("y",)
    assert list(module.quant_layers_dict) == ["h", "r", "y"]
    assert module.quant_layers_dict["r"][0] == ("h",)
    assert [q.n_bits for q in module.input_quantizers] == [5]
    assert all(isinstance(q, UniformQuantizer) for q in module.output_quantizers)
    assert module.post_processing_params == {}
    assert module.onnx_model is not None
    assert module.fhe_circuit is None
    assert module.circuit.output_names == ("y",)


def test_an_empty_module_says_how_to_make_one() -> None:
    empty = QuantizedModule()
    with pytest.raises(NotCalibratedError, match="make one with quantize_module"):
        _ = empty.circuit
    with pytest.raises(NotCalibratedError, match="make one with quantize_module"):
        empty.dumps()


@pytest.mark.parametrize(
    "arguments", [(["x"],), (["x"], ["y"]), (None, ["y"], {}), (None, None, {})]
)
def test_names_and_layers_come_together(arguments: Any) -> None:
    with pytest.raises(InvalidParameterError, match="or none of them"):
        QuantizedModule(*arguments)


def test_debugging_shows_the_integers_of_every_layer(module: QuantizedModule) -> None:
    outputs, layers = module.forward(X, debug=True)
    np.testing.assert_array_equal(outputs, module.forward(X))
    names = [op.op_instance_name for _, op in module.quant_layers_dict.values()]
    assert list(layers) == names
    for values in layers.values():
        assert set(values) == {0, "output"}
        assert all(isinstance(value, QuantizedArray) for value in values.values())
    last = layers[names[-1]]["output"]
    np.testing.assert_array_equal(last.qvalues, module.quantized_forward(module.quantize_input(X)))
    with pytest.raises(InvalidParameterError, match="fhe='disable' only"):
        module.forward(X, fhe="simulate", debug=True)


def test_processing_by_the_client_is_empty(module: QuantizedModule) -> None:
    assert module.pre_processing(X) == (X,)
    assert module.post_processing(X) is X


def test_other_quantizers_for_the_inputs() -> None:
    module = quantize(perceptron(), X, n_bits=6)
    module.compile(engine="clear")
    before = module.forward(X)
    coarse = QuantizedArray(5, X, is_signed=True).quantizer
    module.set_inputs_quantization_parameters(coarse)
    assert not module.is_compiled
    assert module.input_quantizers[0] == coarse
    assert module.input_quantizers[0] is not coarse
    check_integers_agree(module, X)
    after = module.forward(X)
    assert r2(after, *float_outputs(module, X)) > 0.97
    assert not np.array_equal(before, after)


def test_outputs_follow_the_steps_of_other_input_quantizers() -> None:
    model = make_model(
        [node("Gemm", ["x", "w"], "y")], {"x": ["N", 4]}, ["y"], {"w": weights(4, 3)}
    )
    module = quantize(model, X, n_bits=7)
    wider = QuantizedArray(7, 3 * X, is_signed=True).quantizer
    module.set_inputs_quantization_parameters(wider)
    assert r2(module.forward(X), X @ weights(4, 3)) > 0.99


def test_quantizers_without_a_range_have_that_of_their_integers() -> None:
    module = quantize(perceptron(), X, n_bits=6)
    params = UniformQuantizationParameters(0.125, 0, 32)
    bare = UniformQuantizer(QuantizationOptions(6, is_signed=True), None, params)
    module.set_inputs_quantization_parameters(bare)
    assert (module.input_quantizers[0].rmin, module.input_quantizers[0].rmax) == (-4.0, 3.875)
    assert r2(module.forward(X), *float_outputs(module, X)) > 0.97


def test_quantizers_of_inputs_are_counted_and_calibrated(module: QuantizedModule) -> None:
    with pytest.raises(InvalidShapeError, match="0 quantizers were given; the model has 1 inputs"):
        module.set_inputs_quantization_parameters()
    with pytest.raises(NotCalibratedError):
        module.set_inputs_quantization_parameters(
            UniformQuantizer(QuantizationOptions(4), MinMaxQuantizationStats(1.0, 0.0))
        )
    assert module.input_quantizers[0].n_bits == 5, "nothing changed"


def test_a_saved_module_gives_the_same_integers(module: QuantizedModule) -> None:
    file = io.StringIO()
    module.dump(file)
    file.seek(0)
    loaded = QuantizedModule.load(file)
    assert loaded.dumps() == module.dumps()
    q_x = module.quantize_input(X)
    np.testing.assert_array_equal(loaded.quantize_input(X), q_x)
    np.testing.assert_array_equal(loaded.quantized_forward(q_x), module.quantized_forward(q_x))
    np.testing.assert_array_equal(loaded.forward(X), module.forward(X))
    loaded.compile(X, engine="clear")
    np.testing.assert_array_equal(loaded.forward(X[:3], fhe="execute"), module.forward(X[:3]))
    assert loaded.agreement(X)["quantized"].score is None


def test_several_inputs_and_outputs_are_saved_with_their_status() -> None:
    model = make_model(
        [node("Add", ["x", "z"], "s"), node("Relu", ["s"], "r")],
        {"x": ["N", 4], "z": ["N", 4]},
        ["s", "r"],
    )
    module = quantize(model, X, X[::-1])
    module.compile(engine="clear", inputs_encryption_status=["clear", "encrypted"])
    module.post_processing_params = {"classes": np.array([3, 5]), "offset": 1.5}
    loaded = QuantizedModule.loads(module.dumps())
    assert loaded.post_processing_params["offset"] == 1.5
    np.testing.assert_array_equal(loaded.post_processing_params["classes"], [3, 5])
    loaded.compile(engine="clear")
    assert [i.encrypted for i in loaded.circuit.inputs] == [False, True]
    for found, expected in zip(loaded.forward(X, X), module.forward(X, X), strict=True):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(ModelError, match="a loaded module keeps its circuit"):
        loaded.compile(engine="clear", inputs_encryption_status=["encrypted", "encrypted"])


def test_files_from_before_the_client_computed_anything_are_read(saved: dict[str, Any]) -> None:
    older = {key: value for key, value in saved.items() if key not in ("head", "tail")}
    module = QuantizedModule.load_dict(older)
    assert module.head is module.tail is None
    np.testing.assert_array_equal(module.forward(X), QuantizedModule.load_dict(saved).forward(X))


def test_a_loaded_module_has_no_layers(saved: dict[str, Any]) -> None:
    loaded = QuantizedModule.load_dict(saved)
    with pytest.raises(ModelError, match="a loaded module keeps its circuit"):
        loaded.set_inputs_quantization_parameters(*loaded.input_quantizers)
    with pytest.raises(ModelError, match="no layers"):
        loaded.forward(X, debug=True)


def damaged(saved: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(saved), **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "not a saved quantized module"),
        ({"version": 2}, "version 2; this cipherlearn reads version 1"),
        ({"version": None}, "version None"),
        ({"circuit": {}}, "not a saved cipherlearn circuit"),
        ({"circuit": None}, "not a saved cipherlearn circuit"),
        ({"input_names": ["x", "z"]}, "2 names of inputs, 1 inputs of the circuit, 1 quantizers"),
        ({"output_names": []}, "0 names of outputs"),
        ({"input_quantizers": []}, "1 inputs of the circuit, 0 quantizers"),
        ({"output_quantizers": [{}]}, "has the fields"),
        ({"input_quantizers": 3}, "damaged"),
        ({"post_processing_params": 3}, "damaged"),
        ({"post_processing_params": {"a": {"pickle": 1}}}, "unknown kind of value"),
    ],
)
def test_damaged_modules_are_refused(
    saved: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        QuantizedModule.load_dict(damaged(saved, **changes))


def test_quantizers_that_do_not_fit_the_circuit_are_refused(saved: dict[str, Any]) -> None:
    data = damaged(saved)
    data["input_quantizers"][0]["n_bits"] = 6
    with pytest.raises(
        FormatError, match="gives integers from -16 to 47, its circuit takes -16 to"
    ):
        QuantizedModule.load_dict(data)
    data["input_quantizers"][0]["scale"] = None
    with pytest.raises(FormatError, match="no scale"):
        QuantizedModule.load_dict(data)


@pytest.mark.parametrize("key", ["circuit", "input_names", "output_quantizers", "version"])
def test_missing_parts_are_refused(saved: dict[str, Any], key: str) -> None:
    data = damaged(saved)
    del data[key]
    with pytest.raises(FormatError):
        QuantizedModule.load_dict(data)


def test_damaged_text_is_refused(saved: dict[str, Any]) -> None:
    text = json.dumps(saved)
    for bad in (text[: len(text) // 2], "", "null", "[1]", b"\xff\xfe\x00"):
        with pytest.raises(FormatError, match="not a saved"):
            QuantizedModule.loads(bad)
