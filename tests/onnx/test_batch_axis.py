"""Graphs that move the batch off the first axis, and are written so that it stays there."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cipherlearn.errors import UnsupportedAttributeError
from cipherlearn.onnx import Graph, check_batch_first, execute, load_model, simplify
from tests.onnx_models import make_model, node, op_types, weights

BACK = node("Transpose", ["b"], "y", perm=[1, 0, 2])
AXIS = {"zero": np.array([0]), "last": np.array([-1]), "two": np.array([2])}
GRAPHS: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    "weights": ([node("MatMul", ["a", "w"], "b")], {"w": weights(3, 3)}),
    "elements": (
        [node("Add", ["a", "c"], "s"), node("Clip", ["s", "", "top"], "b")],
        {"c": weights(4, 1, 3), "top": np.float32(0.5)},
    ),
    "number": ([node("Mul", ["c", "a"], "b")], {"c": np.full((1, 1), 2.0, np.float32)}),
    "attention": (
        [
            node("Transpose", ["a"], "t", perm=[1, 2, 0]),
            node("Transpose", ["a"], "u", perm=[1, 0, 2]),
            node("MatMul", ["u", "t"], "m"),
            node("Softmax", ["m"], "p"),
            node("MatMul", ["p", "u"], "v"),
            node("Transpose", ["v"], "b", perm=[1, 0, 2]),
        ],
        {},
    ),
    "softmax": ([node("Softmax", ["a"], "b", axis=0)], {}),
    "joined": (
        [
            node("Split", ["a"], ["f", "g"], axis=0),
            node("Concat", ["g", "f"], "b", axis=0),
        ],
        {},
    ),
    "parts": (
        [
            node("Slice", ["a", "zero", "two"], "f"),
            node("Gather", ["a", "last"], "g"),
            node("Sub", ["f", "g"], "h"),
            node("Concat", ["h", "g", "g"], "b", axis=0),
        ],
        {},
    ),
    "sums": ([node("ReduceSum", ["a", "zero"], "s"), node("Sub", ["a", "s"], "b")], {}),
    "all": (
        [
            node("Reshape", ["a", "shape"], "r"),
            node("ReduceSum", ["r", "last"], "s", keepdims=0),
            node("Unsqueeze", ["s", "last"], "q"),
            node("Reshape", ["q", "back"], "z"),
            node("Mul", ["a", "z"], "b"),
        ],
        {"shape": np.array([4, -1, 3]), "back": np.array([4, -1, 1])},
    ),
    "picked": (
        [
            node("Transpose", ["a"], "t", perm=[2, 0, 1]),
            node("GatherND", ["t", "places"], "g"),
            node("Unsqueeze", ["g", "last"], "s"),
            node("Tile", ["s", "thrice"], "b"),
        ],
        {
            "places": np.array([[0, 3], [-1, 0], [1, 1], [0, 3]]),
            "thrice": np.array([1, 1, 3]),
        },
    ),
    "upside down": (
        [
            node("Transpose", ["a"], "t", perm=[0, 2, 1]),
            node("ReverseSequence", ["t", "lengths"], "r", time_axis=0, batch_axis=1),
            node("Transpose", ["r"], "b", perm=[0, 2, 1]),
        ],
        {"lengths": np.array([4, 2, 3])},
    ),
    "expanded": (
        [
            node("ReduceSum", ["a", "zero"], "m"),
            node("Expand", ["m", "e"], "n"),
            node("Sub", ["n", "a"], "b"),
        ],
        {"e": np.array([4, 1, 3])},
    ),
}


def moved(nodes: list[onnx.NodeProto], constants: dict[str, Any], **options: Any) -> Any:
    first = node("Transpose", ["x"], "a", perm=[1, 0, 2])
    read = {name for item in nodes for name in item.input}
    used = {name: value for name, value in AXIS.items() if name in read}
    return make_model(
        [first, *nodes, BACK], {"x": ["N", 4, 3]}, ["y"], {**used, **constants}, **options
    )


def check(model: onnx.ModelProto, x: np.ndarray) -> onnx.ModelProto:
    """The model, simplified: the batch stays first, and results are those of the model."""
    free = simplify(load_model(model))
    check_batch_first(Graph.from_model(free), x)
    for rows in (1, len(x)):
        (found,), (wanted,) = execute(free, x[:rows]), execute(model, x[:rows])
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    return free


@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize("name", GRAPHS)
def test_the_batch_comes_back_to_the_first_axis(name: str, opset: int) -> None:
    nodes, constants = GRAPHS[name]
    model = moved(nodes, constants, opset=opset)
    for item in model.graph.node:
        if item.op_type == "Split" and opset >= 18:
            item.attribute.append(helper.make_attribute("num_outputs", 2))
    check(model, weights(5, 4, 3, seed=7))


def test_reductions_take_their_axes_as_they_used_to() -> None:
    nodes = [node("ReduceMean", ["a"], "s", axes=[0]), node("Sub", ["a", "s"], "b")]
    check(moved(nodes, {}, opset=13), weights(5, 4, 3))


@pytest.mark.parametrize("swapped", [0, 1])
def test_weights_before_rows_in_columns(swapped: int) -> None:
    # What hummingbird makes of trees.
    w = weights(6, 3) if not swapped else weights(3, 6)
    model = make_model(
        [
            node("Gemm", ["w", "x", "c"], "h", transA=swapped, transB=1, alpha=0.5, beta=2.0),
            node("Greater", ["h", "limit"], "g"),
            node("Cast", ["g"], "f", to=TensorProto.FLOAT),
            node("Reshape", ["f", "shape"], "r"),
            node("MatMul", ["v", "r"], "m"),
            node("ReduceSum", ["m", "zero"], "s", keepdims=0),
            node("Transpose", ["s"], "y"),
        ],
        {"x": ["N", 3]},
        ["y"],
        {
            "w": w,
            "c": weights(6, 1, seed=2),
            "limit": weights(6, 1, seed=3),
            "shape": np.array([2, 3, -1]),
            "v": weights(2, 4, 3),
            "zero": np.array([0]),
        },
    )
    free = check(model, weights(9, 3, seed=5))
    # Constants are the second operand, and comparing needs no other shape.
    assert op_types(free)[:3] == ["Gemm", "Greater", "Cast"]


def test_shapes_of_one_row_say_nothing_of_many() -> None:
    # What a model does with a number of rows is not what it does with one row.
    nodes = [
        node("Shape", ["x"], "s"),
        node("Cast", ["s"], "f", to=TensorProto.FLOAT),
        node("ReduceSum", ["f"], "t"),
        node("Mul", ["a", "t"], "b"),
    ]
    model = moved(nodes, {})
    x = weights(5, 4, 3)
    for rows in (1, 5):
        wanted = execute(model, x[:rows])[0]
        np.testing.assert_allclose(execute(simplify(model), x[:rows])[0], wanted, rtol=1e-5)


def test_a_node_that_keeps_the_batch_elsewhere_is_named() -> None:
    model = moved([node("CumSum", ["a", "axis"], "b", name="steps")], {"axis": np.array(0)})
    free = simplify(load_model(model))
    x = weights(2, 4, 3)
    np.testing.assert_allclose(execute(free, x)[0], np.cumsum(x, axis=1), rtol=1e-5)
    with pytest.raises(
        UnsupportedAttributeError, match=r"Transpose_0.*transpose and index"
    ) as told:
        check_batch_first(Graph.from_model(free), x)
    assert "batch_first" not in str(told.value)


def test_attention_is_told_of_batch_first() -> None:
    steps = [node("CumSum", ["a", "axis"], "s"), node("Softmax", ["s"], "b")]
    free = simplify(load_model(moved(steps, {"axis": np.array(0)})))
    with pytest.raises(UnsupportedAttributeError, match=r"attention.*batch_first=True"):
        check_batch_first(Graph.from_model(free), weights(2, 4, 3))


def test_an_output_with_the_batch_elsewhere_is_left_alone() -> None:
    model = make_model(
        [node("Relu", ["x"], "r"), node("Transpose", ["r"], "y", perm=[1, 0, 2])],
        {"x": ["N", 4, 3]},
        ["y"],
    )
    free = simplify(load_model(model))
    assert execute(free, weights(2, 4, 3))[0].shape == (4, 2, 3)
    with pytest.raises(UnsupportedAttributeError, match="'Transpose_1'"):
        check_batch_first(Graph.from_model(free), weights(2, 4, 3))
