"""Small models of dense layers and what stands between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from cipherlearn.quantization import QuantizedModule
from tests.onnx_models import make_model, node, perceptron, weights
from tests.quantization.quantize import normal, quantize

ROWS = 100
X = normal(ROWS, 4)
IMAGE = normal(ROWS, 3, 4, seed=1)
W, V, B = weights(4, 5), weights(4, 5, seed=1), weights(5, seed=2)
W2 = weights(5, 3, seed=3)
INT64 = np.int64

Nodes = list[onnx.NodeProto]


def graph(
    nodes: Nodes, outputs: list[str] | None = None, shape: tuple[int, ...] = (4,), **constants: Any
) -> onnx.ModelProto:
    return make_model(nodes, {"x": ["N", *shape]}, outputs or ["y"], constants)


def two_heads(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    """Two layers on functions ``r`` and ``q`` of a layer of 5 units, ``h``."""
    reads = {name for item in nodes for name in item.output}
    heads = [
        node("MatMul", ["r", "w2"], "y"),
        node("MatMul", ["q" if "q" in reads else "r", "w3"], "z"),
    ]
    first = node("Gemm", ["x", "w", "b"], "h")
    constants = {"w": W, "b": B, "w2": W2, "w3": weights(5, 2, seed=4)}
    return graph([first, *nodes, *heads], ["y", "z"], **constants)


def rounded_perceptron() -> QuantizedModule:
    """Two dense layers at 5 bits, whose look-ups read 6 bits; calibrated on 60 rows."""
    return quantize(perceptron(), normal(60, 4), n_bits=5, rounding=6)


#: Models of one input of 4 features, and the look-ups that they need at 8 bits without rounding.
DENSE: dict[str, tuple[onnx.ModelProto, int]] = {
    "Gemm": (graph([node("Gemm", ["x", "w", "b"], "y")], w=W, b=B), 0),
    "Gemm without bias": (graph([node("Gemm", ["x", "w"], "y")], w=W), 0),
    "Gemm, all attributes": (
        graph(
            [node("Gemm", ["x", "w", "b"], "y", transB=1, alpha=-0.5, beta=2.0)],
            w=np.ascontiguousarray(W.T),
            b=B,
        ),
        0,
    ),
    "Gemm, constant on the left": (
        graph(
            [node("Gemm", ["w", "x", "b"], "t", transA=1, transB=1), node("Transpose", ["t"], "y")],
            w=W,
            b=weights(5, 1),
        ),
        0,
    ),
    "MatMul": (graph([node("MatMul", ["x", "w"], "y")], w=W), 0),
    "MatMul with a vector": (graph([node("MatMul", ["x", "w"], "y")], w=weights(4)), 0),
    "constant on the left": (
        graph(
            [
                node("Transpose", ["x"], "t"),
                node("MatMul", ["w", "t"], "a"),
                node("Relu", ["a"], "r"),
                node("Transpose", ["r"], "y"),
            ],
            w=weights(6, 4),
        ),
        6,
    ),
    "last layer is an activation": (
        graph([node("Gemm", ["x", "w", "b"], "h"), node("Relu", ["h"], "y")], w=W, b=B),
        5,
    ),
    "two layers without bias": (
        graph(
            [
                node("MatMul", ["x", "w"], "h"),
                node("Tanh", ["h"], "r"),
                node("MatMul", ["r", "w2"], "y"),
            ],
            w=W,
            w2=W2,
        ),
        5,
    ),
    "a chain of functions is one table": (
        graph(
            [
                node("Gemm", ["x", "w", "b"], "h"),
                node("Mul", ["h", "c"], "a"),
                node("Sigmoid", ["a"], "s"),
                node("Mul", ["s", "h"], "p"),
                node("Sub", ["p", "h"], "y"),
            ],
            w=W,
            b=B,
            c=np.float32(0.7),
        ),
        5,
    ),
    "swish of an input": (
        graph([node("Sigmoid", ["x"], "s"), node("Mul", ["x", "s"], "y")]),
        4,
    ),
    "sum of two layers": (
        graph(
            [
                node("MatMul", ["x", "w"], "a"),
                node("MatMul", ["x", "v"], "b"),
                node("Add", ["a", "b"], "y"),
            ],
            w=W,
            v=V,
        ),
        10,
    ),
    "difference of two layers": (
        graph(
            [
                node("MatMul", ["x", "w"], "a"),
                node("MatMul", ["x", "v"], "b"),
                node("Sub", ["a", "b"], "y"),
            ],
            w=W,
            v=V,
        ),
        10,
    ),
    "product of two layers": (
        graph(
            [
                node("MatMul", ["x", "w"], "a"),
                node("MatMul", ["x", "v"], "b"),
                node("Mul", ["a", "b"], "y"),
            ],
            w=W,
            v=V,
        ),
        20,
    ),
    "quotient of two layers": (
        graph(
            [
                node("MatMul", ["x", "w"], "a"),
                node("MatMul", ["x", "v"], "b"),
                node("Exp", ["b"], "e"),
                node("Add", ["e", "one"], "d"),
                node("Div", ["a", "d"], "y"),
            ],
            w=W,
            v=V,
            one=np.float32(1),
        ),
        20,
    ),
    "a residual block": (
        graph(
            [
                node("Gemm", ["x", "w", "b"], "h"),
                node("Relu", ["h"], "r"),
                node("MatMul", ["r", "back"], "m"),
                node("Add", ["m", "x"], "y"),
            ],
            w=W,
            b=B,
            back=weights(5, 4, seed=9),
        ),
        5 + 4 + 4,
    ),
    "an input of several layers": (
        graph(
            [
                node("Gemm", ["x", "w", "b"], "h"),
                node("Relu", ["h"], "r"),
                node("Sigmoid", ["x"], "s"),
                node("MatMul", ["s", "v"], "k"),
                node("Mul", ["r", "k"], "y"),
            ],
            w=W,
            b=B,
            v=V,
        ),
        4 + 5 + 5 + 10,
    ),
    "a layer moved": (
        graph(
            [
                node("Gemm", ["x", "w", "b"], "h"),
                node("Reshape", ["h", "s"], "r"),
                node("Transpose", ["r"], "y", perm=[0, 2, 1]),
            ],
            w=W,
            b=B,
            s=np.array([-1, 5, 1], INT64),
        ),
        0,
    ),
    "an input as an output": (
        graph([node("Identity", ["x"], "y"), node("MatMul", ["x", "w"], "z")], ["y", "z"], w=W),
        0,
    ),
    "one tensor as two outputs": (
        graph([node("MatMul", ["x", "w"], "z"), node("Identity", ["z"], "y")], ["z", "y"], w=W),
        0,
    ),
    "zero weights": (
        graph(
            [
                node("Gemm", ["x", "w", "b"], "h"),
                node("Relu", ["h"], "r"),
                node("Add", ["x", "one"], "a"),
                node("Gemm", ["r", "w2"], "z"),
            ],
            ["z", "a"],
            w=W * 0,
            b=B,
            w2=W2,
            one=np.float32(1),
        ),
        0,
    ),
    "dead channels": (
        graph(
            [
                node("Gemm", ["x", "w", "b"], "h"),
                node("Relu", ["h"], "r"),
                node("Gemm", ["r", "w2", "b2"], "y"),
            ],
            w=W * np.array([1, 0, 1, 0, 1], np.float32),
            b=B - np.array([0, 0, 0, 99, 0], np.float32),
            w2=W2,
            b2=weights(3),
        ),
        5,
    ),
}

#: Models of one input of shape (3, 4).
DEEP: dict[str, tuple[onnx.ModelProto, int]] = {
    "constant on the left": (
        graph([node("MatMul", ["w", "x"], "y")], shape=(3, 4), w=weights(6, 3)),
        0,
    ),
    "vector on the left": (
        graph([node("MatMul", ["w", "x"], "y")], shape=(3, 4), w=weights(3)),
        0,
    ),
    "vector on the right": (
        graph([node("MatMul", ["x", "w"], "y")], shape=(3, 4), w=weights(4)),
        0,
    ),
    "matrix on the right": (
        graph([node("MatMul", ["x", "w"], "y")], shape=(3, 4), w=weights(4, 2)),
        0,
    ),
    "batch of matrices on the right": (
        graph([node("MatMul", ["x", "w"], "y")], shape=(3, 4), w=weights(1, 4, 2)),
        0,
    ),
    "its own transposed": (
        graph(
            [node("Transpose", ["x"], "t", perm=[0, 2, 1]), node("MatMul", ["x", "t"], "y")],
            shape=(3, 4),
        ),
        2 * 3 * 4 * 3,
    ),
    "flattened first": (
        graph(
            [
                node("Flatten", ["x"], "f"),
                node("Gemm", ["f", "w"], "h"),
                node("Relu", ["h"], "r"),
                node("Reshape", ["r", "s"], "y"),
            ],
            shape=(3, 4),
            w=weights(12, 6),
            s=np.array([0, 2, 3], INT64),
        ),
        6,
    ),
    "moved and moved back": (
        graph(
            [
                node("Transpose", ["x"], "t", perm=[0, 2, 1]),
                node("Sigmoid", ["t"], "s"),
                node("Mul", ["s", "t"], "m"),
                node("Transpose", ["m"], "u", perm=[0, 2, 1]),
                node("Unsqueeze", ["u", "axis"], "q"),
                node("Squeeze", ["q", "axis"], "y"),
            ],
            shape=(3, 4),
            axis=np.array([1], INT64),
        ),
        12,
    ),
    "two movements of one value": (
        graph(
            [
                node("Relu", ["x"], "r"),
                node("Transpose", ["r"], "a", perm=[0, 2, 1]),
                node("Transpose", ["x"], "b", perm=[0, 2, 1]),
                node("Sub", ["a", "b"], "y"),
            ],
            shape=(3, 4),
        ),
        12,
    ),
}
