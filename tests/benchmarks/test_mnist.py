from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import mnist
from benchmarks.networks import Case

small_cnn = partial(mnist.mnist_cnn, channels=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "mnist.npz",
        x_train=rng.integers(0, 256, (300, 28, 28), dtype=np.uint8),
        y_train=rng.integers(0, 10, 300, dtype=np.uint8),
        x_test=rng.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        y_test=rng.integers(0, 10, 20, dtype=np.uint8),
    )
    return tmp_path


@pytest.mark.parametrize(
    ("make", "shape"), [(mnist.mnist_mlp, (20, 784)), (small_cnn, (20, 8, 14, 14))]
)
def test_the_network_is_the_same_each_time(
    make: Callable[..., Case], shape: tuple[int, ...], folder: Path
) -> None:
    threads = torch.get_num_threads()
    first, second = (make(folder, epochs=2) for _ in range(2))
    other = make(folder, seed=1, epochs=2)
    assert torch.get_num_threads() == threads
    assert first.x_test.shape == shape
    assert first.x_test.min() == 0.0
    assert 0.0 < first.x_test.max() <= 2**0.5
    weights = [next(case.net.parameters()) for case in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_training_cannot_shrink_what_look_ups_read(folder: Path) -> None:
    case = small_cnn(folder, epochs=2)
    norm = next(layer for layer in case.net.modules() if isinstance(layer, torch.nn.BatchNorm2d))
    assert torch.all(norm.weight == 1.0)
    assert torch.any(norm.bias != 0.0)
    assert not case.net.training


def test_the_convolution_takes_four_positions(folder: Path) -> None:
    case = small_cnn(folder, epochs=1)
    with torch.no_grad():
        assert case.net[0](torch.tensor(case.x_test)).shape == (20, 3, 2, 2)
