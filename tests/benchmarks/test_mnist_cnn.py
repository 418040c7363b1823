"""The figures of a very small network: that they are there, and what is said of missing data."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import mnist_cnn
from benchmarks.mnist import Absolute
from benchmarks.networks import Case, train
from benchmarks.report import Figure, Note
from cipherlearn.torch.distillation import one_thread


@cache
def small() -> Case:
    """Two bars to tell apart on images of 4x4."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 150)
    x = rng.random((150, 1, 4, 4)).astype(np.float32) / 4
    x[y == 0, :, :, :2] += 0.75
    x[y == 1, :, :2, :] += 0.75
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=False),
        nn.BatchNorm2d(2),
        Absolute(),
        nn.Flatten(),
        nn.Linear(8, 2),
    )
    with one_thread():
        train(net, x[:100], y[:100], seed=0, epochs=30, batch=16)
    return Case(net, x[:100], x[100:], y[:100], y[100:])


def test_every_setting_has_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist_cnn, "mnist_cnn", small)
    monkeypatch.setattr(mnist_cnn, "SETTINGS", (mnist_cnn.CHOSEN, mnist_cnn.setting(5, 4)))
    monkeypatch.setattr(mnist_cnn, "ENCRYPTED_ROWS", 3)
    found = list(mnist_cnn.run())
    figures = {figure.name: figure for figure in found if isinstance(figure, Figure)}
    assert figures["look-ups"].value == 8
    assert figures["float accuracy"].value > 0.9
    accuracy = figures[f"{mnist_cnn.CHOSEN}: simulated accuracy"]
    assert accuracy.value > 0.9
    assert accuracy.at_least == mnist_cnn.LEAST_ACCURACY
    assert figures["of 3 encrypted images: the class found in the clear"].value == 3
    assert figures["of 3 encrypted images: right"].at_least == pytest.approx(2.955)
    assert figures["evaluation keys (MB)"].value > 1
    (note,) = (figure for figure in found if isinstance(figure, Note))
    title, *lines = note.text.splitlines()
    assert "accuracy" in title
    assert [line.endswith(" *") for line in lines] == [True, False]
    complexities = [float(line.split()[0]) for line in lines]
    assert complexities == sorted(complexities)


def test_missing_data_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Case:
        raise FileNotFoundError("set SOMETHING")

    monkeypatch.setattr(mnist_cnn, "mnist_cnn", missing)
    assert list(mnist_cnn.run()) == [Note("MNIST is skipped: set SOMETHING")]
