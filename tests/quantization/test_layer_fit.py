from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.quantization.accumulators import top_of_range
from cipherlearn.quantization.layer_fit import (
    Layer,
    bits_to_round,
    fit_least_error,
    fit_to_range,
)

OBSERVED = np.zeros(0)
ALL, NONE = np.ones(20, bool), np.zeros(20, bool)


def layer(seed: int = 0, rows: int = 300, inputs: int = 20, channels: int = 6) -> Layer:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 16, (rows, inputs)).astype(np.float64)
    weights = rng.normal(size=(channels, inputs)) * rng.uniform(0.1, 10, (channels, 1))
    return Layer(x, x @ weights.T, weights)


@given(st.integers(0, 1000), st.sampled_from([7, 31]), st.integers(3, 6), st.booleans())
def test_every_channel_fills_the_range_and_stays_in_it(
    seed: int, limit: int, kept: int, noisy: bool
) -> None:
    known = layer(seed)
    lsbs = bits_to_round([known], limit, kept, ALL, OBSERVED)
    fit = fit_to_range(known, lsbs, kept, np.full(20, noisy), OBSERVED)
    found = known.extents(fit.integers, OBSERVED)
    top = top_of_range(kept, lsbs)
    assert (found <= 1.01 * top).all()
    assert (found >= (0.4 if noisy else 0.85) * top).all()


def test_proved_ranges_hold_for_every_input() -> None:
    known, proved = layer(), np.full(20, 15.0)
    lsbs = bits_to_round([known], 31, 5, ALL, proved)
    fit = fit_to_range(known, lsbs, 5, NONE, proved)
    worst = np.abs(fit.integers) @ proved
    assert (worst <= top_of_range(5, lsbs)).all()
    assert (worst > 0.85 * top_of_range(5, lsbs)).all()


def test_groups_are_rounded_alike() -> None:
    fine, coarse = layer(0), layer(1)
    coarse = Layer(coarse.inputs, 100 * coarse.targets, 100 * coarse.weights)
    lsbs = bits_to_round([fine, coarse], 31, 4, ALL, OBSERVED)
    for known in (fine, coarse):
        found = known.extents(fit_to_range(known, lsbs, 4, NONE, OBSERVED).integers, OBSERVED)
        assert (found > 0.85 * top_of_range(4, lsbs)).all()


@pytest.mark.parametrize("rows", [300, 8])
def test_real_results_are_near_the_targets(rows: int) -> None:
    known = layer(rows=rows)
    for fit in (fit_least_error(known, 15, False), fit_to_range(known, 6, 5, NONE, OBSERVED)):
        found = fit.scale * (known.inputs @ fit.integers.T)
        rest = (known.targets - found) - (known.targets - found).mean(axis=0)
        assert (rest.var(axis=0) < 0.02 * known.targets.var(axis=0)).all()


def test_dead_channels_and_constant_inputs_lose_nothing() -> None:
    known = layer()
    weights = known.weights.copy()
    weights[2] = 0.0
    inputs = known.inputs.copy()
    inputs[:, 3] = 4.0
    dead = Layer(inputs, inputs @ weights.T, weights)
    for fit in (fit_least_error(dead, 7, True), fit_to_range(dead, 5, 4, ALL, OBSERVED)):
        assert np.isfinite(fit.scale).all()
        assert (fit.scale > 0).all()
        assert not fit.integers[2].any()
    assert bits_to_round([dead], 7, 4, ALL, OBSERVED) >= 1
    nothing = Layer(inputs, np.zeros((300, 6)), np.zeros((6, 20)))
    assert bits_to_round([nothing], 7, 4, ALL, OBSERVED) == 1
    assert not fit_to_range(nothing, 5, 4, ALL, OBSERVED).integers.any()


@pytest.mark.parametrize("spread", [1e-4, 1.0, 1e4])
def test_proved_ranges_are_never_left_however_coarse_they_are(spread: float) -> None:
    """Rounding of weights may widen a range again and again; the promise holds all the same."""
    rng = np.random.default_rng(0)
    known = layer()
    weights = known.weights * np.exp(spread * rng.normal(size=known.weights.shape) / 1e4)
    known = Layer(known.inputs, known.inputs @ weights.T, weights)
    proved = np.full(20, 63.0)
    for kept, lsbs in ((2, 4), (3, 4), (4, 5), (4, 9)):
        fit = fit_to_range(known, lsbs, kept, ALL, proved)
        assert (np.abs(fit.integers) @ proved <= top_of_range(kept, lsbs)).all()
        assert (fit.scale > 0).all()


def test_inputs_with_few_levels_do_not_make_the_others_coarse() -> None:
    """Zeros and ones beside codes of 63 steps have weights 63 times as large."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.integers(0, 64, (300, 10)), rng.integers(0, 2, (300, 10))], 1)
    weights = rng.normal(size=(6, 20)) * np.repeat([1.0, 63.0], 10)
    known = Layer(x.astype(np.float64), x @ weights.T, weights)
    noisy = np.arange(20) < 10
    lsbs = bits_to_round([known], 31, 6, noisy, OBSERVED)
    fit = fit_to_range(known, lsbs, 6, noisy, OBSERVED)
    largest = np.abs(fit.integers[:, :10]).max(axis=1)
    assert 16 <= np.median(largest) <= 62
    assert lsbs > bits_to_round([known], 31, 6, ALL, OBSERVED)
    # Nothing comes from look-ups: the largest of all counts again.
    assert bits_to_round([known], 31, 6, NONE, OBSERVED) == bits_to_round(
        [known], 31, 6, ALL, OBSERVED
    )


def test_only_what_comes_from_look_ups_is_held_back_as_noisy() -> None:
    known = layer()
    weights = known.weights.copy()
    weights[0, :10] *= 50.0
    loud = Layer(known.inputs, known.inputs @ weights.T, weights)
    first, last = np.arange(20) < 10, np.arange(20) >= 10
    fits = [fit_to_range(loud, 6, 5, noisy, OBSERVED) for noisy in (first, last, NONE)]
    np.testing.assert_array_equal(fits[1].integers[0], fits[2].integers[0])
    for fit, noisy in zip(fits, (first, last), strict=False):
        norms = np.linalg.norm(fit.integers * noisy, axis=1)
        assert norms.max() <= 2.2 * np.median(norms)
