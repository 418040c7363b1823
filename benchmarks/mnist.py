"""MNIST, from a file that the reader has, and the multi-layer perceptron figures are quoted for."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from benchmarks.data import mnist_data
from benchmarks.networks import Case, one_thread, train


def mnist_mlp(folder: Path | None = None, seed: int = 0, epochs: int = 8) -> Case:
    """MNIST, 784-64-10 with ReLU; trained for seconds, accurate to about 0.97.

    Adam at its usual rate and nothing else, as the network was that the peer is quoted with: how
    far weights and activations spread decides what few bits cost, so a recipe is part of a figure.
    """
    x_train, x_test, y_train, y_test = mnist_data(folder)
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    with one_thread():
        train(
            net,
            x_train,
            y_train,
            seed,
            epochs=epochs,
            batch=128,
            rate=1e-3,
            last_rate=1e-3,
            weight_decay=0.0,
        )
    return Case(net, x_train, x_test, y_train, y_test)
