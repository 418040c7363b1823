from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherlearn.onnx import Graph, execute, intermediate_values
from cipherlearn.quantization import (
    PostTrainingLookupQuantization,
    QuantizedModule,
    chains,
)
from cipherlearn.quantization import bypass as bypass_module
from cipherlearn.quantization.bypass import around_lookups
from cipherlearn.quantization.client_side import run_tail
from cipherlearn.quantization.n_bits import LayerBits
from cipherlearn.quantization.prepare import Parts, prepare
from cipherlearn.torch import NumpyModule
from tests.onnx_models import make_model, node, weights
from tests.quantization.quantize import normal

ACTIVATIONS = ("Relu", "Abs", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "Softplus")
APPROXIMATE = {"n_bits": 4, "method": "approximate"}
BITS = LayerBits(4, 4, 4, exact=False)


class _Net:
    """A chain of layers with random weights, written as an ONNX model."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Any] = {}
        self.seed = seed
        self.last = "x"

    def add(self, op: str, *shapes: tuple[int, ...], **attributes: Any) -> None:
        """A node that reads the last one, and constants of given shapes."""
        output = f"t{len(self.nodes)}"
        names = [f"{output}_{place}" for place in range(len(shapes))]
        for name, shape in zip(names, shapes, strict=True):
            self.seed += 1
            self.constants[name] = weights(*shape, seed=self.seed)
        self.nodes.append(node(op, [self.last, *names], output, **attributes))
        self.last = output

    def model(self, *shape: int) -> onnx.ModelProto:
        return make_model(self.nodes, {"x": ["N", *shape]}, [self.last], self.constants)


def mlp(widths: list[int], activations: list[str], seed: int = 0) -> onnx.ModelProto:
    net, read = _Net(seed), 6
    for width, activation in zip(widths, activations, strict=True):
        net.add("Gemm", (read, width), (width,))
        net.add(activation)
        read = width
    net.add("MatMul", (read, 3))
    net.add("Add", (3,))
    return net.model(6)


def cnn(channels: int, stride: int, activation: str, pooled: bool, seed: int) -> onnx.ModelProto:
    net = _Net(seed)
    net.add("Conv", (channels, 2, 3, 3), (channels,), strides=[stride] * 2, pads=[1] * 4)
    net.add(activation)
    net.add("Conv", (3, channels, 2, 2))
    net.add(activation)
    size = 7 if stride == 1 else 3
    if pooled:
        net.add("AveragePool", kernel_shape=[2, 2])
        size -= 1
    net.add("Flatten", axis=1)
    net.add("Gemm", (3 * size * size, 4), (4,))
    return net.model(2, 8, 8)


def rewritten(model: onnx.ModelProto, x: np.ndarray, bypass: str) -> Parts:
    parts = prepare(Graph.from_model(model), [x.astype(np.float64)])
    return around_lookups(parts, lambda layer: BITS, bypass)


def result(parts: Parts, x: np.ndarray) -> np.ndarray:
    outputs = execute(parts.body, x.astype(np.float64))
    if parts.tail is not None:
        outputs = run_tail(parts.tail, outputs)
    (output,) = outputs
    return output


def ops_of(parts: Parts) -> list[str]:
    return [item.op for item in parts.body.nodes]


def quantized(model: Any, *data: np.ndarray, **options: Any) -> QuantizedModule:
    given = {"n_bits": 4, "rounding_threshold_bits": APPROXIMATE, **options}
    converter = PostTrainingLookupQuantization(numpy_model=NumpyModule(model), **given)
    return converter.quantize_module(*data)


def loss(module: QuantizedModule, x: np.ndarray) -> float:
    (wanted,) = module.numpy_model.numpy_forward(x)
    return float(np.square(module.forward(x) - wanted).mean())


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from(ACTIVATIONS)), min_size=1, max_size=4),
    st.sampled_from(["hidden", "outputs"]),
    st.integers(0, 1000),
)
def test_a_rewritten_perceptron_is_the_same_function(
    layers: list[tuple[int, str]], bypass: str, seed: int
) -> None:
    model = mlp([width for width, _ in layers], [name for _, name in layers], seed)
    x, other = normal(40, 6, seed=seed), 3.0 * normal(20, 6, seed=seed + 1)
    parts = rewritten(model, x, bypass)
    (wanted,) = execute(model, other.astype(np.float64))
    np.testing.assert_allclose(result(parts, other), wanted, rtol=1e-6, atol=1e-6)
    rewrites = len(layers) - (bypass == "hidden")
    assert ops_of(parts).count("Sub") == rewrites
    assert len(parts.body.output_names) == 1 + (bypass == "outputs") * (1 + (len(layers) > 1))


@settings(max_examples=20)
@given(
    st.integers(1, 3),
    st.sampled_from([1, 2]),
    st.sampled_from(ACTIVATIONS),
    st.booleans(),
    st.sampled_from(["hidden", "outputs"]),
    st.integers(0, 1000),
)
def test_a_rewritten_convolutional_network_is_the_same_function(
    channels: int, stride: int, activation: str, pooled: bool, bypass: str, seed: int
) -> None:
    model = cnn(channels, stride, activation, pooled, seed)
    x = normal(400, 2, 8, 8, seed=seed)
    parts = rewritten(model, x, bypass)
    (wanted,) = execute(model, x.astype(np.float64))
    np.testing.assert_allclose(result(parts, x), wanted, rtol=1e-6, atol=1e-6)
    assert ops_of(parts).count("Sub") == (1 if bypass == "hidden" else 2)


H = node("Gemm", ["x", "w"], "h")
R = node("Relu", ["h"], "r")
LEFT_AS_THEY_ARE = {
    "a residual sum": [H, R, node("Add", ["r", "x"], "s"), node("MatMul", ["s", "w"], "y")],
    "a maximum": [
        H,
        R,
        node("MatMul", ["r", "w"], "m"),
        node("ReduceMax", ["m"], "y", axes=[1]),
    ],
    "the activation is an output": [H, node("Relu", ["h"], "y")],
    "it is read before a layer as well": [
        H,
        R,
        node("MatMul", ["r", "w"], "m"),
        node("Sub", ["m", "r"], "y"),
    ],
    "two activations of one layer": [
        H,
        R,
        node("MatMul", ["r", "w"], "m"),
        node("Split", ["m"], ["m0", "m1"], axis=1, num_outputs=2),
        node("Relu", ["m0"], "r0"),
        node("Tanh", ["m1"], "r1"),
        node("MatMul", ["r0", "w3"], "p"),
        node("MatMul", ["r1", "w2"], "q"),
        node("Sub", ["p", "q"], "y"),
    ],
    "two parts of one layer": [
        H,
        R,
        node("MatMul", ["r", "w"], "m"),
        node("Slice", ["m", "zero", "two", "one"], "m0"),
        node("Slice", ["m", "two", "five", "one"], "m1"),
        node("Relu", ["m0"], "r0"),
        node("Tanh", ["m1"], "r1"),
        node("Concat", ["r0", "r1"], "y", axis=1),
    ],
    "no layer before it": [node("Relu", ["x"], "r"), node("MatMul", ["r", "w"], "y")],
    "a product of encrypted values": [
        H,
        R,
        node("MatMul", ["r", "w"], "m"),
        node("Mul", ["m", "x"], "y"),
    ],
}


@pytest.mark.parametrize("name", LEFT_AS_THEY_ARE)
def test_what_cannot_go_around_stays(name: str) -> None:
    constants = {"w": weights(5, 5), "w3": weights(3, 2), "w2": weights(2, 2)}
    constants |= {name: np.array([i]) for i, name in ((0, "zero"), (1, "one"), (2, "two"))}
    constants["five"] = np.array([5])
    opset = 17 if name == "a maximum" else 18
    model = make_model(LEFT_AS_THEY_ARE[name], {"x": ["N", 5]}, ["y"], constants, opset=opset)
    x = normal(30, 5)
    before = prepare(Graph.from_model(model), [x.astype(np.float64)])
    assert around_lookups(before, lambda layer: BITS, "outputs") is before


def test_a_residual_network_goes_around_where_it_can() -> None:
    """The sum starts anew: what is added to it stays, what follows a layer goes around."""
    nodes = [
        node("Gemm", ["x", "w"], "h"),
        node("Relu", ["h"], "r"),
        node("MatMul", ["r", "v"], "m"),
        node("Relu", ["m"], "q"),
        node("Add", ["q", "x"], "s"),
        node("MatMul", ["s", "w"], "y"),
    ]
    constants = {"w": weights(5, 5), "v": weights(5, 5, seed=1)}
    model = make_model(nodes, {"x": ["N", 5]}, ["y"], constants)
    x = normal(30, 5)
    parts = rewritten(model, x, "outputs")
    np.testing.assert_allclose(result(parts, x), execute(model, x)[0], atol=1e-5)
    assert ops_of(parts).count("Sub") == 1


def test_without_rounding_nothing_is_gained() -> None:
    x = normal(30, 6)
    parts = prepare(Graph.from_model(mlp([5, 5], ["Relu", "Relu"])), [x.astype(np.float64)])
    assert around_lookups(parts, lambda layer: replace(BITS, kept=None), "outputs") is parts


@pytest.mark.parametrize("limit", ["MOST_WEIGHTS", "MOST_PUSHED"])
def test_a_linear_part_that_is_too_large_stays(limit: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(chains, limit, 10)
    x = normal(30, 6)
    parts = prepare(Graph.from_model(mlp([5, 5], ["Relu", "Relu"])), [x.astype(np.float64)])
    assert around_lookups(parts, lambda layer: BITS, "outputs") is parts


def test_a_convolution_stays_where_rows_are_too_few_for_a_product() -> None:
    model = cnn(2, 2, "Relu", False, 0)
    few, enough = (rewritten(model, normal(rows, 2, 8, 8), "hidden") for rows in (100, 200))
    assert ops_of(few).count("Conv") == 2
    assert ops_of(enough).count("Conv") == 1


def test_channels_that_are_on_or_off_leave_nothing_to_look_up() -> None:
    bias = np.array([100.0, -100.0, 0.0], np.float32)
    nodes = [
        node("Gemm", ["x", "w", "b"], "h"),
        node("Relu", ["h"], "r"),
        node("MatMul", ["r", "v"], "y"),
    ]
    constants = {"w": weights(4, 3), "b": bias, "v": weights(3, 2, seed=1)}
    model = make_model(nodes, {"x": ["N", 4]}, ["y"], constants)
    parts = rewritten(model, normal(200, 4), "outputs")
    slope = parts.body.constants["r/slope"].ravel()
    np.testing.assert_allclose(slope[:2], [1.0, 0.0], atol=1e-12)
    assert 0.3 < slope[2] < 0.7


@pytest.mark.parametrize("bypass", ["hidden", "outputs"])
@pytest.mark.parametrize(
    "name", ["r/rest", "r/slope", "r/codes", "m/around", "m/rest", "Gemm_2/around/weights"]
)
def test_names_of_the_model_are_left_alone(name: str, bypass: str) -> None:
    nodes = [
        H,
        R,
        node("Gemm", ["r", "w"], "m"),
        node("Add", ["m", "c"], name),
        node("Relu", [name], "q"),
        node("Gemm", ["q", "w"], "y"),
    ]
    constants = {"w": weights(5, 5), "c": weights(5, seed=1)}
    x = normal(100, 5)
    for model in (
        make_model(nodes, {"x": ["N", 5]}, ["y"], constants),
        make_model(
            [*nodes[:3], node("Add", ["m", name], "n"), node("Relu", ["n"], "q"), nodes[5]],
            {"x": ["N", 5]},
            ["y"],
            {"w": weights(5, 5), name: weights(5, seed=1)},
        ),
    ):
        parts = rewritten(model, x, bypass)
        assert "Sub" in ops_of(parts)
        np.testing.assert_allclose(result(parts, x), execute(model, x)[0], atol=1e-5)
        assert len({one.name for one in parts.body.nodes}) == len(parts.body.nodes)


def test_what_is_not_the_same_function_is_left_alone(monkeypatch: Any) -> None:
    """Should an operator ever be taken for affine that is not."""
    monkeypatch.setattr(chains, "_AFFINE", chains._AFFINE | {"Exp"})
    net = _Net(0)
    net.add("Gemm", (6, 8), (8,))
    net.add("Relu")
    net.add("Gemm", (8, 8), (8,))
    net.add("Exp")
    net.add("Relu")
    net.add("Gemm", (8, 3), (3,))
    x = normal(50, 6)
    parts = prepare(Graph.from_model(net.model(6)), [x.astype(np.float64)])
    assert around_lookups(parts, lambda layer: BITS, "outputs") is parts


def test_products_that_share_weights_need_rows() -> None:
    net = _Net(0)
    net.add("MatMul", (8, 8))
    net.add("Relu")
    net.add("MatMul", (8, 8))
    net.add("Relu")
    net.add("MatMul", (8, 3))
    few, enough = (rewritten(net.model(5, 8), normal(rows, 5, 8), "hidden") for rows in (60, 90))
    assert "Sub" not in ops_of(few)
    assert "Sub" in ops_of(enough)


def test_nothing_is_computed_where_nothing_can_go_around(monkeypatch: Any) -> None:
    seen: list[int] = []

    def spied(graph: Any, *data: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(len(data[0]))
        return intermediate_values(graph, *data)

    monkeypatch.setattr(bypass_module, "intermediate_values", spied)
    x = normal(30, 6)
    rewritten(mlp([5], ["Relu"]), x, "hidden")
    assert seen == [1]
