from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn import linear_model as floats
from sklearn.datasets import make_classification, make_multilabel_classification, make_regression
from sklearn.linear_model import LinearRegression as FloatRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from cipherlearn import sklearn as estimators
from cipherlearn.errors import InvalidParameterError, ModelError
from cipherlearn.sklearn import (
    GammaRegressor,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    PoissonRegressor,
    RANSACRegressor,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
    TweedieRegressor,
    from_model,
)

X, Y = make_regression(80, 5, n_targets=2, noise=1.0, random_state=0)
POSITIVE = np.exp(Y[:, 0] / Y[:, 0].std())


def classes(count: int) -> tuple[np.ndarray, np.ndarray]:
    rows, labels = make_classification(
        120, 6, n_informative=5, n_redundant=0, n_classes=count, random_state=1
    )
    return rows, np.array(list("abcd"))[labels]


@pytest.mark.parametrize("make", [LinearRegression, Ridge])
@pytest.mark.parametrize("targets", [Y, Y[:, :1], Y[:, 0]], ids=["two", "a column", "one"])
def test_targets(make: Any, targets: np.ndarray) -> None:
    model = make(n_bits=12).fit(X, targets)
    model.compile(engine="clear")
    found = model.predict(X, fhe="execute")
    wanted = model.sklearn_model.predict(X)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=0.01 * np.ptp(wanted))


@pytest.mark.parametrize(
    ("model", "logarithmic"),
    [
        (PoissonRegressor(n_bits=12), True),
        (GammaRegressor(n_bits=12), True),
        (TweedieRegressor(power=0, n_bits=12), False),
        (TweedieRegressor(power=1.5, n_bits=12), True),
        (TweedieRegressor(power=0, link="log", n_bits=12), True),
        (TweedieRegressor(power=1, link="identity", alpha=10, n_bits=12), False),
    ],
    ids=repr,
)
def test_links_of_generalized_models(model: Any, logarithmic: bool) -> None:
    rows = StandardScaler().fit_transform(X) / 10  # an identity link must stay positive
    targets = 5.0 + rows.sum(axis=1) if model.get_params().get("link") == "identity" else POSITIVE
    model.fit(rows, targets)
    wanted = model.sklearn_model.predict(rows)
    np.testing.assert_allclose(model.predict(rows), wanted, atol=5e-3 * np.ptp(wanted))
    scores = np.log(wanted) if logarithmic else wanted
    np.testing.assert_allclose(model._raw(rows, "disable")[:, 0], scores, atol=5e-3)
    integers = model.module_.quantized_forward(model.quantize_input(rows))
    post = model.post_processing(model.dequantize_output(integers))
    np.testing.assert_array_equal(post[:, 0], model.predict(rows))
    assert model.score(rows, targets) == pytest.approx(
        model.sklearn_model.score(rows, targets), abs=0.01
    )


@pytest.mark.parametrize("make", [RidgeClassifier, RidgeClassifierCV])
def test_several_labels_a_row(make: Any) -> None:
    rows, labels = make_multilabel_classification(90, 5, n_classes=3, random_state=0)
    model = make(n_bits=10).fit(rows, labels)
    model.compile(engine="clear")
    found = model.predict(rows, fhe="execute")
    assert found.shape == labels.shape
    assert (found == model.sklearn_model.predict(rows)).mean() > 0.98


@pytest.mark.parametrize("loss", ["log_loss", "modified_huber", "hinge", "perceptron"])
@pytest.mark.parametrize("count", [2, 3])
def test_losses(loss: str, count: int) -> None:
    rows, labels = classes(count)
    model = SGDClassifier(loss=loss, random_state=0, n_bits=12, alpha=0.1)
    has_probabilities = loss in {"log_loss", "modified_huber"}
    assert hasattr(model, "predict_proba") == has_probabilities
    model.fit(rows, labels)
    assert hasattr(model, "predict_proba") == has_probabilities
    assert hasattr(model, "predict_log_proba") == has_probabilities
    theirs = model.sklearn_model
    found, wanted = model.decision_function(rows), theirs.decision_function(rows)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=5e-3 * np.ptp(wanted))
    assert (model.predict(rows) == theirs.predict(rows)).mean() > 0.98
    if has_probabilities:
        shares = model.predict_proba(rows)
        error = np.abs(shares - theirs.predict_proba(rows)).max(axis=1)
        assert np.quantile(error, 0.95) < 0.02  # a share of nothing may become all of it
        np.testing.assert_allclose(shares.sum(axis=1), 1.0)


@pytest.mark.parametrize("inner", [None, FloatRegression(), floats.Ridge(), floats.Lasso(0.1)])
def test_linear_estimators_in_ransac(inner: Any) -> None:
    model = RANSACRegressor(inner, random_state=0, min_samples=20, n_bits=12).fit(X, Y[:, 0])
    wanted = model.sklearn_model.predict(X)
    np.testing.assert_allclose(model.predict(X), wanted, atol=0.01 * np.ptp(wanted))


def test_a_linear_pipeline_in_ransac() -> None:
    inner = make_pipeline(StandardScaler(), floats.Ridge())
    model = RANSACRegressor(inner, random_state=0, min_samples=20, n_bits=12).fit(X, Y[:, 0])
    wanted = model.sklearn_model.predict(X)
    np.testing.assert_allclose(model.predict(X), wanted, atol=0.01 * np.ptp(wanted))


def test_other_estimators_in_ransac_are_refused() -> None:
    model = RANSACRegressor(DecisionTreeRegressor(max_depth=3), random_state=0, min_samples=20)
    with pytest.raises(ModelError, match="holds a DecisionTreeRegressor, which is not linear"):
        model.fit(X, Y[:, 0])
    assert not model.is_fitted


def test_scoring_of_cross_validation() -> None:
    rows, labels = classes(2)
    model = LogisticRegressionCV(
        Cs=2, cv=3, l1_ratios=(0.0,), scoring="neg_log_loss", use_legacy_attributes=False, n_bits=12
    ).fit(rows, labels)
    wanted = model.sklearn_model.score(rows, labels)
    assert wanted < 0
    assert model.score(rows, labels) == pytest.approx(wanted, abs=0.01)


def test_subclasses_of_a_library_are_imported_by_their_class() -> None:
    model = floats.LogisticRegression().fit(*classes(2))
    ours = from_model(model, classes(2)[0], n_bits=10)
    assert type(ours).__name__ == "LogisticRegression"
    assert (ours.predict(classes(2)[0]) == model.predict(classes(2)[0])).mean() > 0.98


def test_deprecated_parameters_warn_once_as_in_scikit_learn() -> None:
    rows, labels = classes(2)
    model = LogisticRegression(penalty="l2")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(rows, labels)
        model.predict(rows)
        hasattr(model, "predict_proba")
    assert [w.category for w in caught] == [FutureWarning]


@pytest.mark.parametrize("name", ["ARDRegression", "BayesianRidge"])
def test_deviations_are_refused(name: str) -> None:
    model = getattr(estimators, name)().fit(X, Y[:, 0])
    with pytest.raises(InvalidParameterError, match=r"deviations .* are not computed"):
        model.predict(X, return_std=True)
