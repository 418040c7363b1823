"""Grids that models declare, in whatever form, become ``Quant`` nodes that mean the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from cipherlearn.errors import UnsupportedAttributeError
from cipherlearn.onnx import check_supported, execute, load_model, simplify
from cipherlearn.ops import qonnx
from tests.onnx_models import make_model, node, op_types, weights

TYPES = {
    "int8": (TensorProto.INT8, 8, True),
    "uint8": (TensorProto.UINT8, 8, False),
    "int16": (TensorProto.INT16, 16, True),
}


def attributes(model: onnx.ModelProto) -> list[dict[str, Any]]:
    return [
        {item.name: helper.get_attribute_value(item) for item in quant.attribute}
        for quant in model.graph.node
        if quant.op_type == "Quant"
    ]


def pair(
    dtype: str, scale: float, zero: int, bounds: tuple[int, int] | None = None
) -> onnx.ModelProto:
    nodes = [node("QuantizeLinear", ["x", "s", "z"], "q")]
    values = {"s": np.float32(scale), "z": np.array(zero, dtype)}
    if bounds:
        nodes.append(node("Clip", ["q", "lo", "hi"], "c"))
        values |= {"lo": np.array(bounds[0], dtype), "hi": np.array(bounds[1], dtype)}
    nodes.append(node("DequantizeLinear", ["c" if bounds else "q", "s", "z"], "y"))
    return make_model(nodes, {"x": ["N", 4]}, ["y"], values, opset=21)


@given(
    st.sampled_from(sorted(TYPES)),
    st.floats(1e-3, 10),
    st.integers(0, 100),
    st.sampled_from([None, (0, 15), (0, 14), (0, 127), (2, 5), (1, 8)]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_pairs_of_quantization_and_dequantization_mean_what_they_meant(
    dtype: str, scale: float, zero: int, bounds: tuple[int, int] | None, seed: int
) -> None:
    model = pair(dtype, scale, zero, bounds)
    result = simplify(load_model(model))
    assert op_types(result) == ["Quant"]
    check_supported(result)
    step = np.float32(scale)
    x = np.random.default_rng(seed).normal(size=(50, 4)) * 50 * scale
    # Halves as well: which way they go depends on the zero-point.
    x = np.concatenate([x, (np.arange(-20, 20).reshape(10, 4) + 0.5) * step]).astype(np.float32)
    from onnx.reference import ReferenceEvaluator

    (wanted,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(execute(result, x)[0], wanted, rtol=1e-6, atol=1e-6)


def test_what_is_moved_as_integers_is_moved_as_reals() -> None:
    model = make_model(
        [
            node("QuantizeLinear", ["x", "s", "z"], "q"),
            node("MaxPool", ["q"], "p", kernel_shape=[2, 2], strides=[2, 2]),
            node("Reshape", ["p", "shape"], "r"),
            node("DequantizeLinear", ["r", "s", "z"], "y"),
        ],
        {"x": ["N", 1, 4, 4]},
        ["y"],
        {"s": np.float32(0.3), "z": np.uint8(7), "shape": np.array([-1, 4])},
        opset=21,
    )
    result = simplify(load_model(model))
    assert op_types(result) == ["Quant", "MaxPool", "Reshape"]
    x = weights(3, 1, 4, 4)
    levels = np.clip(np.rint(x / np.float32(0.3)) + 7, 0, 255) - 7
    wanted = 0.3 * levels.reshape(3, 2, 2, 2, 2).max(axis=(2, 4)).reshape(3, 4)
    np.testing.assert_allclose(execute(result, x)[0], wanted, rtol=1e-5, atol=1e-6)


def test_a_width_is_read_off_the_clip() -> None:
    (four,) = attributes(simplify(load_model(pair("int8", 0.1, 0, (-8, 7)))))
    (narrow,) = attributes(simplify(load_model(pair("int8", 0.1, 0, (-7, 7)))))
    assert (four["signed"], four["narrow"]) == (1, 0)
    assert (narrow["signed"], narrow["narrow"]) == (1, 1)
    assert qonnx.IntegerRange.of(-7, 7) == qonnx.IntegerRange(4, True, True)
    assert qonnx.IntegerRange.of(0, 10) is None


def test_ranges_that_no_width_has_stay_what_they_are() -> None:
    result = simplify(load_model(pair("uint8", 0.1, 0, (0, 10))))
    assert op_types(result) == ["QuantizeLinear", "Clip", "DequantizeLinear"]


def test_integers_of_the_model_are_kept_with_one_grid_a_channel() -> None:
    integers = np.arange(-6, 6, dtype=np.int8).reshape(3, 4)
    scales = np.float32([0.5, 0.25, 2.0])
    model = make_model(
        [
            node("DequantizeLinear", ["w", "s", "z"], "d", axis=0),
            node("Transpose", ["d"], "t", perm=[1, 0]),
            node("MatMul", ["x", "t"], "m"),
            node("Add", ["m", "b"], "y"),
        ],
        {"x": ["N", 4]},
        ["y"],
        {"w": integers, "s": scales, "z": np.zeros(3, np.int8), "b": np.float32([1, 2, 3])},
    )
    result = simplify(load_model(model))
    assert op_types(result) == ["Quant", "Gemm"]
    x = weights(5, 4)
    wanted = x @ (integers * scales[:, None]).T + [1, 2, 3]
    np.testing.assert_allclose(execute(result, x)[0], wanted, rtol=1e-5)


def test_constants_stay_behind_their_grid_where_the_batch_is_freed() -> None:
    quant = helper.make_node("Quant", ["w", "s", "z", "b"], ["w_q"], domain=qonnx.DOMAIN)
    model = make_model(
        [
            node("Reshape", ["x", "shape"], "r"),
            quant,
            node("MatMul", ["r", "w_q"], "y"),
        ],
        {"x": [1, 2, 2]},
        ["y"],
        {
            "shape": np.array([1, 4]),
            "w": weights(4, 3),
            "s": np.float32(0.5),
            "z": np.float32(0),
            "b": np.float32(3),
        },
        domains=[qonnx.DOMAIN],
    )
    result = simplify(load_model(model))
    assert sorted(op_types(result)) == ["MatMul", "Quant", "Reshape"]
    x = weights(5, 2, 2)
    wanted = x.reshape(5, 4) @ np.clip(np.rint(weights(4, 3) / 0.5), -4, 3) * 0.5
    np.testing.assert_allclose(execute(result, x)[0], wanted, rtol=1e-5)


@pytest.mark.parametrize("domain", sorted(qonnx.SAME_DOMAINS))
def test_all_spellings_of_the_domain_are_read(domain: str) -> None:
    quant = helper.make_node("Quant", ["x", "s", "z", "b"], ["y"], domain=domain, signed=0)
    model = make_model(
        [quant],
        {"x": ["N", 4]},
        ["y"],
        {"s": np.float32(0.5), "z": np.float32(0), "b": np.float32(2)},
        domains=[domain],
    )
    result = simplify(load_model(model))
    check_supported(result)
    x = np.float32([[-1, 0.3, 0.75, 9]])
    np.testing.assert_array_equal(execute(result, x)[0], [[0, 0.5, 1.0, 1.5]])


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ({"b": np.float32(2.5)}, {}, "bit_width is 2.5; accepted: one whole number from 1 to 32"),
        ({"b": np.float32([2, 3])}, {}, "one whole number"),
        ({"z": np.float32(0.5)}, {}, "zero_point is not whole"),
        ({"s": np.float32(0)}, {}, "not positive"),
        ({}, {"rounding_mode": "DPU"}, "rounding_mode='DPU' is not supported; accepted: ROUND"),
        ({"s": None}, {}, "scale depends on an input of the model"),
    ],
)
def test_what_is_not_supported_is_said(
    values: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    known = {"s": np.float32(0.5), "z": np.float32(0), "b": np.float32(2), **values}
    nodes = [helper.make_node("Quant", ["x", "s", "z", "b"], ["y"], domain=qonnx.DOMAIN, **options)]
    if known["s"] is None:
        nodes.insert(0, node("ReduceMax", ["x"], "s", keepdims=0))
    model = make_model(
        nodes,
        {"x": ["N", 2]},
        ["y"],
        {name: value for name, value in known.items() if value is not None},
        domains=[qonnx.DOMAIN],
    )
    with pytest.raises(UnsupportedAttributeError, match=message):
        check_supported(simplify(load_model(model)))
    if known["s"] is not None:
        # Of constants as well.
        nodes[0].input[0] = "w"
        nodes.append(node("Mul", ["x", "y"], "p"))
        constants = {**{k: v for k, v in known.items() if v is not None}, "w": weights(2)}
        of_weights = make_model(nodes, {"x": ["N", 2]}, ["p"], constants, domains=[qonnx.DOMAIN])
        with pytest.raises(UnsupportedAttributeError, match=message):
            check_supported(simplify(load_model(of_weights)))
