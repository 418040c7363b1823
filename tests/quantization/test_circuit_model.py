from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from cipherlearn.circuit import width_of
from cipherlearn.circuit.ir import Assume
from cipherlearn.circuit.serialize import encode
from cipherlearn.engines import DEFAULT_P_ERROR
from cipherlearn.errors import (
    CalibrationWarning,
    CipherlearnError,
    FormatError,
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
    LookupWidthError,
    ModelError,
    NotCompiledError,
    OverflowWarning,
    SelfCheckError,
)
from cipherlearn.quantization import QuantizedModule, accumulators
from cipherlearn.quantization.circuit_model import as_tuple
from tests.onnx_models import make_model, node, perceptron, weights
from tests.quantization.quantize import float_outputs, normal, quantize, r2

X = normal(60, 4)


def two_inputs() -> Any:
    return make_model(
        [
            node("MatMul", ["x", "w"], "a", name="first"),
            node("MatMul", ["z", "v"], "b", name="second"),
            node("Add", ["a", "b"], "s", name="sum"),
            node("Relu", ["s"], "r"),
        ],
        {"x": ["N", 4], "z": ["N", 3]},
        ["s", "r"],
        {"w": weights(4, 2), "v": weights(3, 2)},
    )


@pytest.fixture(scope="module")
def dense() -> QuantizedModule:
    return quantize(perceptron(), X, n_bits=5, rounding=6)


@pytest.fixture(scope="module")
def wide() -> QuantizedModule:
    return quantize(two_inputs(), X, Z, n_bits=5, rounding=6)


Z = normal(60, 3, seed=1)


def test_reals_go_in_and_come_out(dense: QuantizedModule) -> None:
    found = dense.forward(X)
    assert found.dtype == np.float64
    assert found.shape == (60, 2)
    assert r2(found, *float_outputs(dense, X)) > 0.98
    np.testing.assert_array_equal(dense(X), found)


def test_forward_is_quantize_run_dequantize(wide: QuantizedModule) -> None:
    q_x = wide.quantize_input(X, Z)
    assert [q.dtype for q in q_x] == [np.int64, np.int64]
    q_y = wide.quantized_forward(*q_x)
    assert [q.dtype for q in q_y] == [np.int64, np.int64]
    for real, expected in zip(wide.forward(X, Z), wide.dequantize_output(*q_y), strict=True):
        assert real.dtype == np.float64
        np.testing.assert_array_equal(real, expected)
    narrow = tuple(q.astype(np.int16) for q in q_x)
    np.testing.assert_array_equal(wide.quantized_forward(*narrow)[0], q_y[0])


def test_parties_can_quantize_their_inputs_alone(wide: QuantizedModule) -> None:
    both = wide.quantize_input(X, Z)
    alone, nothing = wide.quantize_input(X, None)
    assert nothing is None
    np.testing.assert_array_equal(alone, both[0])
    np.testing.assert_array_equal(wide.quantize_input(None, Z, dtype=np.int32)[1], both[1])
    with pytest.raises(InvalidParameterError, match="at least one input"):
        wide.quantize_input(None, None)


@pytest.mark.parametrize("rows", [0, 1, 7])
@pytest.mark.parametrize("fhe", ["disable", "simulate", "execute"])
def test_any_number_of_rows_in_any_mode(wide: QuantizedModule, rows: int, fhe: str) -> None:
    wide.compile(engine="clear")
    expected = wide.forward(X[:rows], Z[:rows])
    for found, truth in zip(wide.forward(X[:rows], Z[:rows], fhe=fhe), expected, strict=True):
        assert found.shape == (rows, 2)
        np.testing.assert_array_equal(found, truth)


def test_simulation_makes_the_errors_of_its_probability(dense: QuantizedModule) -> None:
    dense.compile(engine="clear", p_error=0.05)
    q_x = dense.quantize_input(X)
    noisy = dense.quantized_forward(q_x, fhe="simulate")
    assert (noisy != dense.quantized_forward(q_x)).any()
    np.testing.assert_array_equal(noisy, dense.quantized_forward(q_x, fhe="simulate"))


BAD_FLOATS: list[tuple[Any, type[CipherlearnError], str]] = [
    ((X,), InvalidShapeError, "1 arrays were given; the model takes 2"),
    ((X, Z, X), InvalidShapeError, "3 arrays were given; the model takes 2"),
    ((X.astype(int), Z), InvalidTypeError, "'x' has dtype int64; floating-point values"),
    ((X, Z > 0), InvalidTypeError, "'z' has dtype bool; floating-point values"),
    ((X[:5], Z), InvalidShapeError, "same number of rows, not {'x': 5, 'z': 60}"),
    ((np.where(X > 1, np.nan, X), Z), InvalidParameterError, "'x' holds [0-9]+ values that are"),
    (
        (X, np.full_like(Z, np.inf)),
        InvalidParameterError,
        "'z' holds 180 values that are NaN or infin",
    ),
]


@pytest.mark.parametrize(("data", "kind", "message"), BAD_FLOATS)
def test_reals_that_do_not_fit_are_refused(
    wide: QuantizedModule, data: Any, kind: type[CipherlearnError], message: str
) -> None:
    for function in (wide.forward, wide.quantize_input):
        with pytest.raises(kind, match=message):
            function(*data)
    with pytest.raises(kind, match=message):
        wide.compile(data, engine="clear")


def test_rows_of_another_shape_are_refused(wide: QuantizedModule, dense: QuantizedModule) -> None:
    with pytest.raises(InvalidShapeError, match=r"'z' has shape \(60, 2\); it must be \(rows, 3\)"):
        wide.forward(X, Z[:, :2])
    with pytest.raises(InvalidShapeError, match=r"'x' has shape \(4,\); it must be \(rows, 4\)"):
        dense.forward(X[0])


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda q: q.astype(np.float64), InvalidTypeError, "'x' has dtype float64; quantized"),
        (lambda q: q.astype(np.uint8), InvalidTypeError, "'x' has dtype uint8; quantized"),
        (lambda q: q[:, :2], InvalidShapeError, "it must be \\(rows, 4\\)"),
        (lambda q: q + 100, InvalidParameterError, "'x' holds integers from .* it takes -16 to 15"),
    ],
)
def test_integers_that_do_not_fit_are_refused(
    dense: QuantizedModule, change: Any, kind: type[CipherlearnError], message: str
) -> None:
    integers = dense.quantize_input(X)
    with pytest.raises(kind, match=message):
        dense.quantized_forward(change(integers))
    with pytest.raises(InvalidShapeError, match="2 arrays were given; the model takes 1"):
        dense.quantized_forward(integers, integers)


def test_outputs_are_counted(wide: QuantizedModule) -> None:
    with pytest.raises(InvalidShapeError, match="1 arrays were given; the model has 2 outputs"):
        wide.dequantize_output(np.zeros((1, 2), np.int64))


@pytest.mark.parametrize("mode", ["fhe", "", None, "EXECUTE", 1])
def test_unknown_modes_list_the_known_ones(dense: QuantizedModule, mode: Any) -> None:
    message = "fhe must be one of 'disable', 'simulate', 'execute'"
    with pytest.raises(InvalidParameterError, match=message):
        dense.forward(X, fhe=mode)
    with pytest.raises(InvalidParameterError, match=message):
        dense.quantized_forward(dense.quantize_input(X), fhe=mode)


@pytest.mark.parametrize("mode", ["simulate", "execute"])
def test_encrypted_modes_need_compiling(mode: str) -> None:
    module = quantize(perceptron(), X, n_bits=3)
    assert not module.is_compiled
    with pytest.raises(NotCompiledError, match=r"call compile\(\) before fhe='" + mode):
        module.forward(X, fhe=mode)
    for call in (module.check_model_is_compiled, module.cost):
        with pytest.raises(NotCompiledError, match=r"call compile\(\) first"):
            call()
    assert issubclass(NotCompiledError, AttributeError)
    module.compile(engine="clear")
    module.check_model_is_compiled()
    assert module.is_compiled


def test_probabilities_are_set_one_by_one(dense: QuantizedModule) -> None:
    assert dense.compile(engine="clear").p_error == DEFAULT_P_ERROR
    assert dense.compile(engine="clear", p_error=0.01).p_error == 0.01
    assert dense.compile(engine="clear", global_p_error=0.01).global_p_error == 0.01
    with pytest.raises(InvalidParameterError, match="not both"):
        dense.compile(engine="clear", p_error=0.01, global_p_error=0.01)
    with pytest.raises(InvalidParameterError, match="between 0 and 1"):
        dense.compile(engine="clear", p_error=0.0)


def test_the_program_is_that_of_the_circuit(dense: QuantizedModule) -> None:
    program = dense.compile(X, engine="clear")
    assert dense.fhe_circuit is program
    assert program.circuit is dense.circuit
    program.keygen()
    row = dense.quantize_input(X[:1])
    result = program.decrypt(program.run(program.encrypt(row)))
    np.testing.assert_array_equal(result, dense.quantized_forward(row))


def test_clear_inputs(wide: QuantizedModule) -> None:
    expected = wide.forward(X, Z)
    wide.compile(engine="clear", inputs_encryption_status=["encrypted", "Clear"])
    assert [i.encrypted for i in wide.circuit.inputs] == [True, False]
    for found, truth in zip(wide.forward(X[:4], Z[:4], fhe="execute"), expected, strict=True):
        np.testing.assert_array_equal(found, truth[:4])
    wide.compile(engine="clear")
    assert [i.encrypted for i in wide.circuit.inputs] == [True, True]


def test_outputs_of_clear_inputs_alone_are_refused() -> None:
    model = make_model(
        [node("Add", ["x", "z"], "s"), node("Relu", ["z"], "r")],
        {"x": ["N", 4], "z": ["N", 4]},
        ["s", "r"],
    )
    module = quantize(model, X, X)
    with pytest.raises(ModelError, match="'r' does not depend on an encrypted input"):
        module.compile(engine="clear", inputs_encryption_status=["encrypted", "clear"])
    module.compile(engine="clear")
    assert module.is_compiled


def test_layers_too_wide_to_look_up_say_what_to_change() -> None:
    model = make_model(
        [node("Gemm", ["x", "w"], "h", name="wide"), node("Relu", ["h"], "y", name="positive")],
        {"x": ["N", 64]},
        ["y"],
        {"w": weights(64, 2)},
    )
    module = quantize(model, normal(60, 64), n_bits=10)
    with pytest.raises(LookupWidthError, match=r"positive needs .* 16 are possible.*n_bits.*round"):
        module.compile(engine="clear")


@pytest.mark.parametrize(
    "status",
    [
        ["encrypted"],
        ["encrypted"] * 3,
        ["clear", "clear"],
        ["encrypted", "secret"],
        [],
        ["encrypted", None],
        "encrypted",
    ],
)
def test_encryption_status_is_checked(wide: QuantizedModule, status: Any) -> None:
    with pytest.raises(InvalidParameterError, match="for each of the 2 inputs, at least one"):
        wide.compile(engine="clear", inputs_encryption_status=status)


@pytest.fixture
def as_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges that reach as far as calibration data did, and no further."""
    monkeypatch.setattr(accumulators, "OUTSIDE", 0.4)


@pytest.mark.usefixtures("as_observed")
def test_overflows_are_counted_and_told() -> None:
    module = quantize(perceptron(), 0.2 * X, n_bits=5, rounding=4)
    module.forward(0.2 * X)
    assert module.overflow_count == 0
    limits = module.input_quantizers[0].integer_limits
    extreme = np.array([[limits[0]] * 4, [limits[1]] * 4, [limits[0], limits[1]] * 2])
    with pytest.warns(OverflowWarning, match="[0-9]+ accumulators of 3 rows left the range"):
        module.quantized_forward(extreme)
    first = module.overflow_count
    assert first > 0
    with pytest.warns(OverflowWarning):
        module.quantized_forward(extreme)
    assert module.overflow_count == 2 * first


@pytest.mark.usefixtures("as_observed")
def test_rows_given_to_compile_are_checked_for_overflows() -> None:
    module = quantize(perceptron(), 0.2 * X, n_bits=5, rounding=4)
    lowest = np.full((2, 4), module.input_quantizers[0].rmin)
    lowest[:, ::2] = module.input_quantizers[0].rmax
    with pytest.warns(OverflowWarning):
        module.compile(np.concatenate([lowest, -lowest]), engine="clear")


def test_the_self_check_runs_an_encrypted_row(dense: QuantizedModule) -> None:
    dense.compile(X, engine="clear", check=True)
    assert dense.fhe_circuit is not None
    assert dense.fhe_circuit.has_keys
    with pytest.raises(InvalidParameterError, match="check=True needs inputs"):
        dense.compile(engine="clear", check=True)


def test_a_wrong_engine_does_not_pass_the_self_check(
    dense: QuantizedModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cipherlearn.engines.clear import ClearProgram

    right = ClearProgram.decrypt
    monkeypatch.setattr(ClearProgram, "decrypt", lambda self, *v: np.asarray(right(self, *v)) + 1)
    with pytest.raises(SelfCheckError, match="an encrypted result is wrong"):
        dense.compile(X, engine="clear", check=True)


def test_layers_are_reported_with_range_and_width(wide: QuantizedModule) -> None:
    fresh = copy.deepcopy(wide)
    before = fresh.bitwidth_and_range_report()
    fresh.compile(engine="clear")
    report = fresh.bitwidth_and_range_report()
    assert report == before, "no need to compile"
    assert QuantizedModule.loads(fresh.dumps()).bitwidth_and_range_report() == report
    assert {"first", "second", "sum"} <= set(report)
    for layer in report.values():
        assert set(layer) == {"range", "bitwidth"}
        assert layer["bitwidth"] == width_of(*layer["range"])


def test_a_layer_is_reported_with_the_range_that_it_hands_on(dense: QuantizedModule) -> None:
    report = dense.bitwidth_and_range_report()
    (position,) = dense.circuit.assumptions
    node = dense.circuit.nodes[position]
    assert isinstance(node.primitive, Assume)
    # The sums before have a wider range, which is not what is computed with.
    assert report[node.label]["range"] == (node.interval.min, node.interval.max)


def test_the_cost_is_known_without_keys(dense: QuantizedModule) -> None:
    dense.compile(engine="clear")
    cost = dense.cost()
    assert dense.fhe_circuit is not None
    assert not dense.fhe_circuit.has_keys
    assert cost.lookups_by_width == {6: 3}
    assert cost.complexity == dense.fhe_circuit.complexity
    assert "6" in str(cost)


def test_single_values_and_tuples() -> None:
    assert as_tuple(3) == (3,)
    assert as_tuple((3, 4)) == (3, 4)
    assert as_tuple([3]) == ([3],)


def test_a_linear_model_is_right_on_every_input_in_its_box() -> None:
    model = make_model(
        [node("Gemm", ["x", "w", "b"], "y", name="linear")],
        {"x": ["N", 4]},
        ["y"],
        {"w": weights(4, 2), "b": weights(2)},
    )
    module = quantize(model, X, n_bits=6)
    assert module.circuit.is_proved
    largest = np.abs(X).max()
    corners = largest * np.array(np.meshgrid(*[[-1.0, 1.0]] * 4)).reshape(4, -1).T
    module.forward(corners)  # warnings are errors: there is no overflow
    assert module.overflow_count == 0


def test_copies_are_models_that_are_not_compiled(dense: QuantizedModule) -> None:
    dense.compile(engine="clear")
    copied = copy.deepcopy(dense)
    assert dense.is_compiled
    assert not copied.is_compiled
    np.testing.assert_array_equal(copied.forward(X), dense.forward(X))


def test_a_model_says_what_it_is(dense: QuantizedModule) -> None:
    dense.compile(engine="clear")
    assert repr(dense) == "QuantizedModule(x -> y; compiled)"


@pytest.mark.parametrize("field", ["scale", "zero_point"])
def test_damaged_quantizers_are_found_when_loading(dense: QuantizedModule, field: str) -> None:
    data = dense.dump_dict()
    data["output_quantizers"][0][field] = encode(np.zeros(0))
    with pytest.raises(FormatError, match="do not fit"):
        QuantizedModule.load_dict(data)


def test_a_probability_may_be_any_number(dense: QuantizedModule) -> None:
    dense.compile(engine="clear", p_error=np.float32(0.25))
    assert dense.fhe_circuit is not None
    assert dense.fhe_circuit.p_error == 0.25


def test_inputs_far_outside_of_calibration_are_counted_and_told() -> None:
    model = make_model([node("Relu", ["x"], "y")], {"x": ["N", 4]}, ["y"])
    module = quantize(model, X)
    module.forward(X)
    assert module.clipped_count == 0
    with pytest.warns(CalibrationWarning, match="inputs lie far outside of the calibration data"):
        module.forward(np.full((2, 4), 1e3, dtype=np.float32))
    assert module.clipped_count == 8
