"""The figures of very small networks: that they are there, and what is said of missing data."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import accuracy
from benchmarks.networks import Case, train
from benchmarks.report import Figure, Note, print_figures
from cipherlearn.quantization.search import _search
from cipherlearn.torch.distillation import one_thread


@cache
def small(outputs: int) -> Case:
    """A network of 4 hidden neurons on numbers; classes are told apart, or a value is found."""
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32)
    values = x[:, 0] + np.abs(x[:, 1])
    y = values if outputs == 1 else (values > values.mean()).astype(np.int64)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, outputs))
    with one_thread():
        train(net, x[:80], y[:80], seed=0, batch=16)
    return Case(net, x[:80], x[80:], y[:80], y[80:])


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "mnist_mlp", partial(small, 2))
    monkeypatch.setattr(accuracy, "digits_mlp", partial(small, 2))
    monkeypatch.setattr(accuracy, "digits_mlps", lambda: [small(2)])
    monkeypatch.setattr(accuracy, "table_mlp", lambda _: small(1))
    monkeypatch.setattr(accuracy, "TABLES", ("table",))
    monkeypatch.setattr(accuracy, "MAX_DROP", 0.1)  # of 80 rows
    monkeypatch.setattr(accuracy, "distill", partial(accuracy.distill, steps=20))
    monkeypatch.setattr(_search._Cheapest, "rungs", ((6, 6, 6),))


def test_every_network_has_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    found = list(accuracy.run())
    figures = {figure.name: figure for figure in found if isinstance(figure, Figure)}
    for setting in accuracy.MNIST_SETTINGS:
        name = f"MNIST 784-64-10, {setting}"
        point, price = figures[f"{name}: accuracy"], figures[f"{name}: complexity"]
        assert (point.at_least, price.at_most) == (setting.least_accuracy, setting.most_complexity)
        assert (point.peer, price.peer) == setting.peer
        assert abs(figures[f"{name}: simulated accuracy"].value - point.value) <= 0.1
        assert 0 <= figures[f"{name}: share of accumulators that overflow on test rows"].value <= 1
        assert figures[f"{name}: quantization (s)"].at_most == accuracy.MOST_SECONDS
    seconds = figures["MNIST 784-64-10, auto: quantization (s)"]
    assert seconds.at_most == accuracy.MOST_AUTO_SECONDS
    for name, measure, lost in (("MNIST 784-64-10", "accuracy", 0.01), ("table", "R2", 0.02)):
        reference = figures[f"{name}: float {measure}"].value
        assert figures[f"{name}, auto: {measure}"].at_least == pytest.approx(reference - lost)
        assert figures[f"{name}, auto: {measure}"].value > 0.8
        assert figures[f"{name}, auto: complexity"].value > 0
    assert any("mean of" in name for name in figures)
    print_figures(found)
    table, *notes = capsys.readouterr().out.split("the front on calibration rows")
    assert len(notes) == 2
    assert all("float model" in note for note in notes)
    assert table.count("\n| ") == len(figures) + 1


def test_missing_data_is_told_and_the_rest_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: str) -> Case:
        raise FileNotFoundError("set SOMETHING")

    def nothing(*_: object) -> Iterator[Figure]:
        yield Figure("digits", 1.0)

    monkeypatch.setattr(accuracy, "mnist_mlp", missing)
    monkeypatch.setattr(accuracy, "table_mlp", missing)
    monkeypatch.setattr(accuracy, "_digits", nothing)
    assert list(accuracy.run()) == [
        Note("MNIST is skipped: set SOMETHING"),
        Figure("digits", 1.0),
        Note("table is skipped: set SOMETHING"),
    ]
