from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.sklearn.encoding import OrdinalCode
from cipherlearn.sklearn.trees.grid import threshold_codes, used_codes
from tests.sklearn.trees.ensembles import codes_of, ensemble_of, rows_of


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
