"""MNIST, from a file that the reader has, and the multi-layer perceptron figures are quoted for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.networks import Case

#: Names the folder of the data sets that are not shipped with a package.
DATA_VARIABLE = "CIPHERLEARN_DATA"

#: Where Keras keeps the same file.
KERAS_DATA = Path.home() / ".keras" / "datasets"


def data_file(name: str, folder: Path | None = None) -> Path:
    """The file of a data set: in ``folder``, in the folder CIPHERLEARN_DATA names, or in Keras's.

    Parameters
    ----------
    name : str
        Of the file, with its suffix.
    folder : pathlib.Path, optional
        Is the only one looked at if it is given.

    Raises
    ------
    FileNotFoundError
        If no such folder has the file.
    """
    named = os.environ.get(DATA_VARIABLE)
    folders = [folder] if folder else [*([Path(named)] if named else []), KERAS_DATA]
    for candidate in folders:
        if (candidate / name).is_file():
            return candidate / name
    looked = ", ".join(map(str, folders))
    raise FileNotFoundError(
        f"there is no {name} in {looked}: set {DATA_VARIABLE} to the folder that has it"
    )


def mnist_data(
    folder: Path | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of 784 pixels from 0 to 1 and their labels: 60,000 to train and 10,000 to test."""
    with np.load(data_file("mnist.npz", folder), allow_pickle=False) as arrays:
        x_train, x_test = (
            arrays[name].reshape(-1, 784).astype(np.float32) / 255 for name in ("x_train", "x_test")
        )
        y_train, y_test = (arrays[name].astype(np.int64) for name in ("y_train", "y_test"))
    return x_train, x_test, y_train, y_test


def mnist_mlp(folder: Path | None = None, seed: int = 0, epochs: int = 8) -> Case:
    """MNIST, 784-64-10 with ReLU; trained for seconds, accurate to about 0.97.

    Adam at its usual rate and nothing else, as the network was that the peer is quoted with: how
    far weights and activations spread decides what few bits cost, so a recipe is part of a figure.
    """
    x_train, x_test, y_train, y_test = mnist_data(folder)
    inputs, labels = torch.tensor(x_train), torch.tensor(y_train)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(net.parameters())
    with _one_thread():
        for _ in range(epochs):
            for rows in torch.randperm(len(inputs), generator=generator).split(128):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(inputs[rows]), labels[rows]).backward()
                optimizer.step()
    return Case(net.eval(), x_train, x_test, y_train, y_test)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Train in one thread: sums come in one order on every machine, and small steps go faster."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
