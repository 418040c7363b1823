"""The attention layers of torch, which compute with the sequence on the first axis."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score
from torch import nn

from cipherlearn.onnx import Graph, check_batch_first, execute, prepare
from cipherlearn.quantization import PostTrainingLookupQuantization
from cipherlearn.torch import NumpyModule
from cipherlearn.torch.compile import build_quantized_module
from cipherlearn.torch.export import to_onnx

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4, 8)).astype(np.float32)


class Attention(nn.Module):
    """Attention of a sequence to itself."""

    def __init__(self, weights: bool) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(8, 2, batch_first=True)
        self.weights = weights

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x, x, x, need_weights=self.weights)[0]


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "layer":
        return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    return Attention(name == "attention with weights").eval()


def expected(module: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


NAMES = ["attention", "attention with weights", "layer"]


@pytest.mark.parametrize("name", NAMES)
def test_the_batch_stays_on_the_first_axis(name: str) -> None:
    module = network(name)
    model = prepare(to_onnx(module, X[:2]))
    check_batch_first(Graph.from_model(model), X[:3])
    for rows in (1, 5):
        (found,) = execute(model, X[:rows])
        np.testing.assert_allclose(found, expected(module, X[:rows]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_attention_becomes_integers(name: str) -> None:
    module = network(name)
    quantized = build_quantized_module(module, X, n_bits=8, rounding_threshold_bits=8)
    found = quantized.forward(X, fhe="disable")
    assert r2_score(expected(module, X).reshape(60, -1), found.reshape(60, -1)) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["attention", "layer"])
def test_attention_compiles_at_six_bits(name: str) -> None:
    module = network(name)
    data = RNG.normal(size=(200, 4, 8)).astype(np.float32)
    rounding = {"n_bits": 6, "method": "approximate"}
    model = NumpyModule(module, torch.from_numpy(data[:2]))
    quantized = PostTrainingLookupQuantization(6, model, rounding).quantize_module(data)
    found = quantized.forward(data, fhe="disable")
    assert r2_score(expected(module, data).reshape(200, -1), found.reshape(200, -1)) >= 0.9
    quantized.compile()
    assert quantized.cost().programmable_bootstrap_count > 500
