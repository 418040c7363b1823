from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks import mnist


def test_the_network_is_the_same_each_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "mnist.npz",
        x_train=rng.integers(0, 256, (300, 28, 28), dtype=np.uint8),
        y_train=rng.integers(0, 10, 300, dtype=np.uint8),
        x_test=rng.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        y_test=rng.integers(0, 10, 20, dtype=np.uint8),
    )
    threads = torch.get_num_threads()
    first, second = (mnist.mnist_mlp(tmp_path, epochs=2) for _ in range(2))
    other = mnist.mnist_mlp(tmp_path, seed=1, epochs=2)
    assert torch.get_num_threads() == threads
    assert first.x_test.shape == (20, 784)
    assert (first.x_test.min(), first.x_test.max()) == (0.0, 1.0)
    weights = [next(case.net.parameters()) for case in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
