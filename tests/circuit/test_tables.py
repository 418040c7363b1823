from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.circuit import Interval
from cipherlearn.circuit.tables import to_integers, with_axes, without_unread
from cipherlearn.errors import AccumulatorOverflowError

entries = st.one_of(st.just(float("nan")), st.integers(-99, 99).map(float))


def test_axes_are_added_behind_the_rows() -> None:
    assert with_axes(np.zeros(5), 2).shape == (5, 1, 1)
    assert with_axes(np.zeros((5, 3)), 2).shape == (5, 1, 3)
    assert with_axes(np.zeros((5, 2, 3)), 2).shape == (5, 2, 3)
    assert with_axes(np.zeros(5), 0).shape == (5,)


def test_truncates_as_numpy_does() -> None:
    table = np.array([-1.9, -0.5, 0.5, 1.9])
    assert to_integers(table).tolist() == table.astype(np.int64).tolist() == [-1, 0, 0, 1]


@pytest.mark.parametrize("table", [np.array([True, False]), np.array([1, 0], dtype=np.uint8)])
def test_integers_stay(table: np.ndarray) -> None:
    found = to_integers(table)
    assert (found.dtype, found.tolist()) == (np.int64, [1, 0])


def test_integers_beyond_doubles_stay() -> None:
    assert to_integers(np.array([2**60 + 1])).tolist() == [2**60 + 1]


@given(st.lists(entries, min_size=1, max_size=12))
def test_the_nearest_number_stands_in_for_none(column: list[float]) -> None:
    table = np.array(column)
    found = to_integers(np.stack([table, np.arange(float(table.size))], axis=1))
    assert found[:, 1].tolist() == list(range(table.size))
    known = [row for row, entry in enumerate(column) if not np.isnan(entry)]
    for row, entry in enumerate(found[:, 0].tolist()):
        nearest = min(known, key=lambda other: (abs(other - row), other), default=None)
        assert entry == (0 if nearest is None else column[nearest])


@pytest.mark.parametrize("entry", [np.inf, -np.inf, 2.0**62, -(2.0**62), 1e300])
def test_what_does_not_fit_is_refused(entry: float) -> None:
    with pytest.raises(AccumulatorOverflowError, match="clip"):
        to_integers(np.array([0.0, entry]))


def test_entries_that_nothing_reads_may_be_infinite() -> None:
    # The elements read rows 0 to 1, and 1 to 3, of the domain 0 to 3.
    interval = Interval(np.array([0, 1]), np.array([1, 3]))
    one_each = np.array([[1.0, -np.inf], [2.0, 5.0], [np.inf, 6.0], [1e300, 7.0]])
    assert to_integers(without_unread(one_each, interval)).T.tolist() == [
        [1, 2, 2, 2],
        [5, 5, 6, 7],
    ]
    common = np.array([[1.0], [2.0], [3.0], [np.inf]])
    for table in (common, one_each[::-1]):
        with pytest.raises(AccumulatorOverflowError):
            to_integers(without_unread(table, interval))


def test_other_tables_stay() -> None:
    interval = Interval(np.array([0, 1]), np.array([1, 3]))
    for table in (np.arange(4.0)[:, None], np.arange(4)[:, None] * 2**60):
        assert without_unread(table, interval) is table


def test_no_entries() -> None:
    none = Interval.full((0,), 0, 2)
    assert without_unread(np.zeros((1, 0)), none).shape == (1, 0)
    assert to_integers(without_unread(np.full((1, 1), np.inf), none)).tolist() == [[0]]
    assert to_integers(np.zeros((3, 0))).shape == (3, 0)
