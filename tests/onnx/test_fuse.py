"""Factors and offsets beside linear operators become part of their weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from cipherlearn.onnx import load_model, run_with_onnxruntime, simplify
from tests.onnx_models import make_model, node, op_types, weights

Shape = tuple[int, ...]

NORM = {
    "gamma": weights(4, seed=1),
    "beta": weights(4, seed=2),
    "mean": weights(4, seed=3),
    "var": np.abs(weights(4, seed=4)) + 0.5,
}
IMAGE: dict[str, Any] = {"x": ["N", 4, 5, 5]}
ROWS: dict[str, Any] = {"x": ["N", 3]}


def norm(source: str, target: str, **attributes: Any) -> onnx.NodeProto:
    return node("BatchNormalization", [source, *NORM], target, **attributes)


def build(
    nodes: list[onnx.NodeProto], inputs: dict[str, Any], constants: dict[str, Any], *outputs: str
) -> onnx.ModelProto:
    needed = {name for item in nodes for name in item.input}
    constants = {name: value for name, value in {**NORM, **constants}.items() if name in needed}
    return make_model(nodes, inputs, outputs or ["y"], constants)


def fused(model: onnx.ModelProto) -> onnx.ModelProto:
    """Simplify a model, and check that it computes the same at two batch sizes."""
    before = model.SerializeToString()
    result = simplify(load_model(model))
    assert model.SerializeToString() == before
    assert simplify(result) == result
    for rows in (1, 3):
        data = [
            weights(*(d.dim_value or rows for d in value.type.tensor_type.shape.dim), seed=9)
            for value in model.graph.input
        ]
        results = run_with_onnxruntime(result, *data), run_with_onnxruntime(model, *data)
        for found, wanted in zip(*results, strict=True):
            assert found.dtype == wanted.dtype
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    return result


# The linear operator, the shape of its input, its weights and bias, the channels of its output.
LAYERS = {
    "Conv": (["x", "w"], {}, IMAGE, {"w": weights(4, 4, 3, 3)}),
    "Conv, bias": (["x", "w", "b"], {"pads": [1, 1, 1, 1]}, IMAGE, {"w": weights(4, 4, 3, 3)}),
    "Conv, groups": (["x", "w", "b"], {"group": 2}, IMAGE, {"w": weights(4, 2, 3, 3)}),
    "Conv, depthwise": (["x", "w"], {"group": 4}, IMAGE, {"w": weights(4, 1, 3, 3)}),
    "ConvTranspose": (["x", "w"], {"strides": [2, 2]}, IMAGE, {"w": weights(4, 4, 2, 2)}),
    "ConvTranspose, groups": (["x", "w", "b"], {"group": 2}, IMAGE, {"w": weights(4, 2, 3, 2)}),
    "Gemm": (["x", "w"], {}, ROWS, {"w": weights(3, 4)}),
    "Gemm, bias": (["x", "w", "b"], {"transB": 1}, ROWS, {"w": weights(4, 3)}),
    "Gemm, factors": (
        ["x", "w", "b"],
        {"alpha": 0.5, "beta": -2.0, "transB": 1},
        ROWS,
        {"w": weights(4, 3)},
    ),
    "MatMul": (["x", "w"], {}, ROWS, {"w": weights(3, 4)}),
}


def layer(name: str, source: str = "x", target: str = "t") -> tuple[onnx.NodeProto, Any, Any]:
    operands, attributes, inputs, constants = LAYERS[name]
    op = name.partition(",")[0]
    made = node(op, [source, *operands[1:]], target, name="layer", **attributes)
    return made, inputs, {**constants, "b": weights(4, seed=5)}


def channels(name: str, *shape: int) -> Shape:
    """A shape that varies along the channels of a layer's output."""
    return (*shape, 1, 1) if name.startswith("Conv") else shape


FOLLOWERS = {
    "BatchNormalization": norm("t", "y", epsilon=0.1),
    "Mul": node("Mul", ["t", "c"], "y"),
    "Mul, swapped": node("Mul", ["c", "t"], "y"),
    "Div": node("Div", ["t", "c"], "y"),
    "Add": node("Add", ["t", "c"], "y"),
    "Add, swapped": node("Add", ["c", "t"], "y"),
    "Sub": node("Sub", ["t", "c"], "y"),
    "Sub, swapped": node("Sub", ["c", "t"], "y"),
    "Neg": node("Neg", ["t"], "y"),
}


@pytest.mark.parametrize("follower", FOLLOWERS)
@pytest.mark.parametrize("name", LAYERS)
def test_what_follows_a_linear_operator_becomes_part_of_it(name: str, follower: str) -> None:
    first, inputs, constants = layer(name)
    for shape in ((), channels(name, 4), channels(name, 1, 4)):
        constants["c"] = np.asarray(weights(*shape, seed=6) if shape else np.float32(-0.4))
        result = fused(build([first, FOLLOWERS[follower]], inputs, constants))
        assert len(result.graph.node) == 1
        assert result.graph.node[0].name == "layer"
        is_gemm = name.startswith(("Gemm", "MatMul"))
        assert op_types(result)[0] in (("Gemm", "MatMul") if is_gemm else (first.op_type,))


def test_whole_chains_become_one_node() -> None:
    first, inputs, constants = layer("Conv, bias")
    nodes = [
        first,
        norm("t", "n"),
        node("Mul", ["n", "c"], "m"),
        node("Sub", ["d", "m"], "y"),
        node("Relu", ["y"], "z"),
    ]
    constants |= {"c": weights(4, 1, 1, seed=7), "d": np.float32(2)}
    result = fused(build(nodes, inputs, constants, "z"))
    assert op_types(result) == ["Conv", "Relu"]
    assert len(result.graph.initializer) == 2


def test_names_of_weights_stay_where_they_do() -> None:
    nodes = [node("MatMul", ["x", "w"], "t"), node("Add", ["t", "bias"], "y")]
    model = build(nodes, ROWS, {"w": weights(3, 4), "bias": weights(4)})
    assert list(fused(model).graph.node[0].input) == ["x", "w", "bias"]
    nodes = [node("MatMul", ["x", "w"], "t"), node("Mul", ["t", "c"], "y")]
    model = build(nodes, ROWS, {"w": weights(3, 4), "c": weights(4)})
    result = fused(model)
    assert op_types(result) == ["MatMul"]
    assert list(result.graph.node[0].input) == ["x", "w_1"]


def test_shared_weights_are_copied() -> None:
    nodes = [
        node("MatMul", ["x", "w"], "s"),
        node("MatMul", ["v", "w"], "t"),
        node("Mul", ["s", "c"], "y"),
        node("Relu", ["t"], "z"),
    ]
    inputs = {"x": ["N", 3], "v": ["N", 3]}
    result = fused(build(nodes, inputs, {"w": weights(3, 4), "c": weights(4)}, "y", "z"))
    assert op_types(result) == ["MatMul", "MatMul", "Relu"]


def test_products_of_three_axes_take_factors_only() -> None:
    for op, left in (("Mul", ["MatMul"]), ("Add", ["MatMul", "Add"])):
        nodes = [node("MatMul", ["x", "w"], "t"), node(op, ["t", "c"], "y")]
        model = build(nodes, {"x": ["N", 2, 3]}, {"w": weights(3, 4), "c": weights(4)})
        assert op_types(fused(model)) == left


@pytest.mark.parametrize(
    ("name", "nodes", "constants"),
    [
        # Constants that vary along rows or columns of the image, or add an axis.
        ("Conv", [node("Mul", ["t", "c"], "y")], {"c": weights(3)}),
        ("Conv", [node("Mul", ["t", "c"], "y")], {"c": weights(1, 4, 3, 1)}),
        ("Gemm", [node("Add", ["t", "c"], "y")], {"c": weights(1, 1, 4)}),
        # Not a multiple of what was computed, or not of constants.
        ("Conv", [node("Div", ["c", "t"], "y")], {"c": weights(4, 1, 1)}),
        ("Conv", [node("Mul", ["t", "t"], "y")], {}),
        # A division by zero must stay one.
        ("Conv", [node("Div", ["t", "c"], "y")], {"c": np.float32([[[0]]])}),
        # The value is wanted as it is.
        ("Conv", [norm("t", "y"), node("Relu", ["t"], "z")], {}),
    ],
)
def test_other_followers_stay(
    name: str, nodes: list[onnx.NodeProto], constants: dict[str, Any]
) -> None:
    first, inputs, own = layer(name)
    outputs = [item.output[0] for item in nodes]
    model = build([first, *nodes], inputs, {**own, **constants}, *outputs)
    assert op_types(fused(model)) == op_types(model)


def test_weights_that_are_inputs_stay() -> None:
    nodes = [node("MatMul", ["x", "w"], "t"), node("Mul", ["t", "c"], "y")]
    model = build(nodes, {"x": ["N", 3], "w": [3, 4]}, {"c": weights(4)})
    assert op_types(fused(model)) == ["MatMul", "Mul"]
    nodes = [node("Gemm", ["x", "w", "b"], "t"), node("Mul", ["t", "c"], "y")]
    model = build(nodes, {"x": ["N", 3], "b": [1, 4]}, {"w": weights(3, 4), "c": weights(4)})
    assert op_types(fused(model)) == ["Gemm", "Mul"]


def test_training_statistics_stay() -> None:
    first, inputs, constants = layer("Conv")
    training = node(
        "BatchNormalization", ["t", *NORM], ["y", "new_mean", "new_var"], training_mode=1
    )
    model = build([first, training], inputs, constants)
    assert op_types(simplify(load_model(model))) == ["Conv", "BatchNormalization"]


# What comes before: only where it would cost look-ups of its own.
POOL = node("MaxPool", ["x"], "p", kernel_shape=[1, 1])
BEFORE = {
    "Conv": {"w": weights(3, 4, 2, 2)},
    "Conv, bias": {"w": weights(3, 4, 2, 2)},
    "Conv, groups": {"w": weights(6, 2, 2, 2)},
}


@pytest.mark.parametrize("name", BEFORE)
def test_what_precedes_a_linear_operator_becomes_part_of_it(name: str) -> None:
    operands, attributes, inputs, _ = LAYERS[name]
    attributes = {key: value for key, value in attributes.items() if key != "pads"}
    last = node("Conv", ["t", *operands[1:]], "y", **attributes)
    constants = {**BEFORE[name], "b": weights(BEFORE[name]["w"].shape[0]), "c": np.float32(3)}
    for middle in (norm("p", "t"), node("Mul", ["c", "p"], "t"), node("Sub", ["p", "c"], "t")):
        result = fused(build([POOL, middle, last], inputs, constants))
        assert op_types(result) == ["MaxPool", "Conv"]


@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
def test_what_precedes_a_product_becomes_part_of_it(op: str) -> None:
    nodes = [
        node("ReduceMax", ["x", "axes"], "p", keepdims=0),
        norm("p", "t"),
        node(op, ["t", "w"], "y"),
    ]
    constants = {"w": weights(4, 3), "axes": np.array([2, 3])}
    assert op_types(fused(build(nodes, IMAGE, constants))) == ["ReduceMax", "Gemm"]


def test_factors_before_padded_windows_are_folded_and_offsets_are_not() -> None:
    for op, attributes, shape in (
        ("Conv", {"pads": [1, 1, 1, 1]}, (3, 4, 3, 3)),
        ("Conv", {"auto_pad": "SAME_UPPER"}, (3, 4, 3, 3)),
        ("ConvTranspose", {}, (4, 3, 2, 2)),
        ("ConvTranspose", {"group": 2}, (4, 3, 2, 2)),
    ):
        last = node(op, ["t", "w"], "y", **attributes)
        constants = {"w": weights(*shape), "c": weights(4, 1, 1, seed=3)}
        model = build([POOL, node("Mul", ["p", "c"], "t"), last], IMAGE, constants)
        assert op_types(fused(model)) == ["MaxPool", op]
        model = build([POOL, node("Add", ["p", "c"], "t"), last], IMAGE, constants)
        assert op_types(fused(model)) == ["MaxPool", "Add", op]


@pytest.mark.parametrize(
    "before",
    [
        [],
        [node("Relu", ["x"], "p")],
        [node("Relu", ["x"], "r"), node("Transpose", ["r"], "p", perm=[0, 1, 3, 2])],
    ],
)
def test_what_costs_nothing_stays_before(before: list[onnx.NodeProto]) -> None:
    # On an input the client multiplies; after a function of each element its table does.
    source = "p" if before else "x"
    nodes = [*before, node("Mul", [source, "c"], "t"), node("Conv", ["t", "w"], "y")]
    constants = {"w": weights(3, 4, 2, 2), "c": weights(4, 1, 1)}
    assert op_types(fused(build(nodes, IMAGE, constants))) == op_types(make_model(nodes, {}, []))


def test_a_value_that_others_read_stays_before() -> None:
    nodes = [
        POOL,
        node("Mul", ["p", "c"], "t"),
        node("Conv", ["t", "w"], "y"),
        node("Relu", ["t"], "z"),
    ]
    model = build(nodes, IMAGE, {"w": weights(3, 4, 2, 2), "c": np.float32(2)}, "y", "z")
    assert op_types(fused(model)) == ["MaxPool", "Mul", "Conv", "Relu"]


def test_weights_are_rounded_once() -> None:
    nodes = [
        node("Gemm", ["x", "w"], "t"),
        node("Mul", ["t", "c"], "m"),
        node("Div", ["m", "c"], "y"),
    ]
    model = build(nodes, ROWS, {"w": weights(3, 4), "c": np.float32(1 / 3)})
    (kept,) = fused(model).graph.initializer
    np.testing.assert_allclose(numpy_helper.to_array(kept), weights(3, 4), rtol=3e-7)
