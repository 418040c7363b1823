"""Networks that tf2onnx exports from Keras."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import r2_score

from cipherlearn.onnx import execute, prepare
from cipherlearn.quantization import PostTrainingLookupQuantization
from cipherlearn.torch import NumpyModule
from tests.exporters import keras_networks
from tests.exporters.keras_networks import BATCHES, NETWORKS, SIGNATURES, inputs
from tests.onnx_models import dimensions, op_types

MISSING = [name for name in ("tensorflow", "tf2onnx") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING), reason=f"{', '.join(MISSING)} not installed: extra `exporters`"
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export all networks, in a process that has nothing to do with ours."""
    target = tmp_path_factory.mktemp("keras")
    command = [sys.executable, keras_networks.__file__, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.parametrize("kind", SIGNATURES)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_run_at_any_batch_size(folder: Path, name: str, kind: str) -> None:
    model = prepare(folder / f"{name}, {kind}.onnx")
    assert model.graph.input[0].name == "image"
    assert isinstance(dimensions(model.graph.input[0])[0], str)
    assert not {"BatchNormalization", "Pad", "Shape"} & set(op_types(model))
    with np.load(folder / f"{name}.npz") as wanted:
        for rows in BATCHES:
            (found,) = execute(model, inputs(rows))
            np.testing.assert_allclose(found, wanted[str(rows)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["cnn", "dense", "residual"])
# Keras writes a normalization out: six bits move some small variances below zero.
@pytest.mark.filterwarnings("ignore:.* is not a number")
def test_networks_become_integers_that_compile(folder: Path, name: str) -> None:
    model = NumpyModule(folder / f"{name}, open.onnx")
    data = inputs(150)
    rounding = {"n_bits": 6, "method": "approximate"}
    module = PostTrainingLookupQuantization(6, model, rounding).quantize_module(data)
    found = module.forward(data, fhe="disable")
    (wanted,) = model.numpy_forward(data)
    assert r2_score(wanted.reshape(150, -1), found.reshape(150, -1)) >= 0.9
    module.compile()
    assert module.cost().complexity > 0
