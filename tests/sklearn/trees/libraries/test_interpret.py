"""Explainable boosting machines: read exactly, pairs approximated, no look-up without pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from cipherlearn.errors import InvalidParameterError, ModelError, NotFittedError, UnknownKeyError
from cipherlearn.sklearn import from_model
from cipherlearn.sklearn.trees._estimator import on_grid

pytest.importorskip("interpret")
from interpret import glassbox

from cipherlearn.sklearn import ExplainableBoostingClassifier, ExplainableBoostingRegressor

#: interpret says so of what its graphs do not show.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Missing values detected"),
    pytest.mark.filterwarnings("ignore:For multiclass we cannot currently visualize pairs"),
    pytest.mark.filterwarnings("ignore:Interactions with 3 or more terms are not graphed"),
]

#: Small and quick.
QUICK = {"n_jobs": 1, "outer_bags": 2, "max_rounds": 150}
FINE = {"op_inputs": 4, "op_leaves": 16}


def data(rows: int = 240, *, missing: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Rows with two main effects and a pair; the last feature has four values."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, 4))
    X[:, 3] = rng.integers(0, 4, rows)
    score = X[:, 0] + 2 * (X[:, 3] == 2) + 3 * np.sign(X[:, 1] * X[:, 2])
    if missing:
        X[rng.random(rows) < 0.1, 0] = np.nan
        X[rng.random(rows) < 0.1, 1] = np.nan
    return X, score


def classifier(**params: Any) -> Any:
    return ExplainableBoostingClassifier(**{**QUICK, "n_bits": FINE, **params})


def regressor(**params: Any) -> Any:
    return ExplainableBoostingRegressor(**{**QUICK, "n_bits": FINE, **params})


def margin(model: Any, X: np.ndarray) -> np.ndarray:
    """The library's own scores, of shape (rows, outputs)."""
    scores = np.asarray(model._predict_score(X))
    return scores.reshape(len(X), -1)


def check_read(estimator: Any, X: np.ndarray) -> None:
    """What is read is what the library computes, on all rows."""
    rows = on_grid(X, estimator.codes_)
    read = estimator.read(estimator.sklearn_model).raw_scores(rows)
    np.testing.assert_allclose(read, margin(estimator.sklearn_model, rows), atol=1e-9)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("missing", [False, True])
def test_main_effects_need_no_look_up(classes: int, missing: bool) -> None:
    X, score = data(missing=missing)
    y = np.digitize(score, [-1.0, 1.5][: classes - 1])
    model = classifier(interactions=0).fit(X, y)
    check_read(model, X)
    assert model.module_.cover.n_lookups == 0
    rows = on_grid(X, model.codes_)
    expected = model.sklearn_model.predict_proba(rows)
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-3)
    np.testing.assert_array_equal(model.predict(X), model.sklearn_model.predict(rows))
    assert model.decision_function(X).shape == ((len(X),) if classes == 2 else (len(X), 3))


@pytest.mark.parametrize(
    ("objective", "link"),
    [
        ("rmse", "identity"),
        ("pseudo_huber:delta=1.0", "identity"),
        ("poisson_deviance", "log"),
        ("gamma_deviance", "log"),
        ("tweedie_deviance:variance_power=1.5", "log"),
        ("rmse_log", "log"),
    ],
)
def test_objectives_of_regression(objective: str, link: str) -> None:
    X, score = data()
    y = np.exp(score / 4) if link == "log" else score
    model = regressor(objective=objective, interactions=0).fit(X, y)
    assert model.link_ == link
    check_read(model, X)
    expected = model.sklearn_model.predict(on_grid(X, model.codes_))
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-3, atol=1e-3)


def test_a_pair_is_one_look_up() -> None:
    X, score = data()
    y = np.where(score > 0, "yes", "no")
    model = classifier(interactions=[(1, 2)]).fit(X, y)
    check_read(model, X)
    assert model.term_features_[-1] == (1, 2)
    assert max(len(block.table) for block in model.module_.cover.blocks) <= 16
    rows = on_grid(X, model.codes_)
    assert (model.predict(X) == model.sklearn_model.predict(rows)).mean() > 0.98
    assert model.score(X, y) > 0.9
    alone = classifier(interactions=0).fit(X, y)
    assert alone.score(X, y) < 0.85


def test_look_ups_read_few_bits_that_do_not_tell_the_model() -> None:
    X, score = data(missing=True)
    params = {"n_bits": {"op_inputs": 6, "op_leaves": 10}, "pair_bits": 2}
    model = regressor(**params, interactions=[(0, 1)]).fit(X, score)
    other = regressor(**params, interactions=[(1, 2)]).fit(X, -(score**2))
    looked_up, added = model.module_.input_shapes
    assert looked_up[1] < added[1] / 4
    assert np.array_equal(model.module_.planes.looked_up, other.module_.planes.looked_up)
    exact = regressor(**params, inputs="used-thresholds", interactions=[(0, 1)]).fit(X, score)
    assert len(exact.module_.planes.looked_up) < looked_up[1]
    rows = on_grid(X, model.codes_)
    of_pair = np.corrcoef(model.predict(X), model.sklearn_model.predict(rows))[0, 1]
    assert of_pair > 0.9


def test_a_pair_whose_table_fits_is_exact() -> None:
    X, score = data(missing=True)
    model = regressor(interactions=[(0, 1), (1, 2)], max_interaction_bins=5).fit(X, score)
    rows = on_grid(X, model.codes_)
    np.testing.assert_allclose(model.predict(X), model.sklearn_model.predict(rows), atol=1e-3)


@pytest.mark.filterwarnings("ignore::cipherlearn.errors.AgreementWarning")
def test_more_bits_of_pairs_are_nearer() -> None:
    X, score = data()
    float_model = glassbox.ExplainableBoostingRegressor(**QUICK, interactions=[(1, 2)])
    float_model.fit(X, score)
    errors = []
    for bits in (1, 3, 6):
        model = from_model(float_model, X, n_bits={"op_inputs": 7, "op_leaves": 14}, pair_bits=bits)
        rows = on_grid(X, model.codes_)
        errors.append(np.square(model.predict(X) - float_model.predict(rows)).mean())
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.1 * errors[0]


@pytest.mark.filterwarnings("ignore::cipherlearn.errors.AgreementWarning")
@pytest.mark.parametrize("imported", [False, True])
def test_more_bits_of_features_do_no_harm_to_pairs(imported: bool) -> None:
    X = np.random.default_rng(0).normal(size=(600, 2))
    y = (X[:, 0] - 0.3) * (X[:, 1] + 0.2) > 0
    float_model = glassbox.ExplainableBoostingClassifier(**QUICK, interactions=[(0, 1)]).fit(X, y)
    scores = []
    for bits in (4, 6, 8, 10):
        if imported:
            model = from_model(float_model, X, n_bits=bits)
        else:
            model = classifier(interactions=[(0, 1)], n_bits=bits).fit(X, y)
        scores.append(model.score(X, y))
    assert min(scores) >= scores[0] - 0.03
    assert min(scores) > 0.85


def test_pairs_of_several_classes() -> None:
    X, score = data()
    y = np.digitize(score, [-1.0, 1.5])
    model = classifier(interactions=[(1, 2)], max_interaction_bins=5).fit(X, y)
    check_read(model, X)
    rows = on_grid(X, model.codes_)
    expected = model.sklearn_model.predict_proba(rows)
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-3)


def test_three_features_share_a_table() -> None:
    X, score = data()
    model = regressor(interactions=[(1, 2, 3)], max_interaction_bins=4).fit(X, score)
    check_read(model, X)
    rows = on_grid(X, model.codes_)
    error = model.predict(X) - model.sklearn_model.predict(rows)
    assert np.square(error).mean() < 0.05 * np.var(score)


@pytest.mark.parametrize("kind", ["nominal", "ordinal_list", "cuts"])
def test_types_of_features(kind: str) -> None:
    X, score = data()
    given = {"nominal": "nominal", "ordinal_list": ["2", "0", "3", "1"], "cuts": [0.5, 2.5]}[kind]
    types = ["quantile", "uniform", None, given]
    model = regressor(interactions=[(0, 3)], feature_types=types).fit(X, score)
    check_read(model, X)
    assert (model.codes_[3].n_states == 5) == (kind != "cuts")
    unknown = X[:3].copy()
    unknown[:, 3] = 17
    assert np.isfinite(model.predict(unknown)).all()


def frame() -> tuple[pd.DataFrame, np.ndarray]:
    X, score = data()
    named = pd.DataFrame(X, columns=["a", "b", "c", "kind"])
    named["kind"] = pd.Categorical(np.array(["x", "y", "z", "w"])[X[:, 3].astype(int)])
    return named, score


def test_data_frames_with_categories() -> None:
    X, score = frame()
    model = regressor(interactions=[("a", "kind")]).fit(X, score)
    assert model.term_names_ == ["a", "b", "c", "kind", "a & kind"]
    assert model.feature_types_in_ == ["continuous"] * 3 + ["nominal"]
    own = glassbox.ExplainableBoostingRegressor(**QUICK, interactions=[("a", "kind")])
    own.fit(X, score)
    assert np.corrcoef(model.predict(X), own.predict(X))[0, 1] > 0.94
    typed = regressor(interactions=0, feature_types=[None, None, None, ["x", "y", "z", "w"]])
    assert typed.fit(X, score).feature_types_in_[3] == "ordinal"
    untyped = regressor(interactions=0).fit(X, score)
    assert np.corrcoef(typed.predict(X), untyped.predict(X))[0, 1] > 0.93


@pytest.mark.parametrize("with_rows", [False, True])
def test_import_of_named_categories(with_rows: bool) -> None:
    X, score = frame()
    own = glassbox.ExplainableBoostingRegressor(**QUICK, interactions=0).fit(X, score)
    inputs = "grid" if with_rows else "used-thresholds"
    model = from_model(own, X if with_rows else None, n_bits=8, inputs=inputs)
    assert np.corrcoef(model.predict(X), own.predict(X))[0, 1] > 0.999
    if not with_rows:
        np.testing.assert_allclose(model.predict(X), own.predict(X), atol=0.02)


def test_import_with_thresholds_is_exact() -> None:
    X, score = data(missing=True)
    own = glassbox.ExplainableBoostingClassifier(**QUICK, interactions=0)
    own.fit(X, np.where(score > 0, "yes", "no"))
    model = from_model(own, n_bits=FINE, inputs="used-thresholds")
    np.testing.assert_allclose(model.read(own).raw_scores(X), margin(own, X), atol=1e-9)
    np.testing.assert_allclose(model.predict_proba(X), own.predict_proba(X), atol=1e-3)
    np.testing.assert_array_equal(model.predict(X), own.predict(X))
    assert model.outer_bags == 2


@pytest.mark.filterwarnings("ignore::cipherlearn.errors.AgreementWarning")
@pytest.mark.parametrize("rows", [None, 200])
def test_import_on_a_grid(rows: int | None) -> None:
    X, score = data()
    own = glassbox.ExplainableBoostingRegressor(**QUICK, interactions=[(1, 2)]).fit(X, score)
    model = from_model(own, None if rows is None else X[:rows], n_bits=6, pair_bits=6)
    assert max(code.n_states for code in model.codes_) <= 65
    # The pair changes its sign at zero, where no cut of a grid has to be.
    assert np.corrcoef(model.predict(X), own.predict(X))[0, 1] > 0.9


def test_facts_of_the_model_are_reachable() -> None:
    X, score = data()
    model = classifier(interactions=1).fit(X, score > 0)
    assert len(model.term_scores_) == len(model.term_names_) == 5
    assert model.term_importances().shape == (5,)
    assert len(model.explain_global().data()["names"]) == 5
    assert model.intercept_.shape == (1,)
    assert clone(model).get_params() == model.get_params()


@pytest.mark.parametrize("engine", ["clear", "concrete"])
@pytest.mark.parametrize("interactions", [0, [(1, 2)]])
def test_encrypted_is_clear(engine: str, interactions: Any) -> None:
    X, score = data()
    params = {"n_bits": 3, "pair_bits": 3, "interactions": interactions}
    model = classifier(**params).fit(X, score > 0)
    model.compile(engine=engine)
    assert model.module_.cover.n_lookups == bool(interactions)
    count = 100 if engine == "clear" else 5
    for fhe in ("simulate", "execute"):
        found = model.decision_function(X[:count], fhe=fhe)
        np.testing.assert_array_equal(found, model.decision_function(X[:count]))


def test_bad_input_is_named() -> None:
    X, score = data()
    with pytest.raises(NotFittedError, match="not fitted"):
        from_model(glassbox.ExplainableBoostingClassifier())
    with pytest.raises(ModelError, match="one class"):
        classifier().fit(X, np.zeros(len(X), dtype=int))
    with pytest.raises(InvalidParameterError, match="pair_bits"):
        classifier(pair_bits=9).fit(X, score > 0)
    own = glassbox.ExplainableBoostingClassifier(**QUICK, interactions=0).fit(X, score > 0)
    own.link_ = "vlogit"
    with pytest.raises(ModelError, match=r"vlogit.*log_loss.*identity, log, logit, mlogit"):
        from_model(own)
    own.link_ = "logit"
    with pytest.raises(UnknownKeyError, match=r"\['bits'\].*pair_bits"):
        from_model(own, bits=4)
    model = from_model(own, X)
    with pytest.raises(ValueError, match="3 features"):
        model.predict(X[:, :3])
