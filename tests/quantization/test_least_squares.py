from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.quantization.least_squares import Moments, QuadraticForm, round_weights


def loss(
    wanted: np.ndarray, hessian: QuadraticForm, scale: np.ndarray, q: np.ndarray
) -> np.ndarray:
    rest = wanted - scale[:, None] * q
    return np.einsum("ci,ij,cj->c", rest, hessian.matrix, rest)


def problem(seed: int, inputs: int, channels: int, rows: int = 200) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 8, (rows, inputs)) @ rng.normal(size=(inputs, inputs))
    weights = rng.normal(size=(channels, inputs))
    return x, x @ weights.T + rng.normal(size=channels), weights


def test_the_solution_is_the_float_weights_where_inputs_are_exact() -> None:
    x, targets, weights = problem(0, 6, 4)
    solution, _ = Moments.of(x, targets).solution(weights)
    np.testing.assert_allclose(solution, weights, rtol=1e-6, atol=1e-9)


def test_the_solution_makes_up_for_what_was_lost_upstream() -> None:
    x, targets, weights = problem(1, 6, 4)
    lossy = 3.0 * np.rint(x / 3.0) + 0.2 * x
    solution, _ = Moments.of(lossy, targets).solution(weights)

    def error(used: np.ndarray) -> float:
        rest = targets - lossy @ used.T
        return float(rest.var(axis=0).sum())

    assert error(solution) < 0.5 * error(weights)


def test_inputs_that_never_change_keep_the_float_weights() -> None:
    x, _, weights = problem(2, 5, 3)
    x[:, 2] = 7.0
    solution, hessian = Moments.of(x, x @ weights.T).solution(weights)
    np.testing.assert_allclose(solution[:, 2], weights[:, 2])
    assert np.linalg.eigvalsh(hessian.matrix).min() > 0


def test_constant_inputs_need_no_division_by_zero() -> None:
    x = np.ones((10, 3))
    weights = np.arange(6.0).reshape(2, 3)
    solution, hessian = Moments.of(x, x @ weights.T).solution(weights)
    np.testing.assert_allclose(solution, weights)
    assert np.isfinite(hessian.matrix).all()


@given(st.integers(0, 10_000), st.integers(1, 7), st.integers(1, 3), st.integers(1, 7))
def test_integers_stay_within_the_limit_and_beat_plain_rounding(
    seed: int, inputs: int, channels: int, limit: int
) -> None:
    x, targets, weights = problem(seed, inputs, channels)
    wanted, hessian = Moments.of(x, targets).solution(weights)
    scale = np.abs(wanted).max(axis=1) / limit + 1e-9
    q = round_weights(wanted, hessian, scale, limit)
    assert q.dtype == np.int64
    assert np.abs(q).max() <= limit
    # Coordinate descent ends where no single step helps: no worse than rounding, up to descent's
    # other starting point.
    for i, step in itertools.product(range(inputs), (-1, 1)):
        other = q.copy()
        other[:, i] = np.clip(other[:, i] + step, -limit, limit)
        assert (loss(wanted, hessian, scale, q) <= loss(wanted, hessian, scale, other) + 1e-9).all()


def test_correlated_inputs_gain_from_feedback() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(size=(400, 1))
    x = common + 0.5 * rng.normal(size=(400, 30))
    weights = rng.normal(size=(20, 30))
    wanted, hessian = Moments.of(x, x @ weights.T).solution(weights)
    scale = np.full(20, 0.7)
    q = round_weights(wanted, hessian, scale, 7)
    plain = np.clip(np.rint(wanted / scale[:, None]), -7, 7)
    ratio = loss(wanted, hessian, scale, q) / loss(wanted, hessian, scale, plain)
    assert ratio.max() <= 1.0
    assert ratio.mean() < 0.7


@pytest.mark.parametrize("channels", [1, 3])
def test_zero_weights_stay_zero(channels: int) -> None:
    hessian = QuadraticForm(np.eye(4))
    q = round_weights(np.zeros((channels, 4)), hessian, np.ones(channels), 7)
    assert not q.any()
