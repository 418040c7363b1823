from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.networks import small_mlp, train


def weights(net: nn.Module) -> np.ndarray:
    return np.concatenate([p.detach().numpy().ravel() for p in net.parameters()])


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(2, 2)


def test_training_fits_classes_and_values() -> None:
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    classes = (x[:, 0] > x[:, 1]).astype(np.int64)
    net = train(linear(), x, classes, seed=0)
    assert not net.training
    found = net(torch.tensor(x)).detach().numpy().argmax(axis=1)
    assert (found == classes).mean() > 0.95
    values = x @ np.float32([1, -2]) + 3
    net = train(nn.Linear(2, 1), x, values, seed=0, rate=0.1, weight_decay=0.0)
    np.testing.assert_allclose(net(torch.tensor(x)).detach().numpy()[:, 0], values, atol=0.01)


def test_a_learning_rate_may_stay_as_it_is() -> None:
    x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    y = np.arange(64) % 2
    options = {"epochs": 5, "weight_decay": 0.0}
    falling, staying, without = (
        weights(train(linear(), x, y, seed=0, rate=rate, last_rate=last, **options))
        for rate, last in ((0.1, 0.001), (0.1, 0.1), (0.0001, 0.0001))
    )
    start = weights(linear())
    moved = [np.abs(found - start).max() for found in (without, falling, staying)]
    assert moved == sorted(moved)
    assert moved[0] < 0.01 < moved[1] < moved[2]


@pytest.mark.parametrize(("kind", "outputs"), [("i", 2), ("f", 1)])
def test_tables_get_as_many_outputs_as_they_need(kind: str, outputs: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64 if kind == "i" else np.float32)
    case = small_mlp((x[:40], x[40:], y[:40], y[40:]), hidden=4)
    assert case.float_outputs.shape == (20, outputs)
    np.testing.assert_array_equal(case.calibration_labels, y[:40])
