from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.errors import ModelError
from cipherlearn.sklearn.linear import maps
from cipherlearn.sklearn.linear.maps import Above, Bits, FeatureMap, Plain, Products, Squares

RNG = np.random.default_rng(0)
ROWS = RNG.normal(
    loc=[0.0, 5.0, -300.0, 0.01, 0.0], scale=[1.0, 2.0, 1.0, 0.001, 1.0], size=(30, 5)
)
WEIGHTS, CONSTANT = RNG.normal(size=(5, 2)), RNG.normal(size=2)
MIXED = RNG.normal(size=(5, 5, 2))


def linear(rows: np.ndarray) -> np.ndarray:
    return rows @ WEIGHTS + CONSTANT


def squared(rows: np.ndarray) -> np.ndarray:
    return linear(rows) + rows**2 @ WEIGHTS[::-1]


def quadratic(rows: np.ndarray) -> np.ndarray:
    return linear(rows) + np.einsum("ri,rj,ijo->ro", rows, rows, MIXED)


def additive(rows: np.ndarray) -> np.ndarray:
    return np.sin(rows) @ WEIGHTS + np.abs(rows) @ WEIGHTS[::-1]


def above(rows: np.ndarray) -> np.ndarray:
    return (rows > 0.5) @ WEIGHTS + CONSTANT


CASES = [
    (Plain.around(ROWS), linear, 5),
    (Squares.around(ROWS), linear, 10),
    (Squares.around(ROWS), squared, 10),
    (Products.around(ROWS), squared, 20),
    (Products.around(ROWS), quadratic, 20),
    (Bits.around(ROWS, 4), linear, 75),
    (Bits.around(ROWS, 3), additive, 35),
    (Above(0.5, 5), above, 5),
]


@pytest.mark.parametrize(("mapped", "function", "width"), CASES)
def test_functions_are_read_exactly(
    mapped: FeatureMap,
    function: Callable[[np.ndarray], np.ndarray],
    width: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(maps, "_AT_ONCE", 4)
    affine = mapped.read(function)
    rows = mapped.rounded(ROWS)
    np.testing.assert_array_equal(mapped(rows), mapped(ROWS))
    assert mapped(rows).shape == (30, width) == (30, affine.n_features)
    np.testing.assert_allclose(affine(mapped(rows)), function(rows), rtol=1e-9, atol=1e-9)
    affine.check(function(rows), mapped(rows))


@pytest.mark.parametrize(
    ("mapped", "function"),
    [
        (Plain.around(ROWS), squared),
        (Squares.around(ROWS), quadratic),
        (Products.around(ROWS), additive),
        (Bits.around(ROWS, 3), quadratic),
        (Above(0.5, 5), linear),
        (Plain.around(ROWS), lambda rows: np.clip(linear(rows), -1.0, 1.0)),
        (Plain.around(ROWS), lambda rows: 1.0 * (linear(rows) > linear(ROWS).mean(axis=0))),
    ],
)
def test_other_functions_are_not_affine(
    mapped: FeatureMap, function: Callable[[np.ndarray], np.ndarray]
) -> None:
    affine = mapped.read(function)
    rows = mapped.rounded(ROWS)
    with pytest.raises(ModelError, match="not an affine function"):
        affine.check(function(rows), mapped(rows))


@given(st.integers(0, 2**32 - 1))
def test_functions_are_asked_for_rows_in_their_range_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(20, 3)) * rng.exponential(size=3) + 10 * rng.normal(size=3)
    low, high = rows.min(axis=0), rows.max(axis=0)
    slack = 1e-9 * np.abs(rows).max()

    def asked(given: np.ndarray) -> np.ndarray:
        assert (given >= low - slack).all()
        assert (given <= high + slack).all()
        return given

    for mapped in (Plain, Squares, Products):
        mapped.around(rows).read(asked)


def test_small_weights_beside_large_constants_are_exact() -> None:
    means = np.array([3e8, 2.0, -7e8])
    scales = np.array([1e8, 1.0, 2e8])
    rows = means + scales * RNG.normal(size=(9, 3))
    found = Plain.around(rows).read(lambda rows: (rows - means) / scales)
    np.testing.assert_allclose(np.diag(found.weights), 1 / scales, rtol=1e-12)


def test_features_that_do_not_vary() -> None:
    rows = np.ones((4, 2))
    for mapped in (Plain, Squares, Products):
        found = mapped.around(rows)
        affine = found.read(lambda rows: rows @ WEIGHTS[:2])
        np.testing.assert_allclose(affine(found(rows)), rows @ WEIGHTS[:2], rtol=1e-12)
