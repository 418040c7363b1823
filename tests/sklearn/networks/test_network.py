"""Small networks in NumPy, as ONNX, and quantized with what the client computes before."""

from __future__ import annotations

import numpy as np
import pytest

from cipherlearn.quantization import QuantizedModule
from cipherlearn.sklearn.networks.network import Layer, Network
from cipherlearn.sklearn.networks.sphere import Sphere

GENERATOR = np.random.default_rng(0)
ROWS = GENERATOR.normal(size=(80, 3))
BITS = {"n_bits": 6, "rounding_threshold_bits": {"n_bits": 6, "method": "exact"}}


def layer(inputs: int, outputs: int, function: str = "", exponent: float = 1.0) -> Layer:
    weights = GENERATOR.normal(size=(inputs, outputs))
    return Layer(weights, GENERATOR.normal(size=outputs), function, exponent)


@pytest.mark.parametrize(
    ("function", "exponent", "meaning"),
    [
        ("Relu", 1.0, lambda a: np.maximum(a, 0)),
        ("Tanh", 1.0, np.tanh),
        ("Sigmoid", 1.0, lambda a: 1 / (1 + np.exp(-a))),
        ("Exp", 1.0, np.exp),
        ("Pow", 3.0, lambda a: a**3),
    ],
)
def test_layers_are_what_they_say(function: str, exponent: float, meaning: object) -> None:
    first, second = layer(3, 4, function, exponent), layer(4, 2)
    hidden = meaning(ROWS @ first.weights + first.constant)  # type: ignore[operator]
    wanted = hidden @ second.weights + second.constant
    network = Network((first, second))
    np.testing.assert_allclose(network(ROWS), wanted, rtol=1e-9)
    assert network.n_features == 3
    module = network.quantized(ROWS, **BITS)
    assert np.corrcoef(module.forward(ROWS).ravel(), wanted.ravel())[0, 1] > 0.99


def test_what_the_client_computes_is_a_part_of_the_module() -> None:
    sphere = Sphere(ROWS.mean(axis=0)).with_share(ROWS, 0.8)
    network = Network((layer(4, 5, "Tanh"), layer(5, 1)), sphere)
    assert network.n_features == 3
    module = network.quantized(ROWS, **BITS)
    assert module.input_shapes == ((1, 4),)
    found = module.forward(ROWS)
    assert np.corrcoef(found.ravel(), network(ROWS).ravel())[0, 1] > 0.99
    again = QuantizedModule.loads(module.dumps())
    np.testing.assert_array_equal(again.forward(ROWS), found)
    assert len(module.agreement(ROWS).rows) > 1
