from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.sklearn.trees.encoding import CategoricalCode, OrdinalCode
from cipherlearn.sklearn.trees.grid import feature_code, threshold_codes, used_codes
from tests.sklearn.trees.ensembles import codes_of, ensemble_of, rows_of

VALUES = st.lists(st.floats(-(2.0**60), 2.0**60, allow_subnormal=False), min_size=1, max_size=60)


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


@given(st.integers(0, 2**32 - 1))
def test_used_states_tell_the_trees_all_they_ask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = codes_of(rng, 5)
    ensemble = ensemble_of(rng, codes, 2, 3)
    used = used_codes(ensemble, codes)
    assert sum(code.n_bits for code in used) <= sum(code.n_bits for code in codes)
    rows = rows_of(rng, codes, 40)
    columns = [code.representatives[code.states(c)] for code, c in zip(used, rows.T, strict=True)]
    np.testing.assert_array_equal(
        ensemble.raw_scores(np.stack(columns, axis=1)), ensemble.raw_scores(rows)
    )


@given(st.integers(0, 2**32 - 1))
def test_codes_of_thresholds_split_where_the_trees_do(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = codes_of(rng, 5)
    ensemble = ensemble_of(rng, codes, 2, 3)
    exact = threshold_codes(ensemble, None, missing=True)
    rows = rows_of(rng, codes, 40)
    columns = [c.representatives[c.states(column)] for c, column in zip(exact, rows.T, strict=True)]
    np.testing.assert_array_equal(
        ensemble.raw_scores(np.stack(columns, axis=1)), ensemble.raw_scores(rows)
    )


def test_codes_of_thresholds_on_an_even_grid_do_not_tell_them() -> None:
    rng = np.random.default_rng(1)
    codes = codes_of(rng, 2)
    ensemble = ensemble_of(rng, codes, 8, 3)
    (first, _) = threshold_codes(ensemble, 3, missing=False)
    assert isinstance(first, OrdinalCode)
    np.testing.assert_allclose(np.diff(first.cuts), np.diff(first.cuts)[0], rtol=1e-4)
    assert len(first.cuts) == 7
