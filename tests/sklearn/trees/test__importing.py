"""Imports of models that split on categories, and of rows that hold them in other ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from cipherlearn.errors import (
    AgreementWarning,
    InvalidParameterError,
    InvalidTypeError,
    ModelError,
)
from cipherlearn.sklearn import from_model

RNG = np.random.default_rng(0)
KIND = RNG.integers(0, 5, 400)
NUMBERS = RNG.normal(size=400)
TARGET = ((KIND == 2) | (KIND == 4) | (NUMBERS > 1)).astype(int)
NAMES = np.array(["delta", "alpha", "omega", "beta", "gamma"])
NAMED = pd.DataFrame({"x": NUMBERS, "kind": pd.Categorical(NAMES[KIND])})


def lightgbm_model(**parameters: Any) -> Any:
    lightgbm = pytest.importorskip("lightgbm")
    quick = {"n_estimators": 20, "min_child_samples": 5, "verbose": -1, "n_jobs": 1}
    return lightgbm.LGBMClassifier(**quick, **parameters)


def xgboost_model(**parameters: Any) -> Any:
    xgboost = pytest.importorskip("xgboost")
    return xgboost.XGBClassifier(n_estimators=20, n_jobs=1, enable_categorical=True, **parameters)


def catboost_model(**parameters: Any) -> Any:
    catboost = pytest.importorskip("catboost")
    quick = {"iterations": 20, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
    return catboost.CatBoostClassifier(**quick, **parameters)


def interpret_model() -> Any:
    glassbox = pytest.importorskip("interpret.glassbox")
    return glassbox.ExplainableBoostingClassifier(
        max_rounds=100, outer_bags=1, n_jobs=1, interactions=0
    )


def alike(ours: Any, theirs: Any, X: Any, as_trained: Any = None) -> float:
    """The share of rows that both predict alike."""
    labels = np.asarray(theirs.predict(X if as_trained is None else as_trained)).ravel()
    return float((ours.predict(X) == labels).mean())


@pytest.mark.parametrize(
    "made",
    [
        lightgbm_model,
        xgboost_model,
        catboost_model,
        interpret_model,
        lambda: HistGradientBoostingClassifier(max_iter=10),
        lambda: RandomForestClassifier(5, random_state=0),
    ],
)
def test_numbers_in_columns_of_objects_are_numbers(made: Any) -> None:
    frame = pd.DataFrame(np.random.default_rng(1).normal(size=(300, 3)), columns=list("abc"))
    y = (frame["a"] + frame["b"] * frame["c"] > 0).astype(int)
    model = made().fit(frame, y)
    objects = frame.astype(object)
    ours = from_model(model, objects)
    assert ours.agreement_ > 0.97
    assert alike(ours, model, objects, frame) == pytest.approx(ours.agreement_, abs=0.02)


@pytest.mark.parametrize("made", [lightgbm_model, xgboost_model])
def test_categories_that_a_model_does_not_name_are_not_numbered_anew(made: Any) -> None:
    array = np.column_stack([NUMBERS, 10.0 * KIND])
    if made is xgboost_model:
        model = made(feature_types=["q", "c"]).fit(array, TARGET)
    else:
        model = made().fit(array, TARGET, categorical_feature=[1])
    frame = pd.DataFrame({"x": NUMBERS, "kind": pd.Categorical(10 * KIND)})
    with pytest.raises(InvalidParameterError, match=r"'kind'.*does not tell how it numbers them"):
        from_model(model, frame)
    assert alike(from_model(model, array), model, array) > 0.99


def test_categories_that_a_model_takes_by_value_may_be_of_any_dtype() -> None:
    array = np.column_stack([NUMBERS, 10.0 * KIND])
    model = HistGradientBoostingClassifier(max_iter=10, categorical_features=[1])
    model.fit(pd.DataFrame(array, columns=["x", "kind"]), TARGET)
    frame = pd.DataFrame({"x": NUMBERS, "kind": pd.Categorical(10 * KIND)})
    assert alike(from_model(model, frame), model, frame) > 0.99


@pytest.mark.parametrize("dtype", ["category", object])
def test_columns_that_do_not_vary_leave_the_others_their_names(dtype: Any) -> None:
    frame = NAMED.assign(same=pd.Categorical(["k"] * 400))[["same", "x", "kind"]]
    model = lightgbm_model().fit(frame, TARGET)
    few = frame[np.isin(KIND, [1, 2, 4])].copy()
    few["kind"] = few["kind"].cat.remove_unused_categories()
    moved = frame.assign(kind=frame["kind"].cat.reorder_categories(list(NAMES)))
    for X in (None, frame, few, moved):
        given = X if X is None else X.astype({"kind": dtype, "same": dtype})
        ours = from_model(model, given)
        assert ours.categories_[2] == sorted(NAMES)
        assert alike(ours, model, frame) > 0.99


def test_names_that_belong_to_no_certain_column_are_refused() -> None:
    frame = NAMED.assign(number=KIND, same=pd.Categorical(["k"] * 400))
    model = lightgbm_model().fit(frame[["same", "number"]], TARGET, categorical_feature=["number"])
    with pytest.raises(ModelError, match="which columns its names of categories belong to"):
        from_model(model, frame[["same", "number"]])


def test_categories_that_rows_lack_are_known_by_the_splits() -> None:
    array = np.column_stack([NUMBERS, KIND])
    model = xgboost_model(feature_types=["q", "c"], max_cat_to_onehot=1).fit(array, TARGET)
    for lacking in range(5):
        ours = from_model(model, array[lacking != KIND])
        assert alike(ours, model, array) > 0.99


def test_hashes_without_names_are_refused() -> None:
    model = catboost_model(cat_features=["kind"], one_hot_max_size=10).fit(NAMED, TARGET)
    assert alike(from_model(model, NAMED), model, NAMED) > 0.99
    with pytest.raises(ModelError, match=r"category of feature 1 \(kind\).*none of the rows X"):
        from_model(model, NAMED[KIND != 2])


@pytest.mark.parametrize("made", [lightgbm_model, xgboost_model])
def test_models_that_name_categories_take_data_frames(made: Any) -> None:
    frame = pd.DataFrame({"x": NUMBERS, "kind": pd.Categorical(10 + 10 * KIND)})
    model = made().fit(frame, TARGET)
    ours = from_model(model, frame)
    assert alike(ours, model, frame) > 0.99
    with pytest.raises(InvalidTypeError, match="by name; give a data frame"):
        ours.predict(frame.to_numpy(dtype=float))
    with pytest.raises(InvalidTypeError, match="by name; give a data frame"):
        from_model(model, frame.to_numpy(dtype=float))


def test_boosters_that_name_categories_take_data_frames() -> None:
    model = xgboost_model().fit(NAMED, TARGET)
    ours = from_model(model.get_booster(), NAMED)
    assert alike(ours, model, NAMED) > 0.99


def test_agreement_is_with_the_model_on_the_rows_as_given(monkeypatch: Any) -> None:
    model = xgboost_model().fit(NAMED, TARGET)
    wrong = {1: ["beta", "alpha", "gamma", "delta", "omega"]}
    monkeypatch.setattr("cipherlearn.sklearn.XGBClassifier._category_names", lambda _: wrong)
    with pytest.warns(AgreementWarning):
        ours = from_model(model, NAMED)
    assert ours.agreement_ == pytest.approx(alike(ours, model, NAMED))
