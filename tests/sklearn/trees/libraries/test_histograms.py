"""Categories, names of columns and precision in scikit-learn's trees on histograms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import ensemble as forests
from threadpoolctl import threadpool_limits

from cipherlearn.errors import CipherlearnWarning, InvalidParameterError, ModelError
from cipherlearn.sklearn import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    from_model,
)
from cipherlearn.sklearn.encoding import CategoricalCode, OrdinalCode
from cipherlearn.sklearn.trees._estimator import on_grid

FINE = {"op_inputs": 5, "op_leaves": 16}
SMALL: dict[str, Any] = {
    "max_iter": 8,
    "max_leaf_nodes": 8,
    "min_samples_leaf": 5,
    "learning_rate": 0.4,
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """So little data is slower in several."""
    with threadpool_limits(1):
        yield


def frame_of(rows: int, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Numbers, names of towns and codes of kinds; some are missing. The target needs them all."""
    rng = np.random.default_rng(seed)
    size = rng.normal(size=rows)
    town = rng.choice(["Bonn", "Arles", "Ceuta", "Dover", "Essen"], size=rows).astype(object)
    kind = rng.choice([30.0, 10.0, 20.0, 40.0], size=rows)
    y = size + np.isin(town, ["Arles", "Dover"]) * 2.0 - np.isin(kind, [20, 40]) * 1.5
    town[::11] = np.nan
    kind[::13] = np.nan
    columns = {"size": size, "town": pd.Categorical(town), "kind": pd.Categorical(kind)}
    return pd.DataFrame(columns), y


def as_numbers(frame: pd.DataFrame) -> np.ndarray:
    towns = frame["town"].cat.codes.to_numpy().astype(float)
    kinds = frame["kind"].to_numpy(dtype=float)
    columns = [frame["size"].to_numpy(), np.where(towns < 0, np.nan, towns), kinds]
    return np.stack(columns, axis=1)


def test_categories_of_data_frames() -> None:
    X, y = frame_of(300)
    estimator = HistGradientBoostingRegressor(n_bits=FINE, random_state=0, **SMALL).fit(X, y)
    kinds = [type(code) for code in estimator.codes_]
    assert kinds == [OrdinalCode, CategoricalCode, CategoricalCode]
    assert estimator.is_categorical_.tolist() == [False, True, True]
    rows = on_grid(estimator._rows(X), estimator.codes_)
    wanted = estimator.sklearn_model.predict(rows)
    np.testing.assert_allclose(estimator.ensemble_.raw_scores(rows)[:, 0], wanted, rtol=1e-9)
    np.testing.assert_allclose(estimator.predict(X), wanted, atol=1e-3)
    assert estimator.score(*frame_of(100, seed=1)) > 0.8
    estimator.compile(engine="clear")
    np.testing.assert_array_equal(estimator.predict(X[:9]), estimator.predict(X[:9], fhe="execute"))


@pytest.mark.parametrize(
    "chosen", [[1, 2], [False, True, True], ["town", "kind"], np.array([2, 1])], ids=repr
)
def test_categories_by_name_place_and_mask(chosen: Any) -> None:
    X, y = frame_of(300)
    wanted = HistGradientBoostingRegressor(random_state=0, **SMALL).fit(X, y)
    estimator = HistGradientBoostingRegressor(
        categorical_features=chosen, random_state=0, **SMALL
    ).fit(X, y)
    np.testing.assert_array_equal(estimator.predict(X), wanted.predict(X))
    if not isinstance(chosen[0], str):
        rows = as_numbers(X)
        again = estimator.fit(rows, y)
        np.testing.assert_array_equal(again.predict(rows), wanted.predict(X))


def test_no_categories_unless_asked_for() -> None:
    X, y = frame_of(200)
    numbers = as_numbers(X)
    for chosen in (None, [], "from_dtype"):
        estimator = HistGradientBoostingRegressor(categorical_features=chosen, **SMALL)
        assert all(isinstance(code, OrdinalCode) for code in estimator.fit(numbers, y).codes_)
    with pytest.raises(ValueError, match=r"Arles|Bonn|Ceuta|Dover|Essen"):
        HistGradientBoostingRegressor(categorical_features=None, **SMALL).fit(X, y)


@pytest.mark.parametrize("inputs", ["grid", "used-thresholds"])
def test_import_of_categories(inputs: str) -> None:
    X, y = frame_of(300)
    theirs = forests.HistGradientBoostingRegressor(random_state=0, **SMALL).fit(X, y)
    others, _ = frame_of(60, seed=2)
    others["town"] = others["town"].cat.set_categories(["Essen", "Faro", "Arles", "Dover", "Bonn"])
    others.loc[:5, "town"] = "Faro"  # unknown to the model
    for rows in (None, others):
        ours = from_model(theirs, rows, n_bits={**FINE, "op_inputs": 10}, inputs=inputs)
        for frame in (X, others):
            found, wanted = ours.predict(frame), theirs.predict(frame)
            assert np.abs(found - wanted).mean() < 0.05
            if inputs == "used-thresholds":
                np.testing.assert_allclose(found, wanted, atol=1e-3)
    assert ours.categories_ == {1: ["Arles", "Bonn", "Ceuta", "Dover", "Essen"]}


def test_categories_that_training_did_not_know_are_missing() -> None:
    X, y = frame_of(300)
    estimator = HistGradientBoostingRegressor(n_bits=FINE, random_state=0, **SMALL).fit(X, y)
    unknown, missing = X[:20].copy(), X[:20].copy()
    unknown["town"] = pd.Categorical(["Faro"] * 20)
    missing["town"] = pd.Categorical([None] * 20)
    with pytest.warns(CipherlearnWarning, match="20 of 20 values in column 'town'"):
        found = estimator.predict(unknown)
    np.testing.assert_array_equal(found, estimator.predict(missing))
    rows = on_grid(estimator._rows(missing), estimator.codes_)
    np.testing.assert_allclose(
        estimator.predict(missing), estimator.sklearn_model.predict(rows), atol=1e-3
    )


def test_categories_that_no_split_sends_right_are_known_all_the_same() -> None:
    # One category against the others and the missing ones.
    kind = np.repeat([0.0, 1.0, 2.0, np.nan], 50)
    y = np.where(kind == 1, 5.0, 0.0)
    theirs = forests.HistGradientBoostingRegressor(
        categorical_features=[0], max_iter=3, max_leaf_nodes=4
    ).fit(kind[:, None], y)
    rows = np.array([[0.0], [1.0], [2.0], [3.0], [np.nan]])
    for X in (None, kind[50:100, None]):
        ours = from_model(theirs, X, n_bits=FINE)
        np.testing.assert_allclose(ours.predict(rows), theirs.predict(rows), atol=1e-3)
        assert ours.codes_[0].n_states == 4


def test_many_categories_need_several_words_of_bits() -> None:
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 120, size=2000).astype(float)
    y = np.sin(kind * 7.0)
    theirs = forests.HistGradientBoostingRegressor(categorical_features=[0], max_iter=5).fit(
        kind[:, None], y
    )
    ours = from_model(theirs, n_bits=FINE, inputs="used-thresholds")
    rows = np.arange(130.0)[:, None]
    np.testing.assert_allclose(
        ours.ensemble_.raw_scores(on_grid(rows, ours.codes_))[:, 0], theirs.predict(rows)
    )


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([3], "3 features"),
        ([-1], "3 features"),
        ([True, False], "mask"),
        (["nowhere"], r"\['size', 'town', 'kind'\]"),
        ([0.5], "places"),
    ],
)
def test_wrong_categories(chosen: Any, message: str) -> None:
    X, y = frame_of(50)
    with pytest.raises(InvalidParameterError, match=message) as caught:
        HistGradientBoostingRegressor(categorical_features=chosen).fit(X, y)
    assert repr(chosen) in str(caught.value)


def test_names_need_a_data_frame() -> None:
    X, y = frame_of(50)
    with pytest.raises(InvalidParameterError, match="data frame"):
        HistGradientBoostingRegressor(monotonic_cst={"size": 1}).fit(as_numbers(X), y)
    with pytest.raises(InvalidParameterError, match=r"\['height'\]"):
        HistGradientBoostingRegressor(monotonic_cst={"height": 1}).fit(X, y)
    with pytest.raises(InvalidParameterError, match="town"):
        HistGradientBoostingRegressor(categorical_features=["town"]).fit(as_numbers(X), y)


def test_constraints_by_name() -> None:
    X, y = frame_of(200)
    estimator = HistGradientBoostingRegressor(
        monotonic_cst={"size": -1}, n_bits=FINE, random_state=0, **SMALL
    ).fit(X, y)
    row = X.iloc[[1] * 50].copy()
    row["size"] = np.linspace(-2, 2, 50)
    assert (np.diff(estimator.predict(row)) <= 1e-9).all()
    assert estimator.monotonic_cst == {"size": -1}


def test_values_are_compared_in_double_precision() -> None:
    rng = np.random.default_rng(0)
    day = 1e9 + np.arange(400.0)  # neighbours are one number in single precision
    y = (day % 64 > 20) * 3.0
    theirs = forests.HistGradientBoostingRegressor(max_iter=5, min_samples_leaf=1).fit(
        day[:, None], y
    )
    exact = from_model(theirs, n_bits=FINE, inputs="used-thresholds")
    rows = rng.permutation(day)[:, None]
    np.testing.assert_allclose(exact.predict(rows), theirs.predict(rows), atol=1e-3)
    trained = HistGradientBoostingRegressor(n_bits={"op_inputs": 9, "op_leaves": 16}, **SMALL)
    assert trained.fit(day[:, None], y).score(day[:, None], y) > 0.7


def test_more_classes_and_categories() -> None:
    X, y = frame_of(300)
    labels = np.array(["low", "middle", "high"])[np.digitize(y, [-0.5, 1.0])]
    estimator = HistGradientBoostingClassifier(n_bits=FINE, random_state=0, **SMALL).fit(X, labels)
    rows = on_grid(estimator._rows(X), estimator.codes_)
    np.testing.assert_allclose(
        estimator.predict_proba(X), estimator.sklearn_model.predict_proba(rows), atol=1e-3
    )
    assert estimator.score(X, labels) > 0.8


@pytest.mark.parametrize("with_rows", [False, True])
def test_models_with_names_are_compared_with_the_library(monkeypatch: Any, with_rows: bool) -> None:
    X, y = frame_of(300)
    theirs = forests.HistGradientBoostingRegressor(random_state=0, max_iter=5).fit(X, y)
    kept = HistGradientBoostingRegressor.read

    def wrong(model: Any) -> Any:
        ensemble = kept(model)
        flipped = [
            replace(t, categories={n: frozenset() for n in t.categories}) for t in ensemble.trees
        ]
        return replace(ensemble, trees=flipped)

    from_model(theirs, X if with_rows else None)
    monkeypatch.setattr(HistGradientBoostingRegressor, "read", staticmethod(wrong))
    with pytest.raises(ModelError, match="not understood"):
        from_model(theirs, X if with_rows else None)
