"""Training that goes on with the trees of an earlier one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cipherlearn.errors import InvalidParameterError
from cipherlearn.sklearn import HistGradientBoostingClassifier, RandomForestClassifier
from cipherlearn.sklearn.trees._estimator import on_grid

X = np.random.default_rng(0).normal(size=(200, 3))
Y = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int)


def states_of(model: Any, rows: np.ndarray) -> np.ndarray:
    """The states of the grid of training, of which trees may not tell all apart."""
    codes, _ = model._trained_grid
    return np.stack([code.states(x) for code, x in zip(codes, rows.T, strict=True)])


@pytest.mark.parametrize("inputs", ["grid", "used-thresholds"])
def test_more_trees_keep_the_grid_of_the_first_ones(inputs: str) -> None:
    options = {"max_depth": 4, "warm_start": True, "inputs": inputs, "n_bits": 3}
    model = RandomForestClassifier(3, random_state=0, **options).fit(X, Y)
    first, before = model.ensemble_, states_of(model, X)
    on_cells = on_grid(X, model._trained_grid[0])
    other = 0.7 * X + 0.3
    other[::5, 0] = np.nan
    model.set_params(n_estimators=6).fit(other, Y)
    np.testing.assert_array_equal(states_of(model, X), before)
    # The first trees still find rows where they found them.
    kept = replace(model.ensemble_, trees=model.ensemble_.trees[:3])
    here = 2 * kept.raw_scores(on_grid(X, model.codes_))
    np.testing.assert_allclose(here, first.raw_scores(on_cells), atol=1e-9)


def test_more_trees_need_the_same_categories() -> None:
    frame = pd.DataFrame({"k": pd.Categorical(list("abc") * 40)})
    model = HistGradientBoostingClassifier(max_iter=3, warm_start=True)
    model.fit(frame, frame["k"] == "a")
    others = frame.assign(k=frame["k"].cat.rename_categories({"a": "d"}))
    with pytest.raises(InvalidParameterError, match="warm_start goes on with trees that know"):
        model.set_params(max_iter=9).fit(others, others["k"] == "d")
