"""What a model is refused for says which node, why, and what to change."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cipherlearn.errors import EncryptedOperandError, LookupWidthError, UnsupportedOperatorError
from cipherlearn.torch import build_quantized_module
from tests.onnx_models import make_model, node, weights
from tests.quantization.quantize import normal

X = normal(100, 32)
REMEDIES = [r"fewer bits \(n_bits\)", r"round .* \(rounding_threshold_bits\)", r"prune or narrow"]


def network(nodes: list[onnx.NodeProto], **constants: Any) -> onnx.ModelProto:
    return make_model(nodes, {"x": ["N", 32]}, ["y"], constants)


W, V = weights(32, 8), weights(32, 8, seed=1)
LEFT = node("MatMul", ["x", "w"], "a", name="left")
RIGHT = node("MatMul", ["x", "v"], "b", name="right")

LAYER = (
    "the layer '{0}' (MatMul), which computes them from operands of {1} bits and constants of {1} "
    "bits"
)

#: Model, its bits, the node whose look-up is too wide, and where its integers come from.
TOO_WIDE: dict[str, tuple[onnx.ModelProto, int, str, str]] = {
    "an activation": (
        network([LEFT, node("Relu", ["a"], "y", name="activation")], w=W),
        12,
        "activation",
        LAYER.format("left", 12),
    ),
    "the next layer": (
        network([LEFT, node("MatMul", ["a", "u"], "y", name="next")], w=W, u=weights(8, 2)),
        12,
        "next",
        LAYER.format("left", 12),
    ),
    "a product": (
        network([LEFT, RIGHT, node("Mul", ["a", "b"], "y", name="product")], w=W, v=V),
        14,
        "product",
        LAYER.format("left", 14) + ", " + LAYER.format("right", 14),
    ),
    "a product of two inputs' halves": (
        network(
            [
                node("Slice", ["x", "zero", "half", "one"], "a", name="left"),
                node("Slice", ["x", "half", "all", "one"], "b", name="right"),
                node("Mul", ["a", "b"], "y", name="product"),
            ],
            zero=np.array([0]),
            half=np.array([16]),
            all=np.array([32]),
            one=np.array([1]),
        ),
        16,
        "product",
        "It reads the integers of the input 'x'",
    ),
}

#: The circuit has no table here; the engine makes one.
ONLY_ENCRYPTED = {"a product of two inputs' halves"}


@pytest.mark.parametrize(
    ("name", "engine"),
    [(name, "concrete") for name in TOO_WIDE]
    + [(name, "clear") for name in TOO_WIDE if name not in ONLY_ENCRYPTED],
)
def test_a_look_up_that_is_too_wide_names_its_node_its_source_and_three_remedies(
    name: str, engine: str
) -> None:
    model, bits, where, source = TOO_WIDE[name]
    module = build_quantized_module(model, X, n_bits=bits)
    with pytest.raises(LookupWidthError) as caught:
        module.compile(engine=engine)
    message = str(caught.value)
    assert re.search(rf"\b{where}\b", message)
    assert re.search(r"needs a table look-up on \d\d bits \(values from -?\d+ to \d+\)", message)
    assert "at most 16 are possible" in message
    assert source in message
    for remedy in REMEDIES:
        assert re.search(remedy, message), message
    assert not module.is_compiled


@pytest.mark.parametrize("name", ["an activation", "the next layer", "a product"])
def test_the_remedies_help(name: str) -> None:
    model, bits, _, _ = TOO_WIDE[name]
    build_quantized_module(model, X, n_bits=4).compile(engine="clear")
    rounded = build_quantized_module(
        model,
        X,
        n_bits={"op_inputs": 6, "op_weights": 6, "model_inputs": bits},
        rounding_threshold_bits=8,
    )
    rounded.compile(engine="clear")
    assert rounded.is_compiled


def test_an_encrypted_operand_where_only_a_clear_one_works_is_named() -> None:
    index = [
        node("MatMul", ["x", "w"], "h"),
        node("Sigmoid", ["h"], "s"),
        node("Cast", ["s"], "i", to=TensorProto.INT64),
    ]
    pick = node("GatherElements", ["x", "i"], "y", name="here", axis=1)
    model = make_model([*index, pick], {"x": ["N", 4]}, ["y"], {"w": weights(4, 4)})
    data = X[:20, :4]
    with pytest.raises(EncryptedOperandError) as caught:
        build_quantized_module(model, data, n_bits=4)
    message = str(caught.value)
    assert "'here'" in message
    assert "'indices' (i)" in message
    assert "depends on an input of the model; it must be a constant" in message


#: An operator with an operand that depends on the input, and what the schema calls that operand.
NEEDS_A_CLEAR_OPERAND: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "Reshape": (["x", "i"], {}, "shape"),
    "Expand": (["x", "i"], {}, "shape"),
    "Tile": (["x", "i"], {}, "repeats"),
    "Slice": (["x", "i", "end", "axes"], {}, "starts"),
    "Gather": (["x", "i"], {"axis": 1}, "indices"),
    "Pad": (["x", "i"], {}, "pads"),
    "Unsqueeze": (["x", "i"], {}, "axes"),
}


@pytest.mark.parametrize("op", NEEDS_A_CLEAR_OPERAND)
def test_operands_that_say_where_elements_go_must_be_constant(op: str) -> None:
    inputs, attributes, operand = NEEDS_A_CLEAR_OPERAND[op]
    total = node("ReduceSum", ["x", "axes"], "s", keepdims=0)
    index = node("Cast", ["s"], "i", to=TensorProto.INT64)
    used = node(op, inputs, "y", name="here", **attributes)
    constants = {"axes": np.array([1]), "end": np.array([4])}
    model = network([total, index, used], **constants)
    with pytest.raises(EncryptedOperandError) as caught:
        build_quantized_module(model, X, n_bits=4)
    message = str(caught.value)
    assert f"node 'here' ({op}): the operand {operand!r} (i)" in message
    assert "depends on an input of the model; it must be a constant" in message


def test_a_branch_on_an_encrypted_condition_is_refused() -> None:
    branches = {
        f"{name}_branch": helper.make_graph(
            [node(op, ["x"], name)],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 32])],
        )
        for name, op in (("then", "Identity"), ("else", "Neg"))
    }
    nodes = [
        node("ReduceMax", ["x"], "m", keepdims=0),
        node("Greater", ["m", "zero"], "c"),
        node("If", ["c"], "y", name="here", **branches),
    ]
    with pytest.raises(UnsupportedOperatorError, match=r"If: node 'here' .*choose .* with Where"):
        build_quantized_module(network(nodes, zero=np.float32(0)), X, n_bits=4)


def test_what_the_client_computes_may_choose_by_encrypted_values() -> None:
    nodes = [
        node("MatMul", ["x", "w"], "scores"),
        node("ArgMax", ["scores"], "best", axis=1, keepdims=1),
        node("GatherElements", ["scores", "best"], "y", axis=1),
    ]
    module = build_quantized_module(network(nodes, w=W), X, n_bits=6)
    np.testing.assert_allclose(module.forward(X)[:, 0], (X @ W).max(axis=1), atol=1.0)
