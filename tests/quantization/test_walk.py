"""Whole graphs: every layer near the float model, and the same integers everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from cipherlearn.errors import (
    CalibrationWarning,
    EncryptedOperandError,
    InvalidParameterError,
    ModelError,
    UnsupportedAttributeError,
    UnsupportedOperatorError,
)
from cipherlearn.onnx import Graph
from cipherlearn.quantization import PostTrainingAffineQuantization, QuantizedModule
from cipherlearn.quantization.walk import Walk
from tests.onnx_models import make_model, node, weights
from tests.quantization.models import DEEP, DENSE, IMAGE, INT64, ROWS, W2, B, Nodes, V, W, X, graph
from tests.quantization.quantize import check, check_integers_agree, lookups, normal, quantize, r2


def expect_lookups(module: QuantizedModule, count: int) -> None:
    assert sum(lookups(module).values()) == count


@pytest.mark.parametrize("name", DENSE)
def test_dense_models(name: str) -> None:
    model, count = DENSE[name]
    module = quantize(model, X)
    check(module, X)
    expect_lookups(module, count)


@pytest.mark.parametrize("name", DEEP)
def test_models_on_matrices(name: str) -> None:
    model, count = DEEP[name]
    module = quantize(model, IMAGE, n_bits=7)
    check(module, IMAGE)
    expect_lookups(module, count)


@pytest.mark.parametrize("method", ["exact", "approximate"])
@pytest.mark.parametrize("name", DENSE)
def test_dense_models_with_rounding(name: str, method: str) -> None:
    module = quantize(DENSE[name][0], X, rounding={"n_bits": 6, "method": method})
    check(module, X, score=0.97)
    widths = [width for width in lookups(module) if width > 8]
    assert max(widths, default=0) <= 10, "products look up sums and differences of two operands"


def test_outputs_are_exact_although_look_ups_read_rounded_values() -> None:
    model = graph(
        [
            node("Gemm", ["x", "w", "b"], "h"),
            node("Relu", ["h"], "r"),
            node("MatMul", ["r", "w2"], "y"),
        ],
        ["h", "y"],
        w=W,
        b=B,
        w2=W2,
    )
    module = quantize(model, X, rounding=4)
    check_integers_agree(module, X)
    assert lookups(module) == {4: 5}
    h, _ = module.forward(X)
    truth = X @ W + B
    assert r2(h, truth) > 0.999


def test_rounding_is_left_out_where_no_look_up_follows() -> None:
    nodes = [node("Gemm", ["x", "w", "b"], "h"), node("Reshape", ["h", "s"], "y")]
    module = quantize(graph(nodes, w=W, b=B, s=np.array([-1, 5, 1], INT64)), X, rounding=2)
    (_, gemm), _ = module.quant_layers_dict.values()
    assert gemm.lsbs_to_remove == 0
    looked_up = quantize(graph([*nodes[:1], node("Relu", ["h"], "y")], w=W, b=B), X, rounding=2)
    (_, gemm), _ = looked_up.quant_layers_dict.values()
    assert gemm.lsbs_to_remove > 2


def test_channels_have_ranges_of_their_own_wherever_the_batch_axis_is() -> None:
    module = quantize(DENSE["constant on the left"][0], X, rounding=4)
    (_, op), *_ = module.quant_layers_dict.values()
    assert sorted(op.plan.factor.shape) == [1, 6]
    dense = quantize(DENSE["dead channels"][0], X, rounding=4).quant_layers_dict["h"][1]
    assert dense.plan.factor.shape == (1, 5)


def test_different_movements_of_one_value_are_two_values() -> None:
    cube = normal(ROWS, 2, 2, 2)
    model = graph(
        [
            node("Relu", ["x"], "r"),
            node("Transpose", ["r"], "a", perm=[0, 2, 1, 3]),
            node("Transpose", ["x"], "b", perm=[0, 1, 3, 2]),
            node("Sub", ["a", "b"], "y"),
        ],
        shape=(2, 2, 2),
    )
    module = quantize(model, cube)
    check(module, cube)
    expect_lookups(module, 8)


def test_several_inputs_of_different_ranges() -> None:
    model = make_model(
        [node("Add", ["x", "z"], "s"), node("Sub", ["s", "t"], "y")],
        {"x": ["N", 4], "z": ["N", 4], "t": ["N", 4]},
        ["y"],
    )
    data = (X, 100 + 3 * normal(ROWS, 4, seed=5), normal(ROWS, 4, seed=6))
    check(quantize(model, *data), *data)


def test_matrices_of_two_inputs() -> None:
    model = make_model(
        [node("MatMul", ["x", "z"], "y")], {"x": ["N", 3, 4], "z": ["N", 4, 2]}, ["y"]
    )
    data = (IMAGE, normal(ROWS, 4, 2, seed=5))
    module = quantize(model, *data)
    check(module, *data)
    expect_lookups(module, 2 * 3 * 4 * 2)


def test_gemm_with_an_encrypted_third_operand_is_a_product_and_a_sum() -> None:
    model = make_model(
        [node("Gemm", ["x", "w", "z"], "h", beta=0.5, name="dense"), node("Relu", ["h"], "y")],
        {"x": ["N", 4], "z": ["N", 5]},
        ["y"],
        {"w": W},
    )
    data = (X, normal(ROWS, 5, seed=5))
    check(quantize(model, *data, rounding=8), *data)


def test_an_input_that_nothing_reads() -> None:
    model = make_model([node("Relu", ["x"], "y")], {"x": ["N", 4], "z": ["N", 4]}, ["y"])
    check(quantize(model, X, X), X, X)


def test_inputs_are_read_as_the_client_gives_them() -> None:
    nodes = [
        node("Flatten", ["x"], "f"),
        node("Gemm", ["f", "w"], "a"),
        node("Gemm", ["f", "v"], "y"),
    ]
    w, v = weights(12, 3), weights(12, 2, seed=4)
    module = quantize(graph(nodes, ["y", "a"], (3, 4), w=w, v=v), IMAGE, n_bits=3)
    check(module, IMAGE, score=0.85)
    assert module.input_quantizers[0].n_bits == 5
    assert lookups(module) == {}


def test_a_function_sees_nothing_outside_of_the_observed_range() -> None:
    data = np.linspace(-1, 1, 4 * ROWS, dtype=np.float32).reshape(ROWS, 4)
    module = quantize(graph([node("Acos", ["x"], "y")]), data)
    lowest = module.input_quantizers[0].dequant(module.quantize_input(data[:1])[0, 0])
    assert lowest < -1, "the grid of the input ends outside of the range"
    check(module, data)
    assert abs(module.forward(data[:1])[0, 0] - np.pi) < 0.1


def test_what_is_not_a_number_is_told_and_replaced_by_the_nearest() -> None:
    model = graph([node("MatMul", ["x", "w"], "a"), node("Sqrt", ["a"], "y")], w=W)
    with (
        pytest.warns(CalibrationWarning, match="Sqrt.* not a number for [0-9]+ of 500"),
        pytest.warns(CalibrationWarning, match="the float model's output 'y' is NaN or infinite"),
    ):
        module = quantize(model, X)
    found = module.forward(X)
    assert np.isfinite(found).all()
    real = X @ W
    np.testing.assert_allclose(found[real > 0.5], np.sqrt(real[real > 0.5]), atol=0.05)
    assert found[real < -0.5].max() < 0.3


def test_integers_and_booleans_between_layers() -> None:
    model = graph(
        [
            node("MatMul", ["x", "w"], "a"),
            node("Cast", ["a"], "i", to=TensorProto.INT32),
            node("Div", ["i", "three"], "d"),
            node("Greater", ["d", "zero"], "g"),
            node("Where", ["g", "a", "other"], "y"),
        ],
        w=3 * W,
        three=np.int32(3),
        zero=np.int32(0),
        other=np.float32(-2),
    )
    module = quantize(model, X)
    check(module, X, score=0.98)
    expect_lookups(module, 5)


@given(
    layers=st.lists(
        st.sampled_from(
            ["dense", "relu", "scale", "swish", "flip", "residual", "gate", "square", "shift"]
        ),
        min_size=1,
        max_size=5,
    ),
    n_bits=st.integers(2, 6),
    rounding=st.sampled_from([None, 3, 6]),
    seed=st.integers(0, 50),
)
@settings(max_examples=40)
def test_random_models_give_the_same_integers_everywhere(
    layers: list[str], n_bits: int, rounding: int | None, seed: int
) -> None:
    nodes: Nodes = []
    constants: dict[str, Any] = {"half": np.float32(0.5), "three": np.float32(3)}
    last = "x"
    for number, layer in enumerate(layers):
        name, extra = f"t{number}", f"e{number}"
        if layer in ("dense", "residual", "gate"):
            constants[f"w{number}"] = weights(3, 3, seed=seed + number) / 2
            product = name if layer == "dense" else extra
            nodes.append(node("MatMul", [last, f"w{number}"], product))
            if layer != "dense":
                nodes.append(node("Add" if layer == "residual" else "Mul", [extra, last], name))
        elif layer == "relu":
            nodes.append(node("Relu", [last], name))
        elif layer == "flip":
            nodes.append(node("Transpose", [last], name, perm=[0, 2, 1]))
        elif layer == "square":
            nodes.append(node("Mul", [last, last], name))
        elif layer == "swish":
            nodes += [node("Sigmoid", [last], extra), node("Mul", [extra, last], name)]
        else:
            operation, constant = ("Mul", "half") if layer == "scale" else ("Sub", "three")
            nodes.append(node(operation, [last, constant], name))
        last = name
    model = make_model(nodes, {"x": ["N", 3, 3]}, [last], constants)
    data = np.clip(normal(30, 3, 3, seed=seed), -2, 2)
    module = quantize(model, data, n_bits=n_bits, rounding=rounding)
    check_integers_agree(module, data)
    assert module.overflow_count == 0


def test_a_constant_output_is_refused() -> None:
    model = graph([node("Relu", ["x"], "y"), node("Add", ["c", "c"], "k")], ["y", "k"], c=B)
    with pytest.raises(ModelError, match="constant output: 'k' depends on no input"):
        quantize(model, X)


def test_rows_that_depend_on_each_other_are_refused() -> None:
    nodes = [
        node("Transpose", ["x"], "t"),
        node("MatMul", ["x", "t"], "a"),
        node("MatMul", ["a", "x"], "y"),
    ]
    with pytest.raises(ModelError, match="'y' of a row depends on the other rows"):
        quantize(graph(nodes), X)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Transpose", ["x"], "t"), node("MatMul", ["w", "t"], "y")],
        [node("MatMul", ["x", "v"], "a"), node("Reshape", ["a", "flat"], "y")],
    ],
)
def test_outputs_without_a_batch_axis_are_refused(nodes: Nodes) -> None:
    model = graph(nodes, w=weights(6, 4), v=W, flat=np.array([-1], INT64))
    with pytest.raises(ModelError, match="the first axis must be that of the rows"):
        quantize(model, X)


def test_divisors_that_reach_0_are_refused() -> None:
    model = graph(
        [
            node("MatMul", ["x", "w"], "a"),
            node("MatMul", ["x", "v"], "b"),
            node("Relu", ["b"], "r"),
            node("Div", ["a", "r"], "y", name="ratio"),
        ],
        w=W,
        v=V,
    )
    with (
        pytest.warns(CalibrationWarning),
        pytest.raises(InvalidParameterError, match=r"ratio.* is 0 for [0-9]+ of 500"),
    ):
        quantize(model, X)


def test_operators_that_take_one_encrypted_value_name_the_node() -> None:
    model = graph(
        [
            node("MatMul", ["x", "w"], "a"),
            node("MatMul", ["x", "v"], "b"),
            node("Mod", ["a", "b"], "y", name="rest", fmod=1),
        ],
        w=W,
        v=V,
    )
    with pytest.raises(
        EncryptedOperandError, match=r"rest.*Mod.*a, b are different encrypted values"
    ):
        quantize(model, X)


def test_operands_that_must_be_known_are_refused_when_encrypted() -> None:
    model = make_model(
        [node("Cast", ["x"], "axes", to=TensorProto.INT64), node("Unsqueeze", ["c", "axes"], "y")],
        {"x": ["N"]},
        ["y"],
        {"c": B},
    )
    converter = PostTrainingAffineQuantization(8, None)
    walk = Walk(
        converter, Graph.from_model(model), [np.zeros(2)], {"x": np.zeros(1), "axes": np.zeros(1)}
    )
    with pytest.raises(EncryptedOperandError, match=r"'axes' \(axes\) .* must be a constant"):
        walk.run()


def test_quotients_of_encrypted_integers_are_refused() -> None:
    model = graph(
        [
            node("MatMul", ["x", "w"], "a"),
            node("MatMul", ["x", "v"], "b"),
            node("Exp", ["b"], "e"),
            node("Cast", ["a"], "i", to=TensorProto.INT32),
            node("Cast", ["e"], "j", to=TensorProto.INT32),
            node("Add", ["j", "one"], "k"),
            node("Div", ["i", "k"], "d"),
            node("Cast", ["d"], "y", to=TensorProto.FLOAT),
        ],
        w=W,
        v=V,
        one=np.int32(1),
    )
    with pytest.raises(UnsupportedAttributeError, match="cast both to float"):
        quantize(model, X)


def test_a_product_scaled_by_0_is_refused() -> None:
    model = graph([node("Gemm", ["x", "w", "b"], "y", alpha=0.0, name="none")], w=W, b=B)
    with pytest.raises(UnsupportedAttributeError, match=r"'none'.*alpha=0"):
        quantize(model, X)


def test_operators_that_only_read_shapes_are_refused_by_name() -> None:
    model = make_model(
        [
            node("Shape", ["x"], "s", name="extent"),
            node("Cast", ["s"], "f", to=TensorProto.FLOAT),
            node("Mul", ["x", "f"], "y"),
        ],
        {"x": ["N", 2]},
        ["y"],
    )
    walk = Walk(
        PostTrainingAffineQuantization(8, None),
        Graph.from_model(model),
        [X[:, :2]],
        {"x": X[:1, :2]},
    )
    with pytest.raises(UnsupportedOperatorError, match=r"'extent'.*must be known"):
        walk.run()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["w", "b"])
def test_constants_that_are_no_numbers_are_refused(name: str, value: float) -> None:
    constants = {"w": W.copy(), "b": B.copy()}
    constants[name].flat[0] = value
    model = graph([node("Gemm", ["x", "w", "b"], "y")], **constants)
    with (
        pytest.warns(CalibrationWarning, match="float model's output 'y'"),
        pytest.raises(ModelError, match=f"the constant '{name}' holds values that are NaN"),
    ):
        quantize(model, X)


@pytest.mark.parametrize("op", ["Sum", "Max"])
def test_infinite_constants_of_sums_are_named(op: str) -> None:
    nodes = [
        node("MatMul", ["x", "w"], "h"),
        node("MatMul", ["x", "v"], "k"),
        node("Concat", ["h", "k"], "both", axis=1),
        node("Concat", ["k", "h"], "other", axis=1),
        node(op, ["both", "other", "bound"], "s"),
        node("Tanh", ["s"], "y"),
    ]
    bound = np.array([np.inf] * 10, dtype=np.float32)
    with pytest.raises(ModelError, match="the constant 'bound' holds values that are NaN or inf"):
        quantize(graph(nodes, w=W, v=V, bound=bound), X)


def test_infinite_constants_of_functions_are_legal() -> None:
    model = graph(
        [node("Clip", ["x", "low", "high"], "y")],
        low=np.float32(-np.inf),
        high=np.float32(0.5),
    )
    check(quantize(model, X), X)


WHOLE = np.random.default_rng(0).integers(0, 16, (ROWS, 4)).astype(np.float32)
NEXT = node("Gather", ["x", "order"], "f", axis=1)
ORDER = np.array([1, 2, 3, 0])

#: Models of whole numbers from 0 to 15, and the width of their look-ups: how many there are.
WHOLE_NUMBERS: dict[str, tuple[Nodes, dict[str, Any], dict[int, int]]] = {
    "comparisons of comparisons": (
        [
            node("Greater", ["x", "limits"], "g"),
            node("Cast", ["g"], "c", to=TensorProto.FLOAT),
            node("MatMul", ["c", "signs"], "h"),
            node("Greater", ["h", "half"], "k"),
            node("Cast", ["k"], "y", to=TensorProto.FLOAT),
        ],
        {
            "limits": np.array([3.5, 7.5, 10.5, 2.5], np.float32),
            "signs": np.random.default_rng(0).integers(-1, 2, (4, 5)).astype(np.float32),
            "half": np.float32(0.5),
        },
        {4: 4, 3: 5},
    ),
    "two inputs compared": (
        [NEXT, node("Greater", ["x", "f"], "g"), node("Cast", ["g"], "y", to=TensorProto.FLOAT)],
        {"order": ORDER},
        {5: 4},
    ),
    "a sum": ([NEXT, node("Add", ["x", "f"], "y")], {"order": ORDER}, {}),
    "a maximum": ([NEXT, node("Max", ["x", "f"], "y")], {"order": ORDER}, {5: 4}),
    "a sum of steps": (
        [
            NEXT,
            node("Mul", ["x", "share"], "h"),
            node("Floor", ["h"], "a"),
            node("Sub", ["f", "eight"], "s"),
            node("Sign", ["s"], "b"),
            node("Add", ["a", "b"], "y"),
        ],
        {"order": ORDER, "share": np.float32(0.25), "eight": np.float32(8)},
        {4: 8},
    ),
}


@pytest.mark.parametrize("bits", [6, 8])
@pytest.mark.parametrize("name", WHOLE_NUMBERS)
def test_whole_numbers_are_exact_and_narrow(name: str, bits: int) -> None:
    nodes, constants, widths = WHOLE_NUMBERS[name]
    module = quantize(graph(nodes, **constants), WHOLE, n_bits=bits)
    check(module, WHOLE, score=1.0)
    assert lookups(module) == widths
    assert [q.n_bits for q in module.input_quantizers] == [4]


def test_a_real_constant_in_a_sum_of_whole_numbers_is_not_rounded_to_one() -> None:
    nodes = [NEXT, node("Sum", ["x", "f", "quarter"], "y")]
    module = quantize(graph(nodes, order=ORDER, quarter=np.float32(0.25)), WHOLE)
    check(module, WHOLE, score=0.999)
    assert np.abs(module.forward(WHOLE) - (WHOLE + WHOLE[:, ORDER] + 0.25)).max() < 0.2


def test_probabilities_of_a_classifier_are_normalized_by_the_client() -> None:
    nodes = [
        node(
            "LinearClassifier",
            ["x"],
            ["label", "p"],
            domain="ai.onnx.ml",
            coefficients=W.T.ravel().tolist(),
            intercepts=B.tolist(),
            classlabels_ints=list(range(5)),
            post_transform="SOFTMAX",
        ),
        node("Normalizer", ["p"], "y", domain="ai.onnx.ml", norm="L1"),
    ]
    model = make_model(nodes, {"x": ["N", 4]}, ["y"], domains=["ai.onnx.ml"])
    module = quantize(model, X)
    expect_lookups(module, 0)
    assert module.tail is not None
    assert [item.op for item in module.tail.nodes][-1] == "ai.onnx.ml.Normalizer"
    check(module, X)
