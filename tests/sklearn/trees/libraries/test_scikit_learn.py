from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import ensemble as forests
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression
from threadpoolctl import threadpool_limits

from cipherlearn import sklearn as estimators
from cipherlearn.errors import InvalidParameterError, NotFittedError
from cipherlearn.sklearn import from_model
from cipherlearn.sklearn.links import Exponential, Logistic, Softmax
from cipherlearn.sklearn.trees._estimator import on_grid
from cipherlearn.sklearn.trees.ensemble import TreeEnsemble

#: Leaves as fine as they get.
FINE = {"op_inputs": 5, "op_leaves": 16}

CLASSIFIERS = [
    "DecisionTreeClassifier",
    "RandomForestClassifier",
    "ExtraTreesClassifier",
    "GradientBoostingClassifier",
    "HistGradientBoostingClassifier",
]
REGRESSORS = [name.replace("Classifier", "Regressor") for name in CLASSIFIERS]
SEVERAL_TARGETS = [*CLASSIFIERS[:3], *REGRESSORS[:3]]

BINARY = load_breast_cancer(return_X_y=True)
CLASSES = load_iris(return_X_y=True)
VALUES = load_diabetes(return_X_y=True)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """So little data is slower in several."""
    with threadpool_limits(1):
        yield


def made(name: str, **params: Any) -> Any:
    small = {"n_estimators": 6, "max_iter": 6, "max_depth": 4, "random_state": 0, "n_bits": FINE}
    estimator = getattr(estimators, name)()
    known = {key: value for key, value in small.items() if key in estimator.get_params()}
    return estimator.set_params(**{**known, **params})


def library_scores(model: Any, rows: np.ndarray) -> np.ndarray:
    """What a float model adds up, before it is made predictions of."""
    if hasattr(model, "score_samples"):
        return -np.log2(-model.score_samples(rows))[:, None]
    if hasattr(model, "decision_function"):
        return model.decision_function(rows).reshape(len(rows), -1)
    if hasattr(model, "predict_proba"):
        shares = model.predict_proba(rows)
        parts = shares if isinstance(shares, list) else [shares]
        return np.concatenate([part[:, 1:] for part in parts], axis=1)
    values = model.predict(rows).reshape(len(rows), -1)
    is_exponential = getattr(model, "loss", None) in {"poisson", "gamma"}
    return np.log(values) if is_exponential else values


def assert_as_the_library(estimator: Any, X: Any) -> None:
    """Trees give what the float model gives on the grid, and so do predictions."""
    rows = on_grid(estimator._rows(X), estimator.codes_)
    model = estimator.sklearn_model
    wanted = library_scores(model, rows)
    np.testing.assert_allclose(
        estimator.ensemble_.raw_scores(rows), wanted, rtol=1e-9, atol=1e-9 * np.abs(wanted).max()
    )
    if hasattr(model, "predict_proba"):
        np.testing.assert_allclose(estimator.predict_proba(X), model.predict_proba(rows), atol=1e-3)
        assert (estimator.predict(X) == model.predict(rows)).mean() > 0.99
    elif hasattr(model, "score_samples"):
        np.testing.assert_allclose(estimator.score_samples(X), model.score_samples(rows), atol=1e-3)
    else:
        values = model.predict(rows)
        near = 1e-3 * np.abs(values).max()
        np.testing.assert_allclose(estimator.predict(X), values, atol=near)


def assert_encrypted_is_clear(estimator: Any, X: Any) -> None:
    estimator.compile(engine="clear")
    method = "predict_proba" if hasattr(estimator, "predict_proba") else "predict"
    clear, encrypted = (getattr(estimator, method)(X, fhe=m) for m in ("disable", "execute"))
    np.testing.assert_array_equal(clear, encrypted)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("data", [BINARY, CLASSES], ids=["two classes", "three classes"])
def test_classifiers(name: str, data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    labels = np.array(["no", "yes", "perhaps"])[y]
    estimator = made(name, **({"learning_rate": 0.4} if "Boost" in name else {})).fit(X, labels)
    assert_as_the_library(estimator, X)
    assert set(estimator.predict(X)) <= set(labels)
    assert estimator.score(X, labels) > 0.9
    assert_encrypted_is_clear(estimator, X[:10])


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors(name: str) -> None:
    X, y = VALUES
    estimator = made(name, **({"learning_rate": 0.4} if "Boost" in name else {})).fit(X, y)
    assert_as_the_library(estimator, X)
    assert estimator.score(X, y) > 0.4
    assert_encrypted_is_clear(estimator, X[:10])


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("GradientBoostingClassifier", {"loss": "exponential"}),
        ("GradientBoostingClassifier", {"loss": "log_loss", "init": "zero"}),
        ("GradientBoostingClassifier", {"max_leaf_nodes": 5, "max_depth": None}),
        ("DecisionTreeClassifier", {"criterion": "entropy", "class_weight": "balanced"}),
        ("DecisionTreeClassifier", {"criterion": "log_loss", "max_leaf_nodes": 6}),
        ("DecisionTreeClassifier", {"ccp_alpha": 0.01, "max_depth": None}),
        ("DecisionTreeClassifier", {"splitter": "random", "max_features": "sqrt"}),
        ("DecisionTreeClassifier", {"monotonic_cst": [1, -1] + [0] * 28}),
        ("RandomForestClassifier", {"class_weight": "balanced_subsample", "max_samples": 0.5}),
        ("RandomForestClassifier", {"ccp_alpha": 0.02, "oob_score": True, "n_estimators": 30}),
        ("RandomForestClassifier", {"monotonic_cst": [1, -1] + [0] * 28}),
        ("ExtraTreesClassifier", {"class_weight": {0: 3, 1: 1}, "bootstrap": True}),
        ("HistGradientBoostingClassifier", {"class_weight": "balanced", "max_leaf_nodes": 4}),
        ("HistGradientBoostingClassifier", {"monotonic_cst": [1, -1] + [0] * 28}),
        ("HistGradientBoostingClassifier", {"interaction_cst": "no_interactions"}),
        ("HistGradientBoostingClassifier", {"max_features": 0.3, "l2_regularization": 2.0}),
    ],
    ids=str,
)
def test_options_of_classifiers(name: str, params: dict[str, Any]) -> None:
    X, y = BINARY
    estimator = made(name, **params).fit(X, y)
    assert_as_the_library(estimator, X)
    assert estimator.score(X, y) > 0.85


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("GradientBoostingRegressor", {"loss": "absolute_error"}),
        ("GradientBoostingRegressor", {"loss": "huber", "alpha": 0.8}),
        ("GradientBoostingRegressor", {"loss": "quantile", "alpha": 0.7}),
        ("GradientBoostingRegressor", {"criterion": "squared_error", "subsample": 0.6}),
        ("GradientBoostingRegressor", {"init": DummyRegressor(strategy="median")}),
        ("HistGradientBoostingRegressor", {"loss": "absolute_error"}),
        ("HistGradientBoostingRegressor", {"loss": "poisson"}),
        ("HistGradientBoostingRegressor", {"loss": "gamma"}),
        ("HistGradientBoostingRegressor", {"loss": "quantile", "quantile": 0.3}),
        ("DecisionTreeRegressor", {"criterion": "poisson"}),
        ("DecisionTreeRegressor", {"criterion": "absolute_error"}),
        ("DecisionTreeRegressor", {"monotonic_cst": [1] + [0] * 9, "ccp_alpha": 10.0}),
        ("RandomForestRegressor", {"criterion": "friedman_mse", "max_features": 0.5}),
        ("RandomForestRegressor", {"criterion": "absolute_error", "max_depth": 3}),
        ("ExtraTreesRegressor", {"criterion": "poisson", "bootstrap": True, "oob_score": False}),
    ],
    ids=str,
)
def test_losses_and_options_of_regressors(name: str, params: dict[str, Any]) -> None:
    X, y = VALUES
    with warnings.catch_warnings():
        # Names of criteria come and go with versions of scikit-learn.
        warnings.simplefilter("ignore", FutureWarning)
        estimator = made(name, **params).fit(X, y)
    assert_as_the_library(estimator, X)
    if params.get("loss") in {"poisson", "gamma"}:
        assert estimator.ensemble_.link == Exponential()
        assert (estimator.predict(X) > 0).all()


@pytest.mark.parametrize("name", CLASSIFIERS[3:])
def test_links_of_boosting(name: str) -> None:
    assert made(name).fit(*BINARY).ensemble_.link == Logistic()
    assert made(name).fit(*CLASSES).ensemble_.link == Softmax()


def test_boosting_on_top_of_another_model_is_refused() -> None:
    X, y = VALUES
    with pytest.raises(InvalidParameterError, match=r"init=LinearRegression.*'zero'"):
        made("GradientBoostingRegressor", init=LinearRegression()).fit(X, y)
    theirs = forests.GradientBoostingRegressor(init=LinearRegression(), n_estimators=2).fit(X, y)
    with pytest.raises(InvalidParameterError, match="init"):
        from_model(theirs)


@pytest.mark.parametrize("name", CLASSIFIERS[3:])
def test_decisions(name: str) -> None:
    X, y = CLASSES
    estimator = made(name).fit(X, y)
    estimator.compile(engine="clear")
    rows = on_grid(X, estimator.codes_)
    scores = estimator.decision_function(X)
    assert scores.shape == (len(X), 3)
    np.testing.assert_allclose(scores, estimator.sklearn_model.decision_function(rows), atol=1e-3)
    np.testing.assert_array_equal(scores[:5], estimator.decision_function(X[:5], fhe="execute"))
    assert made(name).fit(X, y == 1).decision_function(X).shape == (len(X),)


@pytest.mark.parametrize("name", SEVERAL_TARGETS)
def test_several_targets(name: str) -> None:
    X, y = CLASSES
    if name in REGRESSORS:
        targets = X[:, :2] * [1.0, 100.0]
        estimator = made(name, max_depth=6).fit(X[:, 2:], targets)
        assert_as_the_library(estimator, X[:, 2:])
        assert estimator.predict(X[:, 2:]).shape == (len(X), 2)
        assert_encrypted_is_clear(estimator, X[:10, 2:])
        return
    targets = np.stack([np.array(["a", "b", "c"])[y], np.where(y == 1, "yes", "no")], axis=1)
    estimator = made(name).fit(X, targets)
    rows = on_grid(X, estimator.codes_)
    shares = estimator.predict_proba(X)
    assert [part.shape for part in shares] == [(len(X), 3), (len(X), 2)]
    for found, wanted in zip(shares, estimator.sklearn_model.predict_proba(rows), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-3)
    assert (estimator.predict(X) == targets).mean() > 0.9
    assert [names.tolist() for names in estimator.classes_] == [["a", "b", "c"], ["no", "yes"]]
    logs = estimator.predict_log_proba(X)
    for of_target, share in zip(logs, shares, strict=True):
        np.testing.assert_allclose(np.exp(of_target), share)
    imported = type(estimator).from_model(estimator.sklearn_model, X, inputs="used-thresholds")
    assert imported.agreement_ > 0.99
    estimator.compile(engine="clear")
    for clear, encrypted in zip(
        estimator.predict_proba(X[:9]), estimator.predict_proba(X[:9], fhe="execute"), strict=True
    ):
        np.testing.assert_array_equal(clear, encrypted)


def test_yes_or_no_to_several_labels() -> None:
    X, y = CLASSES
    labels = np.stack([y == 0, y > 0, y == 5], axis=1).astype(int)
    estimator = made("RandomForestClassifier").fit(X, labels)
    assert [part.shape[1] for part in estimator.predict_proba(X)] == [2, 2, 1]
    assert estimator.score(X, labels) > 0.95


@pytest.mark.parametrize(
    "name", [*CLASSIFIERS[:3], *REGRESSORS[:3], *CLASSIFIERS[4:], *REGRESSORS[4:]]
)
def test_missing_values(name: str) -> None:
    X, y = CLASSES
    gaps = X.copy()
    gaps[np.random.default_rng(0).random(X.shape) < 0.2] = np.nan
    gaps[y == 2, 1] = np.nan
    estimator = made(name, **({"min_samples_leaf": 5} if "Hist" in name else {})).fit(gaps, y)
    assert_as_the_library(estimator, gaps)
    assert_encrypted_is_clear(estimator, gaps[:10])
    assert all(code.missing == "own" for code in estimator.codes_)
    theirs = estimator.float_class(**estimator.get_sklearn_params()).fit(gaps, y)
    exact = from_model(theirs, n_bits=FINE, inputs="used-thresholds")
    rows = on_grid(gaps, exact.codes_)
    np.testing.assert_allclose(
        exact.ensemble_.raw_scores(rows), library_scores(theirs, gaps), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize(
    ("name", "params", "takes"),
    [
        ("DecisionTreeRegressor", {"criterion": "absolute_error"}, True),
        ("RandomForestRegressor", {}, True),
        ("GradientBoostingClassifier", {}, False),
        ("HistGradientBoostingClassifier", {}, True),
        ("IsolationForest", {}, True),
    ],
)
def test_missing_values_are_taken_where_the_library_does(
    name: str, params: dict[str, Any], takes: bool
) -> None:
    estimator = made(name, **params)
    theirs = estimator.float_class(**estimator.get_sklearn_params())
    assert estimator.__sklearn_tags__().input_tags.allow_nan == (
        theirs.__sklearn_tags__().input_tags.allow_nan
    )
    if not params:
        assert estimator.__sklearn_tags__().input_tags.allow_nan == takes


@pytest.mark.parametrize("name", [*CLASSIFIERS, *REGRESSORS, "IsolationForest"])
def test_import_with_the_thresholds_of_the_model_is_exact(name: str) -> None:
    X, y = VALUES if name in REGRESSORS else BINARY
    # Values that are thresholds, and neighbours of them, in the precision of the library.
    precision = getattr(estimators, name).precision
    X = X.astype(precision).astype(np.float64)
    estimator = made(name)
    params = estimator.get_sklearn_params()
    theirs = estimator.float_class(**params).fit(*((X,) if name == "IsolationForest" else (X, y)))
    exact = from_model(theirs, n_bits=FINE, inputs="used-thresholds")
    rows = np.concatenate([X, *close_to_thresholds(exact.ensemble_, X, precision)])
    np.testing.assert_allclose(
        exact.ensemble_.raw_scores(on_grid(rows, exact.codes_)),
        library_scores(theirs, rows),
        rtol=1e-9,
        atol=1e-10,
    )
    assert exact.get_sklearn_params().keys() == params.keys()


def close_to_thresholds(trees: TreeEnsemble, X: np.ndarray, precision: Any) -> Iterator[np.ndarray]:
    """Rows with one value moved to a threshold, and to the number below."""
    for tree in trees.trees[:2]:
        for node in np.flatnonzero(tree.feature >= 0)[:8].tolist():
            rows = np.repeat(X[:2], 2, axis=0)
            at = precision(tree.threshold[node])
            below = np.nextafter(at, precision(-np.inf))
            rows[:, tree.feature[node]] = [at, below, at, below]
            yield rows


@pytest.mark.parametrize("name", [*CLASSIFIERS, *REGRESSORS])
def test_import_on_a_grid(name: str) -> None:
    X, y = VALUES if name in REGRESSORS else BINARY
    estimator = made(name)
    theirs = estimator.float_class(**estimator.get_sklearn_params()).fit(X, y)
    for rows in (X, None):
        ours = from_model(theirs, rows, n_bits=8)
        assert ours.score(X, y) > theirs.score(X, y) - 0.05
        assert len(ours.codes_) == X.shape[1]


@pytest.mark.parametrize("name", ["GradientBoostingClassifier", "RandomForestRegressor"])
def test_more_trees_after_others(name: str) -> None:
    X, y = BINARY
    params = {"n_estimators": 3, "warm_start": True, "max_depth": 3}
    estimator = made(name, **params).fit(X, y)
    first = estimator.sklearn_model
    estimator.set_params(n_estimators=8).fit(X, y)
    assert (len(first.estimators_), len(estimator.sklearn_model.estimators_)) == (3, 8)
    assert_as_the_library(estimator, X)
    whole = made(name, **{**params, "warm_start": False, "n_estimators": 8}).fit(X, y)
    np.testing.assert_array_equal(whole.predict(X), estimator.predict(X))


def test_more_rounds_after_others() -> None:
    X, y = CLASSES
    estimator = made("HistGradientBoostingClassifier", warm_start=True).fit(X, y)
    estimator.set_params(max_iter=9).fit(X, y)
    assert estimator.n_iter_ == 9
    assert_as_the_library(estimator, X)


def test_more_trees_leave_the_first_ones_as_they_were() -> None:
    X, y = BINARY
    model = made("RandomForestClassifier", n_estimators=2, warm_start=True, max_depth=3).fit(X, y)
    first = [tree.tree_.threshold for tree in model.sklearn_model.estimators_]
    # Trees that were grown anew would not be those of other labels.
    model.set_params(n_estimators=4).fit(X, np.roll(y, 1))
    kept = [tree.tree_.threshold for tree in model.sklearn_model.estimators_[:2]]
    for before, after in zip(first, kept, strict=True):
        np.testing.assert_array_equal(before, after)


def test_imported_models_are_left_alone_by_more_trees() -> None:
    X, y = BINARY
    theirs = forests.RandomForestClassifier(2, warm_start=True, max_depth=3, random_state=0).fit(
        X, y
    )
    ours = from_model(theirs, X)
    ours.set_params(n_estimators=4).fit(X, y)
    assert (len(theirs.estimators_), len(ours.sklearn_model.estimators_)) == (2, 4)


def test_early_stopping() -> None:
    X, y = BINARY
    params = {"n_iter_no_change": 2, "validation_fraction": 0.3, "learning_rate": 1.0}
    few = made("GradientBoostingClassifier", n_estimators=200, **params).fit(X, y)
    assert few.n_estimators_ < 200
    assert_as_the_library(few, X)
    histograms = made(
        "HistGradientBoostingClassifier", max_iter=200, early_stopping=True, **params
    ).fit(X, y)
    assert histograms.n_iter_ < 200
    assert_as_the_library(histograms, X)


def test_early_stopping_on_given_rows() -> None:
    X, y = BINARY
    estimator = made(
        "HistGradientBoostingClassifier",
        max_iter=200,
        early_stopping=True,
        n_iter_no_change=2,
        learning_rate=1.0,
    )
    frame = pd.DataFrame(X[:, :5], columns=list("abcde"))
    try:
        estimator.fit(frame[:400], y[:400], X_val=frame[400:], y_val=y[400:])
    except TypeError:
        pytest.skip("this version of scikit-learn takes no rows for validation")
    assert estimator.n_iter_ < 200
    assert_as_the_library(estimator, frame)


def test_weights_of_rows() -> None:
    X, y = CLASSES
    weights = np.where(y == 2, 0.0, 1.0)
    for name in CLASSIFIERS[:3]:
        estimator = made(name).fit(X, y, sample_weight=weights)
        assert set(estimator.predict(X)) <= {0, 1}
        assert_as_the_library(estimator, X)


@pytest.mark.parametrize("params", [{}, {"max_features": 0.4}, {"bootstrap": True}], ids=str)
def test_isolation(params: dict[str, Any]) -> None:
    X, _ = BINARY
    estimator = made("IsolationForest", n_estimators=10, max_samples=100, **params).fit(X)
    assert_as_the_library(estimator, X)
    scores, decisions = estimator.score_samples(X), estimator.decision_function(X)
    assert estimator.offset_ == -0.5
    np.testing.assert_allclose(decisions, scores + 0.5)
    np.testing.assert_array_equal(estimator.predict(X), np.where(decisions < 0, -1, 1))
    np.testing.assert_array_equal(estimator.fit_predict(X), estimator.predict(X))
    estimator.compile(engine="clear")
    np.testing.assert_allclose(scores[:5], estimator.score_samples(X[:5], fhe="execute"))
    np.testing.assert_array_equal(estimator.predict(X[:5]), estimator.predict(X[:5], fhe="execute"))


@pytest.mark.parametrize("bits", [3, 8])
def test_isolation_of_a_share_of_the_rows(bits: int) -> None:
    X, _ = BINARY
    estimator = made("IsolationForest", n_estimators=20, contamination=0.1, n_bits=bits).fit(X)
    assert (estimator.predict(X) == -1).mean() == pytest.approx(0.1, abs=0.02)
    assert made("IsolationForest").fit(X).set_params(contamination=0.2).fit(X).offset_ != -0.5
    imported = from_model(estimator.sklearn_model, X)
    assert imported.offset_ == estimator.sklearn_model.offset_


def test_isolation_of_one_row() -> None:
    estimator = made("IsolationForest").fit(np.zeros((1, 3)))
    wanted = estimator.sklearn_model.score_samples(np.zeros((1, 3)))
    np.testing.assert_allclose(estimator.score_samples(np.zeros((1, 3))), wanted)


def test_isolation_has_no_labels_to_choose_bits_with() -> None:
    with pytest.raises(InvalidParameterError, match="n_bits='auto' needs labels"):
        made("IsolationForest", n_bits="auto").fit(BINARY[0])


@pytest.mark.parametrize("name", [*CLASSIFIERS, *REGRESSORS, "IsolationForest"])
def test_unfitted_models_are_not_imported(name: str) -> None:
    with pytest.raises(NotFittedError, match="not fitted"):
        from_model(getattr(estimators, name).float_class())


def test_one_class_only() -> None:
    X, _ = CLASSES
    for name in (*CLASSIFIERS[:3], "HistGradientBoostingClassifier"):
        for inputs in ("grid", "used-thresholds"):
            estimator = made(name, inputs=inputs).fit(X, np.full(len(X), "all"))
            assert set(estimator.predict(X)) == {"all"}
            estimator.compile(engine="clear")
            assert set(estimator.predict(X[:2], fhe="execute")) == {"all"}


def test_constant_features() -> None:
    X, y = np.ones((8, 2)), np.arange(8.0)
    for name in REGRESSORS:
        estimator = made(name).fit(X, y)
        estimator.compile(engine="clear")
        np.testing.assert_allclose(
            estimator.predict(X[:2], fhe="execute"), estimator.sklearn_model.predict(X[:2])
        )


@pytest.mark.parametrize("name", ["DecisionTreeClassifier", "IsolationForest"])
def test_encrypted(name: str) -> None:
    X, y = CLASSES
    if name == "IsolationForest":
        estimator = made(name, n_estimators=2, n_bits=3, max_samples=4).fit(X)
        use = estimator.score_samples
    else:
        estimator = made(name, n_bits=3, max_depth=3).fit(X, y)
        use = estimator.predict_proba
    estimator.compile()
    np.testing.assert_array_equal(use(X[::50]), use(X[::50], fhe="execute"))
