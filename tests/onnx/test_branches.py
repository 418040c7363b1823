"""The branch of an If that is always taken stands in its place."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cipherlearn.errors import UnsupportedOperatorError
from cipherlearn.onnx import check_supported, execute, load_model, simplify
from tests.onnx_models import make_model, node, op_types, weights


def branch(
    nodes: list[onnx.NodeProto], output: str, constants: dict[str, np.ndarray] | None = None
) -> onnx.GraphProto:
    result = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(v, name) for name, v in (constants or {}).items()]
    return helper.make_graph(nodes, "branch", [], [result], tensors)


def choose(
    condition: str, target: str, then: onnx.GraphProto, other: onnx.GraphProto
) -> onnx.NodeProto:
    return node("If", [condition], target, then_branch=then, else_branch=other)


@pytest.mark.parametrize(("condition", "op"), [(True, "Neg"), (False, "Exp")])
def test_a_constant_condition_takes_its_branch(condition: bool, op: str) -> None:
    model = make_model(
        [
            node("Relu", ["x"], "r"),
            choose(
                "c",
                "z",
                branch([node("Neg", ["r"], "n")], "n"),
                branch([node("Exp", ["r"], "e")], "e"),
            ),
            node("Abs", ["z"], "y"),
        ],
        {"x": ["N", 3]},
        ["y"],
        {"c": np.array(condition)},
    )
    result = simplify(load_model(model))
    assert op_types(result) == ["Relu", op, "Abs"]
    x = weights(2, 3)
    expected = np.maximum(x, 0)
    expected = np.abs(-expected if condition else np.exp(expected))
    np.testing.assert_allclose(execute(result, x)[0], expected, rtol=1e-6)


def test_a_condition_on_the_number_of_columns_is_known() -> None:
    # What the TorchScript exporter writes for `squeeze`.
    squeezed = branch([node("Squeeze", ["x", "axis"], "s")], "s", {"axis": np.array([1])})
    model = make_model(
        [
            node("Shape", ["x"], "shape"),
            node("Gather", ["shape", "one"], "columns"),
            node("Equal", ["columns", "one"], "c"),
            choose("c", "z", squeezed, branch([node("Identity", ["x"], "i")], "i")),
            node("Relu", ["z"], "y"),
        ],
        {"x": ["N", 1, 3]},
        ["y"],
        {"one": np.array(1)},
    )
    result = simplify(load_model(model))
    assert op_types(result) == ["Squeeze", "Relu"]
    x = weights(2, 1, 3)
    np.testing.assert_array_equal(execute(result, x)[0], np.maximum(x[:, 0], 0))


def test_names_of_branches_may_repeat() -> None:
    def scaled(factor: float) -> onnx.GraphProto:
        constants = {"f": np.float32([factor])}
        return branch([node("Mul", ["x", "f"], "t"), node("Relu", ["t"], "u")], "u", constants)

    outer = branch([choose("c", "inner", scaled(2), scaled(3)), node("Neg", ["inner"], "t")], "t")
    model = make_model(
        [
            choose("c", "a", scaled(5), scaled(7)),
            choose("c", "b", outer, scaled(11)),
            node("Identity", ["f"], "g"),
            node("Add", ["a", "b"], "s"),
            node("Add", ["s", "g"], "y"),
        ],
        {"x": ["N", 2]},
        ["y"],
        {"c": np.array(True), "f": np.float32([100])},
    )
    # The graph has a constant with the name that is used in the branches as well.
    result = simplify(model)
    x = np.float32([[1, -1]])
    np.testing.assert_array_equal(execute(result, x)[0], [[5 - 2 + 100, 100]])
    assert len({name for item in result.graph.node for name in item.output}) == len(
        result.graph.node
    )


def test_a_branch_may_only_pass_something_on() -> None:
    constant = branch([], "k", {"k": np.float32([4])})
    model = make_model(
        [choose("c", "z", constant, branch([], "x")), node("Add", ["x", "z"], "y")],
        {"x": ["N", 2]},
        ["y", "z"],
        {"c": np.array(True)},
    )
    result = simplify(model)
    assert op_types(result) == ["Add"]
    np.testing.assert_array_equal(execute(result, np.float32([[1, 2]]))[0], [[5, 6]])
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(False), "c"))
    result = simplify(model)
    np.testing.assert_array_equal(execute(result, np.float32([[1, 2]]))[0], [[2, 4]])


def test_a_condition_that_is_computed_stays() -> None:
    same = branch([node("Neg", ["x"], "n")], "n")
    model = make_model(
        [choose("c", "y", same, branch([node("Abs", ["x"], "e")], "e"))],
        {"x": ["N", 2], "c": (TensorProto.BOOL, [])},
        ["y"],
    )
    free = simplify(load_model(model))
    assert op_types(free) == ["If"]
    with pytest.raises(UnsupportedOperatorError, match=r"'If_0' \(its condition .*Where"):
        check_supported(free)
