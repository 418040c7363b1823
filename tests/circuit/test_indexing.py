from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.circuit import ir, kernels
from cipherlearn.circuit.indexing import axis_of, selects_all, simple_key
from cipherlearn.errors import CircuitError

VALUES = np.arange(3 * 4 * 2).reshape(3, 4, 2)

integers = st.integers(-3, 2)
slices = st.builds(
    slice,
    st.none() | st.integers(-6, 6),
    st.none() | st.integers(-6, 6),
    st.none() | st.sampled_from([-3, -2, -1, 1, 2]),
)
positions = st.lists(st.integers(-2, 1), min_size=1, max_size=3)


@given(st.lists(integers | slices, max_size=2).map(tuple), slices | positions)
def test_a_simple_key_means_what_numpy_means(parts: tuple[Any, ...], last: Any) -> None:
    parts = (*(slice(None) if isinstance(last, list) else p for p in parts), last)
    key = simple_key(parts, VALUES.shape)
    assert key is not None
    found = kernels.apply(ir.Index(key), VALUES[None])[0]
    np.testing.assert_array_equal(found, VALUES[parts])


@given(slices)
def test_slices_that_leave_all_as_it_is(part: slice) -> None:
    key = simple_key((part,), (4,))
    assert key is not None
    assert selects_all(key, (4,)) == (list(range(4))[part] == [0, 1, 2, 3])


@pytest.mark.parametrize(
    "parts",
    [
        (None,),
        (...,),
        (True,),
        (np.array([True, False, True]),),
        (np.array([[0, 1]]),),
        ([0, 1], [0, 1]),
        (0, slice(None), [0, 1]),
        (3,),
        (-4,),
        ([3],),
        (0, 0, 0, 0),
        (1.0,),
    ],
)
def test_other_keys_are_left_to_numpy(parts: tuple[Any, ...]) -> None:
    assert simple_key(parts, VALUES.shape) is None


def test_unsigned_positions() -> None:
    key = simple_key((np.array([1, 2], dtype=np.uint8),), (3,))
    assert key is not None
    assert isinstance(key[0], np.ndarray)
    assert key[0].dtype == np.int64


def test_no_position_of_an_empty_axis_is_left_to_numpy() -> None:
    assert simple_key((0,), (0,)) is None
    assert simple_key(([0],), (0,)) is None
    assert simple_key((slice(None),), (0,)) == (slice(0, 0, 1),)
    assert simple_key((slice(None, None, -1),), (0,)) == (slice(0, 0, 1),)


@pytest.mark.parametrize(("axis", "expected"), [(0, 0), (-1, 2), (2, 2), (np.int8(-3), 0)])
def test_axes_are_counted_from_the_front(axis: int, expected: int) -> None:
    assert axis_of(axis, 3) == expected


@pytest.mark.parametrize("axis", [3, -4])
def test_axes_that_do_not_exist_are_refused(axis: int) -> None:
    with pytest.raises(CircuitError, match=f"axis {axis} does not exist in a value with 3 axes"):
        axis_of(axis, 3)
