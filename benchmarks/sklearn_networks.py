"""scikit-learn's perceptrons and kernel machines: what they cost, and how near they stay."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn import datasets
from sklearn.base import is_regressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from benchmarks.data import Split
from benchmarks.report import Figure
from cipherlearn import sklearn as encrypted
from cipherlearn.circuit import count_lookups
from cipherlearn.errors import AgreementWarning

#: Of training, and of what is left for testing.
SEED = 42

#: Estimators with the parameters that differ from their defaults.
CLASSIFIERS: dict[str, tuple[str, dict[str, Any]]] = {
    "MLPClassifier": ("MLPClassifier", {"random_state": 0}),
    "SVC": ("SVC", {}),
    "SVC, 4 bits": ("SVC", {"n_bits": 4}),
}
REGRESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "MLPRegressor": ("MLPRegressor", {"max_iter": 2000, "random_state": 0}),
    "SVR": ("SVR", {}),
    "SVR, C=100": ("SVR", {"C": 100.0}),
    "KernelRidge, rbf": ("KernelRidge", {"kernel": "rbf"}),
    "KernelRidge, rbf, 6 bits": ("KernelRidge", {"kernel": "rbf", "n_bits": 6}),
}
DATA = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
    "diabetes": datasets.load_diabetes,
}


def run() -> Iterator[Figure]:
    """All figures."""
    for name, load in DATA.items():
        x, y = load(return_X_y=True)
        x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.25, random_state=SEED)
        scaler = StandardScaler().fit(x_train)
        split = scaler.transform(x_train), scaler.transform(x_test), y_train, y_test
        models = REGRESSORS if name == "diabetes" else CLASSIFIERS
        for label, (estimator, params) in models.items():
            yield from _figures(f"{name}, {label}", getattr(encrypted, estimator)(**params), split)


def _figures(name: str, model: Any, split: Split) -> Iterator[Figure]:
    x_train, x_test, y_train, y_test = split
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", AgreementWarning)  # it is a figure
        model.fit(x_train, y_train)
    complexity = model.compile().complexity
    found, wanted = model.predict(x_test, fhe="simulate"), model.sklearn_model.predict(x_test)
    yield Figure(f"{name}: look-ups", count_lookups(model.circuit).total)
    yield Figure(f"{name}: complexity", complexity)
    if is_regressor(model):
        yield Figure(f"{name}: R2 with scikit-learn's values as the truth", r2_score(wanted, found))
        scores = r2_score(y_test, found), r2_score(y_test, wanted)
    else:
        yield Figure(f"{name}: labels that are scikit-learn's", float(np.mean(found == wanted)))
        scores = float(np.mean(found == y_test)), float(np.mean(wanted == y_test))
    measure = "R2" if is_regressor(model) else "accuracy"
    yield Figure(f"{name}: {measure}", scores[0])
    yield Figure(f"{name}: {measure} of scikit-learn", scores[1])
