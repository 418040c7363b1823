from __future__ import annotations

import warnings

import numpy as np
import pytest

from cipherlearn.errors import CalibrationWarning
from cipherlearn.quantization.breakdown import ROWS, Breakdown
from cipherlearn.quantization.quantized_array import QuantizedArray
from tests.onnx_models import make_model, node, weights
from tests.quantization.models import rounded_perceptron
from tests.quantization.quantize import normal, quantize

X = normal(200, 4)

SOFTMAX = make_model(
    [node("Softmax", ["x"], "s", axis=1, name="scores"), node("MatMul", ["s", "w"], "y")],
    {"x": ["N", 4]},
    ["y"],
    {"w": weights(4, 2)},
)


def test_the_first_layer_that_quantization_breaks_is_named() -> None:
    with pytest.warns(CalibrationWarning, match=r"breaks this model.*'y' \(R2.*'scores/"):
        quantize(SOFTMAX, 8 * X)


@pytest.mark.parametrize("bits", [4, 8])
def test_ordinary_networks_are_not_told_of(bits: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize(SOFTMAX, 0.2 * X, n_bits=8)
        rounded_perceptron()
        model = make_model(
            [
                node("MatMul", ["x", "v"], "h"),
                node("Relu", ["h"], "r"),
                node("MatMul", ["r", "w"], "y"),
            ],
            {"x": ["N", 4]},
            ["y"],
            {"v": weights(4, 4, seed=2), "w": weights(4, 2)},
        )
        quantize(model, X, n_bits=bits)


def test_a_layer_that_is_far_does_no_harm_where_the_outputs_are_near() -> None:
    data = np.linspace(0.0, 1.0, 3 * ROWS).reshape(-1, 1)
    op = quantize(
        make_model([node("Relu", ["x"], "y")], {"x": ["N", 1]}, ["y"]), data.astype(np.float32)
    ).quant_layers_dict["y"][1]
    right, wrong = QuantizedArray(8, data), QuantizedArray(8, 1.0 - data)
    for found, name, told in ((right, "y", 0), (wrong, "y", 1), (wrong, "x", 0)):
        watch = Breakdown({"x": data}, {"x": QuantizedArray(8, data)})
        watch.compute("y", ("x",), op)
        watch.compare("y", ("x",), op, found)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            watch.report([name])
        assert len(caught) == told


def test_values_that_hardly_vary_have_no_spread_to_compare_with() -> None:
    data = np.full((50, 1), 100.0) + 1e-3 * np.arange(50)[:, None] / 50
    op = quantize(
        make_model([node("Relu", ["x"], "y")], {"x": ["N", 1]}, ["y"]), data.astype(np.float32)
    ).quant_layers_dict["y"][1]
    watch = Breakdown({"x": data}, {"x": QuantizedArray(8, data)})
    watch.compute("y", ("x",), op)
    watch.compare("y", ("x",), op, QuantizedArray(8, data + 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.report(["y"])
