"""The networks that figures are measured on; every one trains from a fixed seed in seconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

#: Rows that networks are calibrated on.
CALIBRATION_ROWS = 500


@dataclass(frozen=True)
class Case:
    """A trained network with its data.

    Parameters
    ----------
    net : torch.nn.Module
    x_train, x_test : numpy.ndarray of float32
    y_train, y_test : numpy.ndarray of int
    """

    net: nn.Module
    x_train: np.ndarray
    x_test: np.ndarray
    y_train: np.ndarray
    y_test: np.ndarray

    @property
    def calibration(self) -> np.ndarray:
        """The rows that quantization sees."""
        return self.x_train[:CALIBRATION_ROWS]

    def accuracy(self, scores: np.ndarray) -> float:
        """Share of test rows with the right class."""
        return float((scores.argmax(1) == self.y_test).mean())

    @property
    def float_accuracy(self) -> float:
        """Accuracy of the float network."""
        with torch.no_grad():
            return self.accuracy(self.net(torch.tensor(self.x_test)).numpy())


def digits_data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """scikit-learn's digits, from 0 to 1: 1,347 rows to train and 450 to test."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16.0).astype(np.float32)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.25, random_state=0)
    return x_train, x_test, y_train, y_test


def digits_mlp(seed: int = 3) -> Case:
    """scikit-learn's digits, 64-32-32-10 with ReLU, 1,347 rows to train and 450 to test."""
    x_train, x_test, y_train, y_test = digits_data()
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    return Case(_train(net, x_train, y_train, seed), x_train, x_test, y_train, y_test)


def digits_cnn(seed: int = 0) -> Case:
    """scikit-learn's digits as 8x8 images: two convolutions, a pool and a linear layer."""
    data = digits_data()
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    x_train, x_test = (x.reshape(-1, 1, 8, 8) for x in data[:2])
    y_train, y_test = data[2:]
    return Case(_train(net, x_train, y_train, seed), x_train, x_test, y_train, y_test)


def deep_cnn(layers: int = 20, channels: int = 8, size: int = 28) -> tuple[nn.Module, np.ndarray]:
    """An untrained network of many convolutions on images, and random images."""
    torch.manual_seed(0)
    blocks: list[nn.Module] = []
    for layer in range(layers):
        stride = 2 if layer in (layers // 3, 2 * layers // 3) else 1
        blocks += [
            nn.Conv2d(1 if not layer else channels, channels, 3, stride=stride, padding=1),
            nn.BatchNorm2d(channels, momentum=None),
            nn.ReLU(),
        ]
    net = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))
    images = np.random.default_rng(0).normal(size=(20, 1, size, size)).astype(np.float32)
    with torch.no_grad():
        net(torch.tensor(images))  # statistics of the normalizations
    return net.eval(), images


def _train(net: nn.Module, x: np.ndarray, y: np.ndarray, seed: int, epochs: int = 60) -> nn.Module:
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=epochs)
    generator = torch.Generator().manual_seed(seed)
    inputs, labels = torch.tensor(x), torch.tensor(y)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs), generator=generator).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(inputs[rows]), labels[rows]).backward()
            optimizer.step()
        schedule.step()
    return net.eval()
