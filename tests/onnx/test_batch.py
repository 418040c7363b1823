"""Models traced with a fixed batch size run at any batch size, where that means something."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from cipherlearn import ops
from cipherlearn.onnx import execute, load_model, simplify
from tests.onnx_models import dimensions, make_model, node, op_types, weights

Model = onnx.ModelProto


def reshaping(shape: list[Any], target: list[int], **attributes: int) -> Model:
    """Flatten rows of 3 by 4 with a constant target, then apply a layer."""
    return make_model(
        [
            node("Reshape", ["x", "target"], "flat", **attributes),
            node("Gemm", ["flat", "w", "b"], "y"),
        ],
        {"x": shape},
        {"y": [None, 5]},
        {"target": np.array(target), "w": weights(12, 5), "b": weights(5)},
    )


def first_axes(model: Model) -> list[int | str]:
    return [dimensions(value)[0] for value in (*model.graph.input, *model.graph.output)]


@pytest.mark.parametrize(
    ("shape", "target", "attributes"),
    [
        ([1, 3, 4], [1, 12], {}),
        ([1, 3, 4], [1, -1], {}),
        ([1, 3, 4], [-1, 12], {}),
        ([1, 3, 4], [0, -1], {}),
        ([1, 3, 4], [1, 12], {"allowzero": 1}),
        ([2, 3, 4], [2, 12], {}),
        ([7, 3, 4], [7, -1], {"allowzero": 1}),
        (["N", 3, 4], [1, 12], {}),
        ([None, 3, 4], [-1, 12], {}),
    ],
)
def test_flattening_takes_any_batch(
    shape: list[Any], target: list[int], attributes: dict[str, int]
) -> None:
    model = simplify(load_model(reshaping(shape, target, **attributes)))
    name = shape[0] if isinstance(shape[0], str) else "batch"
    assert first_axes(model) == [name, name]
    for rows in (1, 2, 5):
        x = weights(rows, 3, 4)
        (found,) = execute(model, x)
        np.testing.assert_allclose(
            found, x.reshape(rows, 12) @ weights(12, 5) + weights(5), rtol=1e-5, atol=1e-5
        )


@settings(max_examples=25)
@given(
    batch=st.integers(1, 4),
    rows=st.integers(1, 5),
    targets=st.lists(st.sampled_from([(6, 2), (3, 4), (12,), (2, 3, 2), (12, 1)]), max_size=4),
)
def test_chains_of_reshapes_take_any_batch(
    batch: int, rows: int, targets: list[tuple[int, ...]]
) -> None:
    nodes, constants, last = [], {}, "x"
    for position, target in enumerate([*targets, (12,)]):
        constants[f"s{position}"] = np.array([batch, *target])
        nodes.append(node("Reshape", [last, f"s{position}"], f"t{position}"))
        nodes.append(node("Neg", [f"t{position}"], f"n{position}"))
        last = f"n{position}"
    model = make_model(nodes, {"x": [batch, 3, 4]}, {last: [batch, 12]}, constants)
    free = simplify(load_model(model))
    x = weights(rows, 3, 4)
    sign = (-1) ** (len(targets) + 1)
    np.testing.assert_array_equal(execute(free, x)[0], sign * x.reshape(rows, 12))


def test_rows_may_be_spread_and_collected() -> None:
    """Merging the batch with other axes, and splitting it off again."""
    model = make_model(
        [
            node("Reshape", ["x", "merged"], "m"),
            node("MatMul", ["m", "w"], "p"),
            node("Reshape", ["p", "split"], "y"),
        ],
        {"x": [1, 3, 4]},
        {"y": [1, 6]},
        {"merged": np.array([3, 4]), "split": np.array([1, 6]), "w": weights(4, 2)},
    )
    free = simplify(load_model(model))
    x = weights(5, 3, 4)
    np.testing.assert_allclose(
        execute(free, x)[0], (x @ weights(4, 2)).reshape(5, 6), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("attributes", [{}, {"allowzero": 1}])
@pytest.mark.parametrize("target", [[2, -1], [2, 12], [-1, 12]])
def test_shapes_that_nobody_can_infer(target: list[int], attributes: dict[str, int]) -> None:
    """ONNX knows nothing about what an operator of one's own gives."""
    ops.register_numpy("test.Same", lambda x, /: x)
    try:
        model = make_model(
            [
                node("Same", ["x"], "s", domain="test"),
                node("Reshape", ["s", "target"], "y", **attributes),
            ],
            {"x": [2, 3, 4]},
            {"y": [2, 12]},
            {"target": np.array(target)},
            domains=["test"],
        )
        free = simplify(load_model(model))
        assert first_axes(free) == ["batch", "batch"]
        x = weights(5, 3, 4)
        np.testing.assert_array_equal(execute(free, x)[0], x.reshape(5, 12))
    finally:
        ops.unregister("test.Same")


def test_several_outputs_of_a_row_in_one_axis() -> None:
    model = make_model(
        [node("Reshape", ["x", "all"], "y")], {"x": [1, 3]}, {"y": [3]}, {"all": np.array([3])}
    )
    free = simplify(load_model(model))
    assert dimensions(free.graph.output[0]) == [0]
    x = weights(4, 3)
    np.testing.assert_array_equal(execute(free, x)[0], x.ravel())


def test_several_inputs() -> None:
    model = make_model(
        [node("Reshape", ["x", "s"], "f"), node("Add", ["f", "y"], "z")],
        {"x": [1, 2, 3], "y": ["N", 6]},
        {"z": [1, 6]},
        {"s": np.array([1, 6])},
    )
    free = simplify(load_model(model))
    assert first_axes(free) == ["N", "N", "N"]
    x, y = weights(4, 2, 3), weights(4, 6)
    np.testing.assert_array_equal(execute(free, x, y)[0], x.reshape(4, 6) + y)


def test_integer_and_boolean_inputs() -> None:
    model = make_model(
        [
            node("Cast", ["i"], "f", to=TensorProto.FLOAT),
            node("Where", ["b", "f", "zero"], "w"),
            node("Reshape", ["w", "s"], "y"),
        ],
        {"i": (TensorProto.INT64, [1, 2]), "b": (TensorProto.BOOL, [1, 2])},
        {"y": [1, 2, 1]},
        {"s": np.array([1, 2, 1]), "zero": np.float32(0)},
    )
    free = simplify(load_model(model))
    assert first_axes(free) == ["batch"] * 3
    numbers, chosen = np.array([[3, 4], [5, 6]]), np.array([[True, False], [False, True]])
    (found,) = execute(free, numbers, chosen)
    assert found.tolist() == [[[3], [0]], [[0], [6]]]


def test_a_constant_output_keeps_its_shape() -> None:
    model = make_model(
        [node("Relu", ["x"], "y"), node("Exp", ["c"], "z")],
        {"x": [1, 3]},
        {"y": [1, 3], "z": [1]},
        {"c": np.float32([0])},
    )
    assert first_axes(simplify(load_model(model))) == ["batch", "batch", 1]


def dynamic_flatten(batch: Any) -> Model:
    """What the TorchScript exporter writes for ``x.view(x.size(0), -1)``."""
    return make_model(
        [
            node("Shape", ["x"], "shape"),
            node("Gather", ["shape", "zero"], "rows", axis=0),
            node("Unsqueeze", ["rows", "axes"], "first"),
            node("Concat", ["first", "rest"], "target", axis=0),
            node("Reshape", ["x", "target"], "flat"),
            node("Gemm", ["flat", "w", "b"], "y"),
        ],
        {"x": [batch, 3, 4]},
        {"y": [batch, 5]},
        {
            "zero": np.array(0),
            "axes": np.array([0]),
            "rest": np.array([-1]),
            "w": weights(12, 5),
            "b": weights(5),
        },
    )


@pytest.mark.parametrize("batch", ["N", 1, 6])
def test_computed_shapes_disappear(batch: Any) -> None:
    free = simplify(load_model(dynamic_flatten(batch)))
    assert op_types(free) == ["Reshape", "Gemm"]
    x = weights(4, 3, 4)
    wanted = x.reshape(4, 12) @ weights(12, 5) + weights(5)
    np.testing.assert_allclose(execute(free, x)[0], wanted, rtol=1e-5, atol=1e-5)


def test_shapes_with_limits() -> None:
    model = make_model(
        [
            node("Shape", ["x"], "rest", start=-2, end=3),
            node("Concat", ["minus", "rest"], "target", axis=0),
            node("Reshape", ["y", "target"], "z"),
        ],
        {"x": ["N", 3, 4], "y": ["N", 12]},
        {"z": ["N", 3, 4]},
        {"minus": np.array([-1])},
    )
    free = simplify(load_model(model))
    assert op_types(free) == ["Reshape"]
    y = weights(2, 12)
    np.testing.assert_array_equal(execute(free, weights(2, 3, 4), y)[0], y.reshape(2, 3, 4))


def unchanged(model: Model) -> bool:
    """Whether nothing but the noise of simplification changed the declared batch sizes."""
    return first_axes(simplify(load_model(model))) == first_axes(model)


def test_rows_that_are_mixed_stay_fixed() -> None:
    # Each output row depends on all rows of the batch.
    model = make_model(
        [
            node("Transpose", ["x"], "t"),
            node("MatMul", ["x", "t"], "m"),
            node("MatMul", ["m", "x"], "y"),
        ],
        {"x": [1, 3]},
        {"y": [1, 3]},
    )
    assert unchanged(model)
    for rows in (2, 3, 4, 7):
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = rows
        model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = rows
        assert unchanged(model)


def test_a_dynamic_model_that_mixes_rows_is_not_replaced() -> None:
    model = make_model(
        [
            node("Transpose", ["x"], "t"),
            node("MatMul", ["x", "t"], "m"),
            node("MatMul", ["m", "x"], "y"),
        ],
        {"x": ["N", 3]},
        {"y": ["N", 3]},
    )
    x = weights(4, 3)
    np.testing.assert_allclose(
        execute(simplify(load_model(model)), x)[0], x @ x.T @ x, rtol=1e-5, atol=1e-5
    )


def test_a_model_that_looks_at_its_batch_size_is_not_replaced() -> None:
    """With Gather it cannot be run in NumPy: for one row it is `x`, for three `3 * x`."""
    model = make_model(
        [
            node("Shape", ["x"], "shape"),
            node("Gather", ["shape", "zero"], "rows", axis=0),
            node("Cast", ["rows"], "f", to=TensorProto.FLOAT),
            node("Mul", ["x", "f"], "y"),
        ],
        {"x": ["N", 3]},
        {"y": ["N", 3]},
        {"zero": np.array(0)},
    )
    assert op_types(simplify(load_model(model))) == ["Shape", "Gather", "Cast", "Mul"]


def test_features_that_carry_the_batch_elsewhere_stay_fixed() -> None:
    model = make_model(
        [node("Transpose", ["x"], "t"), node("Reshape", ["t", "s"], "y")],
        {"x": [2, 3]},
        {"y": [3, 2]},
        {"s": np.array([3, 2])},
    )
    assert unchanged(model)


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": [2, 3], "y": [1, 3]},
        {"x": [1, "width"], "y": [1, 1]},
        {"x": [1, 3], "y": []},
    ],
)
def test_inputs_without_a_common_batch_stay_fixed(inputs: dict[str, list[Any]]) -> None:
    model = make_model([node("Add", ["x", "y"], "z")], inputs, {"z": [None, None]})
    before = [dimensions(value) for value in model.graph.input]
    after = simplify(load_model(model))
    assert [dimensions(value) for value in after.graph.input] == before


def test_models_that_cannot_be_run_stay_fixed() -> None:
    model = make_model([node("NonZero", ["x"], "y")], {"x": [1, 3]}, {"y": [1, 3]})
    assert unchanged(model)
    assert op_types(simplify(load_model(model))) == ["NonZero"]


def test_a_shared_target_is_opened_for_each_reader() -> None:
    model = make_model(
        [
            node("Reshape", ["x", "s"], "a"),
            node("Reshape", ["y", "s"], "b"),
            node("Sub", ["a", "b"], "z"),
        ],
        {"x": [1, 2, 2], "y": [1, 4]},
        {"z": [1, 4]},
        {"s": np.array([1, 4])},
    )
    free = simplify(load_model(model))
    x, y = weights(3, 2, 2), weights(3, 4)
    np.testing.assert_array_equal(execute(free, x, y)[0], x.reshape(3, 4) - y)


def test_nan_results_are_compared_too() -> None:
    model = make_model(
        [node("Sqrt", ["x"], "r"), node("Reshape", ["r", "s"], "y")],
        {"x": [1, 3]},
        {"y": [1, 3, 1]},
        {"s": np.array([1, 3, 1])},
    )
    assert first_axes(simplify(load_model(model))) == ["batch", "batch"]


@pytest.mark.parametrize("opset", [17, 18])
def test_resizing_to_given_sizes_keeps_the_batch(opset: int) -> None:
    options = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
    model = make_model(
        [
            node("Shape", ["x"], "s"),
            node("Slice", ["s", "zero", "two"], "head"),
            node("Concat", ["head", "tail"], "sizes", axis=0),
            node("Resize", ["x", "", "", "sizes"], "y", nearest_mode="floor", **options),
        ],
        {"x": ["N", 2, 3, 3]},
        {"y": ["N", 2, 5, 7]},
        {"zero": np.array([0]), "two": np.array([2]), "tail": np.array([5, 7])},
        opset=opset,
    )
    free = simplify(load_model(model))
    assert op_types(free) == ["Resize"]
    x = weights(3, 2, 3, 3)
    expected = x[:, :, [0, 0, 1, 1, 2]][..., [0, 0, 0, 1, 1, 2, 2]]
    np.testing.assert_array_equal(execute(free, x)[0], expected)


@pytest.mark.parametrize("batch", [1, "N"])
@pytest.mark.parametrize("opset", [13, 18])
def test_resizing_to_one_row_is_opened(opset: int, batch: int | str) -> None:
    # A row that is added to all rows shows no wrong number of rows.
    model = make_model(
        [node("Resize", ["x", "", "", "sizes"], "r"), node("Add", ["r", "z"], "y")],
        {"x": [batch, 2, 3, 3], "z": [batch, 2, 5, 7]},
        {"y": [batch, 2, 5, 7]},
        {"sizes": np.array([1, 2, 5, 7])},
        opset=opset,
    )
    free = simplify(load_model(model))
    x, z = weights(3, 2, 3, 3), weights(3, 2, 5, 7, seed=1)
    (found,) = execute(free, x, z)
    rows = [execute(model, x[i : i + 1], z[i : i + 1])[0] for i in range(3)]
    np.testing.assert_allclose(found, np.concatenate(rows), rtol=1e-6)


def test_expanding_to_a_traced_batch_is_opened() -> None:
    model = make_model(
        [node("Expand", ["x", "s"], "e"), node("Relu", ["e"], "y")],
        {"x": [2, 3, 1]},
        {"y": [2, 3, 4]},
        {"s": np.array([2, 3, 4])},
    )
    free = simplify(load_model(model))
    assert first_axes(free) == ["batch", "batch"]
    x = weights(5, 3, 1)
    expected = np.broadcast_to(np.maximum(x, 0), (5, 3, 4))
    np.testing.assert_array_equal(execute(free, x)[0], expected)


def test_rows_that_thresholds_make_alike_are_not_mixed_up() -> None:
    # Three columns belong to each row, but are laid out as if there were one row only.
    model = make_model(
        [
            node("Greater", ["x", "limit"], "g"),
            node("Cast", ["g"], "c", to=TensorProto.FLOAT),
            node("Transpose", ["c"], "t", perm=[1, 0]),
            node("Reshape", ["t", "s"], "y"),
        ],
        {"x": [1, 3]},
        {"y": [1, 3]},
        {"limit": np.float32([[55, 66, 77]]), "s": np.array([1, 3])},
    )
    assert unchanged(model)


@pytest.mark.parametrize("rows", ["N", 1, 2])
@pytest.mark.parametrize(
    ("shape", "axis", "index"),
    [((4,), 1, [0, -1, 2]), ((4,), -1, [3]), ((2, 4), 2, [[0, 3, -4], [1, 1, 2]])],
)
def test_elements_are_gathered_from_every_row(
    rows: str | int, shape: tuple[int, ...], axis: int, index: Any
) -> None:
    many = np.repeat(np.array([index]), 2 if rows == 2 else 1, axis=0)
    nodes = [
        node("GatherElements", ["x", "i"], "a", axis=axis),
        node("GatherElements", ["x", "i"], "b", axis=axis),
        node("Sub", ["a", "b"], "c"),
        node("Add", ["c", "b"], "y"),
    ]
    free = simplify(load_model(make_model(nodes, {"x": [rows, *shape]}, ["y"], {"i": many})))
    x = weights(5, *shape)
    for count in (1, 2, 5):
        wanted = np.take_along_axis(x[:count], np.array([index]), axis=axis)
        np.testing.assert_allclose(execute(free, x[:count])[0], wanted, atol=1e-6)


def test_elements_that_differ_from_row_to_row_stay() -> None:
    model = make_model(
        [node("GatherElements", ["x", "i"], "y", axis=1)],
        {"x": [2, 4]},
        ["y"],
        {"i": np.array([[0, 1], [1, 2]])},
    )
    free = simplify(load_model(model))
    assert dimensions(free.graph.input[0]) == [2, 4]
    assert op_types(free) == ["GatherElements"]
