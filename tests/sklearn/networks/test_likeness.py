"""Rows that are like others."""

from __future__ import annotations

import numpy as np
import pytest

from cipherlearn.sklearn.networks.likeness import Seen, rows_between, rows_like

ROWS = np.random.default_rng(0).normal(size=(300, 3)) @ np.array([[2, 0, 0], [1, 1, 0], [0, 0, 9]])


@pytest.mark.parametrize("like", [rows_like(ROWS, 1001), Seen(ROWS).without_rows().rows])
def test_rows_are_like_others_and_none_of_them(like: np.ndarray) -> None:
    assert (like >= ROWS.min(axis=0)).all()
    assert (like <= ROWS.max(axis=0)).all()
    np.testing.assert_allclose(like.mean(axis=0) / ROWS.std(axis=0), 0, atol=0.3)
    np.testing.assert_allclose(np.corrcoef(like.T), np.corrcoef(ROWS.T), atol=0.2)
    assert not (like[:, None] == ROWS).all(axis=2).any()


def test_stand_ins_have_the_same_ranges_and_stay_as_they_are() -> None:
    found = Seen(ROWS).without_rows()
    np.testing.assert_array_equal(found.rows.min(axis=0), ROWS.min(axis=0))
    np.testing.assert_array_equal(found.rows.max(axis=0), ROWS.max(axis=0))
    assert found.without_rows() is found
    assert len(Seen(ROWS[:3]).without_rows().rows) == 2


def test_rows_between_neighbours() -> None:
    found = rows_between(np.array([[0.0], [1.0], [5.0]]))
    np.testing.assert_array_equal(found, [[0.5], [0.5], [3.0]])
    assert len(rows_like(ROWS, 0)) == 0
