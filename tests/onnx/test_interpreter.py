"""Float evaluation in NumPy, compared with onnxruntime and with ONNX's conformance cases."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from cipherlearn import onnx as co
from cipherlearn import ops
from cipherlearn.errors import (
    InvalidShapeError,
    InvalidTypeError,
    ModelError,
    UnsupportedOperatorError,
)
from tests.backend_cases import all_cases
from tests.onnx_models import make_model, node, perceptron, weights

WIDTH = 5
UNARY = {
    "Abs": {},
    "Atan": {},
    "Celu": {"alpha": 0.7},
    "Cos": {},
    "Elu": {"alpha": 1.5},
    "Erf": {},
    "HardSigmoid": {"alpha": 0.3},
    "HardSwish": {},
    "Identity": {},
    "LeakyRelu": {"alpha": 0.2},
    "Mish": {},
    "Neg": {},
    "Relu": {},
    "Selu": {},
    "Sigmoid": {},
    "Sin": {},
    "Softplus": {},
    "Softsign": {},
    "Tanh": {},
}
BINARY = ("Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean", "PRelu")


@st.composite
def graphs(draw: st.DrawFn) -> onnx.ModelProto:
    """Random graphs over rows of one width, smooth enough to compare two float libraries."""
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {
        "shape": np.array([-1, WIDTH]),
        "tall": np.array([0, WIDTH, 1]),
    }
    names = ["x"]
    for step in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["unary", "unary", "binary", "constant", "dense", "move"]))
        source, other = draw(st.sampled_from(names)), draw(st.sampled_from(names))
        result = f"t{step}"
        if kind == "unary":
            op_type = draw(st.sampled_from(sorted(UNARY)))
            nodes.append(node(op_type, [source], result, **UNARY[op_type]))
        elif kind == "binary":
            nodes.append(node(draw(st.sampled_from(BINARY)), [source, other], result))
        elif kind == "constant":
            constants[f"c{step}"] = weights(WIDTH, seed=step)
            nodes.append(node(draw(st.sampled_from(BINARY)), [source, f"c{step}"], result))
        elif kind == "dense":
            constants[f"w{step}"] = 0.4 * weights(WIDTH, WIDTH, seed=step)
            nodes.append(node("MatMul", [source, f"w{step}"], f"m{step}"))
            constants[f"b{step}"] = weights(WIDTH, seed=step)
            nodes.append(node("Add", [f"m{step}", f"b{step}"], result))
        else:
            nodes.append(node("Reshape", [source, "tall"], f"r{step}"))
            nodes.append(node("Transpose", [f"r{step}"], f"p{step}", perm=[0, 2, 1]))
            nodes.append(node("Reshape", [f"p{step}", "shape"], result))
        names.append(result)
    outputs = {names[-1]: ["N", WIDTH]}
    return make_model(nodes, {"x": ["N", WIDTH]}, outputs, constants, opset=20)


@settings(max_examples=40)
@given(model=graphs(), rows=st.integers(1, 4))
def test_random_graphs_agree_with_onnxruntime(model: onnx.ModelProto, rows: int) -> None:
    x = weights(rows, WIDTH, seed=rows)
    model = co.load_model(model)
    runner = co.OnnxRuntimeModel(model)
    assert runner.uses_onnxruntime
    (wanted,) = runner(x)
    simple = co.simplify(model)
    for candidate in (model, simple):
        (found,) = co.execute(candidate, x)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
    (exact,) = co.execute(simple, x.astype(np.float64))
    assert exact.dtype == np.float64
    np.testing.assert_allclose(exact, wanted, rtol=1e-3, atol=1e-4)


def test_cases_of_onnx_with_several_nodes_pass() -> None:
    """Function bodies of operators, spelled out: before and after simplification."""
    known = set(ops.names())
    cases = [c for c in all_cases() if len(c.model.graph.node) > 1 and c.operators <= known]
    counted = [case for case in cases if case.exclusion() is None]
    assert len(counted) >= 40
    for case in counted:
        for inputs, expected in case.data:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                model = co.load_model(case.current())
                case.check(co.execute(model, *inputs), expected)
                case.check(co.execute(co.simplify(model), *inputs), expected)


def test_several_inputs_and_outputs() -> None:
    model = make_model(
        [node("Add", ["x", "y"], "s"), node("Sub", ["x", "y"], "d")],
        {"x": ["N", 2], "y": ["N", 2]},
        ["d", "s"],
    )
    x, y = weights(3, 2), weights(3, 2, seed=1)
    difference, total = co.execute(model, x, y)
    np.testing.assert_array_equal(difference, x - y)
    np.testing.assert_array_equal(total, x + y)


def test_outputs_are_nobody_elses_memory() -> None:
    model = make_model([node("Flatten", ["x"], "y")], {"x": ["N", 2]}, ["y"])
    x = weights(3, 2)
    (y,) = co.execute(model, x)
    y[:] = 0
    assert x.any()


def test_zero_rows() -> None:
    (y,) = co.execute(co.simplify(perceptron()), np.zeros((0, 4), dtype=np.float32))
    assert y.shape == (0, 2)


def test_trace_hands_out_nodes_in_order() -> None:
    model = perceptron()
    steps = list(co.trace(model, weights(2, 4)))
    assert [str(item) for item, _ in steps] == [
        "'first' (Gemm)",
        "'Relu_1' (Relu)",
        "'MatMul_2' (MatMul)",
        "'Add_3' (Add)",
    ]
    values = co.intermediate_values(model, weights(2, 4))
    assert set(values) == {"x", "w1", "b1", "w2", "b2", "h", "r", "m", "y"}
    for item, outputs in steps:
        np.testing.assert_array_equal(values[item.outputs[0]], outputs[0])
    np.testing.assert_array_equal(values["y"], co.execute(model, weights(2, 4))[0])


def test_optional_outputs_can_be_skipped() -> None:
    model = make_model(
        [node("Dropout", ["x"], ["", "mask"]), node("Not", ["mask"], "y")], {"x": ["N", 2]}, ["y"]
    )
    (y,) = co.execute(model, weights(3, 2))
    assert not y.any()
    assert "" not in co.intermediate_values(model, weights(3, 2))


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ((), InvalidShapeError, r"takes 1 input\(s\) \(x\); 0 were given"),
        ((np.ones((1, 4)), np.ones(1)), InvalidShapeError, "2 were given"),
        ((np.ones((1, 5)),), InvalidShapeError, r"'x' takes arrays of shape \(N, 4\).*\(1, 5\)"),
        ((np.ones(4),), InvalidShapeError, r"one of shape \(4,\)"),
        ((np.ones((1, 4), dtype=np.int64),), InvalidTypeError, "'x' takes float32.*int64"),
        ((np.ones((1, 4), dtype=bool),), InvalidTypeError, "dtype bool"),
        ((np.array([["a"] * 4]),), InvalidTypeError, "'x' takes float32"),
    ],
)
def test_bad_inputs_are_named(
    arrays: tuple[np.ndarray, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        co.execute(perceptron(), *arrays)
    with pytest.raises(error, match=message):
        co.OnnxRuntimeModel(perceptron())(*arrays)


def test_integers_and_narrow_floats_are_widened() -> None:
    model = make_model(
        [node("Cast", ["i"], "f", to=TensorProto.FLOAT), node("Add", ["f", "x"], "y")],
        {"i": (TensorProto.INT64, [None]), "x": [None]},
        ["y"],
    )
    half, small = np.ones(2, dtype=np.float16), np.ones(2, dtype=np.int8)
    assert co.execute(model, small, half)[0].dtype == np.float32
    with pytest.raises(InvalidTypeError, match="'i' takes int64"):
        co.execute(model, np.ones(2, dtype=np.uint64), half)


def test_a_failing_node_is_named() -> None:
    model = make_model(
        [node("MatMul", ["x", "w"], "y", name="layer")],
        {"x": [None, None]},
        ["y"],
        {"w": weights(3, 2)},
    )
    with pytest.raises(InvalidShapeError, match=r"Node 'layer' \(MatMul\).*float32\[1, 4\]"):
        co.execute(model, weights(1, 4))


def failing(function: Callable[..., object]) -> onnx.ModelProto:
    ops.register_numpy("test.Fails", function)
    return make_model(
        [node("Fails", ["x"], ["y", "z"], domain="test", name="bad")],
        {"x": ["N"]},
        ["y"],
        domains=["test"],
    )


def test_a_failing_function_of_ones_own_is_named() -> None:
    try:
        model = failing(lambda x, /: x.no_such_thing)
        with pytest.raises(ModelError, match=r"'bad' \(test.Fails\) failed: AttributeError"):
            co.execute(model, weights(2))
        model = failing(lambda x, /: x)
        with pytest.raises(ModelError, match="has 2 outputs, its function returned 1"):
            co.execute(model, weights(2))
    finally:
        ops.unregister("test.Fails")


def test_an_operator_that_is_missing_is_told() -> None:
    model = make_model([node("NonZero", ["x"], "y")], {"x": ["N", 2]}, ["y"])
    with pytest.raises(UnsupportedOperatorError, match=r"NonZero_0.*Supported operators: Abs"):
        co.execute(model, weights(1, 2))


def test_incomplete_graphs_are_told() -> None:
    model = make_model([node("Relu", ["nowhere"], "y")], {"x": ["N"]}, ["y"])
    with pytest.raises(ModelError, match="reads 'nowhere', which nothing before it computes"):
        co.execute(model, weights(2))
    model = make_model([node("Relu", ["x"], "y")], {"x": ["N"]}, ["z"])
    with pytest.raises(ModelError, match="Nothing in the model computes its output 'z'"):
        co.execute(model, weights(2))
