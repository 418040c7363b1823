from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from cipherlearn.errors import InvalidParameterError, InvalidTypeError, UnquantizedTensorError
from cipherlearn.quantization import (
    ONNXConverter,
    PostTrainingAffineQuantization,
    PostTrainingQATImporter,
    QuantizedArray,
    QuantizedModule,
    Rounding,
)
from cipherlearn.torch import NumpyModule
from tests.onnx_models import make_model, node, perceptron, weights
from tests.quantization.quantize import check, check_integers_agree, lookups, normal, quantize, r2

X = normal(80, 4)


def weight_options(values: np.ndarray, n_bits: int = 4) -> Any:
    converter = PostTrainingAffineQuantization(n_bits, None)
    return converter.quantize_constant(values, "w")


def test_a_converter_knows_its_widths_and_what_it_made() -> None:
    model = NumpyModule(perceptron())
    converter = PostTrainingAffineQuantization(3, model, rounding_threshold_bits=4)
    assert (converter.n_bits_model_inputs, converter.n_bits_model_outputs) == (5, 5)
    assert (converter.n_bits_op_inputs, converter.n_bits_op_weights) == (3, 3)
    assert converter.n_bits["op_inputs"] == 3
    assert converter.numpy_model is model
    assert converter.rounding == Rounding(4)
    assert converter.rounding_threshold_bits == 4
    module = converter.quantize_module(X)
    assert converter.quant_ops_dict == module.quant_layers_dict
    assert [name for name, _ in converter.quant_ops_dict.items()][-1] == "y"
    assert isinstance(converter.quant_params["w1"], QuantizedArray)
    assert converter.quant_params["w1"].n_bits == 3
    assert isinstance(converter.quant_params["b1"], np.ndarray), "a bias stays real"


def test_the_float_model_is_kept_if_asked_for() -> None:
    model = NumpyModule(perceptron())
    converter = PostTrainingAffineQuantization(5, model)
    assert converter.quantize_module(X).onnx_model is model.onnx_model
    module = converter.quantize_module(X, keep_onnx=False)
    assert module.onnx_model is None
    assert module.numpy_model is None


def test_widths_reach_inputs_weights_operands_and_outputs() -> None:
    bits = {"model_inputs": 7, "op_inputs": 4, "op_weights": 3, "model_outputs": 6}
    model = make_model(
        [
            node("Gemm", ["x", "w"], "h"),
            node("Relu", ["h"], "r"),
            node("Gemm", ["r", "v"], "g"),
            node("Relu", ["g"], "y"),
        ],
        {"x": ["N", 4]},
        ["y"],
        {"w": weights(4, 3), "v": weights(3, 2)},
    )
    module = quantize(model, X, n_bits=bits)
    _, layers = module.forward(X, debug=True)
    assert module.input_quantizers[0].n_bits == 7
    (first, _, second, last) = layers.values()
    assert first[0].qvalues.min() < -16
    operand = module.quant_layers_dict["g"][1].read_operands(second[0])[0]
    assert (operand.n_bits, operand.qvalues.max()) == (4, 15)
    assert module.quant_layers_dict["g"][1].constant_inputs[1].n_bits == 3
    assert last["output"].n_bits == 6
    assert last["output"].qvalues.max() == 63
    assert module.output_quantizers[0].n_bits == 6


@pytest.mark.parametrize(
    ("values", "symmetric"),
    [
        (weights(50, 4), True),
        (np.abs(weights(50, 4)), False),
        (np.linspace(-1, 3.5, 99), False),
        (np.linspace(-1, 2.5, 99), True),
        (np.linspace(-2.5, 1, 99), True),
        (np.linspace(-4, 1, 99), False),
        (np.zeros((3, 3)), False),
    ],
)
def test_weights_are_symmetric_where_their_bulk_straddles_0_evenly(
    values: np.ndarray, symmetric: bool
) -> None:
    found = weight_options(values)
    assert found.quantizer.is_symmetric == symmetric
    assert found.quantizer.is_signed == symmetric
    np.testing.assert_allclose(found.dequant(), values, atol=found.quantizer.scale * 0.501)


def test_integers_and_booleans_as_weights_stay() -> None:
    for values in (np.array([1, 2]), np.array([True, False])):
        assert weight_options(values) is values
    known = QuantizedArray(4, weights(3))
    assert weight_options(known) is known


def test_layer_inputs_are_signed_if_calibration_data_is() -> None:
    model = make_model(
        [node("Gemm", ["x", "w"], "y")], {"x": ["N", 4]}, ["y"], {"w": weights(4, 3)}
    )
    assert quantize(model, X).input_quantizers[0].is_signed
    module = quantize(model, np.abs(X))
    assert not module.input_quantizers[0].is_signed
    check(module, np.abs(X))


def test_more_bits_come_nearer() -> None:
    model = NumpyModule(perceptron())
    scores = []
    for bits in (2, 4, 6, 7):
        module = PostTrainingAffineQuantization(bits, model).quantize_module(X)
        scores.append(r2(module.forward(X), model.forward(X)))
    assert scores == sorted(scores)
    assert scores[-1] > 0.999


def test_the_same_data_gives_the_same_module() -> None:
    texts = {quantize(perceptron(), X, n_bits=4, rounding=4).dumps() for _ in range(3)}
    assert len(texts) == 1


def test_a_converter_needs_a_number_of_kept_bits() -> None:
    with pytest.raises(
        InvalidParameterError, match="'auto' needs the search of build_quantized_mo"
    ):
        PostTrainingAffineQuantization(4, None, "auto")


def test_the_base_class_does_not_decide_on_weights() -> None:
    converter = ONNXConverter(4, NumpyModule(perceptron()))
    assert converter.n_bits["op_weights"] == 4
    with pytest.raises(InvalidTypeError, match="'w1' is quantized: use PostTraining"):
        converter.quantize_module(X)


GRID_W = np.array([[3, -4, 1], [0, 2, -1], [-4, 3, 3], [1, 1, -2]]) * np.float32(0.125)
GRID_V = np.array([[1, -2], [3, 3], [-4, 0]]) * np.float32(0.5)


def fake_quantized(name: str, step: str, lowest: str, highest: str) -> list[onnx.NodeProto]:
    """What a network trained with quantization does to an activation."""
    return [
        node("Div", [name, step], f"{name}_scaled"),
        node("Round", [f"{name}_scaled"], f"{name}_round"),
        node("Clip", [f"{name}_round", lowest, highest], f"{name}_clip"),
        node("Mul", [f"{name}_clip", step], f"{name}_q"),
    ]


def trained(second: np.ndarray = GRID_V, quantize_hidden: bool = True) -> onnx.ModelProto:
    hidden = fake_quantized("r", "step", "zero", "seven") if quantize_hidden else []
    return make_model(
        [
            *fake_quantized("x", "step", "low", "high"),
            node("Gemm", ["x_q", "w", "b"], "h"),
            node("Relu", ["h"], "r"),
            *hidden,
            node("Gemm", ["r_q" if quantize_hidden else "r", "v"], "y"),
        ],
        {"x": ["N", 4]},
        ["y"],
        {
            "w": GRID_W,
            "v": second,
            "b": weights(3),
            "step": np.float32(0.25),
            "low": np.float32(-4),
            "high": np.float32(3),
            "zero": np.float32(0),
            "seven": np.float32(7),
        },
    )


def imported(model: onnx.ModelProto, bits: Any = 3) -> QuantizedModule:
    if isinstance(bits, int):
        bits = {"model_inputs": 8, "op_inputs": bits, "op_weights": bits, "model_outputs": 8}
    return PostTrainingQATImporter(bits, NumpyModule(model)).quantize_module(X)


def test_a_trained_grid_is_taken_over() -> None:
    module = imported(trained())
    check_integers_agree(module, X)
    first, second = (module.quant_layers_dict[name][1] for name in ("h", "y"))
    np.testing.assert_array_equal(first.constant_inputs[1].qvalues, GRID_W / 0.125)
    np.testing.assert_array_equal(second.constant_inputs[1].qvalues, GRID_V / 0.5)
    assert max(lookups(module)) <= 8


def test_an_imported_network_is_exact_where_the_client_gives_its_grid() -> None:
    on_grid = np.clip(np.rint(X / 0.25), -4, 3).astype(np.float32) * 0.25
    converter = PostTrainingQATImporter(3, NumpyModule(trained()))
    module = converter.quantize_module(on_grid)
    assert module.input_quantizers[0].scale == 0.25
    truth = NumpyModule(trained()).forward(on_grid)
    np.testing.assert_allclose(module.forward(on_grid), truth, atol=1e-5)


def test_unsigned_activations_use_all_their_bits() -> None:
    module = imported(trained())
    operand = module.quant_layers_dict["y"][1]._operand_quantizers[0]
    assert (operand.is_signed, operand.integer_limits, operand.scale) == (False, (0, 7), 0.25)


def test_tensors_that_nobody_quantized_are_listed_at_once() -> None:
    model = trained(weights(3, 2), quantize_hidden=False)
    with pytest.raises(UnquantizedTensorError, match=r"quantized: v, r\. Quantize them in the mod"):
        imported(model)


def test_grids_that_need_more_bits_are_listed() -> None:
    with pytest.raises(UnquantizedTensorError, match="w, v"):
        imported(trained(), {"op_inputs": 3, "op_weights": 2})


def test_inputs_without_a_grid_are_quantized_by_the_client() -> None:
    model = make_model([node("Gemm", ["x", "w"], "y")], {"x": ["N", 4]}, ["y"], {"w": GRID_W})
    data = np.abs(X) + 3
    converter = PostTrainingQATImporter(8, NumpyModule(model))
    module = converter.quantize_module(data)
    check(module, data)
    assert lookups(module) == {}


def test_sums_of_trained_layers_share_a_step() -> None:
    model = make_model(
        [
            *fake_quantized("x", "step", "low", "high"),
            node("MatMul", ["x_q", "w"], "a"),
            node("MatMul", ["x_q", "v"], "b"),
            node("Add", ["a", "b"], "y"),
        ],
        {"x": ["N", 4]},
        ["y"],
        {
            "w": GRID_W,
            "v": 4 * GRID_W,
            "step": np.float32(0.25),
            "low": np.float32(-4),
            "high": np.float32(3),
        },
    )
    module = imported(model, {"model_inputs": 8, "op_inputs": 7, "op_weights": 3})
    check(module, X, score=0.97)


def test_grids_with_a_zero_point_and_one_step_a_channel_are_taken_over() -> None:
    kernel = np.random.default_rng(0).integers(-127, 128, (3, 4)).astype(np.int8)
    model = make_model(
        [
            node("QuantizeLinear", ["x", "s", "z"], "i"),
            node("DequantizeLinear", ["i", "s", "z"], "x_q"),
            node("DequantizeLinear", ["kernel", "ks", "kz"], "w", axis=0),
            node("Gemm", ["x_q", "w", "b"], "y", transB=1),
        ],
        {"x": ["N", 4]},
        ["y"],
        {
            "s": np.float32(0.03),
            "z": np.uint8(70),
            "kernel": kernel,
            "ks": np.array([0.02, 0.03, 0.01], dtype=np.float32),
            "kz": np.zeros(3, dtype=np.int8),
            "b": weights(3),
        },
    )
    data = 4 * normal(400, 4)
    assert data.min() < -70 * 0.03
    assert data.max() > 185 * 0.03
    module = PostTrainingQATImporter(8, NumpyModule(model)).quantize_module(data)
    check(module, data)
    _, op = module.quant_layers_dict["y"]
    np.testing.assert_array_equal(op.constant_inputs[1].qvalues, kernel)
    operand = op._operand_quantizers[0]
    assert operand.scale == pytest.approx(0.03)
    assert (operand.zero_point, operand.integer_limits) == (70, (0, 255))
