from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.circuit import Interval, width_of
from cipherlearn.circuit.interval import MAXIMUM_MAGNITUDE
from cipherlearn.errors import AccumulatorOverflowError, CircuitError


@given(st.integers(-300, 300), st.integers(0, 300))
def test_width_is_the_smallest_that_holds_the_range(lo: int, extent: int) -> None:
    hi = lo + extent
    width = width_of(lo, hi)

    def fits(bits: int) -> bool:
        if lo < 0:
            return -(2 ** (bits - 1)) <= lo and hi < 2 ** (bits - 1)
        return hi < 2**bits

    assert fits(width)
    assert width == 1 or not fits(width - 1)


@given(st.integers(-200, 200), st.integers(0, 100), st.sampled_from([1, 2, 3, 8]))
def test_the_domain_holds_every_multiple_once(lo: int, extent: int, step: int) -> None:
    interval = Interval(np.array([lo * step, 0]), np.array([(lo + extent) * step, 0]), step)
    domain = interval.domain
    expected = range(min(lo, 0) * step, max(lo + extent, 0) * step + 1, step)
    assert domain.tolist() == list(expected)
    assert interval.domain_size == domain.size
    assert interval.lookup_width == width_of(min(lo, 0), max(lo + extent, 0))


def test_the_domain_of_large_integers_is_exact() -> None:
    # A division in doubles would start one step early, or late.
    start = (2**60 + 8) // 8 * 8
    interval = Interval(np.array([start]), np.array([start + 16]), step=8)
    assert interval.domain.tolist() == [start, start + 8, start + 16]


def test_bounds_are_read_only_copies() -> None:
    lo, hi = np.zeros(2, dtype=np.int64), np.ones(2, dtype=np.int64)
    interval = Interval(lo, hi)
    lo[:] = 5
    assert interval.lo.tolist() == [0, 0]
    with pytest.raises(ValueError, match="read-only"):
        interval.hi[0] = 7


def test_bounds_without_axes() -> None:
    interval = Interval.constant(np.array(6))
    assert (interval.shape, interval.min, interval.max, interval.step) == ((), 6, 6, 6)
    assert interval.is_constant


def test_constants() -> None:
    interval = Interval.constant(np.array([[4, -6], [0, 10]]))
    assert (interval.min, interval.max, interval.step) == (-6, 10, 2)
    assert interval.is_constant
    assert interval.is_signed
    assert Interval.constant(np.zeros(3, dtype=np.int64)).step == 1
    assert not Interval.full((2,), 0, 1).is_constant
    assert not Interval.full((2,), 0, 1).is_signed


def test_no_elements() -> None:
    interval = Interval.full((0, 3), 5, 6)
    assert (interval.min, interval.max, interval.width) == (0, 0, 1)
    assert interval.domain.tolist() == [0]


def test_width_of_elements_of_different_ranges() -> None:
    assert Interval(np.array([0, -3]), np.array([9, 1])).width == 5


def test_bounds_that_do_not_match_are_refused() -> None:
    with pytest.raises(CircuitError, match=r"shapes \(2,\) and \(3,\)"):
        Interval(np.zeros(2), np.zeros(3))
    with pytest.raises(CircuitError, match="above its upper bound"):
        Interval(np.array([0, 2]), np.array([1, 1]))


@pytest.mark.parametrize("sign", [-1, 1])
def test_more_than_62_bits_are_refused(sign: int) -> None:
    Interval.constant(np.array([sign * (MAXIMUM_MAGNITUDE - 1)]))
    with pytest.raises(AccumulatorOverflowError, match="62 bits"):
        Interval.constant(np.array([sign * MAXIMUM_MAGNITUDE]))
