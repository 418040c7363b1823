from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.sklearn.encoding import CategoricalCode, FeatureCode, OrdinalCode, feature_code
from tests.sklearn.trees.ensembles import codes_of

VALUES = st.lists(st.floats(-(2.0**60), 2.0**60, allow_subnormal=False), min_size=1, max_size=60)
SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS)
def test_every_function_of_the_state_is_linear_in_the_bits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for code in codes_of(rng, 6):
        function = rng.integers(-50, 50, size=(code.n_states, 2))
        coefficients, constant = code.coefficients(function)
        bits = code.bits(np.arange(code.n_states))
        assert bits.shape == (code.n_states, code.n_bits)
        np.testing.assert_array_equal(bits @ coefficients + constant, function)
        assert not bits[0].any()


@given(SEEDS)
def test_representatives_are_in_their_state(seed: int) -> None:
    for code in codes_of(np.random.default_rng(seed), 6):
        assert code.states(code.representatives).tolist() == list(range(code.n_states))


@given(
    st.lists(
        st.floats(-(2.0**90), 2.0**90, width=32, allow_subnormal=False), min_size=0, max_size=9
    ),
    st.booleans(),
)
def test_states_between_any_cuts_have_points(cuts: list[float], missing: bool) -> None:
    code = OrdinalCode.between(np.array(cuts), "own" if missing else "refused")
    assert code.states(code.representatives).tolist() == list(range(code.n_states))


def test_values_are_compared_in_single_precision() -> None:
    cut = np.float32(0.1)
    code = OrdinalCode.between(np.array([cut]))
    assert code.states(np.array([0.1, np.nextafter(cut, np.float32(0))])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("missing", "state"), [("own", 3), ("lowest", 0)], ids=["own bit", "as the lowest"]
)
def test_missing_values_have_a_state(missing: str, state: int) -> None:
    code = OrdinalCode.between(np.array([1.0, 2.0]), missing)
    assert code.states(np.array([np.nan, 5.0])).tolist() == [state, 2]
    assert code.n_bits == 2 + (missing == "own")


def test_categories_that_are_not_known_are_as_missing_values() -> None:
    code = CategoricalCode(np.array([1.0, 4.0]))
    assert code.states(np.array([4.0, 2.0, np.nan, 1.0, 9.0])).tolist() == [2, 0, 0, 1, 0]

    code = CategoricalCode(np.array([1.0, 4.0]), "own")
    assert code.states(np.array([4.0, 2.0, np.nan, 1.0, 9.0])).tolist() == [2, 0, 3, 1, 0]


def test_missing_values_that_are_as_other_categories_lose_their_state() -> None:
    code = CategoricalCode(np.array([1.0, 4.0]), "own")
    apart = code.merged(np.array([[False, False, True, True]]))
    assert (apart.missing, apart.representatives[:2].tolist()) == ("own", [-1.0, 4.0])
    assert code.merged(np.array([[False, True, False, False]])).missing == "lowest"


@given(SEEDS)
def test_merged_states_are_still_told_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for code in codes_of(rng, 6):
        functions = rng.random((2, code.n_states)) < 0.5
        functions[:, rng.integers(code.n_states)] = functions[:, 0]
        merged = code.merged(functions)
        assert merged.n_bits <= code.n_bits
        states = merged.states(code.representatives)
        _check_told_apart(functions, states, merged)


def _check_told_apart(functions: np.ndarray, states: np.ndarray, merged: FeatureCode) -> None:
    for state in range(merged.n_states):
        columns = functions[:, states == state]
        assert (columns == columns[:, :1]).all()


@given(SEEDS, st.integers(1, 6))
def test_coarse_states_are_evenly_spread(seed: int, states: int) -> None:
    for code in codes_of(np.random.default_rng(seed), 6):
        kept = code.coarse(states)
        assert kept.shape == (code.n_bits,)
        if isinstance(code, CategoricalCode):
            assert kept.all()
            continue
        assert kept[len(code.cuts) :].all()
        known = len(code.points)
        lengths = np.diff([0, *np.flatnonzero(kept[: len(code.cuts)]) + 1, known])
        assert len(lengths) == min(states, known)
        assert lengths.max() - lengths.min() <= 1


@given(VALUES, st.integers(1, 6))
def test_a_grid_has_at_most_its_states_and_a_point_in_each(values: list[float], bits: int) -> None:
    code = feature_code(np.array(values), bits)
    assert code.n_states <= 2**bits
    assert code.states(code.representatives).tolist() == list(range(code.n_states))


def test_few_values_have_a_state_each() -> None:
    values = np.array([3.0, 1.0, 1.0, 10.0, 3.0])
    code = feature_code(values, 2)
    assert code.states(values).tolist() == [1, 0, 0, 2, 1]
    assert code.representatives.tolist() == [1.0, 3.0, 10.0]


def test_points_are_the_means_of_what_is_in_a_state() -> None:
    values = np.concatenate([np.arange(16.0), np.full(4, 0.5)])
    code = feature_code(values, 2)
    states = code.states(values)
    for state in range(code.n_states):
        assert code.representatives[state] == np.float32(values[states == state].mean())


def test_states_are_divided_between_counts_and_distances() -> None:
    values = np.random.default_rng(0).exponential(size=500)
    code = feature_code(values, 3)
    assert isinstance(code, OrdinalCode)
    counts = np.bincount(code.states(values))
    assert counts.max() <= 2 / 8 * len(values) + 1
    assert np.diff([0.0, *code.cuts, values.max()]).max() <= 2 / 8 * np.ptp(values) * 1.01


@pytest.mark.parametrize("bits", [3, 6])
def test_one_value_far_out_leaves_states_to_all_others(bits: int) -> None:
    values = np.append(np.random.default_rng(0).normal(size=2000), 1e6)
    states = feature_code(values, bits).states(values[:-1])
    assert len(np.unique(states)) >= 2**bits // 2 - 1
    assert np.bincount(states).max() <= 2 / 2**bits * 2000 + 2


def test_missing_values_and_categories() -> None:
    code = feature_code(np.array([1.0, np.nan, 2.0]), 3)
    assert code.states(np.array([np.nan])).tolist() == [2]
    assert code.missing == "own"
    code = feature_code(np.array([5.0, 7.0, np.nan]), 1, categorical=True)
    assert isinstance(code, CategoricalCode)
    assert code.categories.tolist() == [5.0, 7.0]
