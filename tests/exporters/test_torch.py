"""Networks that PyTorch exports, with both of its exporters."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from cipherlearn.onnx import execute, prepare
from cipherlearn.torch import build_quantized_module, export
from tests.exporters.networks import CURRENT_ONLY, NETWORKS, Network
from tests.onnx_models import op_types

# Exporter, and whether it is told that there may be any number of rows.
WAYS = {
    "current": (export._export_dynamo, True),
    "current, one row": (export._export_dynamo, False),
    "TorchScript": (export._export_torchscript, True),
    "TorchScript, one row": (export._export_torchscript, False),
}

# Operators that are left, for those networks where folding has something to do.
LEFT = {
    "cnn": ["Conv", "Relu", "MaxPool", "Conv", "Relu", None, None, "Gemm"],
    "residual": ["Conv", "Relu", "Conv", "Conv", "Add", "Relu"],
    "depthwise": ["Conv", "Clip", "Conv"],
    "same padding": ["Conv"],
    "transposed": ["ConvTranspose"],
    "pad": ["Conv"],
    "two inputs": ["Concat", "Gemm", "Relu", "Gemm"],
    "interpolate to a size": ["Resize"],
    "view": ["Reshape"],
    "permute and view": ["Transpose", "Reshape"],
    "squeeze": ["Squeeze"],
    "expand": ["Unsqueeze", "Expand", "Unsqueeze", "Add"],
}

# Networks in which every kind of mixing occurs once; operators are quantized one by one elsewhere.
QUANTIZED = [
    *("cnn", "residual", "depthwise", "transposed", "average pool", "maximum pool", "two inputs"),
    *("attention", "heads", "embedding", "layer norm", "split and stack", "einsum", "normalize"),
    *("interpolate to a size", "larger and smaller", "distances", "index on two axes"),
    *CURRENT_ONLY,
]


def exported(network: Network, way: str) -> onnx.ModelProto:
    exporter, is_open = WAYS[way]
    # Torch's current exporter takes a single row for a size that never changes.
    examples = network.examples(2 if is_open else 1)
    names = ["x", "y"][: len(examples)]
    model = export._attempt(exporter, network.build(), examples, names, is_open)
    assert isinstance(model, onnx.ModelProto), model
    return model


def check(name: str, way: str) -> None:
    network = {**NETWORKS, **CURRENT_ONLY}[name]
    model = prepare(exported(network, way))
    for rows in (1, 3):
        inputs = network.examples(rows)
        with torch.no_grad():
            wanted = network.build()(*inputs).numpy()
        (found,) = execute(model, *(tensor.numpy() for tensor in inputs))
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert not {"Shape", "ConstantOfShape", "Range", "If"} & set(op_types(model))
    if name in LEFT:
        assert len(op_types(model)) == len(LEFT[name])
        pairs = zip(op_types(model), LEFT[name], strict=True)
        assert all(op == known for op, known in pairs if known is not None)


@pytest.mark.parametrize("way", ["current, one row", "TorchScript"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_run_at_any_batch_size(name: str, way: str) -> None:
    check(name, way)


@pytest.mark.parametrize("way", ["current", "TorchScript, one row"])
@pytest.mark.parametrize("name", ["cnn", "heads", "split and stack", "interpolate to a size"])
def test_networks_may_be_exported_in_other_ways(name: str, way: str) -> None:
    check(name, way)


@pytest.mark.parametrize("way", ["current", "current, one row"])
@pytest.mark.parametrize("name", CURRENT_ONLY)
def test_networks_that_one_exporter_knows(name: str, way: str) -> None:
    check(name, way)


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_networks_are_close(name: str) -> None:
    network = {**NETWORKS, **CURRENT_ONLY}[name]
    data = tuple(tensor.numpy() for tensor in network.examples(60))
    with torch.no_grad():
        wanted = network.build()(*map(torch.as_tensor, data)).numpy()
    module = build_quantized_module(network.build(), data, n_bits=7)
    found = module.forward(*data)
    assert found.shape == wanted.shape
    error = np.mean((found - wanted) ** 2) / np.var(wanted)
    assert error < 0.01
