"""Estimators that skl2onnx exports: networks, linear models, scalers before them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from sklearn.base import is_classifier
from sklearn.decomposition import PCA
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    SGDClassifier,
)
from sklearn.metrics import r2_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import LinearSVC, LinearSVR

from cipherlearn.errors import CipherlearnWarning
from cipherlearn.onnx import execute, prepare
from cipherlearn.torch.compile import compile_onnx_model
from tests.onnx_models import dimensions, op_types

skl2onnx = pytest.importorskip("skl2onnx", reason="skl2onnx is not installed: extra `exporters`")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 4)).astype(np.float32)
SCORE = X @ np.float32([1, -2, 0.5, 1]) + 0.3
TWO = (SCORE > 0).astype(int)
THREE = np.digitize(SCORE, [-1, 1])
NETWORK: dict[str, Any] = {"hidden_layer_sizes": (5,), "max_iter": 400, "random_state": 0}

ESTIMATORS = {
    "network, two classes": (MLPClassifier(**NETWORK), TWO),
    "network, three classes": (MLPClassifier(**NETWORK, activation="tanh"), THREE),
    "network, regression": (MLPRegressor(**NETWORK), SCORE),
    "network, logistic": (MLPRegressor(**NETWORK, activation="logistic"), SCORE),
    "scalers, network": (
        make_pipeline(StandardScaler(), MinMaxScaler(), MLPClassifier(**NETWORK)),
        TWO,
    ),
    "logistic, two classes": (LogisticRegression(), TWO),
    "logistic, three classes": (LogisticRegression(), THREE),
    "scaler, components, logistic": (
        make_pipeline(RobustScaler(), PCA(3), LogisticRegression()),
        TWO,
    ),
    "linear": (LinearRegression(), SCORE),
    "two targets": (Ridge(), np.stack([SCORE, -SCORE], axis=1)),
    "scaler, linear": (make_pipeline(StandardScaler(), LinearRegression()), SCORE),
    "scalers, linear": (make_pipeline(MaxAbsScaler(), Normalizer(), Ridge()), SCORE),
    "poisson": (PoissonRegressor(), np.abs(SCORE)),
    "gradient descent": (SGDClassifier(loss="log_loss", random_state=0), TWO),
    "support vectors, two classes": (LinearSVC(), TWO),
    "support vectors, three classes": (LinearSVC(), THREE),
    "support vectors, regression": (LinearSVR(), SCORE),
}


def fitted(name: str, names: np.ndarray | None = None) -> Any:
    estimator, target = ESTIMATORS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(X, target if names is None else names[target])


def export(estimator: Any) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return skl2onnx.to_onnx(estimator, X[:1])


def scores(estimator: Any, data: np.ndarray) -> np.ndarray:
    if hasattr(estimator, "predict_proba"):
        return estimator.predict_proba(data)
    return estimator.decision_function(data).reshape(len(data), -1)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_keep_their_predictions(name: str) -> None:
    estimator = fitted(name)
    model = prepare(export(estimator))
    assert dimensions(model.graph.input[0]) == ["batch", 4]
    assert not {"ZipMap", "Identity"} & set(op_types(model))
    for data in (X[:1], X[:7]):
        found = execute(model, data)
        predictions = estimator.predict(data).reshape(len(data), -1)
        np.testing.assert_allclose(found[0].reshape(predictions.shape), predictions, atol=1e-4)
        if is_classifier(estimator):
            np.testing.assert_allclose(found[1], scores(estimator, data), atol=1e-4)


@pytest.mark.parametrize("name", ["network, three classes", "logistic, two classes"])
def test_classes_with_names_leave_their_probabilities(name: str) -> None:
    estimator = fitted(name, np.array(["cat", "dog", "eel"]))
    exported = export(estimator)
    with pytest.warns(CipherlearnWarning, match="'output_label' holds strings"):
        model = prepare(exported)
    (found,) = execute(model, X[:7])
    np.testing.assert_allclose(found, estimator.predict_proba(X[:7]), atol=1e-4)


def test_scalers_do_not_hide_products_from_their_offsets() -> None:
    left = op_types(prepare(export(fitted("scalers, network"))))
    assert left[:6] == ["Scaler", "Mul", "Add", "Gemm", "Relu", "Gemm"]


@pytest.mark.parametrize(
    "name",
    [
        "network, two classes",
        "network, three classes",
        "network, regression",
        "scalers, network",
        "scaler, components, logistic",
        "scaler, linear",
    ],
)
def test_estimators_become_integers(name: str) -> None:
    estimator = fitted(name)
    # Its sums are wider than what a table takes.
    rounding = 6 if name == "network, three classes" else None
    module = compile_onnx_model(export(estimator), X, n_bits=6, rounding_threshold_bits=rounding)
    found = module.forward(X, fhe="disable")
    wanted = estimator.predict(X)
    if is_classifier(estimator):
        labels, likely = found
        assert np.mean(labels.reshape(-1) == wanted) >= 0.95
        assert r2_score(scores(estimator, X), likely) >= 0.95
    else:
        assert r2_score(wanted, found.reshape(-1)) >= 0.95


def test_classes_with_names_follow_from_their_integers() -> None:
    names = np.array(["cat", "dog", "eel"])
    estimator = fitted("network, three classes", names)
    with pytest.warns(CipherlearnWarning, match="'output_label' holds strings"):
        module = compile_onnx_model(export(estimator), X, n_bits=6, rounding_threshold_bits=6)
    found = module.forward(X, fhe="disable")
    assert np.mean(estimator.classes_[found.argmax(axis=1)] == estimator.predict(X)) >= 0.95
