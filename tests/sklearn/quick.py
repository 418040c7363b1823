"""Estimators of all libraries that are trained in no time, and data for them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor
from sklearn.datasets import make_classification, make_regression
from sklearn.gaussian_process.kernels import RBF
from sklearn.utils import get_tags

from cipherlearn import sklearn as estimators
from cipherlearn.errors import MissingDependencyError
from cipherlearn.sklearn._catalog import estimator_names, libraries


def _family(name: str) -> list[str]:
    return [n for of in libraries() if f".{name}." in of.module for n in of.estimators]


#: Estimators by family.
LINEAR, NEIGHBORS, NETWORKS, NEURAL_NETS, TREES = map(
    _family, ("linear", "neighbors", "networks", "neural_net", "trees")
)

#: Data of some estimators.
KINDS = {
    **dict.fromkeys(("GammaRegressor", "PoissonRegressor", "TweedieRegressor"), "positive"),
    **dict.fromkeys(("ComplementNB", "MultinomialNB"), "counts"),
    "CategoricalNB": "categories",
    "IsotonicRegression": "column",
}

#: Settings for a quick training of trees. An estimator gets those that it has; of names for one
#: thing, the first: some libraries have several, and take one of them.
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


#: The same of linear models, and of single ones.
QUICK_LINEAR: dict[tuple[str, ...], Any] = {
    ("n_components",): 1,
    ("random_state",): 0,
    ("cv",): 3,
}
QUICK_NEIGHBORS: dict[tuple[str, ...], Any] = {
    ("n_bits",): 6,
    ("n_clusters",): 3,
    ("random_state",): 0,
}

#: The same of networks. Approximate rounding would not be simulated as it is evaluated.
QUICK_NETWORKS: dict[tuple[str, ...], Any] = {
    ("n_bits",): 8,
    ("rounding_threshold_bits",): {"n_bits": 8, "method": "exact"},
    ("hidden_layer_sizes",): (8,),
    ("learning_rate_init",): 0.05,
    ("random_state",): 0,
}

#: The same of networks that train quantized.
QUICK_NEURAL_NETS: dict[tuple[str, ...], Any] = {
    ("module__exact_rounding",): True,
    ("module__n_w_bits",): 5,
    ("module__n_a_bits",): 5,
    ("lr",): 0.03,
    ("max_epochs",): 60,
    ("random_state",): 0,
}
SINGLE: dict[str, dict[str, Any]] = {
    "GaussianProcessRegressor": {"alpha": 0.1, "kernel": 1.0 * RBF(2.0), "optimizer": None},
    "KernelRidge": {"kernel": "rbf"},
    "MiniBatchSparsePCA": {"max_iter": 20},
    "NuSVR": {"C": 100.0},
    "OneClassSVM": {"nu": 0.7},  # few rows are on the border
    "SVR": {"C": 100.0},
    "LogisticRegressionCV": {
        "Cs": 3,
        "l1_ratios": (0.0,),
        "scoring": "accuracy",
        "use_legacy_attributes": False,
    },
    "RidgeClassifierCV": {"cv": None},
    "RidgeCV": {"cv": None},
    "CategoricalNB": {"min_categories": 12},
    "IsotonicRegression": {"out_of_bounds": "clip"},
    "QuadraticDiscriminantAnalysis": {"reg_param": 0.01},
    "QuantileRegressor": {"alpha": 0.01},
    "RadiusNeighborsClassifier": {"radius": 1.5, "outlier_label": "most_frequent"},
    "RadiusNeighborsRegressor": {"radius": 2.0},
    "TheilSenRegressor": {"max_subpopulation": 100},
}


#: What is told of so few rows and rounds: neighbours of noise, another one of which is another
#: prediction, rows on the border of one class, and perceptrons that are not trained to the end.
TOLD = [
    *(
        pytest.mark.filterwarnings(f"ignore:the {name} does not predict X")
        for name in (*NEIGHBORS, "OneClassSVM")
    ),
    pytest.mark.filterwarnings(
        "ignore:.*Maximum iterations.*:sklearn.exceptions.ConvergenceWarning"
    ),
]


def made(name: str) -> Any:
    """An estimator that is trained in no time; what keeps it from being imported, if anything."""
    try:
        estimator = getattr(estimators, name)()
    except MissingDependencyError as error:
        return error
    known = estimator.get_params()
    families = (
        (TREES, QUICK),
        (LINEAR, QUICK_LINEAR),
        (NEIGHBORS, QUICK_NEIGHBORS),
        (NETWORKS, QUICK_NETWORKS),
        (NEURAL_NETS, QUICK_NEURAL_NETS),
    )
    settings = next((settings for names, settings in families if name in names), {})
    found = {next((n for n in names if n in known), ""): v for names, v in settings.items()}
    found.pop("", None)
    return estimator.set_params(**{**found, **SINGLE.get(name, {})})


def quick(name: str) -> Any:
    """The same, or the test is skipped."""
    estimator = made(name)
    if isinstance(estimator, MissingDependencyError):
        pytest.skip(str(estimator))
    return estimator


def importable() -> list[Any]:
    """Those that scikit-learn's checks have data for: tables."""
    found = [e for e in map(made, estimator_names()) if not isinstance(e, MissingDependencyError)]
    return [each for each in found if get_tags(each).input_tags.two_d_array]


def as_taken(kind: str, X: np.ndarray) -> np.ndarray:
    """Rows that estimators of that kind take."""
    return {"counts": lambda: X - X.min(), "categories": lambda: np.floor(X - X.min(axis=0))}.get(
        kind, lambda: X
    )()


@functools.cache
def rows_and_targets(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """90 rows of 4 features, in single precision: what all input types can hold."""
    if kind == "regressor":
        X, y = make_regression(90, 4, n_informative=3, noise=1.0, random_state=0)
        return X.astype(np.float32), y
    if kind in {"positive", "tasks"}:
        X, y = rows_and_targets("regressor")
        return X, np.exp(y / y.std()) if kind == "positive" else np.stack([y, X[:, 0]], axis=1)
    if kind in {"counts", "categories"}:
        X, y = rows_and_targets("classifier")
        return as_taken(kind, X), y
    if kind == "column":
        X, y = rows_and_targets("regressor")
        return X[:, [np.abs(np.corrcoef(X.T, y)[-1, :-1]).argmax()]], y
    X, y = make_classification(
        90, 4, n_informative=3, n_redundant=0, n_classes=3, n_clusters_per_class=1, random_state=0
    )
    return X.astype(np.float32), np.array(["blue", "green", "red"])[y]


def data_for(estimator: Any) -> tuple[np.ndarray, Any]:
    kind = "classifier"
    if is_regressor(estimator):
        single = get_tags(estimator).target_tags.single_output
        kind = "regressor" if single else "tasks"
    X, y = rows_and_targets(KINDS.get(type(estimator).__name__, kind))
    learns = not any(
        is_so(estimator) for is_so in (is_outlier_detector, is_clusterer, is_only_transformer)
    )
    return X, y if learns else None


def is_only_transformer(estimator: Any) -> bool:
    return not hasattr(estimator, "predict")


def numbers_for(estimator: Any) -> tuple[np.ndarray, ...]:
    """The same with classes by number: not all libraries take names, where we do."""
    X, y = data_for(estimator)
    if y is None:
        return (X,)
    return X, np.unique(y, return_inverse=True)[1] if is_classifier(estimator) else y


def outputs(estimator: Any, X: Any, **options: Any) -> np.ndarray:
    """Whatever says most of rows."""
    for method in ("predict_proba", "score_samples", "decision_function"):
        if hasattr(estimator, method) and not is_only_transformer(estimator):
            return getattr(estimator, method)(X, **options)
    found = predictions(estimator, X, **options)
    return np.searchsorted(estimator.classes_, found) if found.dtype.kind in "UO" else found


def predictions(estimator: Any, X: Any, **options: Any) -> np.ndarray:
    """What is predicted, or the new features of a transformer."""
    use = estimator.transform if is_only_transformer(estimator) else estimator.predict
    return use(X, **options)
