"""One small model for every element-wise operator, with data that it is defined on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from tests.onnx_models import make_model, node

ROWS, FEATURES = 120, 3


@dataclass(frozen=True)
class Case:
    """How to try one operator on a float input x.

    Data is uniform in [lo, hi], or lies around integers where results jump (``whole``). The
    operator reads x after a Cast to ``dtype``; a result of another type is cast back to float.
    """

    lo: float = -2.0
    hi: float = 2.0
    constants: Mapping[str, Any] = field(default_factory=dict)
    inputs: Sequence[str] = ("x",)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    dtype: int | None = None
    typed_result: bool = False
    whole: bool = False
    steps: bool = False

    def data(self) -> np.ndarray:
        random = np.random.default_rng(11)
        shape = (ROWS, FEATURES)
        if self.whole:
            centres = random.integers(int(self.lo), int(self.hi) + 1, size=shape)
            return (centres + random.uniform(-0.2, 0.2, size=shape)).astype(np.float32)
        return random.uniform(self.lo, self.hi, size=shape).astype(np.float32)

    def model(self, op: str) -> onnx.ModelProto:
        nodes = []
        inputs = list(self.inputs)
        if self.dtype is not None:
            nodes.append(node("Round", ["x"], "whole"))
            nodes.append(node("Cast", ["whole"], "typed", to=self.dtype))
            inputs = ["typed" if name == "x" else name for name in inputs]
        result = "typed_result" if self.typed_result else "y"
        nodes.append(node(op, inputs, result, **self.attributes))
        if self.typed_result:
            nodes.append(node("Cast", [result], "y", to=onnx.TensorProto.FLOAT))
        constants = {name: np.asarray(value) for name, value in self.constants.items()}
        return make_model(
            nodes, {"x": ["N", FEATURES]}, ["y"], constants, opset=onnx.defs.onnx_opset_version()
        )


def with_constant(value: Any, **options: Any) -> Case:
    """The operator with x and one constant."""
    constant = np.asarray(value, dtype=options.pop("constant_dtype", np.float32))
    return Case(constants={"c": constant}, inputs=("x", "c"), **options)


PER_CHANNEL = [0.5, -1.5, 1.0]
BOOL, INT32 = onnx.TensorProto.BOOL, onnx.TensorProto.INT32

#: Operators that need another treatment than ``Case()``: a smooth function of x in [-2, 2].
CASES = {
    "Acos": Case(-1.0, 1.0),
    "Acosh": Case(1.0, 6.0),
    "Add": with_constant(PER_CHANNEL),
    "And": with_constant(
        [True, False, True],
        constant_dtype=bool,
        lo=0,
        hi=1,
        dtype=BOOL,
        typed_result=True,
        whole=True,
        steps=True,
    ),
    "Asin": Case(-1.0, 1.0),
    "Atanh": Case(-0.9, 0.9),
    "BitCast": Case(0, 5, attributes={"to": INT32}, dtype=INT32, typed_result=True, whole=True),
    "BitShift": with_constant(
        [1, 2, 1],
        constant_dtype=np.uint8,
        lo=0,
        hi=7,
        attributes={"direction": "LEFT"},
        dtype=onnx.TensorProto.UINT8,
        typed_result=True,
        whole=True,
    ),
    "BitwiseAnd": with_constant(
        [3, 6, 5], constant_dtype=np.int32, lo=0, hi=7, dtype=INT32, typed_result=True, whole=True
    ),
    "BitwiseNot": Case(0, 7, dtype=INT32, typed_result=True, whole=True),
    "BitwiseOr": with_constant(
        [3, 6, 5], constant_dtype=np.int32, lo=0, hi=7, dtype=INT32, typed_result=True, whole=True
    ),
    "BitwiseXor": with_constant(
        [3, 6, 5], constant_dtype=np.int32, lo=0, hi=7, dtype=INT32, typed_result=True, whole=True
    ),
    "Cast": Case(0.5, 7.5, attributes={"to": INT32}, typed_result=True),
    "CastLike": with_constant([1], constant_dtype=np.int32, lo=0.5, hi=7.5, typed_result=True),
    "Ceil": Case(-20.0, 20.0),
    "Clip": Case(constants={"a": np.float32(-1), "b": np.float32(0.5)}, inputs=("x", "a", "b")),
    "Div": with_constant(PER_CHANNEL),
    "Equal": with_constant(
        [0, 1, 2], constant_dtype=np.int32, dtype=INT32, typed_result=True, whole=True, steps=True
    ),
    "Floor": Case(-20.0, 20.0),
    "Greater": with_constant(PER_CHANNEL, typed_result=True, steps=True),
    "GreaterOrEqual": with_constant(PER_CHANNEL, typed_result=True, steps=True),
    "IsInf": Case(typed_result=True, steps=True),
    "IsNaN": Case(typed_result=True, steps=True),
    "Less": with_constant(PER_CHANNEL, typed_result=True, steps=True),
    "LessOrEqual": with_constant(PER_CHANNEL, typed_result=True, steps=True),
    "Log": Case(0.1, 5.0),
    "Max": with_constant(PER_CHANNEL),
    "Mean": with_constant(PER_CHANNEL),
    "Min": with_constant(PER_CHANNEL),
    "Mod": with_constant(
        [3, 4, 5], constant_dtype=np.int32, lo=0, hi=9, dtype=INT32, typed_result=True, whole=True
    ),
    "Mul": with_constant(PER_CHANNEL),
    "Not": Case(0, 1, dtype=BOOL, typed_result=True, whole=True, steps=True),
    "Or": with_constant(
        [True, False, False],
        constant_dtype=bool,
        lo=0,
        hi=1,
        dtype=BOOL,
        typed_result=True,
        whole=True,
        steps=True,
    ),
    "PRelu": with_constant(PER_CHANNEL),
    "Pow": with_constant([2, 3, 1]),
    "Reciprocal": Case(0.5, 4.0),
    "Round": Case(-20.0, 20.0),
    "Shrink": Case(attributes={"lambd": 0.5, "bias": 0.5}),
    "Sqrt": Case(0.0, 4.0),
    "Sign": Case(steps=True),
    "Sub": with_constant(PER_CHANNEL),
    "Sum": with_constant(PER_CHANNEL),
    "SwiGLU": Case(inputs=("x", "x")),
    "Tan": Case(-1.2, 1.2),
    "ThresholdedRelu": Case(attributes={"alpha": 0.2}),
    "Where": Case(
        constants={"mask": np.array([True, False, True]), "c": np.array(PER_CHANNEL, np.float32)},
        inputs=("mask", "x", "c"),
    ),
    "Xor": with_constant(
        [True, False, True],
        constant_dtype=bool,
        lo=0,
        hi=1,
        dtype=BOOL,
        typed_result=True,
        whole=True,
        steps=True,
    ),
}


def case_of(op: str) -> Case:
    return CASES.get(op, Case())
