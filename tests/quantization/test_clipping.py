from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.quantization import QuantizedArray
from cipherlearn.quantization.clipping import least_error_quantizer


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
