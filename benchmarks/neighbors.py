"""Nearest neighbours and centers: accuracy, agreement with scikit-learn, cost."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_classification,
)
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import cipherlearn.sklearn as encrypted
from benchmarks.data import Split
from benchmarks.report import Figure
from cipherlearn.circuit import count_lookups
from cipherlearn.errors import AgreementWarning, CalibrationWarning, CostWarning

#: Splits that scores are the mean of.
SPLITS = 5


@dataclass(frozen=True)
class Case:
    """An estimator on a data set.

    Parameters
    ----------
    estimator : str
        Of `cipherlearn.sklearn`.
    data : str
        See `data_of`.
    params : dict
    least_agreement : float, optional
        Share of test rows that it must answer as scikit-learn does.
    """

    estimator: str
    data: str
    params: dict[str, Any]
    least_agreement: float | None = None

    def __str__(self) -> str:
        """How tables name the case."""
        given = ", ".join(f"{name} {value}" for name, value in self.params.items())
        return f"{self.estimator} ({given}) on {self.data}"

    def fitted(self, split: Split) -> Any:
        """The estimator, trained on a split."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AgreementWarning)  # it is a figure here
            return getattr(encrypted, self.estimator)(**self.params).fit(split[0], split[2])


CASES = (
    Case("KNeighborsClassifier", "iris", {"n_neighbors": 1}, 0.95),
    Case("KNeighborsClassifier", "iris", {"n_neighbors": 3}, 0.97),
    Case(
        "KNeighborsClassifier",
        "iris",
        {"n_neighbors": 3, "n_bits": {"op_inputs": 5, "op_distances": 3}},
    ),
    Case(
        "KNeighborsClassifier",
        "iris",
        {"n_neighbors": 3, "n_bits": {"op_inputs": 6, "op_distances": 5}},
        0.97,
    ),
    Case("KNeighborsClassifier", "iris", {"n_neighbors": 3, "p": 1}, 0.95),
    Case("KNeighborsClassifier", "hard", {"n_neighbors": 3}),
    Case("KNeighborsClassifier", "wine", {"n_neighbors": 5}, 0.93),
    Case("KNeighborsClassifier", "breast cancer", {"n_neighbors": 5}, 0.93),
    Case("KNeighborsClassifier", "digits", {"n_neighbors": 3}, 0.95),
    Case("KNeighborsClassifier", "integers", {"n_neighbors": 3}, 0.95),
    Case("KNeighborsRegressor", "diabetes", {}),
    Case("RadiusNeighborsClassifier", "iris", {"radius": 1.0}, 0.95),
    Case("NearestCentroid", "iris", {"n_bits": 6}, 0.97),
    Case("NearestCentroid", "digits", {}, 0.97),
    Case("KMeans", "digits", {"n_clusters": 10, "n_init": 1, "random_state": 0}, 0.95),
    Case("KMeans", "iris", {"n_clusters": 3, "n_init": 1, "random_state": 0, "n_bits": 6}, 0.97),
    Case("KNeighborsClassifier", "digits", {"reveal": "distances", "n_bits": 8}, 0.99),
)


def data_of(name: str, seed: int) -> Split:
    """Rows to train and to test, and their labels.

    ``"hard"``: classes that overlap; ``"integers"``: many equal rows to train, and others to test.
    """
    if name == "integers":
        rng = np.random.default_rng(seed)
        x_train, x_test = rng.integers(0, 4, (300, 2)).astype(float), rng.uniform(0, 3, (200, 2))
        return x_train, x_test, *((x.sum(axis=1) > 3).astype(int) for x in (x_train, x_test))
    if name == "hard":
        x, y = make_classification(
            150, 4, n_informative=2, n_redundant=0, class_sep=0.5, random_state=42
        )
    else:
        loaders = {
            "iris": load_iris,
            "wine": load_wine,
            "breast cancer": load_breast_cancer,
            "digits": load_digits,
            "diabetes": load_diabetes,
        }
        x, y = loaders[name](return_X_y=True)
    if name in {"wine", "breast cancer"}:
        x = StandardScaler().fit_transform(x)
    if name == "digits":
        x, y = x[:500], y[:500]
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.25, random_state=seed)
    return x_train, x_test, y_train, y_test


def run() -> Iterator[Figure]:
    """All figures."""
    for case in CASES:
        yield from _figures(case)


def _figures(case: Case) -> Iterator[Figure]:
    found, told = [], []
    for seed in range(SPLITS):
        split = data_of(case.data, seed)
        fitted = case.fitted(split)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CalibrationWarning)
            warnings.simplefilter("ignore", CostWarning)
            fitted.compile()
            found.append(_scores(fitted, split))
            told.append(fitted.agreement_)
    exact, simulated, floats, agreement, noisy = np.mean(found, axis=0)
    yield Figure(f"{case}: score of the float model", floats)
    yield Figure(f"{case}: score", exact)
    yield Figure(f"{case}: simulated score", simulated)
    yield Figure(f"{case}: agreement", agreement, at_least=case.least_agreement)
    yield Figure(f"{case}: simulated agreement", noisy)
    yield Figure(f"{case}: agreement that fit tells", float(np.mean(told)))
    cost = fitted.cost()
    yield Figure(f"{case}: look-ups", count_lookups(fitted.circuit).total)
    yield Figure(f"{case}: complexity", cost.complexity)
    yield Figure(f"{case}: estimated seconds a row", cost.estimated_seconds)


def _scores(fitted: Any, split: Split) -> tuple[float, float, float, float, float]:
    """Scores of exact and simulated answers and of the float model, and how far they are alike."""
    _, x, _, y = split
    exact, simulated = fitted.predict(x), fitted.predict(x, fhe="simulate")
    floats = fitted.sklearn_model.predict(x)
    if floats.dtype.kind == "f":
        explained = [1 - ((of - y) ** 2).mean() / y.var() for of in (exact, simulated, floats)]
        alike = [1 - ((of - floats) ** 2).mean() / floats.var() for of in (exact, simulated)]
        return (*explained, *alike)
    # Clusters have no labels: those of the float model are the truth.
    truth = floats if fitted.__class__.__name__ == "KMeans" else y
    right = [float((of == truth).mean()) for of in (exact, simulated, floats)]
    return (*right, float((exact == floats).mean()), float((simulated == floats).mean()))
