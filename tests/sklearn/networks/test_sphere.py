"""Squared lengths, and rows that are brought into a sphere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cipherlearn.sklearn.networks.sphere import Sphere

ROWS = arrays(np.float64, (5, 3), elements=st.floats(-1e6, 1e6, width=32))


@given(rows=ROWS, square=st.floats(1e-3, 1e6))
def test_rows_are_mirrored_at_the_sphere(rows: np.ndarray, square: float) -> None:
    center = np.array([1.0, -2.0, 0.0])
    found = Sphere(center, square)(rows)
    away = rows - center
    squares = (away**2).sum(axis=1)
    np.testing.assert_allclose(found[:, 3], np.minimum(squares, square))
    inside = squares <= square
    np.testing.assert_allclose(found[inside, :3], away[inside])
    lengths = (found[:, :3] ** 2).sum(axis=1)
    outside = squares > square
    np.testing.assert_allclose(lengths[outside] * squares[outside], square**2, rtol=1e-6)


@given(rows=ROWS, square=st.floats(1e-3, 1e6), reach=st.floats(1.0, 2.0))
def test_beyond_the_reach_lengths_grow(rows: np.ndarray, square: float, reach: float) -> None:
    near = Sphere(np.zeros(3), square)
    found = replace(near, reach=reach * square)(rows)
    squares = (rows**2).sum(axis=1)
    farther = np.maximum(squares - reach * square, 0.0)
    np.testing.assert_allclose(found[:, 3], np.minimum(squares, square) + farther)
    np.testing.assert_array_equal(found[:, :3], near(rows)[:, :3])
    assert (near.reaching(rows)(rows) == near(rows)).all()


def test_the_share_of_rows_inside() -> None:
    rows = np.random.default_rng(0).normal(size=(1000, 4))
    plain = Sphere(np.zeros(4))
    assert (plain(rows)[:, 4] < plain.square).all()
    smaller = plain.with_share(rows, 0.9)
    assert (smaller(rows)[:, 4] < smaller.square).mean() == 0.9
    single = plain.with_share(np.zeros((1, 4)), 0.9)
    np.testing.assert_array_equal(single(np.zeros((1, 4)))[:, :4], 0)
