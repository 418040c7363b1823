"""Linear models and trees that hummingbird turns into products of matrices."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from sklearn.base import is_classifier
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import r2_score
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from cipherlearn.onnx import execute, prepare
from cipherlearn.torch.compile import compile_onnx_model
from cipherlearn.torch.export import to_onnx
from tests.onnx_models import dimensions

hummingbird = pytest.importorskip(
    "hummingbird.ml", reason="hummingbird-ml is not installed: extra `hummingbird`"
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 4)).astype(np.float32)
SCORE = X @ np.float32([1, -2, 0.5, 1]) + 0.3
NEW = RNG.normal(size=(200, 4)).astype(np.float32)
TWO = (SCORE > 0).astype(int)
THREE = np.digitize(SCORE, [-1, 1])

ESTIMATORS = {
    "linear": LinearRegression().fit(X, SCORE),
    "logistic": LogisticRegression().fit(X, TWO),
    "tree, three classes": DecisionTreeClassifier(max_depth=3, random_state=0).fit(X, THREE),
    "tree, regression": DecisionTreeRegressor(max_depth=3, random_state=0).fit(X, SCORE),
    "forest, two classes": RandomForestClassifier(4, max_depth=3, random_state=0).fit(X, TWO),
    "forest, regression": RandomForestRegressor(4, max_depth=3, random_state=0).fit(X, SCORE),
}


def convert(estimator: Any, backend: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return hummingbird.convert(
            estimator, backend, X[:1], extra_config={"tree_implementation": "gemm"}
        )


def through_onnx(estimator: Any, patch: pytest.MonkeyPatch) -> onnx.ModelProto:
    # It was written for the exporter that used to be torch's default.
    patch.setattr(torch.onnx, "export", functools.partial(torch.onnx.export, dynamo=False))
    return convert(estimator, "onnx").model


def through_torch(estimator: Any, _: pytest.MonkeyPatch) -> onnx.ModelProto:
    return to_onnx(convert(estimator, "torch").model, X[:2])


@pytest.mark.parametrize("way", [through_onnx, through_torch])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_keep_their_predictions(
    name: str, way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = ESTIMATORS[name]
    model = prepare(way(estimator, monkeypatch))
    assert isinstance(dimensions(model.graph.input[0])[0], str)
    for data in (X[:1], X[:7]):
        found = execute(model, data)
        np.testing.assert_allclose(found[0].reshape(-1), estimator.predict(data), atol=1e-4)
        if hasattr(estimator, "predict_proba"):
            np.testing.assert_allclose(found[1], estimator.predict_proba(data), atol=1e-4)


@pytest.mark.parametrize("way", [through_onnx, through_torch])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_become_integers(name: str, way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = ESTIMATORS[name]
    # The sums of the linear model are wider than what a table takes.
    options: dict[str, Any] = {"n_bits": 8}
    if name == "logistic":
        options = {"n_bits": 6, "rounding_threshold_bits": 6}
    module = compile_onnx_model(way(estimator, monkeypatch), X, **options)
    found = module.forward(NEW, fhe="disable")
    labels = found[0] if isinstance(found, tuple) else found
    wanted = estimator.predict(NEW)
    if is_classifier(estimator):
        assert np.mean(labels.reshape(-1) == wanted) >= 0.95
    else:
        assert r2_score(wanted, labels.reshape(-1)) >= 0.95
