from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.quantization import QuantizedArray
from cipherlearn.quantization.clipping import feature_quantizer, least_error_quantizer


def error(values: np.ndarray, q: object) -> np.ndarray:
    return np.square(q.dequant(q.quant(values)) - values).mean(axis=0)  # type: ignore[attr-defined]


@given(st.integers(0, 10_000), st.integers(1, 6), st.booleans())
def test_no_channel_is_worse_than_with_its_whole_range(seed: int, n_bits: int, up: bool) -> None:
    values = np.random.default_rng(seed).normal(size=(60, 3)) * [0.1, 1.0, 30.0]
    values = np.maximum(values, 0) if up else values
    chosen = least_error_quantizer(values, n_bits, axis=-1)
    found = error(values, chosen)
    for channel in range(3):
        column = values[:, [channel]]
        low, high = min(column.min(), 0.0), max(column.max(), 0.0)
        plain = QuantizedArray(n_bits, column, rmin=low, rmax=high).quantizer
        assert found[channel] <= error(column, plain)[0] * (1 + 1e-9) + 1e-12


def test_zero_is_on_the_grid_and_one_sided_values_use_all_of_it() -> None:
    values = np.abs(np.random.default_rng(0).normal(size=(100, 4, 3, 3)))
    quantizer = least_error_quantizer(values, 4, axis=1)
    assert np.shape(quantizer.scale) == (1, 4, 1, 1)
    assert not np.any(quantizer.zero_point)
    assert quantizer.quant(np.zeros((1, 4, 3, 3))).max() == 0
    assert quantizer.quant(values).max() == 15


def test_outliers_are_clipped() -> None:
    values = np.append(np.linspace(0, 1, 2000), 20.0).reshape(-1, 1)
    quantizer = least_error_quantizer(values, 4, axis=-1)
    assert float(np.ravel(quantizer.scale)[0]) * 15 < 20.0


def test_dead_channels_get_a_grid() -> None:
    values = np.random.default_rng(0).uniform(size=(50, 3))
    values[:, 1] = 0.0
    quantizer = least_error_quantizer(values, 3, axis=-1)
    assert np.isfinite(quantizer.scale).all()
    assert (np.asarray(quantizer.scale) > 0).all()
    assert least_error_quantizer(np.zeros((4, 2)), 3, axis=-1).quant(np.zeros((1, 2))).sum() == 0


@given(st.integers(0, 10_000), st.integers(2, 8))
def test_features_are_within_half_a_step(seed: int, n_bits: int) -> None:
    values = np.random.default_rng(seed).normal(size=(80, 3)) * [0.1, 1.0, 30.0] + [5.0, 0.0, -90]
    quantizer = feature_quantizer(values, n_bits, axis=1)
    assert quantizer is not None
    assert np.shape(quantizer.scale) == (1, 3)
    # A zero-point is a whole number, which moves the grid by half a step.
    rest = np.abs(quantizer.dequant(quantizer.quant(values)) - values)
    assert (rest <= quantizer.scale * (1 + 1e-9)).all()
    assert float(np.ravel(quantizer.scale)[0]) < 0.1 * float(np.ravel(quantizer.scale)[2])


def test_a_feature_that_rows_do_not_show_keeps_the_common_grid() -> None:
    values = np.random.default_rng(0).uniform(0, 1, (100, 3))
    values[:, 1], values[3, 1], values[6, 1] = 0.0, 0.2, 0.9  # hardly ever lit
    values[:, 2] *= 0.01
    quantizer = feature_quantizer(values, 6, axis=-1)
    assert quantizer is not None
    scale = np.ravel(quantizer.scale)
    assert scale[1] == np.ptp(values) / 63
    assert scale[2] < 0.05 * scale[0]


@pytest.mark.parametrize("constant", [0.0, 3.0, -0.4242, 1e-9])
def test_what_is_constant_in_the_rows_keeps_the_common_grid(constant: float) -> None:
    values = np.random.default_rng(0).uniform(-5, 5, (100, 3)) * [1.0, 0.01, 1.0]
    values[:, 2] = constant
    quantizer = feature_quantizer(values, 6, axis=-1)
    assert quantizer is not None
    assert np.ravel(quantizer.scale)[2] == np.ptp(values) / 63


def test_nothing_gained_is_no_quantizer() -> None:
    assert feature_quantizer(np.full((20, 3), 0.7), 6, axis=1) is None
    alike = np.random.default_rng(0).uniform(-1, 1, (200, 3))
    assert feature_quantizer(alike, 6, axis=1) is None
