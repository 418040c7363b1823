"""Nets of many kinds: linear parts around look-ups never make a model clearly worse."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cipherlearn.torch import build_quantized_module

#: How many times the squared error may be as large, and how much larger at any rate.
WORSE, SMALL = 1.5, 2e-4


class Net(nn.Module):
    """Layers by name, and a function of them and of the inputs."""

    def __init__(self, compute: Callable[..., torch.Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.compute = compute
        self.layers = nn.ModuleDict(layers)

    def forward(self, *x: torch.Tensor) -> torch.Tensor:
        return self.compute(self.layers, *x)


def normal(*shape: int) -> Callable[[np.random.Generator, int], np.ndarray]:
    return lambda rng, rows: rng.normal(size=(rows, *shape)).astype(np.float32)


def binary(*shape: int) -> Callable[[np.random.Generator, int], np.ndarray]:
    return lambda rng, rows: rng.integers(0, 2, (rows, *shape)).astype(np.float32)


def tokens(*shape: int) -> Callable[[np.random.Generator, int], np.ndarray]:
    return lambda rng, rows: rng.integers(0, 7, (rows, *shape))


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for read, made in itertools.pairwise(widths):
        layers += [nn.Linear(read, made), activation()]
    return nn.Sequential(*layers[:-1])


def gates(layers: Any, x: torch.Tensor) -> torch.Tensor:
    hidden = layers["b"](torch.relu(layers["a"](x)))
    left, right = torch.sigmoid(hidden[:, :6]), torch.tanh(hidden[:, 6:])
    return layers["c"](left) + layers["c"](right)


def glu(layers: Any, x: torch.Tensor) -> torch.Tensor:
    left, right = torch.chunk(layers["b"](torch.relu(layers["a"](x))), 2, -1)
    return layers["c"](torch.sigmoid(left) * torch.tanh(right))


def inception(layers: Any, x: torch.Tensor) -> torch.Tensor:
    both = torch.cat([torch.relu(layers["a"](x)), torch.relu(layers["b"](x))], 1)
    return layers["d"](torch.relu(layers["c"](both)).flatten(1))


def shared(layers: Any, x: torch.Tensor) -> torch.Tensor:
    hidden = torch.relu(layers["a"](x))
    return layers["d"](torch.relu(layers["b"](hidden))) + layers["e"](
        torch.tanh(layers["c"](hidden))
    )


def residual(layers: Any, x: torch.Tensor) -> torch.Tensor:
    hidden = torch.relu(layers["a"](x))
    hidden = torch.relu(layers["c"](torch.relu(layers["b"](hidden)))) + hidden
    return layers["d"](hidden)


def two_inputs(layers: Any, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    left = torch.relu(layers["b"](torch.relu(layers["a"](x))))
    right = torch.relu(layers["d"](torch.relu(layers["c"](z))))
    return layers["e"](left) + layers["f"](right)


def joined(layers: Any, x: torch.Tensor) -> torch.Tensor:
    hidden = torch.cat([torch.relu(layers["a"](x)), x], -1)
    return layers["c"](torch.relu(layers["b"](hidden)))


def linears(**shapes: tuple[int, int]) -> dict[str, nn.Module]:
    return {name: nn.Linear(*shape) for name, shape in shapes.items()}


#: Name -> what makes the net, and data of each input.
CASES: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "perceptron": (lambda: mlp(20, 16, 16, 3), [normal(20)]),
    "deep": (lambda: mlp(8, *[16] * 5, 3), [normal(8)]),
    "smooth": (lambda: mlp(8, 12, 12, 3, activation=nn.SiLU), [normal(8)]),
    "gelu": (lambda: mlp(8, 12, 12, 3, activation=nn.GELU), [normal(8)]),
    "sigmoid": (lambda: mlp(8, 12, 12, 3, activation=nn.Sigmoid), [normal(8)]),
    "binary": (lambda: mlp(20, 16, 16, 3), [binary(20)]),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), *mlp(12, 8, 8, 3)),
        [tokens(3)],
    ),
    "gates": (lambda: Net(gates, **linears(a=(8, 12), b=(12, 12), c=(6, 3))), [normal(8)]),
    "glu": (lambda: Net(glu, **linears(a=(8, 12), b=(12, 12), c=(6, 3))), [normal(8)]),
    "inception": (
        lambda: Net(
            inception,
            a=nn.Conv2d(1, 4, 3, padding=1),
            b=nn.Conv2d(1, 4, 1),
            c=nn.Conv2d(8, 2, 3),
            d=nn.Linear(32, 3),
        ),
        [normal(1, 6, 6)],
    ),
    "grouped": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3),
            nn.ReLU(),
            nn.Conv2d(4, 4, 2, groups=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(36, 3),
        ),
        [normal(2, 6, 6)],
    ),
    "conv1d": (
        lambda: nn.Sequential(
            nn.Conv1d(3, 4, 3, padding=1),
            nn.BatchNorm1d(4),
            nn.LeakyReLU(),
            nn.Conv1d(4, 4, 3, stride=2),
            nn.Sigmoid(),
            nn.AvgPool1d(2),
            nn.Flatten(),
            nn.Linear(12, 3),
        ),
        [normal(3, 16)],
    ),
    "shared": (
        lambda: Net(shared, **linears(a=(8, 12), b=(12, 8), c=(12, 8), d=(8, 3), e=(8, 3))),
        [normal(8)],
    ),
    "residual": (
        lambda: Net(residual, **linears(a=(8, 12), b=(12, 12), c=(12, 12), d=(12, 3))),
        [normal(8)],
    ),
    "two inputs": (
        lambda: Net(
            two_inputs,
            **linears(a=(6, 8), b=(8, 8), c=(4, 8), d=(8, 8), e=(8, 3), f=(8, 3)),
        ),
        [normal(6), binary(4)],
    ),
    "joined": (
        lambda: Net(joined, **linears(a=(8, 12), b=(20, 12), c=(12, 3))),
        [binary(8)],
    ),
    "sequence": (lambda: mlp(8, 8, 8, 3), [normal(5, 8)]),
    "autoencoder": (lambda: mlp(16, 12, 3, 12, 16), [normal(16)]),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::cipherlearn.errors.CipherlearnWarning")
@pytest.mark.parametrize("n_bits", [4, 8])
@pytest.mark.parametrize("name", CASES)
def test_hidden_is_never_clearly_worse_than_none(name: str, n_bits: int) -> None:
    torch.manual_seed(0)
    make, inputs = CASES[name]
    net = make().eval()
    rng = np.random.default_rng(0)
    calibration = tuple(data(rng, 200) for data in inputs)
    test = tuple(data(rng, 500) for data in inputs)
    with torch.no_grad():
        wanted = net(*map(torch.tensor, test)).numpy()
    errors = {}
    for bypass in ("none", "hidden"):
        module = build_quantized_module(
            net,
            calibration if len(calibration) > 1 else calibration[0],
            n_bits=n_bits,
            rounding_threshold_bits={"n_bits": n_bits, "method": "approximate"},
            bypass=bypass,
        )
        found = module.forward(*test)
        errors[bypass] = float(np.square(found - wanted).mean() / wanted.var())
    assert errors["hidden"] <= WORSE * errors["none"] + SMALL
