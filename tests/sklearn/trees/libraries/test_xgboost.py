from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from cipherlearn.errors import (
    InvalidParameterError,
    InvalidTypeError,
    ModelError,
    NotFittedError,
    UnknownKeyError,
)
from cipherlearn.sklearn import (
    XGBClassifier,
    XGBRegressor,
    XGBRFClassifier,
    XGBRFRegressor,
    from_model,
)
from cipherlearn.sklearn.trees._estimator import on_grid
from tests.sklearn.trees.boosted import N_ROWS, grid_rows, rows, same, values

X = rows()
Y = values(X)
COLOURS = np.array(["blue", "green", "red"])[np.digitize(Y, [0.2, 1.4])]
ANSWERS = np.where(Y > 0.8, "yes", "no")

SMALL: dict[str, Any] = {"n_estimators": 5, "max_depth": 3, "n_jobs": 1, "random_state": 0}
FINE: dict[str, Any] = {**SMALL, "n_bits": {"op_inputs": 4, "op_leaves": 16}}


def check_classifier(model: Any, data: Any = X) -> None:
    """Scores are those of the library, and what follows from them."""
    grid, floats = grid_rows(model, data), model.sklearn_model
    same(model.ensemble_.raw_scores(grid), floats.predict(grid, output_margin=True), 1e-5)
    same(model.predict_proba(data), floats.predict_proba(grid), 1e-3)
    assert (model.predict(data) == model.classes_[floats.predict(grid)]).mean() > 0.99


def check_regressor(model: Any, data: Any = X) -> None:
    grid, floats = grid_rows(model, data), model.sklearn_model
    same(model.ensemble_.raw_scores(grid), floats.predict(grid, output_margin=True), 1e-5)
    same(model.predict(data), floats.predict(grid), 1e-3)


@pytest.mark.parametrize("base_score", [None, 0.3])
@pytest.mark.parametrize(
    ("objective", "labels"),
    [
        ("binary:logistic", ANSWERS),
        ("reg:logistic", ANSWERS),
        ("multi:softprob", COLOURS),
        ("multi:softmax", COLOURS),
    ],
)
def test_classifiers_give_the_scores_of_the_library(
    objective: str, labels: np.ndarray, base_score: float | None
) -> None:
    model = XGBClassifier(objective=objective, base_score=base_score, **FINE).fit(X, labels)
    assert model.classes_.tolist() == sorted(set(labels))
    check_classifier(model)


@pytest.mark.parametrize("base_score", [None, 0.3])
@pytest.mark.parametrize(
    "objective",
    [
        "reg:squarederror",
        "reg:absoluteerror",
        "reg:pseudohubererror",
        "count:poisson",
        "reg:gamma",
        "reg:tweedie",
        "reg:logistic",
        "binary:logistic",
        "binary:logitraw",
    ],
)
def test_regressors_give_the_values_of_the_library(
    objective: str, base_score: float | None
) -> None:
    targets = 1 / (1 + np.exp(-Y))  # positive, and at most one
    check_regressor(
        XGBRegressor(objective=objective, base_score=base_score, **FINE).fit(X, targets)
    )


@pytest.mark.parametrize(
    ("parameters", "outputs"),
    [
        ({"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]}, 3),
        ({"objective": "reg:quantileerror", "quantile_alpha": 0.4}, 1),
        ({"booster": "dart", "rate_drop": 0.5, "n_estimators": 12}, 1),
        ({"num_parallel_tree": 3}, 1),
        ({"grow_policy": "lossguide", "max_leaves": 6, "max_depth": 0}, 1),
        ({"tree_method": "exact", "gamma": 3.0, "max_depth": 5}, 1),
    ],
)
def test_ways_to_grow_trees(parameters: dict[str, Any], outputs: int) -> None:
    model = XGBRegressor(**{**FINE, **parameters}).fit(X, Y)
    assert model.ensemble_.n_outputs == outputs
    check_regressor(model)


@pytest.mark.parametrize("strategy", ["one_output_per_tree", "multi_output_tree"])
def test_several_targets_and_classes_in_one_tree(strategy: str) -> None:
    model = XGBRegressor(multi_strategy=strategy, **FINE).fit(X, np.stack([Y, -2 * Y], axis=1))
    assert model.predict(X).shape == (N_ROWS, 2)
    check_regressor(model)
    check_classifier(XGBClassifier(multi_strategy=strategy, **FINE).fit(X, COLOURS))


def test_random_forests() -> None:
    check_classifier(XGBRFClassifier(**FINE).fit(X, ANSWERS))
    check_classifier(XGBRFClassifier(**FINE).fit(X, COLOURS))
    check_regressor(XGBRFRegressor(**FINE).fit(X, Y))


def test_raw_logarithms_of_odds_are_probabilities() -> None:
    raw = XGBClassifier(objective="binary:logitraw", base_score=0.0, **FINE).fit(X, ANSWERS)
    plain = XGBClassifier(base_score=0.5, **FINE).fit(X, ANSWERS)
    same(raw.predict_proba(X), plain.predict_proba(X), 1e-5)
    grid = grid_rows(raw, X)
    margin = raw.sklearn_model.predict(grid, output_margin=True)
    same(raw.ensemble_.raw_scores(grid), margin, 1e-5)


@pytest.mark.parametrize("parallel", [1, 2])
def test_predictions_end_at_the_best_round(parallel: int) -> None:
    options = {**FINE, "n_estimators": 40, "learning_rate": 0.9}
    model = XGBClassifier(early_stopping_rounds=3, num_parallel_tree=parallel, **options)
    model.fit(X[80:], COLOURS[80:], eval_set=[(X[:80], COLOURS[:80])], verbose=False)
    assert len(model.ensemble_.trees) == 3 * parallel * (model.best_iteration + 1)
    assert model.best_iteration < 36
    assert model.best_score > 0
    check_classifier(model)


def test_labels_to_evaluate_on_must_be_known() -> None:
    model = XGBClassifier(**SMALL)
    with pytest.raises(InvalidParameterError, match=r"eval_set holds the labels \['maybe'\]"):
        model.fit(X, ANSWERS, eval_set=[(X[:1], ["maybe"])])


def test_a_value_may_stand_for_missing_ones() -> None:
    gaps = np.where(np.isnan(X), -9.0, X)
    model = XGBRegressor(missing=-9.0, **FINE).fit(gaps, Y)
    np.testing.assert_array_equal(model.predict(gaps), XGBRegressor(**FINE).fit(X, Y).predict(X))
    check_regressor(model, gaps)
    assert model.sklearn_model.missing == -9.0


@pytest.mark.parametrize("one_hot", [2, 100])
def test_categories_by_number_and_in_data_frames(one_hot: int) -> None:
    numbers = np.where(X[:, 2] == 6, np.nan, X[:, 2])
    options = {**FINE, "enable_categorical": True, "max_cat_to_onehot": one_hot}
    given = np.column_stack([X[:, :2], numbers])
    model = XGBRegressor(feature_types=["q", "q", "c"], **options).fit(given, Y)
    assert any(tree.categories for tree in model.ensemble_.trees)
    check_regressor(model, given)

    names = pd.Categorical.from_codes(np.nan_to_num(numbers, nan=-1).astype(int), list("abcdef"))
    frame = pd.DataFrame({"x": X[:, 0], "y": X[:, 1], "z": names})
    framed = XGBRegressor(**options).fit(frame, Y, eval_set=[(frame, Y)], verbose=False)
    np.testing.assert_array_equal(framed.predict(frame), model.predict(given))
    with pytest.raises(InvalidParameterError, match=r"\['z'\] hold categories: set enable_cat"):
        XGBRegressor(**SMALL).fit(frame, Y)


def test_categories_of_imported_models() -> None:
    codes = pd.Categorical(X[:, 2].astype(int) * 10)
    frame = pd.DataFrame({"x": X[:, 0].astype("float32"), "z": codes})
    frame.loc[::11, "z"] = np.nan
    floats = xgboost.XGBRegressor(enable_categorical=True, max_cat_to_onehot=2, **SMALL)
    floats.fit(frame, Y)
    for options in ({}, {"X": frame[:40]}, {"inputs": "used-thresholds"}):
        bits = {"op_inputs": 8, "op_leaves": 16}
        model = XGBRegressor.from_model(floats, n_bits=bits, **options)
        assert model.categories_ == {1: list(range(0, 70, 10))}
        assert model.predict(frame).shape == (N_ROWS,)
    same(model.predict(frame), floats.predict(frame), 1e-3)

    # Categories without names: those that no split sends right go left, and missing ones elsewhere.
    floats = xgboost.XGBRegressor(
        enable_categorical=True, feature_types=["q", "c"], max_cat_to_onehot=2, **SMALL
    )
    table = np.column_stack([X[:, 0], np.where(X[:, 2] == 5, np.nan, X[:, 2])]).astype(np.float32)
    floats.fit(table, Y)
    model = XGBRegressor.from_model(floats, n_bits=bits, inputs="used-thresholds")
    same(model.predict(table), floats.predict(table), 1e-3)


@pytest.mark.parametrize(
    ("estimator", "targets"),
    [
        (XGBClassifier, (Y > 1).astype(int)),
        (XGBRFClassifier, (Y > 1).astype(int)),
        (XGBRegressor, Y),
    ],
)
def test_imported_models(estimator: Any, targets: np.ndarray) -> None:
    floats = estimator.float_class(**{**SMALL, "gamma": 0.25}).fit(X, targets)
    margin = floats.predict(X, output_margin=True)
    exact = estimator.from_model(floats, inputs="used-thresholds")
    same(exact.ensemble_.raw_scores(grid_rows(exact, X)), margin, 1e-5)
    assert exact.get_params()["gamma"] == 0.25
    for model in (estimator.from_model(floats, X, n_bits=8), from_model(floats)):
        assert type(model) is estimator
        close = np.abs(model.predict(X) - floats.predict(X)) < 0.2
        assert close.mean() > 0.85


def test_models_of_files_and_parameters_by_other_names(tmp_path: Path) -> None:
    options = {"objective": "reg:quantileerror", "quantile_alpha": [0.2, 0.8]}
    xgboost.XGBRegressor(**SMALL, **options).fit(X, Y).save_model(tmp_path / "model.json")
    floats = xgboost.XGBRegressor(**options)
    floats.load_model(tmp_path / "model.json")
    model = XGBRegressor.from_model(floats, inputs="used-thresholds", n_bits=12)
    assert model.get_params()["quantile_alpha"] == [0.2, 0.8]
    assert clone(model).get_params()["quantile_alpha"] == [0.2, 0.8]
    same(model.predict(X), floats.predict(X), 1e-2)


@pytest.mark.parametrize(
    ("estimator", "objective"),
    [
        (XGBClassifier, "binary:hinge"),
        (XGBRegressor, "reg:squaredlogerror"),
    ],
)
def test_other_objectives_are_named(estimator: Any, objective: Any) -> None:
    model = estimator(objective=objective, **SMALL)
    targets = (Y > 1).astype(float)
    with pytest.raises(ModelError) as caught:
        model.fit(X, targets)
    assert repr(objective) in str(caught.value)
    assert "binary:logistic" in str(caught.value)


def test_functions_as_objectives_are_alike_in_all_ways_to_train() -> None:
    def squared(truth: Any, scores: Any) -> Any:
        return scores - truth, np.ones_like(truth)

    bits = {"op_inputs": 8, "op_leaves": 16}
    model = XGBRegressor(objective=squared, **{**FINE, "n_bits": bits}).fit(X, Y)
    same(model.predict(X), model.sklearn_model.predict(grid_rows(model, X)), 1e-3)
    booster = xgboost.train(
        {}, xgboost.DMatrix(X, Y), 3, obj=lambda s, d: squared(d.get_label(), s)
    )
    floats = xgboost.XGBRegressor(objective=squared, **SMALL).fit(X, Y)
    for trained, theirs in ((booster, booster.inplace_predict(X)), (floats, floats.predict(X))):
        ours = from_model(trained, X, n_bits=bits, inputs="used-thresholds")
        same(ours.predict(X), theirs, 1e-3)


@pytest.mark.parametrize("weights", [np.ones(3), -np.ones(len(Y)), np.full(len(Y), np.nan)])
def test_weights_are_a_number_from_zero_a_row(weights: np.ndarray) -> None:
    with pytest.raises(InvalidParameterError, match="sample_weight must hold a number from 0"):
        XGBRegressor(**SMALL).fit(X, Y, sample_weight=weights)


def test_what_has_no_trees_is_refused() -> None:
    floats = xgboost.XGBRegressor(booster="gblinear", n_estimators=2).fit(X[:, 1:], Y)
    with pytest.raises(ModelError, match="booster='gblinear'"):
        from_model(floats)
    several = xgboost.XGBClassifier(**SMALL).fit(X, np.stack([Y > 0, Y > 1], axis=1))
    with pytest.raises(ModelError, match="several targets"):
        from_model(several)


def test_a_form_that_is_not_known_is_not_taken_for_another(monkeypatch: Any) -> None:
    floats = xgboost.XGBRegressor(**SMALL).fit(X, Y)
    changed = json.loads(floats.get_booster().save_raw("json"))
    changed["learner"]["learner_model_param"]["base_score"] = "[7.5E-1]"
    save = lambda self, raw_format: json.dumps(changed).encode()  # noqa: E731
    monkeypatch.setattr(xgboost.Booster, "save_raw", save)
    with pytest.raises(ModelError, match=rf"xgboost {re.escape(xgboost.__version__)} stores it"):
        from_model(floats)


def test_bad_input() -> None:
    with pytest.raises(NotFittedError, match="XGBClassifier is not fitted"):
        from_model(xgboost.XGBClassifier())
    with pytest.raises(InvalidTypeError, match="takes a fitted XGBRegressor, not a XGBClassifier"):
        XGBRegressor.from_model(xgboost.XGBClassifier())
    with pytest.raises(InvalidParameterError, match=r"one class only, \['a'\]"):
        XGBClassifier(**SMALL).fit(X, np.full(N_ROWS, "a"))
    model = XGBClassifier(**SMALL).fit(X, COLOURS)
    with pytest.raises(ValueError, match="X has 2 features"):
        model.predict(X[:, :2])
    with pytest.raises(InvalidParameterError, match="feature 1 holds NaN"):
        model.predict(np.full((1, 3), np.nan))


def test_the_contract_of_scikit_learn() -> None:
    weights = np.where(X[:, 1] > 0, 1.0, 3.0)
    model = XGBClassifier(**SMALL, n_bits=3).fit(X, COLOURS, sample_weight=weights)
    assert model.feature_importances_.shape == (3,)
    plain = clone(model).fit(X, COLOURS)
    assert (plain.predict_proba(X) != model.predict_proba(X)).any()
    np.testing.assert_array_equal(
        clone(model).fit(X, COLOURS).predict_proba(X), plain.predict_proba(X)
    )
    search = GridSearchCV(clone(model), {"max_depth": [1, 3], "n_bits": [2, 4]}, cv=2)
    scores = search.fit(X, COLOURS).cv_results_["mean_test_score"]
    assert len(set(scores)) > 1
    assert search.best_score_ == max(scores)


def test_the_float_model_beside_takes_numbers_for_labels() -> None:
    held_out = {"eval_set": [(X, COLOURS)], "verbose": False}
    model, floats = XGBClassifier(**SMALL).fit_benchmark(X, COLOURS, **held_out)
    assert model.classes_.tolist() == ["blue", "green", "red"]
    assert (model.predict(X) == model.classes_[floats.predict(X)]).mean() > 0.9


@pytest.mark.parametrize(
    ("parameters", "targets", "kind"),
    [
        ({"objective": "binary:logistic"}, Y > 0.8, XGBClassifier),
        ({"objective": "multi:softmax", "num_class": 3}, np.digitize(Y, [0, 1]), XGBClassifier),
        ({"objective": "reg:squarederror"}, Y, XGBRegressor),
        ({"objective": "reg:logistic"}, 1.0 * (Y > 0.8), XGBRegressor),
    ],
)
def test_boosters(parameters: dict[str, Any], targets: np.ndarray, kind: Any) -> None:
    table = xgboost.DMatrix(X, 1.0 * targets, feature_names=list("abc"))
    booster = xgboost.train({"max_depth": 3, **parameters}, table, 5)
    frame = pd.DataFrame(X, columns=list("abc"))
    bits = {"op_inputs": 8, "op_leaves": 16}
    for model in (
        from_model(booster, frame, inputs="used-thresholds", n_bits=bits),
        kind.from_model(booster, inputs="used-thresholds", n_bits=bits),
    ):
        assert type(model) is kind
        assert model.get_params()["objective"] == parameters["objective"]
        assert model.feature_names_in_.tolist() == list("abc")
        grid = on_grid(model._rows(frame), model.codes_)
        same(model.ensemble_.raw_scores(grid), booster.predict(table, output_margin=True), 1e-5)
        if kind is XGBClassifier:
            assert model.classes_.tolist() == sorted(set(targets.astype(int).tolist()))
        wanted = booster.predict(table)
        found = model.predict(frame)
        assert np.mean(np.abs(found - np.round(wanted, 0 if kind is XGBClassifier else 9))) < 1e-2


def test_boosters_that_cannot_be_imported() -> None:
    booster = xgboost.train(
        {"objective": "rank:pairwise"}, xgboost.DMatrix(X, Y, group=[N_ROWS]), 2
    )
    with pytest.raises(ModelError, match=r"'rank:pairwise' of the XGBRegressor is not supported"):
        from_model(booster)
    booster = xgboost.train({"objective": "binary:hinge"}, xgboost.DMatrix(X, Y > 0), 2)
    with pytest.raises(ModelError, match=r"'binary:hinge' of the XGBClassifier is not supported"):
        from_model(booster)
    for take in (from_model, XGBRegressor.from_model):
        with pytest.raises(NotFittedError, match="Booster is not fitted"):
            take(xgboost.Booster())


def test_agreement_compares_in_single_precision() -> None:
    data = np.random.default_rng(0).normal(size=(300, 3))  # thresholds are some of these values
    floats = xgboost.XGBRegressor(n_estimators=30, max_depth=4, n_jobs=1).fit(data, data[:, 0])
    model = from_model(floats, data, n_bits={"op_inputs": 9, "op_leaves": 16})
    wanted = floats.predict(data)
    error = ((model.predict(data) - wanted) ** 2).mean() / wanted.var()
    assert model.agreement_ == pytest.approx(1 - error, abs=1e-6)
    assert model.agreement_ > 0.9999


@pytest.mark.parametrize(("given", "meant"), [("n_bit", "n_bits"), ("ensembing", "ensembling")])
def test_misspelt_parameters_are_not_given_to_the_library(given: str, meant: str) -> None:
    with pytest.raises(UnknownKeyError, match=f"no parameter '{given}'; did you mean '{meant}'"):
        XGBClassifier(**SMALL, **{given: 4}).fit(X, ANSWERS)
    with pytest.raises(UnknownKeyError, match=f"did you mean '{meant}'"):
        XGBClassifier().set_params(**{given: 4})


@pytest.mark.parametrize("only", ["yes", "no"])
def test_weights_may_leave_one_class(only: str) -> None:
    check_classifier(XGBClassifier(**FINE).fit(X, ANSWERS, sample_weight=1.0 * (only == ANSWERS)))


def test_logarithms_of_zero() -> None:
    with pytest.raises(ModelError, match=r"base_score is \[0.0\].*count:poisson predicts zero"):
        XGBRegressor(objective="count:poisson", **SMALL).fit(X, 0 * Y)


@pytest.mark.parametrize("ensembling", ["server", "client"])
def test_encrypted_predictions_are_those_in_the_clear(ensembling: str) -> None:
    classifier = XGBClassifier(**SMALL, n_bits=3, ensembling=ensembling).fit(X, COLOURS)
    regressor = XGBRegressor(**SMALL, n_bits=4, ensembling=ensembling).fit(X, Y)
    for model in (classifier, regressor):
        model.compile(engine="clear")
        for mode in ("simulate", "execute"):
            np.testing.assert_array_equal(model.predict(X[:20], fhe=mode), model.predict(X[:20]))


def test_encryption() -> None:
    model = XGBClassifier(n_estimators=3, max_depth=2, n_jobs=1, n_bits=2).fit(X, ANSWERS)
    model.compile(X)
    np.testing.assert_array_equal(
        model.predict_proba(X[:4], fhe="execute"), model.predict_proba(X[:4])
    )
