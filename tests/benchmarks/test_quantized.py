from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.networks import Case, train
from benchmarks.quantized import Setting, encrypted_classes, overflow_share, peak_memory
from cipherlearn.torch.distillation import one_thread


@pytest.fixture(scope="module")
def case() -> Case:
    """A network of 4 hidden neurons that tells two classes apart."""
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    y = (x[:, 0] > x[:, 1]).astype(np.int64)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with one_thread():
        train(net, x[:80], y[:80], seed=0, batch=16)
    return Case(net, x[:80], x[80:], y[:80], y[80:])


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (Setting(4, 3), "n_bits 4, approximate 3"),
        (Setting({"op_weights": 5, "op_inputs": 3}, 4), "op_weights 5, op_inputs 3, approximate 4"),
    ],
)
def test_settings_print_their_bits(setting: Setting, text: str) -> None:
    assert str(setting) == text


def test_encrypted_rows_have_the_classes_found_in_the_clear(case: Case) -> None:
    module = Setting(4, 4).quantized(case)
    module.compile().keygen()
    classes, seconds = encrypted_classes(module, case.x_test[:3])
    assert classes.tolist() == module.forward(case.x_test[:3]).argmax(axis=1).tolist()
    assert seconds > 0


def test_share_of_accumulators_that_overflow(case: Case) -> None:
    module = Setting(4, 4).quantized(case)
    module.overflow_count = 6
    assert overflow_share(module, rows=10) == pytest.approx(6 / (10 * 4))


def test_peak_memory_is_in_gigabytes() -> None:
    assert 0.05 < peak_memory() < 100
