"""Signatures read off ONNX's schemas."""

from __future__ import annotations

import pytest

from cipherlearn import ops
from cipherlearn.errors import InvalidParameterError
from cipherlearn.ops import REQUIRED


def test_inputs_of_a_schema() -> None:
    signature = ops.get("Clip").signature()
    assert signature.input_names == ("input", "min", "max")
    assert [operand.required for operand in signature.inputs] == [True, False, False]
    assert signature.min_inputs == 1
    assert not signature.variadic
    assert {operand.group for operand in signature.inputs} == {"T"}
    assert "tensor(float)" in signature.operand(1).types
    with pytest.raises(InvalidParameterError, match=r"no input number 3.*input, min, max"):
        signature.operand(3)


def test_variadic_inputs() -> None:
    signature = ops.get("Max").signature()
    assert signature.variadic
    assert signature.operand(7).name == "data_0"
    with pytest.raises(InvalidParameterError):
        signature.operand(-1)


def test_attributes_of_a_schema() -> None:
    attributes = ops.get("Gemm").signature().attributes
    assert {name: item.default for name, item in attributes.items()} == {
        "alpha": 1.0,
        "beta": 1.0,
        "transA": 0,
        "transB": 0,
    }
    assert ops.get("Cast").signature().attributes["to"].default is REQUIRED
    assert ops.get("Gelu").signature().attributes["approximate"].default == "none"
    assert ops.get("Transpose").signature().attributes["perm"].default is None
    assert ops.get("ConstantOfShape").signature().attributes["value"].default is None
    assert repr(REQUIRED) == "REQUIRED"


def test_the_operator_set_is_respected() -> None:
    assert ops.get("Reshape").signature(13).attributes.keys() == set()
    assert ops.get("Reshape").signature(14).attributes.keys() == {"allowzero"}
    assert ops.get("Relu").signature(13).since_version == 13
    assert ops.get("Dropout").signature().n_outputs == 2


@pytest.mark.parametrize(
    ("domain", "op_type", "name"),
    [("", "Relu", "Relu"), ("ai.onnx", "Relu", "Relu"), ("a.b", "C", "a.b.C")],
)
def test_qualified_names(domain: str, op_type: str, name: str) -> None:
    assert ops.qualified_name(domain, op_type) == name
    assert ops.split_name(name) == ("" if domain == "ai.onnx" else domain, op_type)
