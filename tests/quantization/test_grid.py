from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.quantization import QuantizationOptions, QuantizedArray
from cipherlearn.quantization.grid import (
    LEAST_OBSERVED,
    channel_grids,
    grid_quantizer,
    observed_range,
    on_grids,
)


@given(
    scale=st.floats(1e-4, 1e3),
    n_bits=st.integers(2, 8),
    signed=st.booleans(),
    single=st.booleans(),
    data=st.data(),
)
def test_values_on_a_grid_pass_its_quantizer_unchanged(
    scale: float, n_bits: int, signed: bool, single: bool, data: st.DataObject
) -> None:
    lowest = -(2 ** (n_bits - 1)) if signed else 0
    multiples = data.draw(
        st.lists(st.integers(lowest, lowest + 2**n_bits - 1), min_size=1, max_size=30)
    )
    values = np.array(multiples) * scale
    values = values.astype(np.float32) if single else values
    quantizer = grid_quantizer(values, n_bits)
    assert quantizer is not None
    assert quantizer.zero_point == 0
    assert quantizer.is_signed == bool((np.array(multiples) < 0).any())
    passed = quantizer.dequant(quantizer.quant(values))
    np.testing.assert_allclose(passed, values, atol=scale * 1e-2)


def test_the_step_is_found_although_no_gap_is_one_step_wide() -> None:
    quantizer = grid_quantizer(np.array([-6.0, 4.0, 10.0]) * 0.3, 5)
    assert quantizer is not None
    assert quantizer.scale == pytest.approx(0.6)
    uneven = grid_quantizer(np.array([4.0, 9.0]) * 0.3, 4)
    assert uneven is not None
    assert uneven.scale == pytest.approx(0.3)


def test_too_many_levels_for_the_width_are_no_grid() -> None:
    unsigned = np.arange(16) * 0.5
    assert grid_quantizer(unsigned, 4) is not None
    assert grid_quantizer(unsigned, 3) is None
    shifted = grid_quantizer(unsigned - 0.5, 4)
    assert shifted is not None
    assert shifted.zero_point == -7, "signed integers of 4 bits end at 7"
    np.testing.assert_array_equal(shifted.dequant(shifted.quant(unsigned - 0.5)), unsigned - 0.5)
    assert grid_quantizer(np.arange(-8, 8) * 0.5, 4) is not None
    assert grid_quantizer(np.arange(-8, 9) * 0.5, 4) is None


def test_channels_have_steps_of_their_own() -> None:
    steps = np.array([0.1, 0.25, 3.0])
    weights = np.random.default_rng(0).integers(-8, 8, (3, 30)) * steps[:, None]
    assert grid_quantizer(weights, 4) is None
    found = channel_grids(weights, 4)
    assert found is not None
    np.testing.assert_allclose(found, steps)
    quantizer = on_grids(weights, 4, found[:, None])
    np.testing.assert_allclose(quantizer.dequant(quantizer.quant(weights)), weights)
    assert channel_grids(weights, 3) is None
    assert channel_grids(np.random.default_rng(0).normal(size=(3, 30)), 8) is None


def test_real_values_are_no_grid() -> None:
    assert grid_quantizer(np.random.default_rng(0).normal(size=100), 8) is None


def test_zeros_lie_on_any_grid() -> None:
    quantizer = grid_quantizer(np.zeros(4), 3)
    assert quantizer is not None
    assert quantizer.scale == 1.0


@given(
    step=st.integers(1, 300),
    multiples=st.lists(st.integers(-200, 200), min_size=2, max_size=30, unique=True),
    n_bits=st.integers(1, 12),
    is_symmetric=st.booleans(),
)
def test_whole_numbers_stand_for_themselves_in_as_few_bits_as_they_need(
    step: int, multiples: list[int], n_bits: int, is_symmetric: bool
) -> None:
    values = np.array(multiples, dtype=np.float64) * step
    stats = observed_range(values, is_complete=True)
    assert stats.step is not None
    assert stats.step % step == 0
    is_signed = is_symmetric or bool((values < 0).any())
    options = QuantizationOptions(n_bits, is_signed, is_symmetric)
    array = QuantizedArray(n_bits, values, options=options, stats=stats)
    reach = max(abs(values)) * 2 if is_symmetric else np.ptp(values)
    if reach // stats.step >= 2**n_bits - is_symmetric:
        assert array.n_bits == n_bits
        return
    np.testing.assert_array_equal(array.dequant(), values)
    assert array.n_bits == array.quantizer.n_bits <= n_bits
    assert np.ptp(array.quantizer.integer_limits) < max(2, 4 * reach // stats.step)
    lowest, highest = array.quantizer.integer_limits
    assert lowest <= array.qvalues.min() <= array.qvalues.max() <= highest
    assert float(array.quantizer.zero_point).is_integer()


def test_a_handful_of_values_does_not_show_that_they_are_whole() -> None:
    few = np.tile([0.0, 1.0], LEAST_OBSERVED // 2 - 1)
    assert observed_range(few).step is None
    assert observed_range(few, is_complete=True).step == 1
    assert observed_range(few > 0).step == 1, "nothing lies between true and false"
    assert observed_range(np.tile([0.0, 1.0], LEAST_OBSERVED // 2)).step == 1
    sparse = np.arange(LEAST_OBSERVED) * 3.0 + (np.arange(LEAST_OBSERVED) == 9)
    assert observed_range(sparse).step is None, "many numbers in between were never seen"


@pytest.mark.parametrize(
    "values", [[0.5, 1.0], [0.0, 0.0], [0.0, 2.0**40], [1.0, np.inf], [1.0, np.nan]]
)
def test_other_numbers_have_no_step(values: list[float]) -> None:
    assert observed_range(np.array(values), is_complete=True).step is None


def test_what_training_quantized_stays_as_it_is() -> None:
    stats = observed_range(np.array([0.0, 1.0, 3.0]), is_complete=True)
    options = QuantizationOptions(6, is_qat=True)
    assert stats.bits_of_whole_numbers(options) is None
