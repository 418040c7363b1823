"""Coefficients that bear errors, instead of such as cancel each other."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge

from cipherlearn.sklearn.networks.kernels import Kernel, kernel_machine
from cipherlearn.sklearn.networks.network import Network
from cipherlearn.sklearn.networks.steady import Precision, steadied

ROWS = np.random.default_rng(0).normal(size=(120, 3))


def machine(kernel: Kernel, regularization: float) -> Network:
    targets = np.sin(ROWS[:, :1]) + ROWS[:, 1:2] * ROWS[:, 2:]
    model = KernelRidge(
        kernel=kernel.name, gamma=kernel.gamma, alpha=regularization, coef0=kernel.coef0
    ).fit(ROWS, targets)
    found = kernel_machine(kernel, ROWS, model.dual_coef_, np.zeros(1), ROWS.mean(axis=0))
    assert isinstance(found, Network)
    return found


def r2(found: np.ndarray, wanted: np.ndarray) -> float:
    return 1 - float(np.square(found - wanted).sum() / np.square(wanted - wanted.mean()).sum())


@pytest.mark.filterwarnings("ignore::cipherlearn.errors.CalibrationWarning")  # the plain one's
@pytest.mark.parametrize("kernel", [Kernel("rbf", 0.3), Kernel("poly", 0.3, 3.0, 1.0)])
def test_results_bear_the_errors_of_look_ups(kernel: Kernel) -> None:
    network = machine(kernel, 1e-4)
    steady = steadied(network, ROWS, Precision(5, 5))
    assert np.abs(steady.layers[1].weights).max() < np.abs(network.layers[1].weights).max()
    options = {"n_bits": 5, "rounding_threshold_bits": {"n_bits": 5, "method": "exact"}}
    plain, better = (
        r2(of.quantized(ROWS, **options).forward(ROWS), network(ROWS)) for of in (network, steady)
    )
    assert better > max(0.9, plain)


def test_more_bits_leave_more_of_the_model() -> None:
    network = machine(Kernel("rbf", 0.3), 0.1)
    found = [r2(steadied(network, ROWS, Precision(b, b))(ROWS), network(ROWS)) for b in (3, 6, 12)]
    assert found == sorted(found)
    assert found[-1] > 0.999


def test_constant_kernels() -> None:
    network = machine(Kernel("rbf", 0.3), 1.0)
    same = np.repeat(ROWS[:1], 2, axis=0)
    found = steadied(network, same, Precision(5, 5))
    np.testing.assert_allclose(found(same), network(same))


def test_few_rows_do_not_make_another_function() -> None:
    network = machine(Kernel("rbf", 0.3), 0.1)
    found = steadied(network, ROWS[:20], Precision(8, 8))
    assert r2(found(ROWS[20:]), network(ROWS[20:])) > 0.9


def test_few_points_are_enough() -> None:
    network = machine(Kernel("rbf", 0.1), 0.1)
    precision = Precision(5, 5)
    steady = steadied(network, ROWS, precision)
    n_points = len(steady.layers[1].weights)
    assert n_points < 0.75 * len(ROWS)
    assert r2(steady(ROWS), network(ROWS)) > 0.98
    fewest = [steadied(network, ROWS, precision, most) for most in (3, 10, 1000)]
    assert [len(each.layers[1].weights) for each in fewest] == [3, 10, n_points]
    assert r2(fewest[0](ROWS), network(ROWS)) < r2(fewest[1](ROWS), network(ROWS))


def test_points_that_are_kept_are_points_of_the_machine() -> None:
    network = machine(Kernel("poly", 0.3, 2.0, 1.0), 0.1)
    kept = steadied(network, ROWS, Precision(5, 5), 20).layers[0]
    columns = {tuple(column) for column in network.layers[0].weights.T}
    assert {tuple(column) for column in kept.weights.T} <= columns
    assert kept.function == "Pow"
