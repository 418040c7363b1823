"""Cuts before steps: the states are those after them, whatever the steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherlearn.errors import ModelError
from cipherlearn.sklearn._entry import codes_before, ends_before
from cipherlearn.sklearn.encoding import CategoricalCode, OrdinalCode

STEPS = {
    "linear": lambda x: 3.0 * x - 1e3,
    "tiny": lambda x: 1e-9 * x,
    "cubes": lambda x: x**3,
    "whole": np.floor,
    "bounded": np.tanh,
    "single": lambda x: x.astype(np.float32),
    "flat": lambda x: np.clip(x, -1.0, 1.0),
}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(STEPS)),
    st.integers(0, 10_000),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([1e-3, 1.0, 1e4]),
)
def test_states_are_those_after_the_steps(name: str, seed: int, dtype: type, unit: float) -> None:
    generator = np.random.default_rng(seed)
    rows = unit * generator.normal(size=(50, 2))
    after = STEPS[name](rows)
    cuts = [np.unique(generator.choice(of, 7)).astype(dtype) for of in after.T]
    codes = [OrdinalCode.between(of) for of in cuts]
    found = codes_before(codes, STEPS[name], rows)
    others = np.concatenate([2 * unit * generator.normal(size=(200, 2)), rows, 1e3 * rows])
    for code, before, column in zip(codes, found, others.T, strict=True):
        wanted = code.states(STEPS[name](column))
        np.testing.assert_array_equal(before.states(column), wanted)
        np.testing.assert_array_equal(before.points, code.points)


def test_what_is_never_reached_is_infinite() -> None:
    rows = np.linspace(-1, 1, 9)[:, None]
    ends = ends_before(np.array([[-2.0], [0.0], [2.0]]), np.tanh, rows)
    np.testing.assert_allclose(ends, [[-np.inf], [0.0], [np.inf]], atol=1e-300)


@pytest.mark.parametrize(
    "steps",
    [lambda x: -x, lambda x: x[:, ::-1], lambda x: x[:, :1], lambda x: x - x.mean(1)[:, None]],
    ids=["turned", "swapped", "left out", "mixed"],
)
def test_other_steps_are_refused(steps: object) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 2))
    codes = [OrdinalCode.between(np.array([-0.5, 0.5]))] * 2
    with pytest.raises(ModelError, match="mix them, or turn their order around"):
        codes_before(codes, steps, rows)  # type: ignore[arg-type]


def test_categories_stay_as_they_are() -> None:
    rows = np.random.default_rng(0).integers(0, 3, (40, 2)).astype(float)
    codes = [CategoricalCode(np.arange(3.0)), OrdinalCode.between(np.array([0.5, 1.5]))]
    found = codes_before(codes, lambda x: x * [1, 10], rows)
    assert found[0] is codes[0]
    np.testing.assert_allclose(found[1].cuts, [0.05, 0.15])
    with pytest.raises(ModelError, match="mix them"):
        codes_before(codes, lambda x: x + 1, rows)


def test_missing_values_stay_missing() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 1))
    codes = [OrdinalCode.between(np.array([0.0]), "own")]
    assert codes_before(codes, lambda x: 2 * x, rows)[0].missing == "own"
    with pytest.raises(ModelError, match="fill in"):
        codes_before(codes, np.nan_to_num, rows)


def test_what_is_known_of_some_numbers_only_is_no_order() -> None:
    known = {1.0: 0.1, 2.0: 0.9, 3.0: 1.4}
    rows = np.random.default_rng(0).integers(1, 4, (40, 1)).astype(float)
    codes = [OrdinalCode.between(np.array([0.5, 1.0]))]
    with pytest.raises(ModelError, match="mix them"):
        codes_before(codes, np.vectorize(lambda x: known.get(x, 0.7)), rows)
