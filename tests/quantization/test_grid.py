from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.quantization.grid import grid_quantizer


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
    assert grid_quantizer(unsigned - 0.5, 4) is None, "signed integers of 4 bits end at 7"
    assert grid_quantizer(np.arange(-8, 8) * 0.5, 4) is not None
    assert grid_quantizer(np.arange(-8, 9) * 0.5, 4) is None


def test_real_values_are_no_grid() -> None:
    assert grid_quantizer(np.random.default_rng(0).normal(size=100), 8) is None


def test_zeros_lie_on_any_grid() -> None:
    quantizer = grid_quantizer(np.zeros(4), 3)
    assert quantizer is not None
    assert quantizer.scale == 1.0
