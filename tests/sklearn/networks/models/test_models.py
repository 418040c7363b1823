"""What holds for every network: it computes what the float model computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn import datasets, kernel_ridge, neural_network, svm
from sklearn.base import is_regressor
from sklearn.preprocessing import StandardScaler

from cipherlearn import sklearn as estimators
from cipherlearn.circuit import count_lookups
from cipherlearn.errors import InvalidParameterError, ModelError
from cipherlearn.sklearn.linear.module import LinearModule
from tests.sklearn.quick import NETWORKS, data_for, outputs, quick

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*Maximum iterations.*:sklearn.exceptions.ConvergenceWarning",
    "ignore::cipherlearn.errors.AgreementWarning",
    "ignore:.*probability.*:FutureWarning",
)

KERNEL_MACHINES = [n for n in NETWORKS if not n.startswith(("Gaussian", "MLP"))]
KERNELS = ["linear", "poly", "rbf", "sigmoid"]


def r2(found: np.ndarray, wanted: np.ndarray) -> float:
    spread = np.square(wanted - wanted.mean(axis=0)).sum()
    return float(1 - np.square(found - wanted).sum() / spread)


@pytest.mark.parametrize("name", NETWORKS)
def test_results_are_those_of_the_float_model(name: str) -> None:
    estimator = quick(name)
    X, y = data_for(estimator)
    estimator.fit(X, y)
    tried = 0
    for method in ("predict_proba", "decision_function", "score_samples", "predict"):
        if not hasattr(estimator, method):
            assert not hasattr(estimator.sklearn_model, method)
            continue
        found = getattr(estimator, method)(X)
        wanted = np.asarray(getattr(estimator.sklearn_model, method)(X))
        assert found.shape == wanted.shape
        tried += 1
        if wanted.dtype.kind == "f":
            assert r2(found, wanted) > 0.97
        else:
            assert (found == wanted).mean() > 0.93
    assert tried


@pytest.mark.parametrize("name", KERNEL_MACHINES)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix], ids=["dense", "sparse"])
def test_kernels(name: str, kernel: str, container: Any) -> None:
    estimator = quick(name).set_params(kernel=kernel)
    if kernel == "sigmoid":
        estimator.set_params(gamma=0.05)
        if name.startswith("NuSVC"):
            estimator.set_params(nu=0.3)
    X, y = data_for(estimator)
    X = container(X.astype(np.float64))
    floats = estimator.fit(X, y).sklearn_model
    use = "predict" if is_regressor(estimator) else "decision_function"
    if name.endswith("SVC"):
        estimator.set_params(decision_function_shape="ovo").fit(X, y)
        floats = estimator.sklearn_model
    assert r2(getattr(estimator, use)(X), getattr(floats, use)(X)) > 0.97
    is_linear = isinstance(estimator.module_, LinearModule)
    assert is_linear == (kernel == "linear")
    assert bool(count_lookups(estimator.circuit).total) != is_linear


@pytest.mark.parametrize("name", KERNEL_MACHINES)
@pytest.mark.parametrize("kernel", [lambda x, y: x @ y.T, "precomputed"], ids=["own", "computed"])
def test_other_kernels_are_refused(name: str, kernel: Any) -> None:
    estimator = quick(name).set_params(kernel=kernel)
    X, y = data_for(estimator)
    rows = X @ X.T if kernel == "precomputed" else X
    if callable(kernel) and name == "KernelRidge":
        kernel = estimator.set_params(kernel=lambda x, y: float(x @ y)).kernel
    with pytest.raises(ModelError, match=r"cannot be encrypted.*'rbf'"):
        estimator.fit(rows, y)
    assert not estimator.is_fitted


@pytest.mark.parametrize("shape", ["ovr", "ovo"])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("ties", [False, True])
def test_labels_of_support_vector_machines(shape: str, n_classes: int, ties: bool) -> None:
    if ties and shape == "ovo":
        return
    X, y = datasets.load_wine(return_X_y=True)
    X = StandardScaler().fit_transform(X)[y < n_classes]
    y = np.array(["red", "white", "green"])[y[y < n_classes]]
    model = estimators.SVC(decision_function_shape=shape, break_ties=ties, n_bits=6).fit(X, y)
    floats = model.sklearn_model
    assert (model.predict(X) == floats.predict(X)).mean() >= 0.99
    found, wanted = model.decision_function(X), floats.decision_function(X)
    assert found.shape == wanted.shape
    assert r2(found, wanted) > 0.97
    assert not hasattr(model, "predict_proba")


def test_shapes_of_decisions_are_read_when_they_are_made() -> None:
    X, y = datasets.make_blobs(80, 3, centers=4, random_state=0)
    model = estimators.SVC(n_bits=6).fit(X, y)
    floats = model.sklearn_model
    for shape in ("ovo", "ovr"):
        wanted = floats.set_params(decision_function_shape=shape).decision_function(X)
        found = model.set_params(decision_function_shape=shape).decision_function(X)
        assert r2(found, wanted) > 0.95
    model.set_params(decision_function_shape="ovo", break_ties=True)
    with pytest.raises(InvalidParameterError, match="break_ties=True needs"):
        model.predict(X)


def test_what_the_client_learns() -> None:
    X, y = datasets.load_wine(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    parts = ["ranges", "scale and constant", "radius", "pairs of classes", "slope and offset"]
    wanted = {
        estimators.SVC(probability=True, random_state=0): parts,
        estimators.SVC(): parts[:4],
        estimators.SVC(kernel="poly"): [*parts[:2], parts[3]],
        estimators.SVR(): parts[:3],
        estimators.KernelRidge(): parts[:2],
        estimators.MLPRegressor(hidden_layer_sizes=(3,), random_state=0): parts[:2],
    }
    for estimator, told in wanted.items():
        found = estimator.fit(X, y).client_learns
        assert [part for part in parts if part in found] == told


def test_perceptrons_for_counts() -> None:
    X, y = datasets.make_regression(200, 3, random_state=0)
    counts = np.random.default_rng(0).poisson(np.exp(y / y.std()))
    model = quick("MLPRegressor").set_params(loss="poisson").fit(X, counts)
    assert r2(model.predict(X), model.sklearn_model.predict(X)) > 0.98
    np.testing.assert_allclose(model.predict(X), np.exp(model.module_.forward(X))[:, 0])


@pytest.mark.slow
def test_bits_are_found_for_all_outputs() -> None:
    X = np.random.default_rng(0).uniform(size=(150, 3))
    y = np.stack([100 * np.sin(3 * X[:, 0]), np.sin(3 * X[:, 1])], axis=1)
    params = {"solver": "lbfgs", "hidden_layer_sizes": (10,), "max_iter": 5000}
    model = estimators.MLPRegressor(**params, random_state=0, n_bits="auto").fit(X, y)
    for found, wanted in zip(model.predict(X).T, model.sklearn_model.predict(X).T, strict=True):
        assert r2(found, wanted) > 0.97


def test_probabilities_of_support_vector_machines() -> None:
    X, y = datasets.load_wine(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    model = estimators.SVC(probability=True, random_state=0, n_bits=6).fit(X, y)
    found, wanted = model.predict_proba(X), model.sklearn_model.predict_proba(X)
    assert np.abs(found - wanted).mean() < 0.02
    np.testing.assert_allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize("activation", ["identity", "logistic", "relu", "tanh"])
@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
@pytest.mark.parametrize("hidden", [(6,), (6, 5)])
def test_activations(name: str, activation: str, hidden: tuple[int, ...]) -> None:
    estimator = quick(name).set_params(activation=activation, hidden_layer_sizes=hidden)
    X, y = data_for(estimator)
    estimator.fit(X, y)
    found, wanted = outputs(estimator, X), outputs(estimator.sklearn_model, X)
    assert r2(found, wanted) > 0.98
    assert isinstance(estimator.module_, LinearModule) == (activation == "identity")


def test_several_labels_and_several_targets() -> None:
    X, y = datasets.make_multilabel_classification(120, 6, n_classes=3, random_state=0)
    model = quick("MLPClassifier").fit(X, y)
    assert model.predict(X).shape == (120, 3)
    assert (model.predict(X) == model.sklearn_model.predict(X)).mean() > 0.97
    assert model.predict_proba(X).shape == (120, 3)
    X, y = datasets.make_regression(120, 4, n_targets=2, random_state=0)
    for name in ("MLPRegressor", "KernelRidge"):
        several = quick(name).fit(X, y / y.std())
        assert r2(several.predict(X), several.sklearn_model.predict(X)) > 0.97


@pytest.mark.parametrize(
    "model",
    [
        svm.NuSVC(nu=0.2),
        svm.SVR(),
        svm.OneClassSVM(),
        neural_network.MLPClassifier((5,), random_state=0),
        kernel_ridge.KernelRidge(kernel="rbf"),
    ],
    ids=lambda model: type(model).__name__,
)
def test_imported_models(model: Any) -> None:
    X, y = datasets.load_iris(return_X_y=True)
    found = estimators.from_model(model.fit(X, y), X, n_bits=7)
    assert type(found).__name__ == type(model).__name__
    assert found.n_bits == 7
    assert found.sklearn_model is model
    assert found.agreement_ > 0.9
