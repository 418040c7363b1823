from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from cipherlearn.errors import (
    CipherlearnWarning,
    InvalidParameterError,
    InvalidTypeError,
    ModelError,
    NotFittedError,
)
from cipherlearn.sklearn import from_model
from cipherlearn.sklearn.trees._estimator import on_grid

catboost = pytest.importorskip("catboost")
pd = pytest.importorskip("pandas")

from cipherlearn.sklearn.trees.libraries.catboost import (  # noqa: E402
    CatBoostClassifier,
    CatBoostRegressor,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(240, 5))
SIGNAL = X[:, 0] + X[:, 1] * X[:, 2] - np.abs(X[:, 3])
BINARY = (np.median(SIGNAL) < SIGNAL).astype(np.int64)
CLASSES = np.array(["low", "middle", "high"])[np.digitize(SIGNAL, np.quantile(SIGNAL, [0.3, 0.7]))]
GAPS = X.copy()
GAPS[::7, 0] = np.nan
TABLE = pd.DataFrame(GAPS, columns=list("abcde"))
TABLE["letter"] = RNG.choice(list("uvwxyz"), len(X))
TABLE["code"] = 7 * RNG.integers(0, 6, len(X))
OF_CATEGORIES = (SIGNAL + 2 * (TABLE.letter == "w") + 2 * (TABLE.code == 14) > 0.5).to_numpy()

FINE = {"op_inputs": 5, "op_leaves": 16}
SMALL: dict[str, Any] = {"n_estimators": 6, "depth": 3, "random_state": 0, "n_bits": FINE}
QUIET: dict[str, Any] = {"verbose": False, "allow_writing_files": False, "random_state": 0}


def grid_rows(model: Any, rows: Any = X) -> Any:
    """Rows on the grid, as the float model takes them."""
    categorical = model.sklearn_model.get_cat_feature_indices()
    return model._named(on_grid(model._rows(rows), model.codes_), categorical)


def assert_equals_the_library(model: Any, rows: Any = X) -> None:
    """Scores of the trees equal CatBoost's; leaves of 16 bits hardly change predictions."""
    named = grid_rows(model, rows)
    library = model.sklearn_model
    raw = library.predict(named, prediction_type="RawFormulaVal").reshape(len(named), -1)
    numbers = on_grid(model._rows(rows), model.codes_)
    np.testing.assert_allclose(model.ensemble_.raw_scores(numbers), raw, rtol=1e-6, atol=1e-9)
    if hasattr(model, "predict_proba"):
        found, wanted = model.predict_proba(rows), library.predict_proba(named)
        best = np.sort(wanted, axis=1)
        clear = best[:, -1] - best[:, -2] > 1e-3
        same = model.predict(rows) == library.predict(named).ravel()
        assert same[clear].all()
        assert clear.mean() > 0.9
    else:
        found, wanted = model.predict(rows), library.predict(named)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-3)


@pytest.mark.parametrize(
    ("loss", "labels"),
    [(None, BINARY), ("CrossEntropy", BINARY), ("Logloss", np.array(["no", "yes"])[BINARY])],
    ids=["default", "CrossEntropy", "Logloss"],
)
def test_two_classes(loss: str | None, labels: np.ndarray) -> None:
    model = CatBoostClassifier(loss_function=loss, **SMALL).fit(X, labels)
    assert_equals_the_library(model)
    assert model.classes_.tolist() == np.unique(labels).tolist()


@pytest.mark.parametrize("loss", [None, "MultiClassOneVsAll"])
@pytest.mark.parametrize("grow_policy", [None, "Depthwise", "Lossguide"])
def test_many_classes_and_all_shapes_of_trees(loss: str | None, grow_policy: str | None) -> None:
    model = CatBoostClassifier(loss_function=loss, grow_policy=grow_policy, **SMALL)
    assert_equals_the_library(model.fit(X, CLASSES))


@pytest.mark.parametrize(
    "loss",
    ["RMSE", "MAE", "Quantile:alpha=0.7", "Huber:delta=1.0", "LogCosh", "Expectile:alpha=0.3"],
)
def test_values(loss: str) -> None:
    assert_equals_the_library(CatBoostRegressor(loss_function=loss, **SMALL).fit(X, SIGNAL))


@pytest.mark.parametrize("loss", ["Poisson", "Tweedie:variance_power=1.5"])
def test_positive_values(loss: str) -> None:
    model = CatBoostRegressor(loss_function=loss, **SMALL).fit(X, np.exp(SIGNAL / 3))
    assert_equals_the_library(model)
    assert (model.predict(X) > 0).all()


def test_many_values() -> None:
    model = CatBoostRegressor(loss_function="MultiRMSE", **SMALL)
    assert_equals_the_library(model.fit(X, np.stack([SIGNAL, -X[:, 4]], axis=1)))


def test_losses_under_their_other_name() -> None:
    assert_equals_the_library(CatBoostRegressor(objective="MAE", **SMALL).fit(X, SIGNAL))


@pytest.mark.parametrize("nan_mode", [None, "Max"])
def test_missing_values(nan_mode: str | None) -> None:
    model = CatBoostRegressor(nan_mode=nan_mode, **{**SMALL, "n_estimators": 20})
    signal = SIGNAL + 3 * np.isnan(GAPS[:, 0])
    assert_equals_the_library(model.fit(GAPS, signal), GAPS)
    with pytest.raises(InvalidParameterError, match="feature 1 holds NaN"):
        model.predict(GAPS[:, ::-1].take([0, 1, 2, 4, 3], axis=1) + np.nan)


def test_missing_values_may_be_forbidden() -> None:
    with pytest.raises(ValueError, match="NaN"):
        CatBoostRegressor(nan_mode="Forbidden", **SMALL).fit(GAPS, SIGNAL)


@pytest.mark.parametrize("where", ["parameter", "fit"])
def test_categories_of_data_frames(where: str) -> None:
    table = TABLE.copy()
    table.loc[::11, "letter"] = None
    target = OF_CATEGORIES | table.letter.isna().to_numpy()
    given = {"cat_features": ["code"]}
    model = CatBoostClassifier(**SMALL, **(given if where == "parameter" else {}))
    model.set_params(n_estimators=20).fit(table, target, **({} if where == "parameter" else given))
    assert {f for t in model.ensemble_.trees for f in t.feature[list(t.categories)]} == {5, 6}
    assert_equals_the_library(model, table)
    unknown = table.assign(letter="new")
    with pytest.warns(CipherlearnWarning, match="240 of 240 values in column 'letter'"):
        model.predict(unknown)


def test_categories_that_are_numbers() -> None:
    rows = TABLE[["a", "code"]].to_numpy()
    model = CatBoostRegressor(cat_features=[1], **SMALL).fit(rows, SIGNAL + (rows[:, 1] == 14))
    assert_equals_the_library(model, rows)
    with pytest.raises(InvalidTypeError, match=r"feature 0 is among cat_features and holds"):
        CatBoostRegressor(cat_features=[0], **SMALL).fit(X, SIGNAL)
    with pytest.raises(InvalidParameterError, match=r"cat_features names \['f'\]"):
        CatBoostRegressor(cat_features=["f"], **SMALL).fit(X, SIGNAL)


def test_statistics_of_categories_are_refused() -> None:
    model = CatBoostClassifier(cat_features=["code"], one_hot_max_size=2, **SMALL)
    with pytest.raises(ModelError, match=r"OnlineCtr.*one_hot_max_size"):
        model.fit(TABLE, OF_CATEGORIES)


def test_early_stopping_on_rows_of_the_grid() -> None:
    noise = BINARY ^ (np.random.default_rng(1).random(len(X)) < 0.3)
    model = CatBoostClassifier(**{**SMALL, "n_estimators": 300}, early_stopping_rounds=5)
    model.fit(X[:160], noise[:160], eval_set=(X[160:], noise[160:]))
    assert len(model.ensemble_.trees) == model.best_iteration_ + 1 < 300
    assert_equals_the_library(model)
    table = TABLE[["a", "letter"]]
    model.fit(table[:160], BINARY[:160], eval_set=[(table[160:], BINARY[160:])])
    assert_equals_the_library(model, table)
    with pytest.raises(InvalidTypeError, match=r"eval_set holds a Pool; it takes \(X, y\)"):
        model.fit(X, BINARY, eval_set=catboost.Pool(X, BINARY))


def test_other_losses_are_named() -> None:
    with pytest.raises(ModelError, match=r"MAPE is not supported; supported are .*Tweedie"):
        CatBoostRegressor(loss_function="MAPE", **SMALL).fit(X, np.abs(SIGNAL) + 1)


def test_nothing_is_printed_or_written_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = CatBoostClassifier(**SMALL).fit(X, BINARY)
    assert not capfd.readouterr().out
    assert not list(tmp_path.iterdir())
    model.set_params(verbose=True).fit(X, BINARY)
    assert "learn" in capfd.readouterr().out


def test_parameters_are_those_of_the_library() -> None:
    model = CatBoostClassifier(**SMALL, l2_leaf_reg=5)
    assert clone(model).get_params() == model.get_params()
    assert model.get_params()["l2_leaf_reg"] == 5
    assert CatBoostRegressor().loss_function == "RMSE"


def test_a_threshold_of_probability_is_kept() -> None:
    model = CatBoostClassifier(**SMALL).fit(X, BINARY)
    model.sklearn_model.set_probability_threshold(0.8)
    wanted = model.sklearn_model.predict(grid_rows(model))
    np.testing.assert_array_equal(model.predict(X), wanted)
    assert 0 < wanted.mean() < 0.4


@pytest.mark.parametrize("rows", [None, GAPS], ids=["without rows", "rows"])
@pytest.mark.parametrize("grow_policy", ["SymmetricTree", "Lossguide"])
def test_imported_models(rows: Any, grow_policy: str) -> None:
    float_model = catboost.CatBoostClassifier(
        n_estimators=10, depth=3, grow_policy=grow_policy, **QUIET
    ).fit(GAPS, BINARY)
    exact = from_model(float_model, rows, inputs="used-thresholds", n_bits=FINE)
    np.testing.assert_allclose(
        exact.predict_proba(GAPS), float_model.predict_proba(GAPS), atol=1e-3
    )
    raw = float_model.predict(GAPS, prediction_type="RawFormulaVal")
    single = GAPS.astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(exact.ensemble_.raw_scores(single)[:, 0], raw)
    rounded = from_model(float_model, rows, n_bits=8)
    assert rounded.score(GAPS, BINARY) > float_model.score(GAPS, BINARY) - 0.05
    assert rounded.depth == 3


@pytest.mark.parametrize("inputs", ["grid", "used-thresholds"])
def test_imported_models_with_categories(inputs: str) -> None:
    float_model = catboost.CatBoostClassifier(
        n_estimators=10, depth=3, cat_features=["letter", "code"], one_hot_max_size=9, **QUIET
    ).fit(TABLE, OF_CATEGORIES)
    bits = {"op_inputs": 9, "op_leaves": 16}
    model = from_model(float_model, TABLE, n_bits=bits, inputs=inputs)
    np.testing.assert_allclose(
        model.predict_proba(TABLE), float_model.predict_proba(TABLE), atol=1e-3
    )
    with pytest.raises(ModelError, match=r"features \[5, 6\].*hashes only: give from_model rows"):
        from_model(float_model)


def test_models_that_cannot_be_imported() -> None:
    with pytest.raises(NotFittedError, match="CatBoostClassifier is not fitted"):
        from_model(catboost.CatBoostClassifier(), X)
    with pytest.raises(InvalidTypeError, match="takes a fitted CatBoostRegressor"):
        CatBoostRegressor.from_model(catboost.CatBoostClassifier())


def test_wrong_rows() -> None:
    with pytest.raises(ValueError, match="expecting 5 features"):
        CatBoostClassifier(**SMALL).fit(X, BINARY).predict(X[:, :3])


def test_one_table_a_symmetric_tree() -> None:
    rows, target = load_breast_cancer(return_X_y=True)
    train, test, y_train, y_test = train_test_split(rows, target, test_size=0.25, random_state=42)
    model = CatBoostClassifier(n_estimators=50, depth=4, random_state=0, n_bits=6)
    model.fit(train, y_train).compile(engine="clear")
    assert model.score(test, y_test) >= 0.97
    model.module_.use_width(4)
    assert model.module_.cover.n_lookups <= 50
    wanted = model.sklearn_model.predict(grid_rows(model, test))
    assert (model.predict(test) == wanted).mean() > 0.98


@pytest.mark.parametrize("ensembling", ["server", "client"])
def test_encrypted_rows(ensembling: str) -> None:
    model = CatBoostClassifier(n_estimators=3, depth=3, random_state=0, n_bits=3)
    model.set_params(ensembling=ensembling).fit(X, BINARY).compile()
    np.testing.assert_array_equal(
        model.predict_proba(X[:2], fhe="execute"), model.predict_proba(X[:2])
    )


@pytest.mark.parametrize(
    ("loss", "target", "kind"),
    [
        ("Logloss", BINARY, CatBoostClassifier),
        ("MultiClass", CLASSES, CatBoostClassifier),
        ("RMSE", SIGNAL, CatBoostRegressor),
    ],
)
def test_plain_models(loss: str, target: np.ndarray, kind: Any, tmp_path: Path) -> None:
    plain = catboost.CatBoost({"loss_function": loss, "iterations": 6, "depth": 3, **QUIET})
    plain.fit(X, target).save_model(str(tmp_path / "model"))
    loaded = catboost.CatBoost().load_model(str(tmp_path / "model"))
    for given in (plain, loaded):
        model = from_model(given, X, inputs="used-thresholds", n_bits=FINE)
        assert type(model) is type(kind.from_model(given)) is kind
        assert model.loss_function == loss
        raw = plain.predict(X, prediction_type="RawFormulaVal").reshape(len(X), -1)
        single = X.astype(np.float32).astype(np.float64)
        np.testing.assert_allclose(model.ensemble_.raw_scores(single), raw, atol=1e-9)
        if kind is CatBoostClassifier:
            assert model.classes_.tolist() == np.unique(target).tolist()


def test_plain_models_that_cannot_be_imported() -> None:
    for take in (from_model, CatBoostClassifier.from_model):
        with pytest.raises(NotFittedError, match="CatBoost is not fitted"):
            take(catboost.CatBoost())
    plain = catboost.CatBoost({"loss_function": "RMSE", "iterations": 2, **QUIET}).fit(X, SIGNAL)
    with pytest.raises(ModelError, match="no CatBoostClassifier"):
        CatBoostClassifier.from_model(plain)


@pytest.mark.parametrize("name", ["random_seed", "random_state"])
def test_a_seed_has_two_names(name: str) -> None:
    given = {**SMALL, "random_state": None, name: 3}
    model, floats = CatBoostRegressor(**given).fit_benchmark(X, SIGNAL, random_state=5)
    assert model.get_params()[name] == 3
    assert floats.get_params()[name] == model.sklearn_model.get_params()[name] == 5
