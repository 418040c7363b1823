"""Every element-wise operator against onnxruntime: dtypes, broadcasting, attributes, infinities."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cipherlearn import ops
from cipherlearn.onnx import OnnxRuntimeModel
from cipherlearn.ops import Kind, Signature
from tests.onnx_models import node

OPSET = 21
DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}
SHAPES = [
    ((2, 3), (2, 3)),
    ((2, 3), (3,)),
    ((3,), (2, 3)),
    ((2, 1), (1, 3)),
    ((), (2,)),
    ((2, 3), ()),
    ((0, 3), (3,)),
]
ATTRIBUTES: dict[str, list[dict[str, Any]]] = {
    "BitShift": [{"direction": "LEFT"}, {"direction": "RIGHT"}],
    "Cast": [{"to": TensorProto.INT32}, {"to": TensorProto.BOOL}, {"to": TensorProto.DOUBLE}],
    "Celu": [{}, {"alpha": 2.0}],
    "Elu": [{}, {"alpha": 0.3}],
    "Gelu": [{}, {"approximate": "tanh"}],
    "HardSigmoid": [{}, {"alpha": 0.3, "beta": 0.1}],
    "IsInf": [{}, {"detect_negative": 0}, {"detect_positive": 0}],
    "LeakyRelu": [{}, {"alpha": 0.3}],
    "Mod": [{"fmod": 1}, {"fmod": 0}],
    "Selu": [{}, {"alpha": 0.3, "gamma": 2.0}],
    "Shrink": [{}, {"bias": 0.2, "lambd": 0.7}],
    "ThresholdedRelu": [{}, {"alpha": 0.2}],
}
ELEMENTWISE = [
    name
    for name in ops.names()
    if ops.get(name).kind is Kind.ELEMENTWISE and onnx.defs.has(name, OPSET, "")
]


def draw(
    name: str, position: int, dtype: Any, shape: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    """Random operand: any float, infinities too; integers that the operator has a meaning for."""
    values = np.asarray(3 * rng.normal(size=shape))
    kind = np.dtype(dtype).kind
    if kind == "b":
        return values > 0
    if kind == "f":
        chance = rng.random(shape)
        values = np.where(chance < 0.1, np.round(2 * values) / 2, values)
        values = np.where(chance > 0.9, np.copysign(np.inf, values), values)
        return values.astype(dtype)
    if kind == "u" or name in {"BitShift", "Pow"}:
        values = np.abs(values)
    result = values.astype(dtype)
    no_divisor = position == 1 and name in {"Div", "Mod"}
    return np.where(result == 0, 1, result).astype(dtype) if no_divisor else result


def operands(
    name: str, signature: Signature, dtype: str, shapes: Any, rng: np.random.Generator
) -> list[np.ndarray] | None:
    """Operands of one call; None where the operator does not take the dtype or the shapes."""
    count = 3 if signature.variadic else len(signature.inputs)
    if name == "PRelu" and shapes[0] != np.broadcast_shapes(*shapes):
        return None
    arrays = []
    for position in range(count):
        types = signature.operand(position).types
        wanted = "tensor(bool)" if types == {"tensor(bool)"} else dtype
        if wanted not in types:
            return None
        bound = name == "Clip" and position > 0
        shape = () if bound else shapes[min(position, 1)]
        arrays.append(draw(name, position, DTYPES[wanted], shape, rng))
    if name == "Clip":
        arrays[2] = np.maximum(arrays[1], arrays[2])
    return arrays


def onnxruntime(name: str, arrays: list[np.ndarray], result: np.ndarray, **attributes: Any) -> Any:
    names = [f"x{position}" for position in range(len(arrays))]
    info = helper.make_tensor_value_info
    element = helper.np_dtype_to_tensor_dtype
    graph = helper.make_graph(
        [node(name, names, "y", **attributes)],
        "graph",
        [info(n, element(a.dtype), list(a.shape)) for n, a in zip(names, arrays, strict=True)],
        [info("y", element(result.dtype), None)],
    )
    imports = [helper.make_opsetid("", OPSET)]
    runner = OnnxRuntimeModel(helper.make_model(graph, opset_imports=imports, ir_version=9))
    return runner(*arrays)[0] if runner.uses_onnxruntime else None


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_values_are_those_of_onnxruntime(name: str) -> None:
    signature, compared = ops.get(name).signature(OPSET), 0
    rng = np.random.default_rng(len(name))
    for dtype, numpy_dtype in DTYPES.items():
        for attributes in ATTRIBUTES.get(name, [{}]):
            if attributes == {"fmod": 0} and np.dtype(numpy_dtype).kind == "f":
                continue  # not allowed by ONNX
            for shapes in SHAPES:
                arrays = operands(name, signature, dtype, shapes, rng)
                if arrays is None:
                    continue
                (found,) = ops.get(name).numpy(*arrays, opset=OPSET, **attributes)
                wanted = onnxruntime(name, arrays, found, **attributes)
                if wanted is None:
                    continue
                compared += 1
                assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
                np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert compared >= 4
