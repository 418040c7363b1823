"""What holds for every linear estimator: it computes what the float model computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn import datasets, linear_model
from sklearn.base import is_classifier
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.validation import has_fit_parameter

from cipherlearn.sklearn.linear._estimator import FineEstimator, centered
from tests.sklearn.quick import KINDS, LINEAR, as_taken, data_for, outputs, predictions, quick

METHODS = ("predict_proba", "decision_function", "score_samples", "transform", "predict")
CLASSIFIERS = [name for name in LINEAR if is_classifier(quick(name))]


@pytest.fixture(params=LINEAR)
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    return request.param


def spread(values: np.ndarray) -> float:
    return float(np.ptp(values, axis=0).max(initial=1e-9))


@pytest.mark.parametrize(("more", "share"), [(0, 0.02), (4, 0.002)])
def test_results_are_those_of_the_float_model(name: str, more: int, share: float) -> None:
    estimator = quick(name)
    bits = 11 if isinstance(estimator, FineEstimator) else 8
    estimator.set_params(n_bits=15 if name == "QuadraticDiscriminantAnalysis" else bits + more)
    share *= 15 if name == "QuadraticDiscriminantAnalysis" else 1  # one class is nearly flat
    X, y = data_for(estimator)
    estimator.fit(X, y)
    floats, tried = estimator.sklearn_model, 0
    for method in METHODS:
        if not hasattr(estimator, method):
            assert not hasattr(floats, method) or method == "score_samples"
            continue
        found, wanted = getattr(estimator, method)(X), np.asarray(getattr(floats, method)(X))
        if name == "QuadraticDiscriminantAnalysis" and method == "decision_function":
            wanted = centered(wanted)
        assert found.shape == wanted.shape
        tried += 1
        if found.dtype.kind == "f":
            np.testing.assert_allclose(found, wanted, rtol=0, atol=share * spread(wanted))
        else:
            assert (found == wanted).mean() > 0.95
    assert tried


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("load", [datasets.load_iris, datasets.load_breast_cancer])
def test_labels_are_those_of_the_float_model(name: str, load: Any) -> None:
    X, y = load(return_X_y=True)
    X, y = StandardScaler().fit_transform(X), np.unique(y).astype(str)[y]
    X = as_taken(KINDS.get(name, ""), X)
    estimator = quick(name)
    if name == "QuadraticDiscriminantAnalysis":
        X = X[:, ::3]  # all would be collinear
    estimator.fit(X, y)
    assert (estimator.predict(X) == estimator.sklearn_model.predict(X)).mean() >= 0.99
    assert estimator.predict(X).dtype.kind == "U"


def test_scores_are_by_the_same_measure(name: str) -> None:
    estimator = quick(name).set_params(n_bits="auto")
    X, y = data_for(estimator)
    estimator.fit(X, y)
    if y is None or not hasattr(estimator, "score"):
        return
    assert estimator.score(X, y) == pytest.approx(estimator.sklearn_model.score(X, y), abs=0.02)


def test_sparse_rows(name: str) -> None:
    estimator = quick(name)
    X, y = data_for(estimator)
    X = np.where(np.abs(X) > 0.3, X, 0.0).astype(np.float64)
    for parameter in {"with_mean", "with_centering"} & set(estimator.get_params()):
        estimator.set_params(**{parameter: False})  # sparse rows cannot be centered
    if not get_tags(estimator).input_tags.sparse:
        with pytest.raises(TypeError, match=r"[Ss]parse"):
            estimator.fit(sparse.csr_matrix(X), y)
        return
    for kind in (sparse.csr_matrix, sparse.csc_array):
        rows = kind(X)
        wanted = outputs(estimator.fit(rows, y), X)
        np.testing.assert_array_equal(outputs(estimator, rows), wanted)
    floats = predictions(estimator.sklearn_model, rows)
    found = predictions(estimator, rows)
    if found.dtype.kind == "f":
        dense = floats.toarray() if sparse.issparse(floats) else np.asarray(floats)
        np.testing.assert_allclose(found, dense, rtol=0, atol=0.02 * spread(dense))


def test_partial_fit_goes_on(name: str) -> None:
    estimator = quick(name)
    if not hasattr(estimator.float_class, "partial_fit"):
        assert not hasattr(estimator, "partial_fit")
        return
    X, y = data_for(estimator)
    more = {"classes": np.unique(y)} if is_classifier(estimator) else {}
    floats = estimator.float_class(**estimator.get_sklearn_params())
    for rows in (slice(0, 30), slice(30, 90)):
        targets = None if y is None else y[rows]
        for each in (estimator, floats):
            each.partial_fit(X[rows], targets, **more)
    found, wanted = outputs(estimator, X), np.asarray(outputs(floats, X))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0.03 * spread(wanted))
    assert estimator.module_.clipped_count == 0
    with pytest.raises(ValueError, match="features"):
        estimator.partial_fit(X[:, :2], y, **more)


def test_warm_start_begins_where_training_ended(name: str) -> None:
    estimator = quick(name)
    if "warm_start" not in estimator.get_params():
        return
    X, y = data_for(estimator)
    estimator.set_params(warm_start=True).fit(X, y)
    first = estimator.sklearn_model
    floats = estimator.float_class(**estimator.get_sklearn_params()).fit(X, y).fit(X, y)
    estimator.fit(X, y)
    assert estimator.sklearn_model is not first
    wanted = np.asarray(outputs(floats, X))
    np.testing.assert_allclose(outputs(estimator, X), wanted, rtol=0, atol=0.03 * spread(wanted))


def test_rows_that_weigh_nothing_change_nothing(name: str) -> None:
    estimator = quick(name)
    X, y = data_for(estimator)
    if "SGD" in name or name in {"Perceptron", "RANSACRegressor", "CategoricalNB"}:
        return  # they draw rows, or count categories, whatever they weigh
    if not has_fit_parameter(estimator.float_class(), "sample_weight"):
        return
    estimator.fit(X, y, sample_weight=np.ones(len(X)))
    low, span = estimator.module_.box.low, estimator.module_.box.span
    far = np.vstack([X, 100 * X[:5]])
    weights = np.repeat([1.0, 0.0], [len(X), 5])
    estimator.fit(far, None if y is None else np.concatenate([y, y[:5]]), sample_weight=weights)
    np.testing.assert_array_equal(estimator.module_.box.low, low)
    np.testing.assert_array_equal(estimator.module_.box.span, span)


@pytest.mark.filterwarnings("ignore:Class PassiveAggressive:FutureWarning")
def test_passive_aggressive_training_by_gradient_descent() -> None:
    X, y = data_for(quick("SGDClassifier"))
    wanted = linear_model.PassiveAggressiveClassifier(random_state=0).fit(X, y)
    ours = quick("SGDClassifier").set_params(penalty=None, learning_rate="pa1", eta0=1.0)
    np.testing.assert_allclose(ours.fit(X, y).coef_, wanted.coef_)
    assert (ours.predict(X) == wanted.predict(X)).mean() > 0.97
