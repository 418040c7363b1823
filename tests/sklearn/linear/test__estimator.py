"""What all linear estimators share, beside what `tests/sklearn/test_estimator_checks.py` checks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import linear_model as floats
from sklearn.utils import get_tags

from cipherlearn import sklearn as estimators
from cipherlearn.errors import (
    AgreementWarning,
    InvalidParameterError,
    InvalidTypeError,
    ModelError,
    NotFittedError,
)
from cipherlearn.sklearn import LogisticRegression, Ridge
from cipherlearn.sklearn.linear.affine import Affine
from cipherlearn.sklearn.linear.maps import Plain
from tests.sklearn.quick import LINEAR, data_for, quick

FRAME = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=list("abc"))
TARGETS = 3.0 * FRAME["a"].to_numpy() - FRAME["b"].to_numpy() + 1.0
TRANSFORMERS = [name for name in LINEAR if hasattr(quick(name), "transform")]


def test_imported_models_keep_names_and_parameters() -> None:
    model = floats.Ridge(alpha=0.5).fit(FRAME, TARGETS)
    for take in (Ridge.from_model, Ridge.from_sklearn_model, estimators.from_model):
        ours = take(model, FRAME, n_bits={"op_inputs": 10, "op_weights": 12})
        assert ours.feature_names_in_.tolist() == ["a", "b", "c"]
        assert ours.n_bits_ == {"op_inputs": 10, "op_weights": 12}
        assert ours.alpha == 0.5
        assert ours.sklearn_model is model
        np.testing.assert_allclose(ours.predict(FRAME), model.predict(FRAME), atol=0.02)
    with pytest.raises(ValueError, match="same order"):
        ours.predict(FRAME[["c", "a", "b"]])


def test_imports_that_cannot_be() -> None:
    model = floats.Ridge().fit(FRAME, TARGETS)
    with pytest.raises(InvalidParameterError, match="needs rows X"):
        Ridge.from_model(model)
    with pytest.raises(NotFittedError, match="Ridge is not fitted"):
        Ridge.from_model(floats.Ridge(), FRAME)
    with pytest.raises(InvalidTypeError, match="takes a fitted Ridge, not a Lasso"):
        Ridge.from_model(floats.Lasso().fit(FRAME, TARGETS), FRAME)
    with pytest.raises(InvalidParameterError, match="n_bits"):
        Ridge.from_model(model, FRAME, n_bits=0)


def test_training_goes_on_with_a_copy_of_an_imported_model() -> None:
    model = floats.SGDRegressor(random_state=0).fit(FRAME.to_numpy(), TARGETS)
    before = model.coef_.copy()
    ours = estimators.from_model(model, FRAME.to_numpy())
    ours.partial_fit(FRAME.to_numpy(), -TARGETS)
    np.testing.assert_array_equal(model.coef_, before)
    assert not np.array_equal(ours.coef_, before)


def test_a_wrong_reading_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Affine(np.ones((3, 1)), np.zeros(1))
    monkeypatch.setattr(Plain, "read", lambda self, function: wrong)
    model = Ridge()
    with pytest.raises(ModelError, match="not an affine function"):
        model.fit(FRAME, TARGETS)
    assert not model.is_fitted


@pytest.mark.parametrize("name", LINEAR)
def test_tags_are_those_of_the_float_model(name: str) -> None:
    estimator = quick(name)
    ours, theirs = get_tags(estimator), get_tags(estimator.float_class())
    assert ours.estimator_type == theirs.estimator_type
    assert ours.target_tags == theirs.target_tags
    assert ours.input_tags.sparse == theirs.input_tags.sparse
    assert not ours.input_tags.allow_nan


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_new_features_in_data_frames(name: str) -> None:
    estimator = quick(name)
    X, y = data_for(estimator)
    frame = pd.DataFrame(X, columns=list("abcd")[: X.shape[1]])
    plain = estimator.fit(frame, y).transform(frame)
    estimator.compile(engine="clear")
    found = estimator.set_output(transform="pandas").transform(frame, fhe="execute")
    assert isinstance(found, pd.DataFrame)
    np.testing.assert_array_equal(found.to_numpy(), plain.reshape(len(X), -1))
    names = estimator.sklearn_model.get_feature_names_out()
    assert found.columns.tolist() == names.tolist()


@pytest.mark.parametrize("name", ["MinMaxScaler", "MaxAbsScaler"])
@pytest.mark.filterwarnings("ignore:inputs lie far outside")
def test_scalers_that_clip(name: str) -> None:
    scaler: Any = getattr(estimators, name)(clip=True, n_bits=12).fit(FRAME)
    found = scaler.transform(2.0 * FRAME)
    assert found.max() <= 1.0 + 1e-6
    inside = (np.abs(FRAME) <= np.abs(FRAME).min(axis=0).max()).all(axis=1)
    wanted = scaler.sklearn_model.transform(FRAME)
    np.testing.assert_allclose(scaler.transform(FRAME)[inside], wanted[inside], atol=1e-3)
    with pytest.raises(ModelError, match="not an affine function"):
        type(scaler).from_model(scaler.sklearn_model, 2.0 * FRAME)


def test_directions_of_discriminant_analysis() -> None:
    labels = np.digitize(TARGETS, [0.0, 2.0])
    model = estimators.LinearDiscriminantAnalysis(n_bits=12).fit(FRAME, labels)
    assert model.module_.weights.shape == (3, 3 + 2)
    assert model.predict_proba(FRAME).shape == (60, 3)
    model.set_params(solver="lsqr").fit(FRAME, labels)
    assert model.module_.weights.shape == (3, 3)
    assert (model.predict(FRAME) == model.sklearn_model.predict(FRAME)).mean() > 0.98
    with pytest.raises(NotImplementedError, match="lsqr"):
        model.transform(FRAME)


def test_latent_directions_of_targets_stay_in_the_clear() -> None:
    targets = np.stack([TARGETS, FRAME["c"]], axis=1)
    model = estimators.PLSCanonical(n_components=1, n_bits=12)
    rows, scores = model.fit_transform(FRAME.to_numpy(), targets)
    wanted = model.sklearn_model.transform(FRAME.to_numpy(), targets)
    np.testing.assert_allclose(rows, wanted[0], atol=0.01)
    np.testing.assert_array_equal(scores, wanted[1])


def test_bits_are_as_many_as_agreement_asks_for() -> None:
    steep = np.stack([TARGETS, TARGETS + 0.01 * FRAME["b"]], axis=1)
    model = Ridge(alpha=1e-9, n_bits="auto").fit(steep, FRAME["b"])
    assert model.n_bits_["op_inputs"] == model.n_bits_["op_weights"] > 10
    assert model.agreement_ > 0.999
    assert Ridge(n_bits="auto").fit(FRAME, TARGETS).n_bits_ == {"op_inputs": 8, "op_weights": 8}
    wide = np.random.default_rng(0).normal(size=(300, 200))  # 16 bits have no room
    labels = np.random.default_rng(1).integers(0, 2, size=300)
    found = estimators.GaussianNB().fit(wide, labels)
    assert found.agreement_ > 0.99


def test_what_does_not_vary_takes_no_bits() -> None:
    rows = np.c_[np.ones(60), FRAME.to_numpy()]
    model = estimators.LinearRegression(fit_intercept=False).fit(rows, 1000.0 + TARGETS)
    assert model.agreement_ > 0.999
    two_values = np.where(FRAME.to_numpy() > 0, 0.001, -0.002)
    labels = np.digitize(TARGETS, [0.0, 2.0])
    assert estimators.GaussianNB().fit(two_values, labels).agreement_ > 0.95


def test_a_refused_batch_changes_nothing() -> None:
    rows = FRAME.to_numpy()
    model = estimators.SGDRegressor(random_state=0).partial_fit(rows[:30], TARGETS[:30])
    with pytest.raises(ValueError, match="features"):
        model.partial_fit(rows[:3, :2], TARGETS[:3])
    assert model.is_fitted
    assert model.partial_fit(rows[30:], TARGETS[30:]).t_ == 61


def test_counts_that_are_zero_to_a_computer() -> None:
    rng = np.random.default_rng(0)
    rows = rng.lognormal(0, 2, (500, 1))
    model = estimators.PoissonRegressor(alpha=0, max_iter=1000, n_bits=14)
    model.fit(rows, rng.poisson(np.exp(1.0 - 0.5 * rows[:, 0])))
    wanted = model.sklearn_model.predict(rows)
    np.testing.assert_allclose(model.predict(rows), wanted, atol=0.05 * wanted.max())


def test_values_that_a_few_large_ones_hide_are_told() -> None:
    rows = np.random.default_rng(0).lognormal(0, 3, (1000, 1))
    with pytest.warns(AgreementWarning, match=r"R2 is (1\.000|0\.99.), and the median error"):
        Ridge().fit(rows, rows[:, 0])


def test_complex_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"[Cc]omplex"):
        Ridge().fit(FRAME.to_numpy() * 1j, TARGETS)
    model = LogisticRegression().fit(FRAME.to_numpy(), TARGETS > 1)
    with pytest.raises(ValueError, match=r"[Cc]omplex"):
        model.predict(FRAME.to_numpy() * 1j)


def test_more_bits_than_a_result_has() -> None:
    model = Ridge(n_bits=16)
    rows = np.random.default_rng(0).normal(size=(60, 30))
    with pytest.raises(InvalidParameterError, match=r"n_bits: 30 features of 16 bits"):
        model.fit(rows, rows.sum(axis=1))
    assert not model.is_fitted
