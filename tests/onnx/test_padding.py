"""Zeros that a Pad adds become padding of the windows that read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx.helper import get_attribute_value

from cipherlearn.onnx import load_model, run_with_onnxruntime, simplify
from tests.onnx_models import make_model, node, op_types, weights

AROUND = np.array([0, 0, 1, 2, 0, 0, 0, 1])
IMAGE: dict[str, Any] = {"x": ["N", 2, 5, 6]}
KERNEL = {"w": weights(3, 2, 3, 2)}


def folded(nodes: list[onnx.NodeProto], constants: dict[str, Any]) -> onnx.ModelProto:
    model = make_model(nodes, IMAGE, ["y"], constants)
    result = simplify(load_model(model))
    x = weights(2, 2, 5, 6)
    (found,), (wanted,) = run_with_onnxruntime(result, x), run_with_onnxruntime(model, x)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    return result


def pads(model: onnx.ModelProto) -> list[int]:
    (found,) = (a for a in model.graph.node[-1].attribute if a.name == "pads")
    return list(get_attribute_value(found))


def pad(*operands: str, source: str = "x", **attributes: Any) -> onnx.NodeProto:
    return node("Pad", [source, *operands], "p", **attributes)


@pytest.mark.parametrize(
    ("operands", "constants"),
    [
        (["a"], {"a": AROUND}),
        (["a", "zero"], {"a": AROUND, "zero": np.float32(0)}),
        (["a", "", "axes"], {"a": np.array([1, 2, 0, 1]), "axes": np.array([2, 3])}),
        (["a", "", "axes"], {"a": np.array([2, 1, 1, 0]), "axes": np.array([3, 2])}),
    ],
)
@pytest.mark.parametrize("own", [{}, {"pads": [1, 0, 2, 3]}, {"auto_pad": "VALID"}])
def test_convolutions_pad_themselves(
    operands: list[str], constants: dict[str, Any], own: dict[str, Any]
) -> None:
    result = folded([pad(*operands), node("Conv", ["p", "w"], "y", **own)], {**constants, **KERNEL})
    assert op_types(result) == ["Conv"]
    given = own.get("pads", [0, 0, 0, 0])
    assert pads(result) == np.add(given, [1, 2, 0, 1]).tolist()


def test_one_axis_may_be_padded_alone() -> None:
    constants = {"a": np.array([1, 0]), "axes": np.array([2]), **KERNEL}
    result = folded([pad("a", "", "axes"), node("Conv", ["p", "w"], "y")], constants)
    assert pads(result) == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("made", "constants"),
    [
        (pad("a", "one"), {"a": AROUND, "one": np.float32(1)}),
        (pad("a", mode="edge"), {"a": AROUND}),
        (pad("a"), {"a": np.array([0, 0, -1, 0, 0, 0, 0, 0])}),
        (pad("a", "", "axes"), {"a": np.array([1, 1]), "axes": np.array([-1])}),
    ],
)
def test_other_pads_stay(made: onnx.NodeProto, constants: dict[str, Any]) -> None:
    result = folded([made, node("Conv", ["p", "w"], "y")], {**constants, **KERNEL})
    assert op_types(result) == ["Pad", "Conv"]


def test_pads_of_channels_stay() -> None:
    constants = {"a": np.array([0, 0, 1, 1, 0, 1, 0, 0]), "w": weights(3, 3, 3, 2)}
    assert op_types(folded([pad("a"), node("Conv", ["p", "w"], "y")], constants)) == ["Pad", "Conv"]


@pytest.mark.parametrize(
    "reader",
    [
        node("Conv", ["p", "w"], "y", auto_pad="SAME_UPPER"),
        node("ConvTranspose", ["p", "v"], "y"),
        node("Relu", ["p"], "y"),
        # What is read twice must be there.
        node("Concat", ["p", "p"], "y", axis=1),
    ],
)
def test_other_readers_get_their_zeros(reader: onnx.NodeProto) -> None:
    needed = {"w": KERNEL["w"], "v": weights(2, 3, 2, 2)}
    constants = {"a": AROUND, **{k: v for k, v in needed.items() if k in reader.input}}
    assert op_types(folded([pad("a"), reader], constants)) == ["Pad", reader.op_type]


@pytest.mark.parametrize(
    ("attributes", "merged"),
    [
        ({}, True),
        ({"count_include_pad": 1, "pads": [1, 0, 0, 0]}, True),
        ({"pads": [1, 0, 0, 0]}, False),
        ({"ceil_mode": 1, "strides": [2, 2]}, False),
    ],
)
def test_means_count_the_zeros(attributes: dict[str, Any], merged: bool) -> None:
    pool = node("AveragePool", ["p"], "y", kernel_shape=[3, 3], **attributes)
    result = folded([pad("a"), pool], {"a": AROUND})
    assert op_types(result) == (["AveragePool"] if merged else ["Pad", "AveragePool"])


@pytest.mark.parametrize(
    ("before", "attributes", "merged"),
    [
        ("Relu", {}, True),
        ("Neg", {}, False),
        ("Relu", {"dilations": [2, 2]}, False),
        ("Relu", {"kernel_shape": [2, 2]}, False),
    ],
)
def test_maxima_need_values_above_zero(
    before: str, attributes: dict[str, Any], merged: bool
) -> None:
    pool = node("MaxPool", ["p"], "y", **{"kernel_shape": [3, 3], **attributes})
    result = folded([node(before, ["x"], "r"), pad("a", source="r"), pool], {"a": AROUND})
    assert op_types(result) == [before, *([] if merged else ["Pad"]), "MaxPool"]


@pytest.mark.parametrize("perm", [[0, 3, 1, 2], [0, 3, 2, 1]])
def test_channels_that_come_last_are_moved_before(perm: list[int]) -> None:
    made = make_model(
        [
            node("Relu", ["x"], "r"),
            pad("a", source="r"),
            node("Transpose", ["p"], "t", perm=perm),
            node("MaxPool", ["t"], "y", kernel_shape=[3, 3]),
        ],
        {"x": ["N", 5, 6, 2]},
        ["y"],
        {"a": np.array([0, 1, 2, 0, 0, 0, 1, 0])},
    )
    result = simplify(load_model(made))
    assert op_types(result) == ["Relu", "Transpose", "MaxPool"]
    x = weights(2, 5, 6, 2)
    (found,), (wanted,) = run_with_onnxruntime(result, x), run_with_onnxruntime(made, x)
    np.testing.assert_array_equal(found, wanted)
    assert pads(result) == ([1, 2, 0, 1] if perm[2] == 1 else [2, 1, 1, 0])


def test_numbers_other_than_zero_follow_a_transpose() -> None:
    made = pad("a", "one")
    rest = [node("Transpose", ["p"], "t", perm=[0, 1, 3, 2]), node("Conv", ["t", "w"], "y")]
    constants = {"a": AROUND, "one": np.float32(1), **KERNEL}
    assert op_types(folded([made, *rest], constants)) == ["Transpose", "Pad", "Conv"]
