from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from cipherlearn.errors import (
    InvalidParameterError,
    InvalidTypeError,
    ModelError,
    NotFittedError,
    UnknownKeyError,
)
from cipherlearn.sklearn import LGBMClassifier, LGBMRegressor, from_model
from tests.sklearn.trees.boosted import N_ROWS, grid_rows, rows, same, values

X = rows()
Y = values(X)
COLOURS = np.array(["blue", "green", "red"])[np.digitize(Y, [0.2, 1.4])]
ANSWERS = np.where(Y > 0.8, "yes", "no")

SMALL: dict[str, Any] = {
    "n_estimators": 5,
    "num_leaves": 6,
    "n_jobs": 1,
    "random_state": 0,
    "verbose": -1,
}
FINE: dict[str, Any] = {**SMALL, "n_bits": {"op_inputs": 4, "op_leaves": 16}}
SPLIT_CATEGORIES = {"min_data_per_group": 5, "cat_smooth": 1.0}
FOREST = {"boosting_type": "rf", "subsample": 0.6, "subsample_freq": 1}


def check_scores(model: Any, grid: np.ndarray) -> None:
    """Scores are those of the library, which does not divide the sum of a forest."""
    raw = model.sklearn_model.predict(grid, raw_score=True)
    count = 1
    if model.get_params()["boosting_type"] == "rf":
        count = len(model.ensemble_.trees) // model.ensemble_.n_outputs
    same(model.ensemble_.raw_scores(grid), raw / count, 1e-12)


def check_classifier(model: Any, data: Any = X) -> None:
    grid, floats = grid_rows(model, data), model.sklearn_model
    check_scores(model, grid)
    same(model.predict_proba(data), floats.predict_proba(grid), 1e-3)
    assert (model.predict(data) == floats.predict(grid)).mean() > 0.99


def check_regressor(model: Any, data: Any = X) -> None:
    grid, floats = grid_rows(model, data), model.sklearn_model
    check_scores(model, grid)
    same(model.predict(data), floats.predict(grid), 1e-3)


@pytest.mark.parametrize(
    ("parameters", "labels"),
    [
        ({}, ANSWERS),
        ({"sigmoid": 2.5}, ANSWERS),
        ({"objective": "cross_entropy"}, ANSWERS),
        ({"objective": "multiclass", "num_class": 2}, ANSWERS),
        ({"class_weight": {"yes": 1.0, "no": 4.0}}, ANSWERS),
        ({}, COLOURS),
        ({"objective": "multiclassova", "sigmoid": 0.7}, COLOURS),
        ({"boosting_type": "dart", "drop_rate": 0.5}, COLOURS),
        (FOREST, ANSWERS),
        (FOREST, COLOURS),
    ],
)
def test_classifiers_give_the_scores_of_the_library(
    parameters: dict[str, Any], labels: np.ndarray
) -> None:
    model = LGBMClassifier(**FINE, **parameters).fit(X, labels)
    assert model.classes_.tolist() == sorted(set(labels))
    check_classifier(model)


@pytest.mark.parametrize(
    "parameters",
    [
        *(
            {"objective": name}
            for name in (
                "regression",
                "regression_l1",
                "huber",
                "fair",
                "poisson",
                "quantile",
                "mape",
                "gamma",
                "tweedie",
                "cross_entropy",
            )
        ),
        {"boosting_type": "dart", "drop_rate": 0.5},
        FOREST,
        {"max_depth": 2, "min_child_samples": 300},  # trees of one leaf
        {"use_missing": False},
    ],
)
def test_regressors_give_the_values_of_the_library(parameters: dict[str, Any]) -> None:
    targets = 1 / (1 + np.exp(-Y))  # positive, and at most one
    check_regressor(LGBMRegressor(**FINE, **parameters).fit(X, targets))


def test_probabilities_as_values() -> None:
    model = LGBMRegressor(objective="binary", sigmoid=2.0, **FINE).fit(X, (Y > 1).astype(float))
    check_regressor(model)


@pytest.mark.parametrize("parameters", [{}, FOREST])
def test_predictions_end_at_the_best_round(parameters: dict[str, Any]) -> None:
    options = {**FINE, **parameters, "n_estimators": 40, "learning_rate": 0.9}
    held_out = {"eval_X": X[:80], "eval_y": COLOURS[:80]}
    model = LGBMClassifier(early_stopping_round=3, **options)
    model.fit(X[80:], COLOURS[80:], **held_out)
    assert len(model.ensemble_.trees) == 3 * model.best_iteration_
    assert model.best_iteration_ < 36
    check_classifier(model)

    stop = lightgbm.early_stopping(3, verbose=False)
    same_model = LGBMClassifier(**options)
    same_model.fit(X[80:], COLOURS[80:], eval_set=[(X[:80], COLOURS[:80])], callbacks=[stop])
    np.testing.assert_array_equal(same_model.predict_proba(X), model.predict_proba(X))


def test_rows_to_evaluate_on_are_given_one_way() -> None:
    model = LGBMClassifier(**SMALL)
    with pytest.raises(InvalidParameterError, match="or as eval_set, not both"):
        model.fit(X, COLOURS, eval_X=X)
    with pytest.raises(InvalidParameterError, match="tuple of 2 arrays"):
        model.fit(X, COLOURS, eval_X=(X, X), eval_y=COLOURS)
    model.fit(X, COLOURS, eval_X=(X, X[:9]), eval_y=(COLOURS, COLOURS[:9]))
    assert len(model.evals_result_) == 2


@pytest.mark.parametrize("bits", [1, 4])
def test_zeros_may_be_missing_values(bits: int) -> None:
    gaps = np.nan_to_num(X)
    gaps[:, 1] = np.sign(gaps[:, 1]) * (1 + np.arange(N_ROWS) % 2)
    options = {**FINE, "n_bits": {"op_inputs": bits, "op_leaves": 16}}
    model = LGBMRegressor(zero_as_missing=True, **options).fit(gaps, Y)
    assert [code.missing for code in model.codes_] == ["own", "refused", "own"]
    assert not any((code.representatives == 0).any() for code in model.codes_)
    check_regressor(model, gaps)

    floats = lightgbm.LGBMRegressor(zero_as_missing=True, **SMALL).fit(gaps, Y)
    exact = LGBMRegressor.from_model(floats, inputs="used-thresholds")
    check_scores(exact, grid_rows(exact, gaps))
    check_regressor(
        LGBMRegressor(zero_as_missing=True, **SPLIT_CATEGORIES, **FINE).fit(
            gaps, Y, categorical_feature=[2]
        ),
        gaps,
    )


def test_a_state_of_both_signs_is_not_missing() -> None:
    data = np.tile([-2.0, -1.0, 1.0, 2.0], 60)[:, None] * [1.0, -1.0]
    options = {**FINE, "n_bits": {"op_inputs": 1, "op_leaves": 16}}
    targets = np.abs(data[:, 0]) + (data[:, 0] > 0)
    check_regressor(LGBMRegressor(zero_as_missing=True, **options).fit(data, targets), data)


@pytest.mark.parametrize("one_hot", [1, 100])
def test_categories_by_number_and_in_data_frames(one_hot: int) -> None:
    numbers = np.where(X[:, 2] == 6, np.nan, X[:, 2])
    options = {**FINE, **SPLIT_CATEGORIES, "max_cat_to_onehot": one_hot}
    targets = Y + 4 * (X[:, 2] == 3)
    given = np.column_stack([X[:, :2], numbers])
    model = LGBMRegressor(**options).fit(given, targets, categorical_feature=[2])
    assert any(tree.categories for tree in model.ensemble_.trees)
    check_regressor(model, given)

    names = pd.Categorical.from_codes(np.nan_to_num(numbers, nan=-1).astype(int), list("abcdef"))
    frame = pd.DataFrame({"x": X[:, 0], "y": X[:, 1], "z": names})
    framed = LGBMRegressor(**options).fit(frame, targets, eval_X=frame, eval_y=targets)
    np.testing.assert_array_equal(framed.predict(frame), model.predict(given))

    frame["z"] = numbers
    for chosen in ({}, {"feature_name": ["a", "b", "c"]}):
        name = chosen.get("feature_name", ["z"])[-1]
        named = LGBMRegressor(**options).fit(frame, targets, categorical_feature=[name], **chosen)
        np.testing.assert_array_equal(named.predict(frame), model.predict(given))


def test_categories_of_imported_models() -> None:
    codes = pd.Categorical(X[:, 2].astype(int) * 10)
    frame = pd.DataFrame({"x": X[:, 0].astype("float32"), "z": codes})
    frame.loc[::11, "z"] = np.nan
    floats = lightgbm.LGBMRegressor(**SMALL, **SPLIT_CATEGORIES).fit(frame, Y)
    for options in ({}, {"X": frame[:40]}, {"inputs": "used-thresholds"}):
        bits = {"op_inputs": 8, "op_leaves": 16}
        model = LGBMRegressor.from_model(floats, n_bits=bits, **options)
        assert model.categories_ == {1: list(range(0, 70, 10))}
        assert model.predict(frame).shape == (N_ROWS,)
    same(model.predict(frame), floats.predict(frame), 1e-3)


def test_categories_must_be_whole_numbers_of_known_features() -> None:
    model = LGBMRegressor(**SMALL)
    with pytest.raises(InvalidParameterError, match="feature 1 is categorical and holds"):
        model.fit(X, Y, categorical_feature=[1])
    with pytest.raises(InvalidParameterError, match="holds 'z'; the features are without names"):
        model.fit(X, Y, categorical_feature=["z"])
    with pytest.raises(InvalidParameterError, match="give it to fit, as categorical_feature"):
        LGBMRegressor(cat_feature=[2], **SMALL).fit(X, Y)


@pytest.mark.parametrize(
    ("estimator", "targets"),
    [(LGBMClassifier, ANSWERS), (LGBMClassifier, COLOURS), (LGBMRegressor, Y)],
)
def test_imported_models(estimator: Any, targets: np.ndarray) -> None:
    floats = estimator.float_class(**SMALL, min_split_gain=0.25).fit(X, targets)
    exact = estimator.from_model(floats, inputs="used-thresholds")
    check_scores(exact, grid_rows(exact, X))
    same(exact.ensemble_.raw_scores(X), floats.predict(X, raw_score=True), 1e-12)
    assert exact.get_params()["min_split_gain"] == 0.25
    assert exact.get_params()["verbose"] == -1
    assert exact.feature_importances_.sum() > 0
    for model in (estimator.from_model(floats, X, n_bits=8), from_model(floats)):
        assert type(model) is estimator
        ours, theirs = model.predict(X), floats.predict(X)
        close = ours == theirs if targets.dtype != float else np.abs(ours - theirs) < 0.2
        assert close.mean() > 0.85


def test_double_precision() -> None:
    data = 1.0 + np.tile(np.arange(8) * 1e-12, 30)[:, None]
    targets = (data[:, 0] > 1 + 3.5e-12).astype(float)
    model = LGBMRegressor(**FINE).fit(data, targets)
    assert model.codes_[0].n_states == 8
    check_regressor(model, data)
    exact = LGBMRegressor.from_model(model.sklearn_model, inputs="used-thresholds", n_bits=12)
    same(exact.predict(data), model.sklearn_model.predict(data), 1e-2)


def test_thresholds_that_nothing_reaches_do_not_shape_the_grid() -> None:
    gaps = np.where(np.arange(N_ROWS) % 2, np.nan, X[:, 1])[:, None]
    floats = lightgbm.LGBMRegressor(**SMALL).fit(gaps, np.isnan(gaps[:, 0]) + 0.1 * X[:, 1])
    assert any(np.isinf(tree.threshold).any() for tree in LGBMRegressor.read(floats).trees)
    model = LGBMRegressor.from_model(floats, n_bits=5)
    assert np.abs(model.codes_[0].representatives[:-1]).max() < 10
    assert np.abs(model.predict(gaps) - floats.predict(gaps)).max() < 0.1


@pytest.mark.parametrize(
    ("estimator", "parameters", "named"),
    [
        (LGBMClassifier, {"objective": "regression"}, "'regression'"),
        (LGBMRegressor, {"objective": "cross_entropy_lambda"}, "'cross_entropy_lambda'"),
        (LGBMRegressor, {"objective": lambda y, z: (z - y, np.ones_like(y))}, "'custom'"),
        (LGBMRegressor, {"reg_sqrt": True}, "'regression sqrt'"),
    ],
)
def test_other_objectives_are_named(estimator: Any, parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelError, match=f"objective {named} of the LGBM.* are: .*cross_entropy"):
        estimator(**parameters, **SMALL).fit(X, (Y > 1).astype(float))


def test_linear_leaves_are_refused() -> None:
    with pytest.raises(ModelError, match="linear_tree=False"):
        LGBMRegressor(linear_tree=True, **SMALL).fit(X[:, 1:], Y)


def test_a_form_that_is_not_known_is_not_taken_for_another(monkeypatch: Any) -> None:
    floats = lightgbm.LGBMRegressor(**SMALL).fit(X, Y)
    dump = floats.booster_.dump_model()
    monkeypatch.setattr(floats.booster_, "dump_model", lambda **_: {**dump, "average_output": True})
    monkeypatch.setattr(floats.booster_, "predict", lambda x, **_: np.zeros(len(x)))
    with pytest.raises(ModelError, match=r"lightgbm .* stores it in a way that is not known"):
        from_model(floats)


def test_bad_input() -> None:
    with pytest.raises(NotFittedError, match="LGBMClassifier is not fitted"):
        from_model(lightgbm.LGBMClassifier())
    with pytest.raises(InvalidTypeError, match="takes a fitted LGBMRegressor, not a LGBMClassif"):
        LGBMRegressor.from_model(lightgbm.LGBMClassifier())
    with pytest.raises(InvalidParameterError, match=r"one class only, \['a'\]"):
        LGBMClassifier(**SMALL).fit(X, np.full(N_ROWS, "a"))
    model = LGBMRegressor(**SMALL).fit(X, Y)
    with pytest.raises(ValueError, match="X has 2 features"):
        model.predict(X[:, :2])


def test_the_contract_of_scikit_learn() -> None:
    weights = np.where(X[:, 1] > 0, 1.0, 3.0)
    model = LGBMClassifier(**SMALL, n_bits=3).fit(X, COLOURS, sample_weight=weights)
    assert model.feature_importances_.shape == (3,)
    plain = clone(model).fit(X, COLOURS)
    assert (plain.predict_proba(X) != model.predict_proba(X)).any()
    assert plain.sklearn_model.get_params()["verbose"] == -1
    np.testing.assert_array_equal(
        clone(model).fit(X, COLOURS).predict_proba(X), plain.predict_proba(X)
    )
    search = GridSearchCV(clone(model), {"learning_rate": [1e-6, 0.3], "n_bits": [2]}, cv=2)
    assert search.fit(X, COLOURS).best_params_["learning_rate"] == 0.3


@pytest.mark.parametrize("ensembling", ["server", "client"])
def test_encrypted_predictions_are_those_in_the_clear(ensembling: str) -> None:
    classifier = LGBMClassifier(**SMALL, n_bits=3, ensembling=ensembling).fit(X, COLOURS)
    regressor = LGBMRegressor(**SMALL, n_bits=4, ensembling=ensembling).fit(X, Y)
    for model in (classifier, regressor):
        model.compile(engine="clear")
        for mode in ("simulate", "execute"):
            np.testing.assert_array_equal(model.predict(X[:20], fhe=mode), model.predict(X[:20]))


def test_encryption() -> None:
    options = {**SMALL, "n_estimators": 3, "num_leaves": 4, "n_bits": 2}
    model = LGBMClassifier(**options).fit(X, ANSWERS)
    model.compile(X)
    np.testing.assert_array_equal(
        model.predict_proba(X[:4], fhe="execute"), model.predict_proba(X[:4])
    )


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(
    ("parameters", "targets", "kind"),
    [
        ({"objective": "binary"}, 1 * (Y > 0.8), LGBMClassifier),
        ({"objective": "multiclass", "num_class": 3}, np.digitize(Y, [0, 1]), LGBMClassifier),
        ({"objective": "regression"}, Y, LGBMRegressor),
        ({"objective": "cross_entropy"}, 1.0 * (Y > 0.8), LGBMRegressor),
    ],
)
def test_boosters(parameters: dict[str, Any], targets: Any, kind: Any, stored: bool) -> None:
    frame = pd.DataFrame(X, columns=list("abc"))
    given = {"num_leaves": 6, "verbose": -1, "num_threads": 1, **parameters}
    booster = lightgbm.train(given, lightgbm.Dataset(frame, targets), 5)
    wanted = booster.predict(X)
    if stored:
        booster = lightgbm.Booster(model_str=booster.model_to_string())
    bits = {"op_inputs": 8, "op_leaves": 16}
    model = from_model(booster, frame, inputs="used-thresholds", n_bits=bits)
    assert type(model) is kind
    assert type(kind.from_model(booster)) is kind
    assert model.get_params()["objective"] == parameters["objective"]
    assert model.get_params()["num_leaves"] == 6
    assert model.get_params()["n_estimators"] == 5
    assert model.feature_names_in_.tolist() == list("abc")
    assert model.agreement_ > 0.99
    if kind is LGBMRegressor:
        same(model.predict(frame), wanted, 1e-3)
        return
    assert model.classes_.tolist() == np.unique(targets).tolist()
    shares = model.predict_proba(frame)
    same(shares if wanted.ndim == 2 else shares[:, 1], wanted, 1e-3)
    np.testing.assert_array_equal(
        model.sklearn_model.predict(frame), model.sklearn_model.predict_proba(frame).argmax(axis=1)
    )


def test_boosters_of_other_objectives() -> None:
    data = lightgbm.Dataset(X, Y > 0, group=[N_ROWS])
    booster = lightgbm.train({"objective": "lambdarank", "verbose": -1}, data, 2)
    with pytest.raises(ModelError, match=r"'lambdarank.*' of the LGBMRegressor is not supported"):
        from_model(booster)


@pytest.mark.parametrize(("given", "meant"), [("n_bit", "n_bits"), ("input", "inputs")])
def test_misspelt_parameters_are_not_given_to_the_library(given: str, meant: str) -> None:
    with pytest.raises(UnknownKeyError, match=f"no parameter '{given}'; did you mean '{meant}'"):
        LGBMClassifier(**SMALL, **{given: 4}).fit(X, ANSWERS)
    with pytest.raises(UnknownKeyError, match=f"did you mean '{meant}'"):
        LGBMClassifier().set_params(**{given: 4})
    LGBMClassifier(**SMALL, max_bin=15, bin_construct_sample_cnt=99).fit(X, ANSWERS)


@pytest.mark.parametrize("name", ["seed", "random_seed", "random_state"])
def test_a_seed_has_several_names(name: str) -> None:
    given = {**SMALL, "random_state": None, name: 3}
    model, floats = LGBMRegressor(**given).fit_benchmark(X, Y, random_state=5)
    assert model.get_params()[name] == 3
    assert floats.get_params()[name] == model.sklearn_model.get_params()[name] == 5
