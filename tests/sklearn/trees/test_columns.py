"""Columns of data frames: which are categories, and what becomes of those that nobody knows."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cipherlearn.errors import CipherlearnWarning, InvalidParameterError
from cipherlearn.sklearn import HistGradientBoostingClassifier, RandomForestRegressor
from cipherlearn.sklearn.trees.columns import (
    categories_of,
    check_range,
    holds_categories,
    numbered,
    refuse_text,
)


@pytest.mark.parametrize(
    ("values", "dtype", "is_categorical"),
    [
        ([1.5, None, 3], object, False),
        ([1, pd.NA, True], object, False),
        (["1", "2.5"], object, False),
        (["1", "b"], object, True),
        ([(1, 2), (3, 4)], object, True),
        ([1, 2], "category", True),
        ([1, 2], "Int64", False),
    ],
)
def test_columns_of_numbers_hold_no_categories(
    values: list[Any], dtype: Any, is_categorical: bool
) -> None:
    column = pd.Series(values, dtype=dtype)
    assert holds_categories(column) == is_categorical
    if not is_categorical and dtype is object:
        found = numbered(column.to_frame("a"), {})["a"]
        expected = [np.nan if pd.isna(v) else float(v) for v in values]
        np.testing.assert_array_equal(found, expected)


def test_training_takes_objects_that_are_numbers_for_numbers() -> None:
    lightgbm = pytest.importorskip("lightgbm")
    del lightgbm
    from cipherlearn.sklearn import LGBMClassifier

    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 3)), columns=list("abc"))
    y = (frame["a"] > 0).astype(int)
    model = LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1)
    objects = model.fit(frame.astype(object), y).predict_proba(frame.astype(object))
    np.testing.assert_array_equal(objects, model.fit(frame, y).predict_proba(frame))
    assert model.categories_ == {}


def test_unknown_categories_are_told() -> None:
    known = pd.Series(["a", "b", "c"])
    categories = {0: categories_of(known)}
    few = pd.DataFrame({"k": ["a", "b", "new", None]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(numbered(few, categories)["k"], [0, 1, np.nan, np.nan])
    with pytest.warns(CipherlearnWarning, match=r"2 of 3 values in column 'k' of X, such as 'new'"):
        numbered(pd.DataFrame({"k": ["new", "other", "c"]}), categories)
    with pytest.raises(InvalidParameterError, match="numbers and text are never the same"):
        numbered(pd.DataFrame({"k": [1, 2, 3]}), categories)


def test_columns_need_names_of_their_own() -> None:
    frame = pd.DataFrame(np.zeros((10, 2)), columns=["a", "a"])
    with pytest.raises(InvalidParameterError, match=r"several columns of the names \['a'\]"):
        HistGradientBoostingClassifier().fit(frame, np.arange(10) % 2)


def test_dates_are_refused() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0], "day": pd.to_datetime(["2020-01-01", "2021-01-01"])})
    with pytest.raises(InvalidParameterError, match=r"columns \['day'\] of X hold dates"):
        refuse_text(frame, "train", False)
    with pytest.raises(InvalidParameterError, match="hold dates"):
        RandomForestRegressor().fit(frame, [0.0, 1.0])


def test_values_beyond_single_precision_are_refused() -> None:
    rows = np.array([[1.0], [-1e300], [np.nan]])
    check_range(rows, np.float64)
    with pytest.raises(InvalidParameterError, match=r"X holds -1e\+300.*float32"):
        check_range(rows, np.float32)
    X, y = np.arange(10.0)[:, None], np.arange(10.0)
    model = RandomForestRegressor(n_estimators=1)
    for call in (lambda: model.fit(X, y).predict(1e300 + X), lambda: model.fit(1e300 + X, y)):
        with pytest.raises(InvalidParameterError, match="scale the feature"):
            call()
