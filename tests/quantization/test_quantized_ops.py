from __future__ import annotations

import numpy as np
import pytest

from cipherlearn import ops, quantization
from cipherlearn.errors import UnsupportedOperatorError
from cipherlearn.quantization import (
    ALL_QUANTIZED_OPS,
    ONNX_OPS_TO_QUANTIZED_IMPL,
    QuantizedMixingOp,
    QuantizedOp,
    quantized_ops,
)
from cipherlearn.quantization.quantized_ops import quantized_class
from tests.quantization.elementwise import case_of
from tests.quantization.quantize import check_integers_agree, float_outputs, lookups, quantize, r2

# Those of other domains are in `test_operator_sweep`.
ELEMENTWISE = [
    name for name in ops.names() if ops.get(name).kind is ops.Kind.ELEMENTWISE and "." not in name
]


@pytest.mark.parametrize("op", ELEMENTWISE)
def test_every_elementwise_operator_is_one_look_up_and_near_its_float_meaning(op: str) -> None:
    case = case_of(op)
    data = case.data()
    module = quantize(case.model(op), data)
    check_integers_agree(module, data)
    found, (truth,) = module.forward(data), float_outputs(module, data)
    if case.steps:
        assert np.mean(np.abs(found - truth) < 0.5) >= 0.98
    else:
        assert r2(found, truth) >= 0.99
    # Steps are rounded first, and looked up in narrower tables: two of them for two steps.
    steps = 2 if op in ("Equal", "Sign") else 1
    assert sum(lookups(module).values()) in (steps * data.shape[1], 0)
    assert max(lookups(module), default=0) <= (8 if steps == 1 else 1)


def test_the_cases_are_those_of_operators() -> None:
    from tests.quantization.elementwise import CASES

    assert set(CASES) <= set(ELEMENTWISE) | set(ops.unavailable())


def test_there_is_a_class_for_every_operator_on_encrypted_values() -> None:
    for name in ops.names():
        op = ops.get(name)
        if op.kind is ops.Kind.CONSTANT or op.function is not None:
            continue
        if op.kind is ops.Kind.MIXING and op.integer is None:
            assert name not in ONNX_OPS_TO_QUANTIZED_IMPL, "it is written with other operators"
            continue
        kind = ONNX_OPS_TO_QUANTIZED_IMPL[name]
        assert kind in ALL_QUANTIZED_OPS
        assert kind.op_type() == name
        assert issubclass(kind, QuantizedMixingOp) == (op.integer is not None)


def test_names_of_classes_are_identifiers_and_unique() -> None:
    standard = [kind for kind in ALL_QUANTIZED_OPS if kind.__module__ == quantized_ops.__name__]
    names = [kind.__name__ for kind in standard]
    assert all(name.isidentifier() for name in names)
    assert len(set(names)) == len(names)
    assert all(getattr(quantized_ops, kind.__name__) is kind for kind in standard)
    assert quantization.QuantizedBinarizer.op_type() == "ai.onnx.ml.Binarizer"


def test_classes_are_found_by_name() -> None:
    assert quantized_ops.QuantizedRelu is quantization.QuantizedRelu
    assert issubclass(quantization.QuantizedGemm, QuantizedMixingOp)
    assert quantized_class("Relu") is quantization.QuantizedRelu
    assert quantization.QuantizedRelu.__name__ == "QuantizedRelu"
    with pytest.raises(AttributeError, match="QuantizedNothing"):
        _ = quantization.QuantizedNothing
    with pytest.raises(AttributeError, match="nothing"):
        _ = quantization.nothing


def test_constants_and_unknown_operators_have_no_class() -> None:
    with pytest.raises(UnsupportedOperatorError, match="must be known when the model is compiled"):
        quantized_class("Shape")
    with pytest.raises(UnsupportedOperatorError, match="Supported operators: Abs"):
        quantized_class("Frobnicate")


def test_classes_without_an_operator_are_not_listed() -> None:
    assert QuantizedOp not in ALL_QUANTIZED_OPS
    assert QuantizedMixingOp not in ALL_QUANTIZED_OPS
    assert len(ALL_QUANTIZED_OPS) == len(ONNX_OPS_TO_QUANTIZED_IMPL)
