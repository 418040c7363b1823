from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from cipherlearn import ops
from cipherlearn.errors import (
    EncryptedOperandError,
    InvalidParameterError,
    InvalidShapeError,
    NotCalibratedError,
)
from cipherlearn.onnx import execute
from cipherlearn.quantization import (
    ALL_QUANTIZED_OPS,
    ONNX_OPS_TO_QUANTIZED_IMPL,
    QuantizationOptions,
    QuantizedArray,
    QuantizedOp,
    quantized_ops,
)
from cipherlearn.quantization.base_quantized_op import numbers, observed_values, requantize
from tests.onnx_models import make_model, node, weights
from tests.quantization.quantize import check, lookups, normal, quantize

X = normal(50, 4)


@contextmanager
def registered(name: str, function: Any, **options: Any) -> Iterator[None]:
    """A user's own operator; it and its classes are forgotten afterwards."""
    ops.register_numpy(name, function, **options)
    try:
        yield
    finally:
        ops.unregister(name)
        ALL_QUANTIZED_OPS.discard(ONNX_OPS_TO_QUANTIZED_IMPL.pop(name, QuantizedOp))


@contextmanager
def restored(name: str) -> Iterator[None]:
    """Classes written for a standard operator are forgotten afterwards."""
    standard = ONNX_OPS_TO_QUANTIZED_IMPL[name]
    try:
        yield
    finally:
        ALL_QUANTIZED_OPS.discard(ONNX_OPS_TO_QUANTIZED_IMPL[name])
        ONNX_OPS_TO_QUANTIZED_IMPL[name] = standard
        ALL_QUANTIZED_OPS.add(standard)


def own(op_type: str, **attributes: Any) -> Any:
    """A model of a dense layer, an operator of one's own, and another dense layer."""
    return make_model(
        [
            node("MatMul", ["x", "w"], "h"),
            node(op_type, ["h"], "o", domain="my.domain", name="mine", **attributes),
            node("MatMul", ["o", "v"], "y"),
        ],
        {"x": ["N", 4]},
        ["y"],
        {"w": weights(4, 3), "v": weights(3, 2)},
        domains=["my.domain"],
    )


def test_an_operator_is_computed_on_reals_and_keeps_its_calibrated_quantizer() -> None:
    op = quantized_ops.QuantizedSigmoid(5, "node")
    result = op.calibrate(X)
    np.testing.assert_allclose(result, 1 / (1 + np.exp(-X)), atol=1e-6)
    output = op(QuantizedArray(8, X, is_signed=True))
    assert output.n_bits == 5
    assert output.quantizer.quant_params == op.output_quant_params
    assert op.output_quant_stats is not None
    assert op.output_quant_stats.rmax == result.max()
    np.testing.assert_allclose(output.dequant(), result, atol=0.03)


def test_defaults_of_an_operator() -> None:
    op = quantized_ops.QuantizedRelu(5, "node")
    assert op.n_bits == 5
    assert op.op_instance_name == "node"
    assert op.int_input_names == {"0"}
    assert op.input_quant_opts == QuantizationOptions(5, is_signed=True)
    assert op.op_type() == "Relu"
    assert op.can_fuse()
    assert not op.must_quantize_input(0)
    assert not op.produces_graph_output
    np.testing.assert_array_equal(op.impl(np.array([-1.0, 2.0]))[0], [0.0, 2.0])


def test_attributes_and_constants_come_from_the_schema() -> None:
    op = quantized_ops.QuantizedLeakyRelu(5, "node", alpha=0.5)
    assert op.attrs == {"alpha": 0.5}
    assert quantized_ops.QuantizedLeakyRelu(5, "node").attrs["alpha"] == pytest.approx(0.01)
    for key in (1, "1", "min"):
        clip = quantized_ops.QuantizedClip(
            5, "node", constant_inputs={key: np.float64(-1), "max": np.float64(1)}
        )
        assert set(clip.constant_inputs) == {1, 2}
    np.testing.assert_array_equal(clip.calibrate(np.array([-3.0, 0.5, 3.0])), [-1.0, 0.5, 1.0])


def test_trained_quantization_is_no_matter_of_operators_that_fuse() -> None:
    options = QuantizationOptions(5, is_signed=True, is_qat=True)
    op = quantized_ops.QuantizedRelu(5, "node", input_quant_opts=options)
    assert not op.input_quant_opts.is_qat
    assert options.is_qat, "the given options are not changed"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slope": 1}, r"has no attributes \['slope'\]; it has \['alpha'\]"),
        ({"constant_inputs": {"C": 1}}, "has no operand 'C'; it has X"),
        ({"constant_inputs": {3: 1}}, "has no operand number 3"),
    ],
)
def test_what_the_operator_does_not_have_is_refused(options: Any, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        quantized_ops.QuantizedLeakyRelu(5, "node", **options)


def test_operands_are_counted() -> None:
    op = quantized_ops.QuantizedRelu(5, "node")
    with pytest.raises(InvalidShapeError, match="takes 1 to 1 operands; 2 inputs and 0 constants"):
        op.calibrate(X, X)
    with pytest.raises(InvalidShapeError, match="0 inputs and 0 constants"):
        op.calibrate()


def test_operators_that_fuse_read_one_encrypted_value() -> None:
    with pytest.raises(EncryptedOperandError, match=r"combines 2 encrypted values; .*Add, Sub"):
        quantized_ops.QuantizedPow(5, "node", int_input_names={"a", "b"})


def test_results_need_calibration() -> None:
    op = quantized_ops.QuantizedRelu(5, "node")
    with pytest.raises(NotCalibratedError, match="node was not calibrated"):
        op(QuantizedArray(5, X))


def test_a_class_says_which_operator_it_implements() -> None:
    class Nameless(QuantizedOp):
        pass

    with pytest.raises(InvalidParameterError, match="Nameless does not say which operator"):
        Nameless.op_type()


def test_movements_keep_integers_and_quantizer() -> None:
    op = quantized_ops.QuantizedTranspose(5, "node", perm=[0, 2, 1])
    image = normal(6, 2, 3)
    op.calibrate(image)
    array = QuantizedArray(8, image)
    integers = QuantizedArray(8, array.qvalues, False, params=array.quantizer)
    moved = op(integers)
    np.testing.assert_array_equal(moved.qvalues, array.qvalues.transpose(0, 2, 1))
    assert moved.quantizer.scale == array.quantizer.scale
    real = op(array)
    np.testing.assert_array_equal(real.values, image.transpose(0, 2, 1))
    assert real.n_bits == 5


def test_movements_of_booleans_read_the_right_elements() -> None:
    model = make_model(
        [
            node("MatMul", ["x", "w"], "h"),
            node("LessOrEqual", ["h", "c"], "small"),
            node("Reshape", ["small", "shape"], "column"),
            node("Cast", ["column"], "y", to=1),
        ],
        {"x": ["N", 7]},
        ["y"],
        {
            "w": np.eye(7, dtype=np.float32),
            "c": np.linspace(-1, 1, 7, dtype=np.float32),
            "shape": np.array([-1, 7, 1]),
        },
    )
    x = np.random.default_rng(0).normal(size=(60, 7)).astype(np.float32)
    module = quantize(model, x, n_bits=8)
    (wanted,) = execute(model, x)
    assert np.mean(module.forward(x) != wanted) < 0.02


def test_movements_take_one_encrypted_value() -> None:
    op = quantized_ops.QuantizedReshape(5, "node")
    array = QuantizedArray(8, X)
    with pytest.raises(EncryptedOperandError, match="moves one encrypted value, its first operand"):
        op(array, array)


def test_dropout_moves_nothing() -> None:
    op = quantized_ops.QuantizedDropout(5, "node")
    integers = QuantizedArray(8, np.arange(6).reshape(3, 2), False, scale=0.5, zero_point=1)
    np.testing.assert_array_equal(op(integers).qvalues, integers.qvalues)


def test_integers_that_are_quantized_as_asked_stay() -> None:
    options = QuantizationOptions(5)
    array = QuantizedArray(5, X)
    integers = QuantizedArray(
        5, array.qvalues, False, stats=array.quantizer, params=array.quantizer
    )
    assert requantize(integers, options) is integers
    _ = integers.values
    assert requantize(integers, options) is integers, "whether its values were read or not"
    other = requantize(integers, QuantizationOptions(3))
    assert other.n_bits == 3
    assert (other.quantizer.rmin, other.quantizer.rmax) == (X.min(), X.max())
    assert requantize(array, options) is not array


def test_reals_end_where_calibration_ended() -> None:
    array = QuantizedArray(3, np.linspace(-1.0, 1.0, 20), is_signed=True)
    integers = QuantizedArray(
        3,
        np.array([-4, 3]),
        False,
        options=array.quantizer,
        stats=array.quantizer,
        params=array.quantizer,
    )
    assert integers.values.min() < -1.0
    np.testing.assert_array_equal(observed_values(integers), np.clip(integers.values, -1.0, 1.0))
    assert observed_values(array) is array.values
    missing = QuantizedArray(3, np.array([np.nan, 0.5]), rmin=-1.0, rmax=1.0)
    np.testing.assert_array_equal(numbers(missing), [-1.0, 0.5])
    assert np.isnan(observed_values(missing)[0])


def test_a_function_of_a_users_own_is_one_table() -> None:
    def cube(x: np.ndarray, /, *, factor: float = 1.0) -> np.ndarray:
        return factor * x**3

    with registered("my.domain.Cube", cube):
        module = quantize(own("Cube", factor=0.5), X, n_bits=6, rounding=7)
        check(module, X, score=0.97)
        assert lookups(module) == {7: 3}
        (_, op) = module.quant_layers_dict["o"]
        assert op.attrs == {"factor": 0.5}
        assert type(op).__name__ == "QuantizedCube"
        assert type(op) not in ALL_QUANTIZED_OPS
    with registered("my.domain.Cube", lambda x, /: x + 1):
        check(quantize(own("Cube"), X, n_bits=6, rounding=7), X)


def test_an_operator_with_an_integer_form_of_its_own() -> None:
    """Sums channels, as a subclass that overrides q_impl."""

    def total(x: np.ndarray, /) -> np.ndarray:
        return np.repeat(x.sum(axis=1, keepdims=True), 3, axis=1)

    with registered("my.domain.Total", total, kind=ops.Kind.MIXING):

        class QuantizedTotal(QuantizedOp):
            _impl_for_op_named = "my.domain.Total"

            def can_fuse(self) -> bool:
                return False

            def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> QuantizedArray:
                assert not attrs
                (operand,) = self.read_operands(*q_inputs)
                quantizer = operand.quantizer
                sums = operand.qvalues.sum(axis=1, keepdims=True) - 3 * quantizer.zero_point
                sums = sums + np.zeros((1, 3), dtype=np.int64)
                return QuantizedArray(
                    self.n_bits,
                    quantizer.scale * sums.astype(np.float64),
                    options=self.output_quant_opts,
                    stats=self.output_quant_stats,
                    params=self.output_quant_params,
                )

        assert ONNX_OPS_TO_QUANTIZED_IMPL["my.domain.Total"] is QuantizedTotal
        assert QuantizedTotal in ALL_QUANTIZED_OPS
        module = quantize(own("Total"), X, n_bits=6, rounding=7)
        check(module, X, score=0.97)
        assert module.quant_layers_dict["o"][1].must_quantize_input(0)


def test_a_class_written_by_hand_takes_the_place_of_the_standard_one() -> None:
    standard = quantized_ops.QuantizedSoftsign
    with restored("Softsign"):

        class Cautious(quantized_ops.QuantizedSoftsign):  # type: ignore[misc]
            pass

        assert ONNX_OPS_TO_QUANTIZED_IMPL["Softsign"] is Cautious
        assert standard not in ALL_QUANTIZED_OPS
        model = make_model([node("Softsign", ["x"], "y")], {"x": ["N", 4]}, ["y"])
        module = quantize(model, X)
        assert type(module.quant_layers_dict["y"][1]) is Cautious
        check(module, X)
    assert standard in ALL_QUANTIZED_OPS


def test_utility_classes_are_not_listed() -> None:
    class Helper(quantized_ops.QuantizedRelu, is_utility=True):  # type: ignore[misc]
        pass

    assert Helper not in ALL_QUANTIZED_OPS
    assert ONNX_OPS_TO_QUANTIZED_IMPL["Relu"] is quantized_ops.QuantizedRelu
