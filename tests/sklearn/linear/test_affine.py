from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cipherlearn.errors import ModelError
from cipherlearn.sklearn.linear import affine
from cipherlearn.sklearn.linear.affine import Affine

RNG = np.random.default_rng(0)
WEIGHTS, CONSTANT = RNG.normal(size=(5, 2)), RNG.normal(size=2)
ROWS = RNG.normal(size=(7, 5))


def linear(rows: np.ndarray) -> np.ndarray:
    return rows @ WEIGHTS + CONSTANT


def test_it_is_read_from_coefficients() -> None:
    found = Affine.of_model(WEIGHTS.T, CONSTANT)
    np.testing.assert_array_equal(found(ROWS), linear(ROWS))
    assert (found.n_features, found.n_outputs) == (5, 2)
    one = Affine.of_model(WEIGHTS[:, 0], 0.5)
    np.testing.assert_allclose(one(ROWS), (ROWS @ WEIGHTS[:, 0] + 0.5)[:, None])
    assert Affine.of_model(WEIGHTS.T, 0.0).constant.tolist() == [0.0, 0.0]


def test_it_is_read_from_what_a_function_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    np.testing.assert_allclose(Affine.of_function(linear, 5)(ROWS), linear(ROWS))
    flat = Affine.of_function(lambda rows: linear(rows)[:, 0], 5)
    np.testing.assert_allclose(flat(ROWS), linear(ROWS)[:, :1])
    monkeypatch.setattr(affine, "_AT_ONCE", 2)
    np.testing.assert_allclose(Affine.of_function(linear, 5).weights, WEIGHTS)


def test_small_weights_beside_large_constants_are_exact() -> None:
    means = np.array([3e8, 2.0, -7e8])

    def scaled(rows: np.ndarray) -> np.ndarray:
        return (rows - means) / np.array([1e8, 1.0, 2e8])

    np.testing.assert_allclose(
        np.diag(Affine.of_function(scaled, 3).weights), [1e-8, 1.0, 0.5e-8], rtol=1e-9
    )


@pytest.mark.parametrize(
    "function",
    [
        lambda rows: np.clip(linear(rows), -1.0, 1.0),
        lambda rows: np.exp(linear(rows)),
        lambda rows: linear(rows) ** 2,
        lambda rows: linear(rows).argmax(axis=1),
        lambda rows: np.maximum(rows, 0.0),
    ],
)
def test_what_is_not_affine_is_refused(function: Callable[[np.ndarray], np.ndarray]) -> None:
    with pytest.raises(ModelError, match="not an affine function"):
        Affine.of_function(function, 5)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_a_wrong_reading_is_seen_whatever_the_units(size: float) -> None:
    right = Affine(WEIGHTS * size, CONSTANT)
    rows = ROWS / size
    right.check(right(rows), rows)
    wrong = WEIGHTS.copy()
    wrong[3, 1] += 0.01
    for values in (
        ROWS @ wrong + CONSTANT,
        right(rows) + 0.01,
        ROWS @ WEIGHTS,
        right(rows)[:, :1],
    ):
        with pytest.raises(ModelError, match="coefficients"):
            right.check(values, rows)


def test_functions_are_put_together() -> None:
    first, second = Affine(WEIGHTS, CONSTANT), Affine(RNG.normal(size=(2, 3)), np.arange(3.0))
    np.testing.assert_allclose(second.after(first)(ROWS), second(first(ROWS)))
    both = first.beside(second.after(first))
    np.testing.assert_allclose(both(ROWS), np.hstack([first(ROWS), second(first(ROWS))]))
