from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.circuit import Builder, Circuit, IntValue
from cipherlearn.engines._legalize import legalize
from cipherlearn.engines._regions import find_regions, reduced


def regions_of(*outputs: IntValue) -> tuple[Circuit, dict[int, int]]:
    legal = legalize(outputs[0].builder.finish(list(outputs))).circuit
    return legal, find_regions(legal).width


def widths_of(*outputs: IntValue) -> list[int]:
    _, widths = regions_of(*outputs)
    return sorted(set(widths.values()))


def test_sums_take_the_width_of_what_reads_them() -> None:
    x = Builder().input("x", (1, 4), 0, 3)
    accumulator = x @ np.full((4, 1), 100) - 3000
    # From -3000 to -1800 in steps of 100, and back to where 5 bits are enough.
    declared = (accumulator + 3000).assume(0, 31)
    assert widths_of(np.rint(np.sqrt(declared)).astype(np.int64)) == [3, 5]


def test_the_widest_reader_decides() -> None:
    x = Builder().input("x", (2,), 0, 3)
    table = x.lookup(np.array([1, 0, 2, 1]), 0)
    assert widths_of(x * 100, table) == [2, 9]


def test_lookups_separate_regions() -> None:
    x = Builder().input("x", (2,), 0, 7)
    table = x.lookup(np.arange(8) % 2, 0)
    legal, widths = regions_of(table.sum() * 3)
    assert widths[legal.input_positions[0]] == 3
    assert widths[legal.outputs[0]] == 3
    assert sorted(set(widths.values())) == [3]


def test_clear_values_widen_their_region() -> None:
    builder = Builder()
    x = builder.input("x", (2,), 0, 1)
    w = builder.input("w", (2,), -100, 100, encrypted=False)
    assert widths_of((x + w).assume(0, 3)) == [8]


def test_regions_that_share_a_clear_value_are_one() -> None:
    builder = Builder()
    x, y = builder.input("x", (2,), 0, 1), builder.input("y", (2,), 0, 100)
    w = builder.input("w", (2,), 0, 1, encrypted=False)
    assert widths_of(x + w, y + w) == [7]


def test_rounding_reads_the_kept_and_the_removed_bits() -> None:
    x = Builder().input("x", (2,), 0, 1023)
    rounded = np.rint(x.round(9, exact=True) * 0.01).astype(np.int64)
    # 0, 512 and 1024: two bits kept, nine removed.
    assert max(widths_of(rounded)) == 11


@given(
    st.integers(1, 12),
    st.lists(st.integers(-(2**30), 2**30), min_size=1, max_size=8),
)
def test_reduced_integers_have_the_same_effect(width: int, values: list[int]) -> None:
    array = np.array(values)
    small = reduced(array, width)
    modulus = 2 << width
    assert np.array_equal(small % modulus, array % modulus)
    assert small.min() >= -(modulus // 2)
    assert small.max() < modulus // 2


@pytest.mark.parametrize("values", [[-16, 15], [], [0]])
def test_integers_that_fit_stay_as_they_are(values: list[int]) -> None:
    array = np.array(values, dtype=np.int64)
    assert reduced(array, 4) is array
