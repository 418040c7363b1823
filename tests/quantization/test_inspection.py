from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from cipherlearn.circuit import evaluate
from cipherlearn.errors import (
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
    LookupWidthError,
    ModelError,
)
from cipherlearn.onnx import intermediate_values
from cipherlearn.quantization import (
    PostTrainingAffineQuantization,
    QuantizedArray,
    QuantizedModule,
)
from cipherlearn.quantization.calibration import as_tuple
from cipherlearn.quantization.inspection import (
    HeldIntegers,
    Trace,
    TracedTensor,
    ranges_of_layers,
)
from cipherlearn.torch import NumpyModule
from tests.onnx_models import make_model, node, perceptron, weights
from tests.quantization.models import DEEP, DENSE, IMAGE, rounded_perceptron
from tests.quantization.quantize import float_outputs, normal, quantize, r2

X = normal(60, 4)
ROWS = X[:20]


@pytest.fixture(scope="module")
def module() -> QuantizedModule:
    return rounded_perceptron()


@pytest.fixture(scope="module")
def trace(module: QuantizedModule) -> Trace:
    return module.trace(ROWS)


def integers_of(tensor: TracedTensor) -> np.ndarray:
    assert tensor.integers is not None
    return tensor.integers


def test_every_tensor_is_there_by_its_name_and_by_that_of_its_node(trace: Trace) -> None:
    assert [tensor.name for tensor in trace] == ["x", "h", "r", "y"]
    assert len(trace) == 4
    assert trace["first"] is trace["h"] is trace.tensors[1]
    assert [tensor.operator for tensor in trace] == ["input", "Gemm", "Relu", "Gemm"]
    assert [tensor.shape for tensor in trace] == [(4,), (3,), (3,), (2,)]
    with pytest.raises(InvalidParameterError, match="'z'; the tensors are x, h, r, y"):
        _ = trace["z"]


def test_the_float_side_is_what_the_float_model_computes(trace: Trace) -> None:
    known = intermediate_values(perceptron(), ROWS.astype(np.float64))
    for name in ("x", "h", "r"):
        np.testing.assert_allclose(trace[name].float_values, known[name], rtol=1e-6)
    assert trace["h"].float_range == (trace["h"].float_values.min(), trace["h"].float_values.max())


def test_the_quantized_side_is_what_the_module_computes(
    module: QuantizedModule, trace: Trace
) -> None:
    q_x = module.quantize_input(ROWS)
    np.testing.assert_array_equal(integers_of(trace["x"]), q_x)
    np.testing.assert_array_equal(integers_of(trace["y"]), module.quantized_forward(q_x))
    np.testing.assert_array_equal(trace["y"].quantized, module.forward(ROWS))


def test_errors_are_distances_from_float(trace: Trace) -> None:
    for tensor in trace:
        distance = np.abs(tensor.quantized - tensor.float_values)
        assert tensor.largest_error == distance.max() > 0
        assert tensor.mean_error == distance.mean()
    step = trace["x"].held.scale  # type: ignore[union-attr]
    inside = np.abs(ROWS) < 15 * step
    assert np.abs(trace["x"].quantized - ROWS)[inside].max() <= step / 2


def test_integers_come_with_their_range(trace: Trace) -> None:
    held = {tensor.name: tensor.held for tensor in trace}
    assert held["x"] is not None
    assert held["h"] is not None
    assert held["r"] is not None
    assert held["x"].range == (-16, 15)
    assert trace["x"].bitwidth == 5
    assert trace["x"].held.is_proved  # type: ignore[union-attr]
    # Rounding to 6 bits spends bits on filling the steps.
    assert held["h"].bitwidth - held["h"].lsbs_to_remove == 6
    assert not held["h"].is_proved
    assert held["r"].range == (0, 31)
    assert held["r"].is_proved, "a table holds what it holds, whatever reads it"
    for tensor in trace:
        assert tensor.held is not None
        assert tensor.observed_range is not None
        assert tensor.held.range[0] <= tensor.observed_range[0]
        assert tensor.observed_range[1] <= tensor.held.range[1]


def test_real_ranges_are_those_of_the_ends() -> None:
    scales = np.array([0.5, -2.0])
    assert HeldIntegers(scales, np.array([1, 0]), (-3, 4), True).real_range == (-8.0, 6.0)
    assert HeldIntegers(0.5, 2, (0, 8), True).real_range == (-1.0, 3.0)


def test_a_trace_prints_as_a_table(trace: Trace) -> None:
    lines = str(trace).splitlines()
    assert len(lines) == 1 + len(trace)
    assert lines[0].split()[:4] == ["tensor", "operator", "layer", "shape"]
    assert "0 to 8064, observed" in lines[2]
    assert "6 read" in lines[2]
    assert "0 to 31 " in lines[3]
    assert not any(line.endswith(" ") for line in lines)


def values_of_circuit(module: QuantizedModule, q_x: Any) -> list[np.ndarray]:
    result = evaluate(module.circuit, *(q[:, None] for q in as_tuple(q_x)))
    return [output[:, 0] for output in result.outputs]


@pytest.mark.parametrize("name", [*DENSE, *(f"deep: {name}" for name in DEEP)])
def test_traces_agree_with_the_module(name: str) -> None:
    deep = name.startswith("deep: ")
    model, _ = DEEP[name[6:]] if deep else DENSE[name]
    data = IMAGE if deep else normal(100, 4)
    module = quantize(model, data, n_bits=7)
    trace = module.trace(data)
    integers = values_of_circuit(module, module.quantize_input(data))
    outputs = as_tuple(module.forward(data))
    results = zip(module.ordered_module_output_names, integers, outputs, strict=True)
    for output, expected, reals in results:
        np.testing.assert_array_equal(integers_of(trace[output]), expected)
        np.testing.assert_array_equal(trace[output].quantized, reals)
    for tensor in trace:
        spread = np.ptp(tensor.float_values) or 1.0
        assert tensor.largest_error <= 0.2 * spread, tensor.name
        assert (tensor.integers is None) == (tensor.held is None)
        if tensor.held is not None and tensor.observed_range is not None:
            assert tensor.held.range[0] <= tensor.observed_range[0]
            assert tensor.observed_range[1] <= tensor.held.range[1]


def test_what_lies_inside_of_a_table_has_no_integers() -> None:
    trace = quantize(DENSE["a chain of functions is one table"][0], X).trace(ROWS)
    for name in ("a", "s", "p"):
        assert trace[name].integers is None
        assert trace[name].bitwidth is None
        assert trace[name].observed_range is None
    assert trace["h"].integers is not None
    assert str(trace).count("in a table") == 3


def test_operands_of_a_product_are_the_integers_that_are_multiplied() -> None:
    module = quantize(DENSE["quotient of two layers"][0], X, n_bits=6)
    trace = module.trace(ROWS)
    assert trace["d"].integers is None, "the reciprocal is quantized, not the divisor"
    assert trace["a"].integers is not None


def test_undefined_values_are_no_errors() -> None:
    module = quantize(
        make_model(
            [node("Exp", ["x"], "e"), node("Log", ["e"], "l")],
            {"x": ["N", 4]},
            ["l"],
        ),
        X,
    )
    far = np.full((1, 4), 800.0)  # the exponential overflows
    trace = module.trace(far)
    assert np.isinf(trace["e"].float_values).all()
    assert trace["e"].largest_error == 0.0
    assert np.isnan(trace["e"].float_range).all()
    assert "nan" in str(trace)


def test_a_module_without_float_model_is_traced_layer_by_layer(module: QuantizedModule) -> None:
    converter = PostTrainingAffineQuantization(
        5, NumpyModule(perceptron()), {"n_bits": 6, "method": "exact"}
    )
    bare = converter.quantize_module(X, keep_onnx=False)
    assert bare.onnx_model is None
    for found, expected in zip(bare.trace(ROWS), module.trace(ROWS), strict=True):
        np.testing.assert_allclose(found.float_values, expected.float_values, atol=1e-5)


def test_a_module_that_cannot_be_compiled_can_be_traced() -> None:
    wide = perceptron()
    module = quantize(wide, 100 * normal(400, 4), n_bits=16)
    with pytest.raises(LookupWidthError, match="Relu_1 needs a table look-up on"):
        _ = module.circuit
    for mode in ("simulate", "execute"):
        with pytest.raises(LookupWidthError, match="Relu_1 needs a table look-up on"):
            module.forward(ROWS, fhe=mode)
    assert r2(module.forward(100 * ROWS), float_outputs(module, 100 * ROWS)[0]) > 0.999
    report = module.bitwidth_and_range_report()
    assert report["first"]["bitwidth"] > 16
    assert report["first"]["range"][0] == 0
    assert report["Relu_1"] == {"range": (0, 2**16 - 1), "bitwidth": 16}
    trace = module.trace(ROWS)
    assert all(tensor.held is None for tensor in trace)
    bits = trace["first"].bitwidth
    assert bits is not None
    assert bits > 16, "the width says what is wrong"
    assert "first" in str(trace)


def test_a_trace_of_no_rows_has_no_ranges(module: QuantizedModule) -> None:
    assert "nan" not in str(module.trace(ROWS[:0]))


def test_layers_looked_at_on_their_own_have_the_ranges_of_the_circuit(
    module: QuantizedModule,
) -> None:
    found = ranges_of_layers(module, module._values)
    known = module.bitwidth_and_range_report()
    assert set(found) == set(known)
    for name in ("first", "Gemm_2"):
        assert found[name] == known[name]


def test_nodes_that_compute_several_tensors_are_asked_by_tensor() -> None:
    model = make_model(
        [
            node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2, name="split"),
            node("Relu", ["a"], "r"),
            node("Add", ["r", "b"], "y"),
        ],
        {"x": ["N", 4]},
        ["y"],
    )
    trace = quantize(model, X).trace(ROWS)
    np.testing.assert_array_equal(trace["b"].float_values, ROWS[:, 2:])
    assert trace["b"].layer == "split"
    with pytest.raises(InvalidParameterError, match="'split' computes 'a', 'b'"):
        _ = trace["split"]


def test_an_operator_written_with_simpler_ones_shows_them_and_keeps_its_name() -> None:
    model = make_model(
        [
            node("Gemm", ["x", "w"], "h", name="dense"),
            node("LayerNormalization", ["h", "s"], "n", axis=-1, name="norm"),
            node("Gemm", ["n", "v"], "y", name="head"),
        ],
        {"x": ["N", 4]},
        ["y"],
        {"w": weights(4, 5), "s": np.ones(5, np.float32), "v": weights(5, 3)},
    )
    module = quantize(model, X)
    trace = module.trace(ROWS)
    assert trace["norm"] is trace["n"]
    assert trace["n"].operator == "LayerNormalization"
    inner = [tensor for tensor in trace if tensor.name.startswith("norm/")]
    assert len(inner) >= 3
    for tensor in inner:
        # Nothing but the operators of the expansion says what these are in float.
        spread = np.ptp(tensor.float_values)
        assert tensor.largest_error < 0.2 * spread
    np.testing.assert_allclose(trace["n"].float_values.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_array_equal(trace["y"].quantized, module.forward(ROWS))


def test_what_the_client_computes_at_the_end_is_shown() -> None:
    model = make_model(
        [node("Gemm", ["x", "w"], "h"), node("Softmax", ["h"], "y", name="soft")],
        {"x": ["N", 4]},
        ["y"],
        {"w": weights(4, 3)},
    )
    module = quantize(model, X)
    trace = module.trace(ROWS)
    assert trace["soft"].on_client
    assert not trace["h"].on_client
    assert trace["soft"].integers is None
    np.testing.assert_allclose(trace["y"].quantized, module.forward(ROWS))
    np.testing.assert_allclose(trace["y"].float_values.sum(axis=-1), 1)
    assert "on the client" in str(trace).splitlines()[-1]


def test_what_the_client_computes_at_the_beginning_is_shown() -> None:
    tokens_of_rows: Any = (onnx.TensorProto.INT64, ["N", 3])
    model = make_model(
        [node("Gather", ["t", "x"], "e", name="embedding"), node("Flatten", ["e"], "y")],
        {"x": tokens_of_rows},
        ["y"],
        {"t": weights(6, 4)},
    )
    tokens = np.random.default_rng(0).integers(0, 6, (50, 3))
    module = quantize(model, tokens, n_bits=6)
    trace = module.trace(tokens)
    assert trace["x"].on_client
    np.testing.assert_array_equal(trace["x"].quantized, tokens)
    (encoding,) = module.ordered_module_input_names
    assert trace[encoding].bitwidth == 1
    np.testing.assert_array_equal(trace["y"].quantized, module.forward(tokens))
    np.testing.assert_allclose(trace["embedding"].float_values, weights(6, 4)[tokens])


def test_no_rows_are_no_errors(module: QuantizedModule) -> None:
    trace = module.trace(X[:0])
    assert trace["h"].largest_error == trace["h"].mean_error == 0.0
    assert trace["h"].observed_range is None
    assert trace["h"].bitwidth == 13
    assert str(trace)


def test_inputs_are_checked(module: QuantizedModule) -> None:
    with pytest.raises(InvalidShapeError, match="2 arrays were given; the model takes 1"):
        module.trace(X, X)
    with pytest.raises(InvalidTypeError, match="'x' has dtype int64"):
        module.trace(X.astype(int))
    with pytest.raises(InvalidShapeError, match=r"'x' has shape \(60, 3\); it must be \(rows, 4\)"):
        module.trace(X[:, :3])


def test_a_loaded_module_has_no_layers_to_look_into(module: QuantizedModule) -> None:
    loaded = QuantizedModule.loads(module.dumps())
    with pytest.raises(ModelError, match="no layers to look into"):
        loaded.trace(ROWS)
    with pytest.raises(ModelError, match="no layers to look into"):
        loaded.annotated_onnx()


def test_tracing_changes_nothing(module: QuantizedModule) -> None:
    before = module.dumps()
    operands = [op.constant_inputs for _, op in module.quant_layers_dict.values()]
    first = str(module.trace(ROWS))
    assert str(module.trace(ROWS)) == first
    assert module.dumps() == before
    assert all(
        isinstance(weight, QuantizedArray) and weight.values.shape == shape
        for (weight, shape) in ((operands[0][1], (4, 3)), (operands[2][1], (3, 2)))
    )


def test_several_inputs_are_traced() -> None:
    model = make_model(
        [node("MatMul", ["x", "w"], "a"), node("Add", ["a", "z"], "y", name="sum")],
        {"x": ["N", 4], "z": ["N", 2]},
        ["y"],
        {"w": weights(4, 2)},
    )
    other = normal(60, 2, seed=1)
    module = quantize(model, X, other)
    trace = module.trace(X, other)
    assert [tensor.name for tensor in trace] == ["x", "z", "a", "y"]
    np.testing.assert_array_equal(trace["sum"].quantized, module.forward(X, other))
    assert isinstance(module.onnx_model, onnx.ModelProto)
