"""Small ONNX models for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
Shape = Sequence[int | str | None]


def node(
    op_type: str, inputs: Sequence[str], outputs: Sequence[str] | str, **options: Any
) -> onnx.NodeProto:
    listed = [outputs] if isinstance(outputs, str) else list(outputs)
    return helper.make_node(op_type, list(inputs), listed, **options)


def make_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Shape | tuple[int, Shape]],
    outputs: Sequence[str] | Mapping[str, Shape | None],
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 18,
    domains: Sequence[str] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """Build a model of float32 tensors; an input may be given as (element type, shape)."""
    named = outputs if isinstance(outputs, Mapping) else dict.fromkeys(outputs)
    tensors = [
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in (constants or {}).items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [_info(name, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in named.items()],
        tensors,
    )
    imports = [
        helper.make_opsetid("", opset),
        *(helper.make_opsetid(d, 3 if d == "ai.onnx.ml" else 1) for d in domains),
    ]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=9)


def _info(name: str, shape: Any) -> onnx.ValueInfoProto:
    if len(shape) == 2 and not isinstance(shape[1], int | str | None):
        return helper.make_tensor_value_info(name, shape[0], list(shape[1]))
    return helper.make_tensor_value_info(name, FLOAT, list(shape))


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def op_types(model: onnx.ModelProto) -> list[str]:
    return [item.op_type for item in model.graph.node]


def dimensions(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def perceptron(batch: int | str = "N") -> onnx.ModelProto:
    """Two dense layers, written with Gemm and with MatMul and Add."""
    return make_model(
        [
            node("Gemm", ["x", "w1", "b1"], "h", name="first"),
            node("Relu", ["h"], "r"),
            node("MatMul", ["r", "w2"], "m"),
            node("Add", ["m", "b2"], "y"),
        ],
        {"x": [batch, 4]},
        {"y": [batch, 2]},
        {"w1": weights(4, 3), "b1": weights(3), "w2": weights(3, 2), "b2": weights(2)},
    )
