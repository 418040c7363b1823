"""Signatures read off ONNX's schemas."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from cipherlearn import ops
from cipherlearn.errors import InvalidParameterError, UnsupportedOperatorError
from cipherlearn.ops import REQUIRED, _signature


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


def test_defaults_are_those_that_have_a_value() -> None:
    signature = ops.get("Gemm").signature()
    assert signature.defaults == {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    assert "to" not in ops.get("Cast").signature().defaults, "it is required"
    assert "axes" not in ops.get("ReduceSum").signature(11).defaults, "there is none"


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


def test_the_domain_of_machine_learning_has_schemas_too() -> None:
    signature = ops.get("ai.onnx.ml.LinearClassifier").signature(13)
    assert signature.input_names == ("X",)
    assert signature.n_outputs == 2
    assert signature.attributes["post_transform"].default == "NONE"
    assert "keys_tensor" in ops.get("ai.onnx.ml.LabelEncoder").signature().attributes


def test_other_domains_have_no_schemas() -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"no operator 'ai\.onnx\.preview\.Adam'"):
        _signature.of_schema("ai.onnx.preview.Adam")
    with pytest.raises(UnsupportedOperatorError, match="it came later: 23"):
        _signature.of_schema("RMSNormalization", 22)


@pytest.mark.parametrize("opset", [13, 17, 18])
def test_split_says_how_many_parts_there_are_in_all_operator_sets(opset: int) -> None:
    split = ops.get("Split")
    signature = split.signature(opset)
    assert "num_outputs" in signature.attributes
    assert ("num_outputs" in signature.declared) == (opset >= 18)
    x = np.arange(6.0).reshape(1, 6)
    parts = split.numpy(x, axis=1, num_outputs=3, opset=opset)
    assert [part.tolist() for part in parts] == [[[0, 1]], [[2, 3]], [[4, 5]]]
    sized = split.numpy(x, np.array([5, 1]), axis=1, opset=opset)
    assert [part.shape for part in sized] == [(1, 5), (1, 1)]
    with pytest.raises(InvalidParameterError, match="'num_outputs'"):
        split.numpy(x, axis=1, opset=opset)


def test_stored_signatures_are_the_same() -> None:
    for name in ("Gemm", "Cast", "Concat"):
        signature = ops.get(name).signature()
        again = pickle.loads(pickle.dumps(signature))  # noqa: S301
        assert again.defaults == signature.defaults
        marks = [value.default is REQUIRED for value in signature.attributes.values()]
        assert [value.default is REQUIRED for value in again.attributes.values()] == marks
