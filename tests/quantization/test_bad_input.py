"""What a model is refused for says which node, why, and what to change."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from cipherlearn.errors import EncryptedOperandError, LookupWidthError
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

#: Model, its bits, and the node whose look-up is too wide.
TOO_WIDE: dict[str, tuple[onnx.ModelProto, int, str]] = {
    "an activation": (
        network([LEFT, node("Relu", ["a"], "y", name="activation")], w=W),
        12,
        "activation",
    ),
    "the next layer": (
        network([LEFT, node("MatMul", ["a", "u"], "y", name="next")], w=W, u=weights(8, 2)),
        12,
        "next",
    ),
    "a product": (
        network([LEFT, RIGHT, node("Mul", ["a", "b"], "y", name="product")], w=W, v=V),
        14,
        "product",
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
    ),
}

#: The circuit has no table here; the engine makes one.
ONLY_ENCRYPTED = {"a product of two inputs' halves"}


@pytest.mark.parametrize(
    ("name", "engine"),
    [(name, "concrete") for name in TOO_WIDE]
    + [(name, "clear") for name in TOO_WIDE if name not in ONLY_ENCRYPTED],
)
def test_a_look_up_that_is_too_wide_names_its_node_and_three_remedies(
    name: str, engine: str
) -> None:
    model, bits, where = TOO_WIDE[name]
    module = build_quantized_module(model, X, n_bits=bits)
    with pytest.raises(LookupWidthError) as caught:
        module.compile(engine=engine)
    message = str(caught.value)
    assert re.search(rf"\b{where}\b", message)
    assert re.search(r"needs a table look-up on \d\d bits \(values from -?\d+ to \d+\)", message)
    assert "at most 16 are possible" in message
    for remedy in REMEDIES:
        assert re.search(remedy, message), message
    assert not module.is_compiled


@pytest.mark.parametrize("name", ["an activation", "the next layer", "a product"])
def test_the_remedies_help(name: str) -> None:
    model, bits, _ = TOO_WIDE[name]
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
