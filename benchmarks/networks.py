"""The networks that figures are measured on; every one trains from a fixed seed in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from benchmarks.data import Split, table_data
from cipherlearn.torch.distillation import one_thread

#: Rows that networks are calibrated on.
CALIBRATION_ROWS = 500

#: Networks on digits, trained from as many seeds, that mean accuracies are taken over.
NETWORKS = 8


@dataclass(frozen=True)
class Case:
    """A trained network with its data.

    Parameters
    ----------
    net : torch.nn.Module
    x_train, x_test : numpy.ndarray of float32
    y_train, y_test : numpy.ndarray of int or float
        Classes, or values.
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

    @property
    def calibration_labels(self) -> np.ndarray:
        """What these rows are to give."""
        return self.y_train[:CALIBRATION_ROWS]

    def accuracy(self, scores: np.ndarray) -> float:
        """Share of test rows with the right class."""
        return float((scores.argmax(1) == self.y_test).mean())

    @property
    def float_outputs(self) -> np.ndarray:
        """What the float network gives for the test rows."""
        with torch.no_grad():
            return self.net(torch.tensor(self.x_test)).numpy()

    @property
    def float_accuracy(self) -> float:
        """Accuracy of the float network."""
        return self.accuracy(self.float_outputs)


def digits_data() -> Split:
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
    return Case(train(net, x_train, y_train, seed), x_train, x_test, y_train, y_test)


def digits_mlps() -> list[Case]:
    """Several of them: one test set of 450 rows says little about half a point."""
    return [digits_mlp(seed) for seed in range(NETWORKS)]


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
    return Case(train(net, x_train, y_train, seed), x_train, x_test, y_train, y_test)


def table_mlp(name: str, folder: Path | None = None) -> Case:
    """`small_mlp` on a table of `benchmarks.data.TABLES`."""
    return small_mlp(table_data(name, folder))


def small_mlp(split: Split, hidden: int = 24, seed: int = 0) -> Case:
    """Two hidden layers with ReLU; two outputs tell classes apart, a value has one."""
    x_train, x_test, y_train, y_test = split
    outputs = 1 if y_train.dtype.kind == "f" else 2
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(x_train.shape[1], hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, outputs),
    )
    with one_thread():
        # Few epochs with some decay: tables are small, and longer training learns rows by heart.
        train(net, x_train, y_train, seed, epochs=20, weight_decay=1e-3)
    return Case(net, x_train, x_test, y_train, y_test)


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


def train(
    net: nn.Module,
    x: np.ndarray,
    y: np.ndarray,
    seed: int,
    *,
    epochs: int = 60,
    batch: int = 64,
    rate: float = 1e-2,
    last_rate: float = 1e-4,
    weight_decay: float = 1e-4,
) -> nn.Module:
    """Train with Adam: classes (integers) with cross-entropy, values with squared error.

    Parameters
    ----------
    net : torch.nn.Module
        Is changed, and left in evaluation mode.
    x, y : numpy.ndarray
    seed : int
        Of the order of the rows.
    epochs, batch : int
        How often all rows are seen, and how many at once.
    rate, last_rate : float
        Learning rate of the first epoch, and of the one after the last: it falls linearly.
    weight_decay : float
    """
    optimizer = torch.optim.Adam(net.parameters(), lr=rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LinearLR(
        optimizer, 1.0, last_rate / rate, total_iters=epochs
    )
    generator = torch.Generator().manual_seed(seed)
    inputs, labels = torch.tensor(x), torch.tensor(y)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs), generator=generator).split(batch):
            optimizer.zero_grad()
            _loss(net(inputs[rows]), labels[rows]).backward()
            optimizer.step()
        schedule.step()
    return net.eval()


def _loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    if labels.is_floating_point():
        return nn.functional.mse_loss(outputs[:, 0], labels)
    return nn.functional.cross_entropy(outputs, labels)
