"""Simplification keeps what a model computes, with fewer and plainer nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cipherlearn import ops
from cipherlearn.errors import CipherlearnError, ModelError
from cipherlearn.onnx import execute, load_model, simplify
from tests.onnx_models import make_model, node, op_types, perceptron, weights


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def simplified(model: onnx.ModelProto, *inputs: np.ndarray) -> onnx.ModelProto:
    """Simplify, and check everything that holds for any model."""
    before = model.SerializeToString()
    result = simplify(load_model(model))
    assert model.SerializeToString() == before
    assert [i.name for i in result.graph.output] == [o.name for o in model.graph.output]
    inputs_before = {i.name for i in model.graph.input} - set(constants(model))
    assert {i.name for i in result.graph.input} == inputs_before
    load_model(result)
    assert simplify(result) == result
    if inputs:
        for found, wanted in zip(execute(result, *inputs), execute(model, *inputs), strict=True):
            assert found.dtype == wanted.dtype
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    return result


def test_matmul_and_add_become_gemm() -> None:
    result = simplified(perceptron(), weights(5, 4))
    assert op_types(result) == ["Gemm", "Relu", "Gemm"]
    assert list(result.graph.node[2].input) == ["r", "w2", "b2"]


@pytest.mark.parametrize("bias_first", [False, True])
@pytest.mark.parametrize("shape", [(2,), (1, 2), (1,), (), (1, 1)])
def test_rows_that_are_added_fuse(shape: tuple[int, ...], bias_first: bool) -> None:
    operands = ["b", "m"] if bias_first else ["m", "b"]
    model = make_model(
        [node("MatMul", ["x", "w"], "m", name="layer"), node("Add", operands, "y")],
        {"x": ["N", 3]},
        ["y"],
        {"w": weights(3, 2), "b": weights(*shape) if shape else np.float32(0.5)},
    )
    result = simplified(model, weights(4, 3))
    assert op_types(result) == ["Gemm"]
    assert result.graph.node[0].name == "layer"


@pytest.mark.parametrize(
    ("inputs", "nodes", "added"),
    [
        # A column, a matrix and a third axis are no rows; a single column would be broadcast.
        ({"x": ["N", 3]}, [], {"b": weights(4, 1)}),
        ({"x": ["N", 3]}, [], {"b": weights(4, 2)}),
        ({"x": ["N", 3]}, [], {"b": weights(1, 1, 2)}),
        ({"x": ["N", 3]}, [], {"w": weights(3, 1), "b": weights(2)}),
        # Gemm takes matrices only.
        ({"x": ["N", 4, 3]}, [], {"b": weights(2)}),
        ({"x": [None, 3]}, [], {"w": weights(1, 3, 2), "b": weights(2)}),
        # The product is wanted elsewhere.
        ({"x": ["N", 3]}, [node("Relu", ["m"], "z")], {"b": weights(2)}),
    ],
)
def test_other_additions_stay(
    inputs: dict[str, Any], nodes: list[onnx.NodeProto], added: dict[str, np.ndarray]
) -> None:
    outputs = ["y", *(n.output[0] for n in nodes)]
    model = make_model(
        [node("MatMul", ["x", "w"], "m"), node("Add", ["m", "b"], "y"), *nodes],
        inputs,
        outputs,
        {"w": weights(3, 2), **added},
    )
    x = weights(4, *inputs["x"][1:])
    assert op_types(simplified(model, x))[:2] == ["MatMul", "Add"]


def test_products_of_two_inputs_stay() -> None:
    model = make_model(
        [node("MatMul", ["x", "w"], "m"), node("Add", ["m", "b"], "y")],
        {"x": ["N", 3], "w": [3, 2]},
        ["y"],
        {"b": weights(2)},
    )
    assert op_types(simplified(model)) == ["MatMul", "Add"]


def test_products_that_are_outputs_stay() -> None:
    model = make_model(
        [node("MatMul", ["x", "w"], "m"), node("Add", ["m", "b"], "y")],
        {"x": ["N", 3]},
        ["y", "m"],
        {"w": weights(3, 2), "b": weights(2)},
    )
    assert op_types(simplified(model, weights(2, 3))) == ["MatMul", "Add"]


def test_constant_parts_are_folded() -> None:
    shape = onnx.numpy_helper.from_array(np.array([2]))
    model = make_model(
        [
            node("Constant", [], "s", value=shape),
            node("ConstantOfShape", ["s"], "ones", value=helper.make_tensor("v", 1, [1], [1.0])),
            node("Concat", ["ones", "c"], "all", axis=0),
            node("Exp", ["all"], "e"),
            node("Mul", ["x", "e"], "y"),
        ],
        {"x": ["N", 4]},
        ["y"],
        {"c": np.float32([0, 2]), "unused": np.zeros(3)},
    )
    result = simplify(load_model(model))
    assert op_types(result) == ["Mul"]
    assert set(constants(result)) == {"e"}
    np.testing.assert_allclose(constants(result)["e"], np.exp([1, 1, 0, 2]), rtol=1e-6)


def test_an_output_can_be_a_constant() -> None:
    model = make_model(
        [node("Exp", ["c"], "y"), node("Relu", ["x"], "z")],
        {"x": ["N"]},
        ["y", "z"],
        {"c": np.float32([0])},
    )
    result = simplified(model, weights(3))
    assert op_types(result) == ["Relu"]
    assert constants(result)["y"].tolist() == [1]


def test_random_numbers_are_not_folded() -> None:
    model = make_model(
        [node("RandomNormal", [], "r", shape=[1]), node("Add", ["x", "r"], "y")],
        {"x": ["N"]},
        ["y"],
    )
    assert op_types(simplify(load_model(model))) == ["RandomNormal", "Add"]


def test_what_fails_on_constants_is_left_for_its_error() -> None:
    model = make_model(
        [node("Add", ["a", "b"], "c"), node("Mul", ["x", "c"], "y")],
        {"x": ["N"]},
        ["y"],
        {"a": weights(2), "b": weights(3)},
    )
    result = simplify(load_model(model))
    assert op_types(result) == ["Add", "Mul"]
    with pytest.raises(CipherlearnError, match="Node 'Add_0'"):
        execute(result, weights(2))


def test_own_operators_on_constants_are_folded() -> None:
    model = make_model(
        [node("Triple", ["c"], "t", domain="test"), node("Add", ["x", "t"], "y")],
        {"x": ["N"]},
        ["y"],
        {"c": np.float32([1])},
        domains=["test"],
    )
    assert op_types(simplify(model)) == ["Triple", "Add"]
    ops.register_numpy("test.Triple", lambda x, /: 3 * x)
    try:
        result = simplified(model, weights(2))
        assert op_types(result) == ["Add"]
        assert constants(result)["t"].tolist() == [3]
    finally:
        ops.unregister("test.Triple")


def test_initializers_are_no_inputs() -> None:
    model = perceptron()
    info = helper.make_tensor_value_info("w1", TensorProto.FLOAT, [4, 3])
    model.graph.input.append(info)
    result = simplify(load_model(model))
    assert [i.name for i in result.graph.input] == ["x"]


def test_the_long_name_of_the_standard_domain_is_understood() -> None:
    model = perceptron()
    model.opset_import[0].domain = "ai.onnx"
    for item in model.graph.node:
        item.domain = "ai.onnx"
    model.graph.node.add(op_type="Identity", input=["y"], output=["z"], domain="ai.onnx")
    model.graph.output[0].name = "z"
    before = model.SerializeToString()
    loaded = load_model(model)
    assert model.SerializeToString() == before
    assert loaded.opset_import[0].domain == ""
    assert op_types(simplified(loaded, weights(3, 4))) == ["Gemm", "Relu", "Gemm"]


def test_identities_disappear() -> None:
    model = make_model(
        [
            node("Identity", ["x"], "a"),
            node("Relu", ["a"], "b"),
            node("Identity", ["b"], "c"),
            node("Identity", ["c"], "d"),
            node("Neg", ["d"], "e"),
            node("Add", ["e", "b"], "f"),
            node("Identity", ["f"], "y"),
        ],
        {"x": ["N"]},
        ["y"],
    )
    result = simplified(model, weights(3))
    assert op_types(result) == ["Relu", "Neg", "Add"]


def test_names_of_inputs_and_outputs_outlive_identities() -> None:
    model = make_model(
        [
            node("Identity", ["x"], "same"),
            node("Relu", ["x"], "r"),
            node("Identity", ["r"], "first"),
            node("Identity", ["r"], "second"),
        ],
        {"x": ["N"]},
        ["same", "first", "second", "r"],
    )
    result = simplified(model, weights(3))
    assert op_types(result) == ["Identity", "Relu", "Identity", "Identity"]


def test_an_output_read_inside_the_graph_takes_over() -> None:
    model = make_model(
        [node("Relu", ["x"], "r"), node("Identity", ["r"], "y"), node("Neg", ["y"], "z")],
        {"x": ["N"]},
        ["y", "z"],
    )
    assert op_types(simplified(model, weights(3))) == ["Relu", "Neg"]


@pytest.mark.parametrize("operands", [["x"], ["x", "ratio"], ["x", "ratio", "no"], ["x", "", "no"]])
def test_dropout_disappears(operands: list[str]) -> None:
    model = make_model(
        [node("Dropout", operands, ["d", "unused"]), node("Neg", ["d"], "y")],
        {"x": ["N"]},
        ["y"],
        {"ratio": np.float32(0.5), "no": np.array(False)},
    )
    assert op_types(simplified(model, weights(3))) == ["Neg"]


def test_dropout_stays_where_it_does_something() -> None:
    training = make_model(
        [node("Dropout", ["x", "ratio", "yes"], "d"), node("Neg", ["d"], "y")],
        {"x": ["N"]},
        ["y"],
        {"ratio": np.float32(0.5), "yes": np.array(True)},
    )
    assert op_types(simplify(load_model(training))) == ["Dropout", "Neg"]
    asked = make_model(
        [node("Dropout", ["x", "", "t"], "d"), node("Neg", ["d"], "y")],
        {"x": ["N"], "t": (TensorProto.BOOL, [])},
        ["y"],
    )
    assert op_types(simplify(load_model(asked))) == ["Dropout", "Neg"]
    masked = make_model(
        [node("Dropout", ["x"], ["d", "mask"]), node("Where", ["mask", "d", "x"], "y")],
        {"x": ["N"]},
        ["y"],
    )
    assert op_types(simplified(masked, weights(3))) == ["Dropout", "Where"]


def test_cast_like_becomes_cast() -> None:
    model = make_model(
        [
            node("Greater", ["x", "zero"], "g"),
            node("CastLike", ["g", "x"], "f"),
            node("CastLike", ["f", "zero"], "y"),
        ],
        {"x": ["N"]},
        ["y"],
        {"zero": np.float32(0)},
    )
    result = simplified(model, weights(4))
    assert op_types(result) == ["Greater", "Cast"]
    assert result.graph.node[1].attribute[0].i == TensorProto.FLOAT


def test_casts_to_the_same_type_disappear() -> None:
    ml = "ai.onnx.ml"
    model = make_model(
        [
            node("Cast", ["x"], "a", to=TensorProto.FLOAT),
            node("Cast", ["a"], "b", to=TensorProto.INT64),
            node("Scaler", ["b"], "c", domain=ml, offset=[1.0], scale=[2.0]),
            node("Cast", ["c"], "d", to=TensorProto.FLOAT),
            node("MatMul", ["d", "w"], "e"),
            node("Add", ["e", "v"], "y"),
        ],
        {"x": ["N", 3]},
        ["y"],
        {"w": weights(3, 2), "v": weights(2)},
        domains=[ml],
    )
    # Shapes and types are known behind operators for which ONNX infers none.
    assert op_types(simplify(load_model(model))) == ["Cast", "Scaler", "Gemm"]


def test_what_nobody_needs_disappears() -> None:
    model = make_model(
        [node("Relu", ["x"], "y"), node("Exp", ["x"], "a"), node("Mul", ["a", "c"], "b")],
        {"x": ["N"]},
        ["y"],
        {"c": weights(1)},
    )
    result = simplified(model, weights(3))
    assert op_types(result) == ["Relu"]
    assert not result.graph.initializer


def test_functions_are_inlined() -> None:
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    dense = helper.make_function(
        "mine",
        "Dense",
        ["a", "w", "b"],
        ["c"],
        [node("MatMul", ["a", "w"], "m"), node("Add", ["m", "b"], "s"), node("Relu", ["s"], "c")],
        imports,
    )
    twice = helper.make_function(
        "mine",
        "Twice",
        ["a", "w", "b"],
        ["c"],
        [
            node("Dense", ["a", "w", "b"], "d", domain="mine"),
            node("Dense", ["d", "w", "b"], "c", domain="mine"),
        ],
        imports,
    )
    model = make_model(
        [node("Twice", ["x", "w", "b"], "y", domain="mine")],
        {"x": ["N", 3]},
        {"y": ["N", 3]},
        {"w": weights(3, 3), "b": weights(3)},
        domains=["mine"],
        functions=[dense, twice],
    )
    result = simplify(load_model(model))
    assert op_types(result) == ["Gemm", "Relu", "Gemm", "Relu"]
    assert not result.functions
    x = weights(4, 3)
    layer = np.maximum(x @ weights(3, 3) + weights(3), 0)
    layer = np.maximum(layer @ weights(3, 3) + weights(3), 0)
    np.testing.assert_allclose(execute(result, x)[0], layer, rtol=1e-5)


def test_functions_that_cannot_be_inlined_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("cycle")

    monkeypatch.setattr(onnx.inliner, "inline_local_functions", fail)
    body = helper.make_function(
        "mine", "F", ["a"], ["b"], [node("Relu", ["a"], "b")], [helper.make_opsetid("", 18)]
    )
    model = make_model(
        [node("F", ["x"], "y", domain="mine")],
        {"x": ["N"]},
        ["y"],
        domains=["mine"],
        functions=[body],
    )
    with pytest.raises(ModelError, match="functions of the model cannot be inlined: cycle"):
        simplify(model)


def test_tensors_that_inner_graphs_read_stay() -> None:
    def branch(name: str, source: str) -> onnx.GraphProto:
        result = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["N"])
        return helper.make_graph([node("Neg", [source], f"{name}_y")], name, [], [result])

    model = make_model(
        [
            node("Relu", ["x"], "r"),
            node("Identity", ["r"], "same"),
            node("Abs", ["x"], "unused"),
            node("If", ["c"], "y", then_branch=branch("a", "same"), else_branch=branch("b", "w")),
        ],
        {"x": ["N"], "c": (TensorProto.BOOL, [])},
        ["y"],
        {"w": weights(2), "v": weights(2)},
    )
    result = simplify(load_model(model))
    assert op_types(result) == ["Relu", "If"]
    assert set(constants(result)) == {"w"}
    load_model(result)
    inner = helper.get_attribute_value(result.graph.node[1].attribute[0])
    assert inner.node[0].input[0] in {"r", "w"}


def test_what_is_computed_twice_is_computed_once() -> None:
    half = np.float32(0.5)
    model = make_model(
        [
            node("Mul", ["x", "c"], "a"),
            node("Mul", ["x", "d"], "b"),
            node("Relu", ["a"], "r"),
            node("Relu", ["b"], "s"),
            node("Sub", ["r", "s"], "y"),
            node("Relu", ["a"], "z"),
        ],
        {"x": ["N"]},
        ["y", "z"],
        {"c": half, "d": half},
    )
    result = simplified(model, weights(5))
    assert op_types(result) == ["Mul", "Relu", "Sub"]
    assert list(result.graph.node[2].input) == ["z", "z"]
    assert set(constants(result)) == {"c"}


def test_attributes_and_operands_tell_nodes_apart() -> None:
    model = make_model(
        [
            node("LeakyRelu", ["x"], "a", alpha=0.1),
            node("LeakyRelu", ["x"], "b", alpha=0.2),
            node("Sub", ["a", "b"], "c"),
            node("Sub", ["b", "a"], "d"),
            node("Mul", ["c", "d"], "y"),
        ],
        {"x": ["N"]},
        ["y"],
    )
    assert op_types(simplified(model, weights(5))) == op_types(model)


def test_equal_outputs_keep_both_names() -> None:
    model = make_model(
        [node("Relu", ["x"], "y"), node("Relu", ["x"], "z")], {"x": ["N"]}, ["y", "z"]
    )
    assert op_types(simplified(model, weights(3))) == ["Relu", "Relu"]


def test_outputs_that_nobody_asked_for_do_not_stand_for_others() -> None:
    model = make_model(
        [
            node("MaxPool", ["x"], ["a"], kernel_shape=[2]),
            node("MaxPool", ["x"], ["b", "places"], kernel_shape=[2]),
            node("Cast", ["places"], "p", to=TensorProto.FLOAT),
            node("Sum", ["a", "b", "p"], "y"),
        ],
        {"x": ["N", 1, 4]},
        ["y"],
    )
    assert op_types(simplify(load_model(model))) == ["MaxPool", "MaxPool", "Cast", "Sum"]


def test_random_numbers_are_drawn_twice() -> None:
    model = make_model(
        [
            node("RandomNormalLike", ["x"], "a"),
            node("RandomNormalLike", ["x"], "b"),
            node("Sub", ["a", "b"], "y"),
        ],
        {"x": ["N"]},
        ["y"],
    )
    assert op_types(simplify(load_model(model))) == op_types(model)


def test_known_sizes_are_constants_at_any_batch_size() -> None:
    model = make_model(
        [
            node("Shape", ["x"], "s"),
            node("Gather", ["s", "last"], "columns"),
            node("Slice", ["s", "one", "two"], "rows"),
            node("Cast", ["columns"], "c", to=TensorProto.FLOAT),
            node("Cast", ["rows"], "r", to=TensorProto.FLOAT),
            node("Gather", ["s", "zero"], "batch"),
            node("Cast", ["batch"], "b", to=TensorProto.FLOAT),
            node("Sum", ["x", "c", "r", "b"], "y"),
        ],
        {"x": ["N", 3, 4]},
        ["y"],
        {
            "last": np.array(-1),
            "zero": np.array(0),
            "one": np.array([1]),
            "two": np.array([2]),
        },
    )
    result = simplify(load_model(model))
    assert op_types(result) == ["Shape", "Gather", "Cast", "Sum"]
    x = weights(2, 3, 4)
    np.testing.assert_allclose(execute(result, x)[0], x + 4 + 3 + 2)


@pytest.mark.parametrize("opset", [13, 18, 21])
def test_constants_that_are_quantized_and_back_stay_behind_their_grid(opset: int) -> None:
    model = make_model(
        [
            node("QuantizeLinear", ["w", "scale", "zero"], "q"),
            node("DequantizeLinear", ["q", "scale", "zero"], "d"),
            node("MatMul", ["x", "d"], "y"),
        ],
        {"x": ["N", 2]},
        ["y"],
        {
            "w": np.float32([[0.26, -0.74], [1.1, 0.5]]),
            "scale": np.float32(0.5),
            "zero": np.int8(0),
        },
        opset=opset,
    )
    result = simplified(model, weights(3, 2))
    assert op_types(result) == ["Quant", "MatMul"]
    x = np.eye(2, dtype=np.float32)
    np.testing.assert_array_equal(execute(result, x)[0], [[0.5, -0.5], [1, 0.5]])
