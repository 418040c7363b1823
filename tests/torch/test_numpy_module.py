"""Float models as NumPy functions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import cipherlearn.torch
from cipherlearn.errors import (
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
    ModelError,
    ModelFormatError,
    UnsupportedOperatorError,
)
from cipherlearn.torch import NumpyModule
from tests.onnx_models import make_model, node, op_types, perceptron, weights

ACTIVATIONS = [
    nn.CELU(0.7),
    nn.ELU(1.3),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.Hardshrink(0.2),
    nn.Hardsigmoid(),
    nn.Hardswish(),
    nn.Hardtanh(),
    nn.LeakyReLU(0.3),
    nn.LogSigmoid(),
    nn.Mish(),
    nn.PReLU(),
    nn.PReLU(6),
    nn.ReLU6(),
    nn.SELU(),
    nn.SiLU(),
    nn.Sigmoid(),
    nn.Softplus(2.0),
    nn.Softshrink(0.2),
    nn.Softsign(),
    nn.Tanhshrink(),
    nn.Threshold(0.1, 20.0),
    nn.Dropout(),
    nn.Identity(),
]


class Activations(nn.Module):
    """All element-wise activations side by side: one export for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)
        self.parts = nn.ModuleList(ACTIVATIONS)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        hidden = self.layer(x)
        return tuple(part(hidden) for part in self.parts)


def test_activations_of_torch_are_those_of_torch() -> None:
    module = Activations()
    numpy_module = NumpyModule(module, torch.zeros(1, 4))
    x = 3 * weights(20, 4)
    outputs = numpy_module(x)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(x))
    assert len(outputs) == len(ACTIVATIONS)
    for part, found, wanted in zip(ACTIVATIONS, outputs, expected, strict=True):
        np.testing.assert_allclose(
            found, wanted.numpy(), rtol=1e-4, atol=1e-5, err_msg=type(part).__name__
        )


@pytest.mark.parametrize("kind", ["proto", "bytes", "path", "text"])
def test_onnx_models(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(perceptron(), path)
    sources = {
        "proto": perceptron(),
        "bytes": path.read_bytes(),
        "path": path,
        "text": str(path),
    }
    module = NumpyModule(sources[kind])
    assert op_types(module.onnx_model) == ["Gemm", "Relu", "Gemm"]
    x = weights(5, 4)
    y = module(x)
    assert isinstance(y, np.ndarray)
    assert y.shape == (5, 2)
    np.testing.assert_array_equal(module.forward(x), y)
    outputs = module.numpy_forward(x)
    assert isinstance(outputs, tuple)
    np.testing.assert_array_equal(outputs[0], y)


def test_float64_is_computed_in_float64() -> None:
    module = NumpyModule(perceptron())
    y = module(weights(5, 4).astype(np.float64))
    assert isinstance(y, np.ndarray)
    assert y.dtype == np.float64


def test_several_outputs_come_as_a_tuple() -> None:
    model = make_model(
        [node("Relu", ["x"], "y"), node("Neg", ["x"], "z")], {"x": ["N"]}, ["y", "z"]
    )
    y, z = NumpyModule(model)(np.float32([-1, 2]))
    assert (y.tolist(), z.tolist()) == ([0, 2], [1, -2])


def test_the_model_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "debug.onnx"
    module = NumpyModule(perceptron(), debug_onnx_output_file_path=path)
    assert onnx.load_model(path) == module.onnx_model


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((nn.Linear(2, 2),), InvalidParameterError, "give `dummy_input`"),
        ((3,), InvalidTypeError, "not int"),
        ((torch.ones(2), torch.ones(2)), InvalidTypeError, "not Tensor"),
        (("nowhere.onnx",), ModelFormatError, "no file"),
        ((b"12",), ModelFormatError, "not an ONNX model"),
        (
            (make_model([node("NonZero", ["x"], "y")], {"x": ["N"]}, ["y"]),),
            UnsupportedOperatorError,
            "- NonZero: node 'NonZero_0'",
        ),
    ],
)
def test_bad_models_are_refused(
    arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        NumpyModule(*arguments)


def test_bad_inputs_are_refused() -> None:
    module = NumpyModule(perceptron())
    with pytest.raises(InvalidTypeError, match="'x' takes float32"):
        module(np.ones((1, 4), dtype=np.int64))
    with pytest.raises(InvalidShapeError, match="'x' takes arrays of shape"):
        module(weights(1, 5))


def test_names_are_loaded_on_demand() -> None:
    assert "NumpyModule" in dir(cipherlearn.torch)
    with pytest.raises(AttributeError, match="no attribute 'Nope'"):
        cipherlearn.torch.Nope  # noqa: B018


def test_onnx_models_need_no_torch() -> None:
    program = (
        "import sys; from cipherlearn.torch import NumpyModule\n"
        "NumpyModule(sys.stdin.buffer.read())\n"
        "raise SystemExit('torch' in sys.modules)"
    )
    content = perceptron().SerializeToString()
    subprocess.run([sys.executable, "-c", program], input=content, check=True)


class Divided(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x, 2, divisor_override=3)


@pytest.mark.parametrize("pool", [Divided(), torch.nn.AvgPool2d(2, divisor_override=3)])
def test_what_the_exporter_leaves_out_is_an_error(pool: torch.nn.Module) -> None:
    x = torch.randn(3, 2, 4, 4)
    with pytest.raises(ModelError, match=r"gives other results \(\d+% away .*divisor_override"):
        NumpyModule(pool, x)
    NumpyModule(torch.nn.AvgPool2d(2), x)


class Quantizes(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.round((x / 0.3).clamp(0, 3)) * 0.3


@pytest.mark.parametrize("seed", range(8))
def test_steps_may_be_other_ones(seed: int) -> None:
    """Means of few integers lie halfway between two: errors of floats decide."""
    torch.manual_seed(seed)
    net = nn.Sequential(Quantizes(), nn.AvgPool2d(2), Quantizes(), nn.Flatten(), nn.Linear(4, 2))
    assert NumpyModule(net, torch.rand(2, 1, 4, 4)).onnx_model.graph.node
