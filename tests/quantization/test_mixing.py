from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from cipherlearn import ops
from cipherlearn.errors import (
    EncryptedOperandError,
    InvalidParameterError,
    InvalidTypeError,
    NotCalibratedError,
)
from cipherlearn.quantization import (
    Affine,
    QuantizationOptions,
    QuantizedArray,
    QuantizedMixingOp,
    Rounding,
    quantized_ops,
)
from tests.onnx_models import make_model, node, weights
from tests.quantization.quantize import check, lookups, normal, quantize
from tests.quantization.test_base_quantized_op import own, registered, restored

X = normal(80, 4)
W, B = weights(4, 3), weights(3, seed=1)


def gemm(**options: Any) -> QuantizedMixingOp:
    constants = {"B": QuantizedArray(6, W, is_signed=True, is_symmetric=True), "C": B}
    op: QuantizedMixingOp = quantized_ops.QuantizedGemm(
        8, "dense", constant_inputs=constants, **options
    )
    return op


def test_an_operator_can_be_used_on_its_own() -> None:
    op = gemm()
    truth = op.calibrate(X)
    output = op(QuantizedArray(8, X, is_signed=True))
    assert output.qvalues.dtype == np.int64
    assert output.holds_integers
    np.testing.assert_allclose(output.values, truth, atol=0.2)


def test_an_accumulator_is_exact_but_for_its_operands() -> None:
    op = gemm()
    op.calibrate(X)
    operand = QuantizedArray(8, X, is_signed=True)
    expected = operand.dequant() @ op.constant_inputs[1].dequant() + B
    np.testing.assert_allclose(op(operand).values, expected, atol=1e-12)


@pytest.mark.parametrize("method", ["exact", "approximate"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounding_leaves_the_bits_asked_for(bits: int, method: str) -> None:
    op = gemm(rounding_threshold_bits={"n_bits": bits, "method": method})
    assert op.lsbs_to_remove == 0
    op.calibrate(X)
    output = op(QuantizedArray(8, X, is_signed=True))
    assert op.rounding == Rounding(bits, method == "exact")
    assert op.lsbs_to_remove > 0
    read = np.unique((output.values / output.quantizer.scale + output.quantizer.zero_point).round())
    assert np.all(read % 2**op.lsbs_to_remove == 0)
    assert read.min() >= 0
    assert read.max() < 2 ** (bits + op.lsbs_to_remove)


def test_integer_weights_stay_as_they_are() -> None:
    model = make_model(
        [
            node("Cast", ["x"], "i", to=TensorProto.INT32),
            node("MatMul", ["i", "w"], "h"),
            node("Cast", ["h"], "y", to=TensorProto.FLOAT),
        ],
        {"x": ["N", 4]},
        ["y"],
        {"w": np.array([[1], [-2], [30], [0]], dtype=np.int32)},
    )
    data = 9 * X
    module = quantize(model, data)
    check(module, data)
    op = module.quant_layers_dict["h"][1]
    assert op.constant_inputs[1].dtype == np.int32


def test_real_weights_must_be_quantized_first() -> None:
    op = quantized_ops.QuantizedMatMul(8, "dense", constant_inputs={1: np.ones((4, 2))})
    op.calibrate(X)
    with pytest.raises(InvalidTypeError, match="the operand number 1 is a real constant"):
        op(QuantizedArray(8, X, is_signed=True))


def test_operands_of_a_sum_share_a_step_whatever_their_ranges() -> None:
    op = quantized_ops.QuantizedAdd(
        8, "sum", int_input_names={"a", "b"}, input_quant_opts=QuantizationOptions(7)
    )
    assert not op.can_fuse()
    left, right = 1000 + normal(50, 3), 5 * normal(50, 3, seed=1) - 70
    truth = op.calibrate(left, right)
    operands = QuantizedArray(8, left), QuantizedArray(8, right)
    output = op(*operands)
    np.testing.assert_allclose(output.values, truth, atol=1.5 * op.joint.scale)
    assert output.qvalues.max() < 2**8, "offsets of the operands do not widen the sum"


def test_a_sum_of_constant_values_has_a_step() -> None:
    op = quantized_ops.QuantizedSub(8, "sum", int_input_names={"a", "b"})
    left, right = np.full((4, 2), 3.0), np.full((4, 2), 0.5)
    op.calibrate(left, right)
    found = op(QuantizedArray(8, left), QuantizedArray(8, right))
    np.testing.assert_allclose(found.values, 2.5, atol=1e-3)


def test_univariate_operators_fuse_on_one_value() -> None:
    op = quantized_ops.QuantizedMul(5, "gate", int_input_names={"a"})
    assert op.can_fuse()
    op.calibrate(X, X)
    op.calibrate_accumulator(QuantizedArray(5, X), QuantizedArray(5, X))
    assert op.plan is None
    real = QuantizedArray(8, X)
    np.testing.assert_allclose(op(real, real).values, X * X, atol=1e-6)
    assert not gemm().can_fuse(), "a product of matrices never does"


def test_divisors_are_quantized_as_reciprocals() -> None:
    op = quantized_ops.QuantizedDiv(8, "ratio", int_input_names={"a", "b"})
    left, right = normal(60, 3), np.random.default_rng(1).uniform(0.5, 4, (60, 3))
    truth = op.calibrate(left, right)
    found = op(QuantizedArray(8, left, is_signed=True), QuantizedArray(8, right))
    np.testing.assert_allclose(found.values, truth, atol=0.06)
    zero = right.copy()
    zero[0, 0] = 0.0
    op.calibrate(left, right)
    with pytest.raises(InvalidParameterError, match=r"ratio.*operand number 1 is 0 for 1 of 180"):
        op.calibrate_accumulator(QuantizedArray(8, left), QuantizedArray(8, zero))


def test_results_need_calibration() -> None:
    with pytest.raises(NotCalibratedError, match="dense was not calibrated"):
        gemm()(QuantizedArray(8, X))
    op = quantized_ops.QuantizedAdd(8, "sum", int_input_names={"a", "b"})
    with pytest.raises(NotCalibratedError, match="sum was not calibrated"):
        op(QuantizedArray(8, X), QuantizedArray(8, X))


def test_an_encrypted_bias_is_refused() -> None:
    op = quantized_ops.QuantizedGemm(
        8, "dense", constant_inputs={"B": QuantizedArray(6, W)}, int_input_names={"a", "c"}
    )
    op.calibrate(X, normal(80, 3))
    with pytest.raises(EncryptedOperandError, match=r"must be a constant; add .* with Add"):
        op(QuantizedArray(8, X), QuantizedArray(8, normal(80, 3)))


def pairs(x: np.ndarray, /) -> np.ndarray:
    """Differences of neighbouring channels, around the circle."""
    return x - np.roll(x, 1, axis=-1)


def test_an_operator_of_a_users_own_that_mixes_values() -> None:
    with registered("my.domain.Pairs", pairs, kind=ops.Kind.MIXING):

        class QuantizedPairs(QuantizedMixingOp):
            _impl_for_op_named = "my.domain.Pairs"

            def integer_compute(self, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Affine:
                assert not attrs
                (x,) = operands
                rolled = x.integers[:, [2, 0, 1]]
                return Affine(x.integers - rolled, x.scale, 0)

        module = quantize(own("Pairs"), X, n_bits=6, rounding=5)
        check(module, X, score=0.95)
        op = module.quant_layers_dict["o"][1]
        assert isinstance(op, QuantizedPairs)
        assert op.plan is not None
        assert set(lookups(module)) == {5}


def test_an_operator_of_a_users_own_with_q_impl() -> None:
    with registered("my.domain.Pairs", pairs, kind=ops.Kind.MIXING):

        class QuantizedPairs(QuantizedMixingOp):
            _impl_for_op_named = "my.domain.Pairs"

            def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> QuantizedArray:
                assert not attrs
                (x,) = self.read_operands(*q_inputs)
                differences = x.qvalues - x.qvalues[:, [2, 0, 1]]
                return self.make_output_quant_parameters(differences, x.quantizer.scale, 0)

        module = quantize(own("Pairs"), X, n_bits=6, rounding=5)
        check(module, X, score=0.95)
        op = module.quant_layers_dict["o"][1]
        assert isinstance(op, QuantizedPairs)
        assert op.plan is not None
        assert op.lsbs_to_remove > 0
        assert set(lookups(module)) == {5}
        unrounded = quantize(own("Pairs"), X, n_bits=6)
        check(unrounded, X, score=0.97)
        # Six bits less six bits; the other look-up is that of the layer before.
        assert lookups(unrounded)[7] == 3


def test_integers_of_a_users_own_operator_that_are_not_one_tensor_stay_as_they_are() -> None:
    with registered("my.domain.Pairs", pairs, kind=ops.Kind.MIXING):

        class QuantizedPairs(QuantizedMixingOp):
            _impl_for_op_named = "my.domain.Pairs"

            def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> QuantizedArray:
                assert not attrs
                (x,) = self.read_operands(*q_inputs)
                scale = x.quantizer.scale
                rolled = self.make_output_quant_parameters(x.qvalues[:, [2, 0, 1]], scale, 0)
                return self.make_output_quant_parameters(x.qvalues - rolled.qvalues, scale, 0)

        module = quantize(own("Pairs"), X, n_bits=6, rounding=5)
        check(module, X, score=0.97)
        op = module.quant_layers_dict["o"][1]
        assert isinstance(op, QuantizedPairs)
        assert op.lsbs_to_remove == 0


def test_q_impl_may_go_on_from_what_the_operator_does_already() -> None:
    model = make_model(
        [node("Gemm", ["x", "w"], "h"), node("Relu", ["h"], "y")], {"x": ["N", 4]}, ["y"], {"w": W}
    )
    expected = quantize(model, X, n_bits=6, rounding=5)
    with restored("Gemm"):

        class Cautious(quantized_ops.QuantizedGemm):  # type: ignore[misc]
            def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> QuantizedArray:
                result: QuantizedArray = super().q_impl(*q_inputs, **attrs)
                return result

        module = quantize(model, X, n_bits=6, rounding=5)
    assert isinstance(module.quant_layers_dict["h"][1], Cautious)
    assert lookups(module) == lookups(expected)
    np.testing.assert_array_equal(module.forward(X), expected.forward(X))


def test_an_operator_that_mixes_values_without_an_integer_form_is_refused() -> None:
    with (
        registered("my.domain.Pairs", pairs, kind=ops.Kind.MIXING),
        pytest.raises(InvalidTypeError, match=r"'mine'.*override integer_compute or q_impl"),
    ):
        quantize(own("Pairs"), X)


@pytest.mark.parametrize("op", ["Max", "Min"])
@pytest.mark.parametrize("operands", [["x", "z", "w"], ["w", "x", "z"], ["x", "z", "zero"]])
def test_an_extremum_of_two_encrypted_values_and_a_constant(op: str, operands: list[str]) -> None:
    constants = {"w": weights(4), "zero": np.float32(0)}
    model = make_model(
        [node(op, operands, "y")],
        {"x": ["N", 4], "z": ["N", 4]},
        ["y"],
        {name: value for name, value in constants.items() if name in operands},
    )
    data = normal(80, 4), normal(80, 4, seed=1)
    check(quantize(model, *data), *data)
