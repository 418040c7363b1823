"""The NumPy functions of standard operators: dtypes, precision, infinities, bad calls."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto

from cipherlearn import ops
from cipherlearn.errors import (
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
    UnknownKeyError,
    UnsupportedAttributeError,
    UnsupportedOperatorError,
)
from cipherlearn.ops import Kind

IMPL = ops.ONNX_OPS_TO_NUMPY_IMPL
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "BitShift": {"direction": "LEFT"},
    "BitCast": {"to": TensorProto.INT32},
    "Cast": {"to": TensorProto.FLOAT},
    "ai.onnx.ml.LabelEncoder": {"keys_floats": (0.5, 2.0), "values_floats": (1.0, 4.0)},
}
ELEMENTWISE = [name for name in ops.names() if ops.get(name).kind is Kind.ELEMENTWISE]
FLOATING = [
    name
    for name in ELEMENTWISE
    if "tensor(float)" in ops.get(name).signature().inputs[-1].types
    and name not in {"BitCast", "Cast", "CastLike", "ai.onnx.ml.LabelEncoder"}
]
ANY_FLOATS = st.floats(width=32) | st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan])


def operands(name: str, *arrays: np.ndarray) -> list[np.ndarray]:
    """As many operands as the operator needs, a condition first where it wants one."""
    inputs = ops.get(name).signature().inputs
    needed = [operand for operand in inputs if operand.required or operand.variadic]
    return [
        arrays[i % len(arrays)] > 0
        if operand.types == {"tensor(bool)"}
        else arrays[i % len(arrays)]
        for i, operand in enumerate(needed)
    ]


@pytest.mark.parametrize("name", FLOATING)
@settings(max_examples=25)
@given(values=hnp.arrays(np.float64, 7, elements=ANY_FLOATS))
def test_any_number_is_legal_and_nothing_warns(name: str, values: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype in (np.float32, np.float64):
            (result,) = IMPL[name](
                *operands(name, values.astype(dtype), values[::-1].astype(dtype))
            )
            assert result.shape == values.shape
            assert result.dtype in (dtype, np.bool_)


@pytest.mark.parametrize("name", FLOATING)
def test_each_element_depends_on_its_own_place_only(name: str) -> None:
    rng = np.random.default_rng(0)
    values, other = rng.normal(size=(2, 3, 4))
    (whole,) = IMPL[name](*operands(name, values, other))
    order = rng.permutation(12)
    shuffled = [a.ravel()[order] for a in operands(name, values, other)]
    (result,) = IMPL[name](*shuffled)
    np.testing.assert_array_equal(result, whole.ravel()[order])


@pytest.mark.parametrize("name", FLOATING)
def test_a_wider_operand_makes_the_result_wider(name: str) -> None:
    narrow = np.array([-1.5, 0.25, 2.0], dtype=np.float32)
    wide = np.array([0.1, 0.7, -0.3])
    inputs = operands(name, narrow, wide)
    (result,) = IMPL[name](*inputs)
    if len([a for a in inputs if a.dtype != np.bool_]) > 1 and result.dtype != np.bool_:
        # Pow has the type of its base.
        assert result.dtype == (np.float32 if name == "Pow" else np.float64)
    (expected,) = IMPL[name](*[a if a.dtype == np.bool_ else a.astype(np.float64) for a in inputs])
    np.testing.assert_allclose(result, expected, rtol=1e-6)


EXACT: dict[str, Callable[[float], float]] = {
    "Erf": math.erf,
    "Exp": math.exp,
    "Gelu": lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))),
    "Mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "Sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "Softplus": lambda x: math.log1p(math.exp(x)),
    "Swish": lambda x: x / (1 + math.exp(-x)),
    "Tanh": math.tanh,
    "Asinh": math.asinh,
    "Atan": math.atan,
}


@pytest.mark.parametrize("name", sorted(EXACT))
@given(value=st.floats(-30, 30))
def test_float64_is_computed_in_float64(name: str, value: float) -> None:
    if name not in IMPL:
        pytest.skip("the installed onnx does not have it")
    (result,) = IMPL[name](np.array([value]))
    # Constants inside ONNX's own definitions (the root of 2 in Gelu) are float32.
    tolerance = 1e-7 if name == "Gelu" else 1e-12
    np.testing.assert_allclose(result, [EXACT[name](value)], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softplus_does_not_overflow(dtype: type) -> None:
    (result,) = IMPL["Softplus"](np.array([-2000.0, 2000.0], dtype=dtype))
    np.testing.assert_array_equal(result, np.array([0.0, 2000.0], dtype=dtype))


def test_mean_broadcasts_its_first_operand() -> None:
    rows, column = np.array([1.0, 3.0]), np.array([[1.0], [5.0]])
    (result,) = IMPL["Mean"](rows, column)
    np.testing.assert_array_equal(result, [[1, 2], [3, 4]])


@given(hnp.arrays(np.float32, (2, 3), elements=st.floats(width=32, allow_nan=False)))
def test_bits_of_float32_values_survive_float64(values: np.ndarray) -> None:
    if "BitCast" not in IMPL:
        pytest.skip("the installed onnx does not have it")
    for given_values in (values, values.astype(np.float64)):
        (bits,) = IMPL["BitCast"](given_values, to=TensorProto.INT32)
        np.testing.assert_array_equal(bits, values.view(np.int32))


@given(
    st.lists(st.integers(-100, 100), min_size=1, max_size=5),
    st.integers(1, 10) | st.integers(-10, -1),
)
def test_integer_division_truncates(numbers: list[int], divisor: int) -> None:
    (result,) = IMPL["Div"](np.array(numbers), np.array(divisor))
    assert result.tolist() == [int(number / divisor) for number in numbers]


def test_division_of_integers_by_zero_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        IMPL["Div"](np.array([1, 2]), np.array([0, 1]))
        IMPL["Mod"](np.array([1, 2]), np.array([0, 1]))


def test_optional_inputs_may_be_left_out() -> None:
    values = np.array([-2.0, 0.5, 3.0])
    assert IMPL["Clip"](values, None, np.array(1.0))[0].tolist() == [-2, 0.5, 1]
    assert IMPL["Clip"](values, np.array(0.0))[0].tolist() == [0, 0.5, 3]
    assert IMPL["Clip"](values, None, None)[0].tolist() == values.tolist()


def test_the_bounds_of_clip_do_not_change_float32() -> None:
    values = np.array([-2.0, 0.5, 3.0], dtype=np.float32)
    (result,) = IMPL["Clip"](values, 0, 1)
    assert result.dtype == np.float32
    assert result.tolist() == [0, 0.5, 1]


def test_attributes_count() -> None:
    values = np.array([-2.0, 0.05, 3.0])
    assert IMPL["Shrink"](values, lambd=1.0, bias=0.5)[0].tolist() == [-1.5, 0, 2.5]
    assert IMPL["ThresholdedRelu"](values, alpha=0.0)[0].tolist() == [0, 0.05, 3]


def test_the_operator_set_gives_the_meaning() -> None:
    values = np.zeros((2, 1, 3))
    # Until operator set 12 the axes were an attribute.
    assert IMPL["Squeeze"](values, np.array([1]), opset=13)[0].shape == (2, 3)
    with pytest.raises(UnknownKeyError, match="axes"):
        IMPL["Squeeze"](values, axes=[1], opset=13)
    with pytest.raises(UnsupportedOperatorError, match="came later: 20"):
        IMPL["Gelu"](values, opset=19)


def test_floats_that_stand_for_truth_values_and_integers_are_rounded() -> None:
    quantized = np.array([0.0, 0.98, 1.01])
    assert IMPL["Not"](quantized)[0].tolist() == [True, False, False]
    assert IMPL["BitwiseAnd"](np.array([2.99, 6.0]), np.array([1, 2]))[0].tolist() == [1, 2]
    assert IMPL["Where"](quantized, 1.0, 2.0)[0].tolist() == [2, 1, 1]


def test_reshape_takes_any_integers() -> None:
    assert IMPL["Reshape"](np.zeros(6), np.array([2, 3], dtype=np.int32))[0].shape == (2, 3)
    assert IMPL["Reshape"](np.zeros(6), [3, -1])[0].shape == (3, 2)


def test_dropout_does_nothing_and_refuses_to_train() -> None:
    values = np.array([1.0, 2.0])
    result, mask = IMPL["Dropout"](values, np.array(0.5), np.array(False))
    assert result.tolist() == [1, 2]
    assert mask.all()
    with pytest.raises(UnsupportedAttributeError, match="training mode"):
        IMPL["Dropout"](values, np.array(0.5), np.array(True))


@pytest.mark.parametrize("name", ["Cast", "BitCast"])
@pytest.mark.parametrize("target", ["STRING", "BFLOAT16", "FLOAT8E4M3FN", "INT4", "COMPLEX64"])
def test_types_that_numpy_does_not_have_are_refused(name: str, target: str) -> None:
    if name not in IMPL:
        pytest.skip("the installed onnx does not have it")
    with pytest.raises(UnsupportedAttributeError, match=f"{target} is not supported.*FLOAT, "):
        IMPL[name](np.zeros(2, dtype=np.float32), to=TensorProto.DataType.Value(target))


def test_casting_what_does_not_fit_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        IMPL["Cast"](np.array([np.nan, np.inf, 1e30]), to=TensorProto.INT32)
        IMPL["Cast"](np.array([1e300]), to=TensorProto.FLOAT)


def test_text_constants_are_refused() -> None:
    with pytest.raises(UnsupportedAttributeError, match="value_string is not supported"):
        IMPL["Constant"](value_string="a")
    assert IMPL["Constant"](value=np.array([1, 2]))[0].tolist() == [1, 2]
    assert IMPL["Constant"](value_floats=[1.5])[0].dtype == np.float32


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (IMPL["Relu"], InvalidShapeError, "Relu needs the input.* X"),
        (lambda: IMPL["Relu"](np.ones(2), np.ones(2)), InvalidShapeError, "at most 1 input"),
        (lambda: IMPL["Add"](np.ones(2), None), InvalidShapeError, "needs the input.* B"),
        (lambda: IMPL["Relu"](np.ones(2), alpha=1), UnknownKeyError, "no attribute alpha"),
        (lambda: IMPL["Elu"](np.ones(2), beta=1), UnknownKeyError, "Its attributes: alpha"),
        (lambda: IMPL["Elu"](np.ones(2), alpha="a"), InvalidTypeError, "'alpha' must be .*float"),
        (lambda: IMPL["Cast"](np.ones(2)), InvalidParameterError, "needs the attribute 'to'"),
        (lambda: IMPL["Exp"](np.array([1])), InvalidTypeError, "int64.*Add a Cast"),
        (lambda: IMPL["Exp"](np.array(["a"])), InvalidTypeError, "only booleans"),
        (lambda: IMPL["Not"](np.array([1])), InvalidTypeError, "'X' has the dtype int64"),
        (lambda: IMPL["Add"](np.ones(2), np.array([1])), InvalidTypeError, "A: float64, B: int64"),
        (lambda: IMPL["Add"](np.array([1]), 0.5), InvalidTypeError, "0.5, given as 'B'"),
        (lambda: IMPL["Add"](np.ones(2), np.ones(3)), InvalidShapeError, r"float64\[2\]"),
        (lambda: IMPL["MatMul"](np.ones((2, 3)), np.ones((2, 3))), InvalidShapeError, "multiply"),
        (lambda: IMPL["Reshape"](np.ones(5), [2, 2]), InvalidShapeError, "size 5 into shape"),
    ],
)
def test_bad_calls_say_what_is_wrong(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


def test_any_standard_operator_can_be_evaluated() -> None:
    halves = ops.evaluate("Split", [np.arange(4), np.array([1, 3])], {"axis": 0}, n_outputs=2)
    assert [half.tolist() for half in halves] == [[0], [1, 2, 3]]
    with pytest.raises(UnsupportedOperatorError, match="NoSuchThing"):
        ops.evaluate("NoSuchThing", [], {})


def test_inputs_are_left_alone() -> None:
    for name in FLOATING:
        values = np.array([-1.0, 0.5, 2.0])
        copies = operands(name, values.copy(), values.copy())
        IMPL[name](*copies)
        for copy in copies:
            if copy.dtype != np.bool_:
                np.testing.assert_array_equal(copy, values)
