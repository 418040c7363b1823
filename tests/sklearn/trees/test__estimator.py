"""What all tree estimators share, beside what `tests/sklearn/test_estimator_checks.py` checks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor as FloatHist
from sklearn.ensemble import RandomForestRegressor as FloatForest

from cipherlearn.errors import InvalidParameterError, InvalidTypeError, NotFittedError
from cipherlearn.sklearn import (
    DecisionTreeClassifier,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)


def frame(rows: int = 200) -> tuple[pd.DataFrame, np.ndarray]:
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(rows, 3)), columns=list("abc"))
    return x, 3.0 * x["a"].to_numpy() - x["b"].to_numpy()


def test_imported_models_keep_the_names_of_their_features() -> None:
    x, y = frame()
    model = FloatForest(n_estimators=5, max_depth=5, random_state=0).fit(x, y)
    for given in (None, x, x.to_numpy()):
        if isinstance(given, np.ndarray):
            with pytest.warns(UserWarning, match="valid feature names"):
                ours = RandomForestRegressor.from_model(model, given)
        else:
            ours = RandomForestRegressor.from_model(model, given)
        assert ours.feature_names_in_.tolist() == ["a", "b", "c"]
        assert ours.score(x, y) > 0.8
    with pytest.raises(ValueError, match="same order"):
        RandomForestRegressor.from_model(model, x[["c", "a", "b"]])
    with pytest.raises(ValueError, match="same order"):
        ours.predict(x[["c", "a", "b"]])


def test_an_imported_model_can_be_trained_anew() -> None:
    x, y = frame()
    model = FloatForest(n_estimators=3, max_depth=3, random_state=0).fit(x, y)
    ours = RandomForestRegressor.from_model(model).fit(x.to_numpy()[:, :2], y)
    assert ours.n_features_in_ == 2
    assert not hasattr(ours, "feature_names_in_")


def test_categories_of_a_frame_need_a_frame() -> None:
    numbers = np.random.default_rng(1).integers(1, 5, size=200)
    x = pd.DataFrame({"kind": pd.Categorical(numbers), "size": np.linspace(0, 1, 200)})
    y = np.array([0.0, 5.0, -3.0, 9.0, 1.0])[numbers]
    model = HistGradientBoostingRegressor(max_iter=20, random_state=0).fit(x, y)
    assert model.score(x, y) > 0.9
    assert FloatHist(max_iter=20, random_state=0).fit(x, y).score(x, y) > 0.9
    with pytest.raises(InvalidTypeError, match="give a data frame"):
        model.predict(x.astype(float).to_numpy())


def test_a_training_that_fails_leaves_nothing_of_the_one_before() -> None:
    x, _ = frame(40)
    labels = np.array(["a", "b"])[(x["a"] > 0).astype(int)]
    model = DecisionTreeClassifier(random_state=0).fit(x, labels)
    with pytest.raises(ValueError, match="max_depth"):
        model.set_params(max_depth=-3).fit(x, labels)
    with pytest.raises(NotFittedError):
        model.predict(x)


def test_importing_does_not_choose_bits() -> None:
    x, y = frame()
    model = FloatForest(n_estimators=2, random_state=0).fit(x, y)
    with pytest.raises(InvalidParameterError, match="does not train"):
        RandomForestRegressor.from_model(model, n_bits="auto")


def test_outliers_and_skewed_features_keep_their_accuracy() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 3))
    y = x[:, 0] + np.sin(2 * x[:, 1])
    x[:, 1] = np.exp(2 * x[:, 1])
    x[0, 0] = 1e6
    model = RandomForestRegressor(n_estimators=10, max_depth=8, random_state=0).fit(x, y)
    assert model.score(x[1:], y[1:]) > 0.85
