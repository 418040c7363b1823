"""Estimators of all libraries that are trained in no time, and data for them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from sklearn.base import is_classifier, is_outlier_detector, is_regressor
from sklearn.datasets import make_classification, make_regression

from cipherlearn import sklearn as estimators
from cipherlearn.errors import MissingDependencyError
from cipherlearn.sklearn._catalog import estimator_names

#: Settings for a quick training. An estimator gets those that it has; of names for one thing, the
#: first: some libraries have several, and take one of them.
QUICK: dict[tuple[str, ...], Any] = {
    ("n_bits",): 4,
    ("iterations", "n_estimators", "max_iter"): 5,
    ("depth", "max_depth"): 3,
    ("learning_rate",): 0.5,
    ("random_state",): 0,
    ("thread_count",): 1,
    ("allow_writing_files",): False,
    ("logging_level",): "Silent",
    ("max_rounds",): 20,
    ("outer_bags",): 1,
    ("interactions",): 0,
}


def made(name: str) -> Any:
    """An estimator that is trained in no time; what keeps it from being imported, if anything."""
    try:
        estimator = getattr(estimators, name)()
    except MissingDependencyError as error:
        return error
    known = estimator.get_params()
    found = {next((name for name in names if name in known), ""): v for names, v in QUICK.items()}
    found.pop("", None)
    return estimator.set_params(**found)


def quick(name: str) -> Any:
    """The same, or the test is skipped."""
    estimator = made(name)
    if isinstance(estimator, MissingDependencyError):
        pytest.skip(str(estimator))
    return estimator


def importable() -> list[Any]:
    found = map(made, estimator_names())
    return [each for each in found if not isinstance(each, MissingDependencyError)]


@functools.cache
def rows_and_targets(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """90 rows of 4 features, in single precision: what all input types can hold."""
    if kind == "regressor":
        X, y = make_regression(90, 4, n_informative=3, noise=1.0, random_state=0)
        return X.astype(np.float32), y
    X, y = make_classification(
        90, 4, n_informative=3, n_redundant=0, n_classes=3, n_clusters_per_class=1, random_state=0
    )
    return X.astype(np.float32), np.array(["blue", "green", "red"])[y]


def data_for(estimator: Any) -> tuple[np.ndarray, Any]:
    X, y = rows_and_targets("regressor" if is_regressor(estimator) else "classifier")
    return X, None if is_outlier_detector(estimator) else y


def numbers_for(estimator: Any) -> tuple[np.ndarray, ...]:
    """The same with classes by number: not all libraries take names, where we do."""
    X, y = data_for(estimator)
    if y is None:
        return (X,)
    return X, np.unique(y, return_inverse=True)[1] if is_classifier(estimator) else y


def outputs(estimator: Any, X: Any, **options: Any) -> np.ndarray:
    """Whatever says most of rows."""
    for method in ("predict_proba", "score_samples"):
        if hasattr(estimator, method):
            return getattr(estimator, method)(X, **options)
    return estimator.predict(X, **options)
