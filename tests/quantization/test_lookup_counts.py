"""How many look-ups well-known patterns of networks need: what fuses, stays fused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from cipherlearn.circuit import count_lookups, evaluate
from cipherlearn.circuit.steps import round_steps
from cipherlearn.quantization import PostTrainingQATImporter
from cipherlearn.quantization.calibration import as_tuple
from cipherlearn.torch import NumpyModule
from tests.onnx_models import make_model, node, weights
from tests.quantization.models import W2, B, W, graph, two_heads
from tests.quantization.quantize import float_outputs, lookups, normal, quantize, r2

ROWS = 200
X = normal(ROWS, 4)
IMAGE = normal(ROWS, 1, 6, 6, seed=1)
FIRST = node("Gemm", ["x", "w", "b"], "h")
INT64 = np.int64


def image(nodes: list[onnx.NodeProto], **constants: Any) -> onnx.ModelProto:
    return graph(nodes, shape=(1, 6, 6), **constants)


def after_gemm(*nodes: onnx.NodeProto, **constants: Any) -> onnx.ModelProto:
    """A layer of 5 units, and what follows on its result ``h``."""
    known = {"w": W, "b": B, **constants}
    return make_model([FIRST, *nodes], {"x": ["N", 4]}, ["y"], known, opset=20)


def normalization() -> dict[str, np.ndarray]:
    return {
        "scale": np.abs(weights(5, seed=5)) + np.float32(0.5),
        "shift": weights(5, seed=6),
        "mean": weights(5, seed=7),
        "variance": np.abs(weights(5, seed=8)) + np.float32(0.5),
    }


#: Patterns on 4 features: model, and look-ups that it may take.
PATTERNS: dict[str, tuple[onnx.ModelProto, int]] = {
    "a linear model": (after_gemm(node("Identity", ["h"], "y")), 0),
    "two linear layers in a row read one look-up an element": (
        after_gemm(node("MatMul", ["h", "w2"], "y"), w2=W2),
        5,
    ),
    "x * sigmoid(x)": (
        after_gemm(node("Sigmoid", ["h"], "s"), node("Mul", ["h", "s"], "y")),
        5,
    ),
    "x + f(x)": (
        after_gemm(
            node("Tanh", ["h"], "t"),
            node("Mul", ["t", "two"], "m"),
            node("Add", ["h", "m"], "y"),
            two=np.float32(2),
        ),
        5,
    ),
    "two branches of one value, then a sum": (
        after_gemm(
            node("Relu", ["h"], "r"),
            node("Exp", ["h"], "e"),
            node("Clip", ["e", "", "three"], "c"),
            node("Add", ["r", "c"], "y"),
            three=np.float32(3),
        ),
        5,
    ),
    "linear, batch normalization, relu": (
        after_gemm(
            node("BatchNormalization", ["h", "scale", "shift", "mean", "variance"], "n"),
            node("Relu", ["n"], "y"),
            **normalization(),
        ),
        5,
    ),
    "linear, batch normalization: folded": (
        after_gemm(
            node("BatchNormalization", ["h", "scale", "shift", "mean", "variance"], "y"),
            **normalization(),
        ),
        0,
    ),
    "linear, scale and bias a channel: folded": (
        after_gemm(
            node("Mul", ["h", "scale"], "m"),
            node("Add", ["m", "shift"], "y"),
            scale=weights(5, seed=5),
            shift=weights(5, seed=6),
        ),
        0,
    ),
    "clip(relu)": (
        after_gemm(
            node("Relu", ["h"], "r"), node("Clip", ["r", "", "one"], "y"), one=np.float32(1)
        ),
        5,
    ),
    "gelu, as one operator": (after_gemm(node("Gelu", ["h"], "y")), 5),
    "gelu, as exporters write it": (
        after_gemm(
            node("Div", ["h", "root"], "d"),
            node("Erf", ["d"], "e"),
            node("Add", ["e", "one"], "a"),
            node("Mul", ["h", "a"], "m"),
            node("Mul", ["m", "half"], "y"),
            root=np.float32(np.sqrt(2)),
            one=np.float32(1),
            half=np.float32(0.5),
        ),
        5,
    ),
    "hard swish, as exporters write it": (
        after_gemm(
            node("Add", ["h", "three"], "a"),
            node("Clip", ["a", "zero", "six"], "c"),
            node("Mul", ["h", "c"], "m"),
            node("Div", ["m", "six"], "y"),
            zero=np.float32(0),
            three=np.float32(3),
            six=np.float32(6),
        ),
        5,
    ),
    "movements around tables": (
        after_gemm(
            node("Reshape", ["h", "target"], "m1"),
            node("Relu", ["m1"], "r"),
            node("Transpose", ["r"], "m2", perm=[0, 2, 1]),
            node("Sigmoid", ["m2"], "s"),
            node("Squeeze", ["s", "axis"], "m3"),
            node("Unsqueeze", ["m3", "axis"], "m4"),
            node("Tanh", ["m4"], "t"),
            node("Flatten", ["t"], "m5"),
            node("Slice", ["m5", "from", "to", "axis"], "m6"),
            node("Abs", ["m6"], "y"),
            target=np.array([-1, 5, 1], INT64),
            axis=np.array([1], INT64),
            **{"from": np.array([0], INT64), "to": np.array([4], INT64)},
        ),
        # What the slice leaves out is not looked up.
        4,
    ),
    "a gate on a moved value and its function": (
        after_gemm(
            node("Unsqueeze", ["h", "axis"], "m1"),
            node("Sigmoid", ["h"], "s"),
            node("Unsqueeze", ["s", "axis"], "m2"),
            node("Mul", ["m1", "m2"], "y"),
            axis=np.array([1], INT64),
        ),
        5,
    ),
    "one activation for two heads": (two_heads(node("Relu", ["h"], "r")), 5),
    "the same activation written twice": (
        two_heads(node("Relu", ["h"], "r"), node("Relu", ["h"], "q")),
        5,
    ),
    "the same layer written twice": (
        two_heads(
            node("Gemm", ["x", "w", "b"], "g"),
            node("Relu", ["h"], "r"),
            node("Relu", ["g"], "q"),
        ),
        5,
    ),
    "two layers, two activations": (
        after_gemm(
            node("Relu", ["h"], "r"),
            node("MatMul", ["r", "w2"], "g"),
            node("Tanh", ["g"], "y"),
            w2=W2,
        ),
        5 + 3,
    ),
    "concatenation of two activations": (
        after_gemm(
            node("Relu", ["h"], "r"),
            node("Tanh", ["h"], "t"),
            node("Concat", ["r", "t"], "c", axis=1),
            node("MatMul", ["c", "w4"], "y"),
            w4=weights(10, 2, seed=9),
        ),
        10,
    ),
    "softmax at the end": (after_gemm(node("Softmax", ["h"], "y", axis=-1)), 0),
    "arg-max at the end": (after_gemm(node("ArgMax", ["h"], "y", axis=1, keepdims=0)), 0),
    "relu, then softmax at the end": (
        after_gemm(
            node("Relu", ["h"], "r"),
            node("MatMul", ["r", "w2"], "g"),
            node("Softmax", ["g"], "y", axis=-1),
            w2=W2,
        ),
        5,
    ),
}

KERNEL, KERNEL2 = weights(2, 1, 3, 3, seed=1), weights(3, 2, 3, 3, seed=2)

#: Patterns on images of 6 x 6 pixels.
IMAGE_PATTERNS: dict[str, tuple[onnx.ModelProto, int]] = {
    "conv": (image([node("Conv", ["x", "k"], "y")], k=KERNEL), 0),
    "conv, relu, conv": (
        image(
            [
                node("Conv", ["x", "k"], "a"),
                node("Relu", ["a"], "r"),
                node("Conv", ["r", "k2"], "y"),
            ],
            k=KERNEL,
            k2=KERNEL2,
        ),
        2 * 4 * 4,
    ),
    "conv, batch normalization, relu": (
        image(
            [
                node("Conv", ["x", "k"], "a"),
                node("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], "n"),
                node("Relu", ["n"], "y"),
            ],
            k=KERNEL,
            **{name: value[:2] for name, value in normalization().items()},
        ),
        2 * 4 * 4,
    ),
    "conv, average pooling": (
        image(
            [
                node("Conv", ["x", "k"], "a"),
                node("AveragePool", ["a"], "y", kernel_shape=[2, 2], strides=[2, 2]),
            ],
            k=KERNEL,
        ),
        2 * 4 * 4,
    ),
    "conv, relu, flatten, linear": (
        image(
            [
                node("Conv", ["x", "k"], "a"),
                node("Relu", ["a"], "r"),
                node("Flatten", ["r"], "f"),
                node("MatMul", ["f", "w5"], "y"),
            ],
            k=KERNEL,
            w5=weights(32, 3, seed=4),
        ),
        2 * 4 * 4,
    ),
}


def count(model: onnx.ModelProto, data: np.ndarray, rounding: Any) -> int:
    module = quantize(model, data, n_bits=6, rounding=rounding)
    outputs = as_tuple(module.forward(data))
    for output, truth in zip(outputs, float_outputs(module, data), strict=True):
        assert r2(output, truth) > 0.85, "few look-ups are worth nothing if the result is wrong"
    return sum(lookups(module).values())


@pytest.mark.parametrize("rounding", [None, 6], ids=["unrounded", "rounded"])
@pytest.mark.parametrize("name", PATTERNS)
def test_look_ups_of_patterns(name: str, rounding: int | None) -> None:
    model, expected = PATTERNS[name]
    assert count(model, X, rounding) == expected


@pytest.mark.parametrize("rounding", [None, 6], ids=["unrounded", "rounded"])
@pytest.mark.parametrize("name", IMAGE_PATTERNS)
def test_look_ups_of_patterns_on_images(name: str, rounding: int | None) -> None:
    model, expected = IMAGE_PATTERNS[name]
    assert count(model, IMAGE, rounding) == expected


def test_power_of_two_scales_become_roundings() -> None:
    rng = np.random.default_rng(0)
    data = (rng.integers(-8, 8, (ROWS, 8)) / 4).astype(np.float32)
    model = make_model(
        [
            node("Gemm", ["x", "w", "b"], "h"),
            node("Relu", ["h"], "r"),
            node("Round", ["r"], "q"),
            node("Clip", ["q", "", "top"], "c"),
            node("MatMul", ["c", "v"], "y"),
        ],
        {"x": ["N", 8]},
        ["y"],
        {
            "w": (rng.integers(-8, 8, (8, 5)) / 8).astype(np.float32),
            "b": weights(5),
            "v": (rng.integers(-8, 8, (5, 3)) / 8).astype(np.float32),
            "top": np.float32(15),
        },
    )
    module = PostTrainingQATImporter(5, NumpyModule(model)).quantize_module(data)
    narrowed = round_steps(module.circuit)
    found = count_lookups(narrowed)
    # The scales are 1/4, 1/8 and 1: five bits of each accumulator are below a step.
    assert found.rounded_bits == 5 * 5
    assert found.total == 5
    assert max(found.by_width) <= 6
    samples = module.samples(data)
    np.testing.assert_array_equal(
        evaluate(narrowed, *samples).outputs, evaluate(module.circuit, *samples).outputs
    )
