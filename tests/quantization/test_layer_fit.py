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
    lsbs = bits_to_round([known], limit, kept, OBSERVED)
    fit = fit_to_range(known, lsbs, kept, noisy, OBSERVED)
    found = known.extents(fit.integers, OBSERVED)
    top = top_of_range(kept, lsbs)
    assert (found <= 1.01 * top).all()
    assert (found >= (0.4 if noisy else 0.85) * top).all()


def test_proved_ranges_hold_for_every_input() -> None:
    known, proved = layer(), np.full(20, 15.0)
    lsbs = bits_to_round([known], 31, 5, proved)
    fit = fit_to_range(known, lsbs, 5, False, proved)
    worst = np.abs(fit.integers) @ proved
    assert (worst <= top_of_range(5, lsbs)).all()
    assert (worst > 0.85 * top_of_range(5, lsbs)).all()


def test_groups_are_rounded_alike() -> None:
    fine, coarse = layer(0), layer(1)
    coarse = Layer(coarse.inputs, 100 * coarse.targets, 100 * coarse.weights)
    lsbs = bits_to_round([fine, coarse], 31, 4, OBSERVED)
    for known in (fine, coarse):
        found = known.extents(fit_to_range(known, lsbs, 4, False, OBSERVED).integers, OBSERVED)
        assert (found > 0.85 * top_of_range(4, lsbs)).all()


@pytest.mark.parametrize("rows", [300, 8])
def test_real_results_are_near_the_targets(rows: int) -> None:
    known = layer(rows=rows)
    for fit in (fit_least_error(known, 15, False), fit_to_range(known, 6, 5, False, OBSERVED)):
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
    for fit in (fit_least_error(dead, 7, True), fit_to_range(dead, 5, 4, True, OBSERVED)):
        assert np.isfinite(fit.scale).all()
        assert (fit.scale > 0).all()
        assert not fit.integers[2].any()
    assert bits_to_round([dead], 7, 4, OBSERVED) >= 1
    nothing = Layer(inputs, np.zeros((300, 6)), np.zeros((6, 20)))
    assert bits_to_round([nothing], 7, 4, OBSERVED) == 1
    assert not fit_to_range(nothing, 5, 4, True, OBSERVED).integers.any()
