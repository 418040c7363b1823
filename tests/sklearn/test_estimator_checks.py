"""What holds for all estimators, whatever library trains them: scikit-learn's contract."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone, is_classifier, is_outlier_detector, is_regressor
from sklearn.exceptions import NotFittedError as ScikitNotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_limits

from cipherlearn import sklearn as estimators
from cipherlearn.errors import (
    InvalidParameterError,
    InvalidTypeError,
    NotCompiledError,
    NotFittedError,
    UnknownKeyError,
)
from cipherlearn.sklearn._catalog import estimator_names
from tests.sklearn.quick import (
    NEIGHBORS,
    NEURAL_NETS,
    TOLD,
    TREES,
    data_for,
    importable,
    numbers_for,
    outputs,
    predictions,
    quick,
)

OUTLIERS = {"IsolationForest"}

pytestmark = TOLD

#: Parts of so few rows have ranges of their own, and are no measure of agreement.
FEW_ROWS = pytest.mark.filterwarnings(
    "ignore:inputs lie far outside",
    "ignore::cipherlearn.errors.AgreementWarning",
    "ignore::cipherlearn.errors.OverflowWarning",
)

#: Checks of scikit-learn that fail, for which estimators, and why.
UNEQUAL_WEIGHTS = {
    **dict.fromkeys(
        ("LinearSVC", "LinearSVR", "Perceptron", "SGDClassifier", "SGDOneClassSVM", "SGDRegressor"),
        "fails for scikit-learn's as well: the order of rows, which are drawn, counts",
    ),
    **dict.fromkeys(
        ("NuSVC", "NuSVR", "OneClassSVM", "SVC", "SVR"),
        "fails for scikit-learn's as well: LIBSVM stops before it is as close as asked",
    ),
    "HuberRegressor": "fails for scikit-learn's as well: it stops before it is as close as asked",
    "RANSACRegressor": "fails for scikit-learn's as well: it draws rows, whatever they weigh",
}
CENTERS = dict.fromkeys(
    ("KMeans", "MiniBatchKMeans"),
    "fails for scikit-learn's as well: it draws rows to begin with, whatever they weigh",
)
#: Fail for scikit-learn's as well, with some processors: weights do not change what the folds are.
FOLDS = {"LassoCV", "MultiTaskLassoCV"}
EXPECTED_FAILURES: dict[str, dict[str, str]] = {
    "check_sample_weight_equivalence_on_dense_data": {
        **dict.fromkeys(
            ("RandomForestClassifier", "RandomForestRegressor"),
            "fails for scikit-learn's as well: rows are drawn, whatever they weigh",
        ),
        **dict.fromkeys(
            ("GradientBoostingClassifier", "GradientBoostingRegressor"),
            "fails for scikit-learn's as well: of equal splits, weights change which is taken",
        ),
        "IsolationForest": "fails for scikit-learn's as well: it draws rows by their weights",
        **CENTERS,
        **UNEQUAL_WEIGHTS,
    },
    "check_sample_weight_equivalence_on_sparse_data": {**UNEQUAL_WEIGHTS, **CENTERS},
    "check_non_transformer_estimators_n_iter": {
        **dict.fromkeys(
            ("Ridge", "RidgeClassifier"),
            "fails for scikit-learn's as well: what is solved at once has no iterations",
        ),
    },
    "check_classifiers_one_label_sample_weights": {
        "NuSVC": "fails for scikit-learn's as well: nu is infeasible, and its error says so",
    },
    "check_class_weight_classifiers": {
        "NuSVC": "fails for scikit-learn's as well: nu is infeasible with so unequal weights",
    },
    "check_classifiers_one_label": {
        "CatBoostClassifier": "CatBoost itself does not train on one class",
    },
    "check_do_not_raise_errors_in_init_or_set_params": dict.fromkeys(
        ("NeuralNetClassifier", "NeuralNetRegressor"),
        "it takes the name of the parameters that are not named for one of them",
    ),
    "check_fit2d_1sample": {
        **dict.fromkeys(
            ("CatBoostClassifier", "CatBoostRegressor"),
            "CatBoost itself does not train on constant features, and says so in its own words",
        ),
        "LassoLarsIC": "fails for scikit-learn's as well: its error does not speak of one row",
    },
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """So little data is slower in several."""
    with threadpool_limits(1):
        yield


def expected_failures(estimator: Any) -> dict[str, str]:
    name = type(estimator).__name__
    return {check: by[name] for check, by in EXPECTED_FAILURES.items() if name in by}


# scikit-learn's own data, with the usual number of iterations; rows beyond those of training.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@FEW_ROWS
@parametrize_with_checks(importable(), expected_failed_checks=expected_failures)
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    weighs = check.func.__name__ == "check_sample_weight_equivalence_on_dense_data"
    if weighs and type(estimator).__name__ in FOLDS:
        pytest.skip("it depends on the processor: weights do not change what the folds are")
    check(estimator)


@functools.cache
def _fitted(name: str) -> Any:
    estimator = quick(name)
    estimator.fit(*data_for(estimator))
    return estimator


@functools.cache
def _compiled(name: str) -> Any:
    estimator = quick(name)
    estimator.fit(*data_for(estimator)).compile(engine="clear")
    return estimator


@pytest.fixture(params=estimator_names())
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    quick(request.param)  # skips if its library is not there
    return request.param


@pytest.fixture(params=[name for name in estimator_names() if name not in NEURAL_NETS])
def with_bits(request: pytest.FixtureRequest) -> Any:
    """Those with ``n_bits``: networks that train quantized have parameters of their own."""
    return quick(request.param)


@pytest.fixture(params=TREES)
def tree_name(request: pytest.FixtureRequest) -> Iterator[str]:
    quick(request.param)
    return request.param


@pytest.fixture
def fitted_tree(tree_name: str) -> Any:
    """Not to be changed."""
    return _fitted(tree_name)


@pytest.fixture
def estimator(name: str) -> Any:
    return quick(name)


@pytest.fixture
def fitted(name: str) -> Any:
    """Not to be changed."""
    return _fitted(name)


@pytest.fixture
def compiled(name: str) -> Any:
    """Not to be changed."""
    return _compiled(name)


def test_it_says_what_it_is(name: str) -> None:
    estimator = quick(name)
    kinds = [is_classifier(estimator), is_regressor(estimator), is_outlier_detector(estimator)]
    if name not in TREES:
        floats = estimator.float_class()
        assert kinds == [is_classifier(floats), is_regressor(floats), is_outlier_detector(floats)]
    else:
        assert kinds == [name.endswith("Classifier"), name.endswith("Regressor"), name in OUTLIERS]


def test_parameters_are_those_of_the_float_model_and_our_own(with_bits: Any) -> None:
    estimator = with_bits
    params = estimator.get_params()
    assert "n_bits" in estimator.own_parameters
    assert set(estimator.own_parameters) <= set(params)
    assert set(estimator.get_sklearn_params()) == set(params) - set(estimator.own_parameters)
    other = clone(estimator).set_params(n_bits={"op_inputs": 3, "op_leaves": 5})
    assert other.get_params()["n_bits"] == {"op_inputs": 3, "op_leaves": 5}
    assert estimator.n_bits == params["n_bits"]
    assert repr(params) == repr(clone(estimator).get_params())


def test_clone_of_a_fitted_one_is_not_fitted(fitted: Any) -> None:
    assert fitted.is_fitted
    assert not clone(fitted).is_fitted
    assert clone(fitted).sklearn_model is None


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_pipeline(estimator: Any) -> None:
    X, y = data_for(estimator)
    whole = make_pipeline(MinMaxScaler(), estimator).fit(X, y)
    assert len(outputs(whole, X)) == len(X)


def scorer(estimator: Any, X: Any, y: Any = None) -> float:
    """Of anything; the worst of what has no answer for some rows."""
    found = predictions(estimator, X)
    if found.dtype.kind == "f" and np.isnan(found).any():
        return 0.0
    return float(np.mean(outputs(estimator, X))) if y is None else estimator.score(X, y)


@FEW_ROWS
@pytest.mark.filterwarnings("ignore:One or more samples have no neighbors")
def test_grid_search_over_bits(with_bits: Any) -> None:
    X, y = data_for(with_bits)
    search = GridSearchCV(
        with_bits, {"n_bits": [1, 4]}, cv=2, scoring=scorer, error_score="raise"
    ).fit(X, y)
    assert search.best_estimator_.n_bits_["op_inputs"] == search.best_params_["n_bits"]
    assert len(outputs(search, X)) == len(X)
    assert search.best_score_ == search.cv_results_["mean_test_score"].max()


@FEW_ROWS
def test_cross_validation(estimator: Any) -> None:
    X, y = data_for(estimator)
    scores = cross_val_score(estimator, X, y, cv=3, scoring=scorer, error_score="raise")
    assert scores.shape == (3,)
    assert y is None or scores.mean() > 0.4


def assert_same(name: str, found: np.ndarray, wanted: np.ndarray) -> None:
    """Of linear models: nearly. They are trained in the precision and the order of what comes."""
    tolerance = 0.0 if name in TREES else 0.02 * np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)


def test_data_frames(name: str, fitted: Any) -> None:
    estimator = quick(name)
    X, y = data_for(estimator)
    names = list("abcd")[: X.shape[1]]
    frame = pd.DataFrame(X, columns=names)
    several = y is not None and y.ndim > 1
    estimator.fit(frame, None if y is None else pd.DataFrame(y) if several else pd.Series(y))
    assert estimator.feature_names_in_.tolist() == names
    assert_same(name, outputs(estimator, frame), outputs(fitted, X))
    with pytest.raises(ValueError, match="feature names"):
        outputs(estimator, frame.rename(columns={"a": "z"}))


def test_frames_of_polars(name: str, fitted: Any) -> None:
    estimator = quick(name)
    X, y = data_for(estimator)
    names = list("abcd")[: X.shape[1]]
    frame = pl.DataFrame(X, schema=names)
    estimator.fit(frame, y)
    assert estimator.feature_names_in_.tolist() == names
    assert_same(name, outputs(estimator, frame), outputs(fitted, X))


@pytest.mark.parametrize(
    "given",
    [
        np.ndarray.tolist,
        torch.tensor,
        lambda values: torch.tensor(values, requires_grad=True),
    ],
    ids=["lists", "tensors", "tensors with gradients"],
)
def test_lists_and_tensors(name: str, fitted: Any, given: Callable[[np.ndarray], Any]) -> None:
    estimator = quick(name)
    X, y = data_for(estimator)
    numbers = is_regressor(estimator)
    estimator.fit(given(X), given(y) if numbers else None if y is None else y.tolist())
    assert_same(name, outputs(estimator, given(X)), outputs(fitted, X))


def test_fitted_attributes_of_the_float_model_can_be_read(fitted: Any) -> None:
    model = fitted.sklearn_model
    assert isinstance(model, fitted.float_class)
    if is_classifier(fitted):
        assert fitted.classes_.tolist() == ["blue", "green", "red"]
    if hasattr(model, "feature_importances_"):
        np.testing.assert_array_equal(fitted.feature_importances_, model.feature_importances_)
    with pytest.raises(AttributeError, match="nothing_like_that_"):
        _ = fitted.nothing_like_that_


def test_training_is_on_the_grid(fitted_tree: Any) -> None:
    X, _ = data_for(fitted_tree)
    assert fitted_tree.n_features_in_ == X.shape[1]
    assert all(code.n_states <= 2**4 for code in fitted_tree.codes_)
    assert fitted_tree.n_bits_ == {"op_inputs": 4, "op_leaves": fitted_tree.usual_leaf_bits}


def test_clear_predictions_are_those_of_the_circuit(fitted_tree: Any) -> None:
    X, _ = data_for(fitted_tree)
    estimator = copy.deepcopy(fitted_tree)
    vars(estimator).pop("module_", None)
    scores = estimator._raw(X, "disable")
    assert "module_" not in vars(estimator)  # they need no tables
    np.testing.assert_array_equal(estimator.module_.forward(estimator._rows(X)), scores)


def test_same_seed_same_model(name: str, fitted: Any) -> None:
    again = quick(name)
    X, y = data_for(again)
    again.fit(X, y)
    np.testing.assert_array_equal(outputs(again, X), outputs(fitted, X))


@FEW_ROWS
def test_fitting_again_forgets_all(estimator: Any, fitted: Any) -> None:
    X, y = data_for(estimator)
    other = None if y is None else y[:60]
    if is_classifier(estimator):
        other = np.where(other == "blue", "yes", "no")
    estimator.fit(X[:60, :2], other).compile(engine="clear")
    assert estimator.is_compiled
    estimator.fit(X, y)
    assert not estimator.is_compiled
    assert estimator.fhe_circuit is None
    assert estimator.n_features_in_ == X.shape[1]
    np.testing.assert_array_equal(outputs(estimator, X), outputs(fitted, X))


def test_fit_benchmark_trains_the_float_model_beside(estimator: Any) -> None:
    X, *arguments = numbers_for(estimator)
    ours, theirs = estimator.fit_benchmark(X, *arguments, random_state=3)
    assert ours is estimator
    assert isinstance(theirs, estimator.float_class)
    assert theirs is not ours.sklearn_model
    found, wanted = predictions(ours, X), np.asarray(predictions(theirs, X))
    wanted = wanted.reshape(found.shape)
    if found.dtype.kind == "U" and wanted.dtype.kind == "i":
        wanted = ours.classes_[wanted]  # the library takes numbers for labels
    if found.dtype.kind == "f":
        assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.8
    else:
        assert (found == wanted).mean() > 0.75


@FEW_ROWS
def test_import_of_a_fitted_model(estimator: Any) -> None:
    X, *arguments = numbers_for(estimator)
    ours, theirs = estimator.fit_benchmark(X, *arguments)
    if type(estimator).__name__ in NEURAL_NETS:
        theirs = ours.sklearn_model  # the other one was not trained on integers
    without_rows = [(None, {}), (None, {"inputs": "used-thresholds"})]
    for rows, options in [(X, {}), *(without_rows if type(estimator).__name__ in TREES else [])]:
        bits = {"n_bits": 8} if type(estimator).__name__ in TREES else {}
        ours = estimators.from_model(theirs, rows, **bits, **options)
        assert type(ours) is type(estimator)
        found, wanted = predictions(ours, X), np.asarray(predictions(theirs, X))
        wanted = wanted.reshape(found.shape)
        if found.dtype.kind == "f":
            assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.9
        else:
            assert (found == wanted).mean() > 0.9


def test_import_of_what_was_not_fitted(estimator: Any) -> None:
    with pytest.raises(NotFittedError, match="not fitted"):
        type(estimator).from_model(estimator.float_class())
    with pytest.raises(InvalidTypeError, match=f"fitted {estimator.float_class.__name__}"):
        type(estimator).from_model(object())


def test_import_with_rows_of_another_width(fitted: Any) -> None:
    X, _ = data_for(fitted)
    with pytest.raises(ValueError, match="feature"):
        type(fitted).from_model(fitted.sklearn_model, X[:, :-1])


def test_encrypted_rows_are_clear_rows(compiled: Any) -> None:
    X, _ = data_for(compiled)
    for rows in (X[:20], X[:1]):
        found = outputs(compiled, rows, fhe="execute")
        np.testing.assert_array_equal(found, outputs(compiled, rows))


@pytest.mark.parametrize("ensembling", ["server", "client"])
@pytest.mark.parametrize("inputs", ["grid", "used-thresholds"])
def test_encrypted_is_clear(tree_name: str, ensembling: str, inputs: str) -> None:
    estimator = quick(tree_name).set_params(ensembling=ensembling, inputs=inputs)
    X, y = data_for(estimator)
    estimator.fit(X, y).compile(engine="clear")
    np.testing.assert_array_equal(
        outputs(estimator, X[:20]), outputs(estimator, X[:20], fhe="execute")
    )
    np.testing.assert_allclose(
        outputs(estimator, X[:20]), outputs(_fitted(tree_name), X[:20]), rtol=1e-12, atol=1e-15
    )


def test_simulation_without_errors_is_clear(name: str, compiled: Any) -> None:
    X, _ = data_for(compiled)
    found, wanted = outputs(compiled, X, fhe="simulate"), outputs(compiled, X)
    if name in NEIGHBORS:  # their roundings are approximate: near a border, either side may come
        assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.9
    else:
        np.testing.assert_array_equal(found, wanted)
    json.dumps(compiled.n_bits_)


@pytest.mark.parametrize(
    "use",
    [
        predictions,
        outputs,
        lambda e, X: predictions(e, X, fhe="execute"),
        lambda e, X: e.compile(),
        lambda e, X: e.cost(),
        lambda e, X: e.circuit,
        lambda e, X: e.quantize_input(X),
        lambda e, X: e.dequantize_output(X),
        lambda e, X: e.post_processing(X),
    ],
)
def test_nothing_works_before_fit(estimator: Any, use: Callable[[Any, Any], Any]) -> None:
    X, _ = data_for(estimator)
    with pytest.raises(NotFittedError, match=r"fit\(X, y\)") as caught:
        use(estimator, X)
    assert isinstance(caught.value, ScikitNotFittedError)
    assert estimator.fhe_circuit is None
    assert not estimator.is_compiled


@pytest.mark.parametrize("mode", ["simulate", "execute"])
def test_no_encryption_before_compile(fitted: Any, mode: str) -> None:
    X, _ = data_for(fitted)
    with pytest.raises(NotCompiledError, match=r"compile\(\)"):
        predictions(fitted, X, fhe=mode)
    with pytest.raises(NotCompiledError, match=r"compile\(\)"):
        fitted.cost()


@pytest.mark.parametrize("mode", ["", "clear", "Disable", 3, None])
def test_a_wrong_mode(fitted: Any, mode: Any) -> None:
    X, _ = data_for(fitted)
    with pytest.raises(ValueError, match="disable"):
        predictions(fitted, X, fhe=mode)


@pytest.mark.parametrize(
    ("n_bits", "error"),
    [
        (0, InvalidParameterError),
        (-2, InvalidParameterError),
        (17, InvalidParameterError),
        (2.5, (InvalidTypeError, InvalidParameterError)),
        ("many", InvalidParameterError),
        (None, (InvalidTypeError, InvalidParameterError)),
        (True, (InvalidTypeError, InvalidParameterError)),
        ([4], (InvalidTypeError, InvalidParameterError)),
        ({}, InvalidParameterError),
        ({"op_leaves": 3}, InvalidParameterError),
        ({"op_inputs": 3, "op_outputs": 3}, UnknownKeyError),
        ({"op_inputs": 3, "op_leaves": 17}, InvalidParameterError),
    ],
    ids=repr,
)
def test_wrong_bits(with_bits: Any, n_bits: Any, error: Any) -> None:
    with pytest.raises(error, match="n_bits"):
        with_bits.set_params(n_bits=n_bits).fit(*data_for(with_bits))
    assert not with_bits.is_fitted


@pytest.mark.parametrize(
    ("parameter", "accepted"),
    [("inputs", ["grid", "used-thresholds"]), ("ensembling", ["server", "client"])],
)
def test_wrong_choices(fitted_tree: Any, parameter: str, accepted: list[str]) -> None:
    for value in ("other", None):
        other = clone(fitted_tree).set_params(**{parameter: value})
        with pytest.raises(InvalidParameterError, match=parameter) as caught:
            other.fit(*data_for(other))
        assert str(accepted) in str(caught.value)
        with pytest.raises(InvalidParameterError, match=parameter):
            type(fitted_tree).from_model(fitted_tree.sklearn_model, **{parameter: value})


def test_wrong_number_of_features(fitted: Any) -> None:
    X, _ = data_for(fitted)
    for rows in (X[:, :-1], np.hstack([X, X])):
        with pytest.raises(ValueError, match=r"feature"):
            predictions(fitted, rows)
    if X.shape[1] > 1:
        with pytest.raises(ValueError, match="2D"):
            predictions(fitted, X[0])


@pytest.mark.filterwarnings("ignore:Missing values detected")  # interpret's graphs show none
def test_missing_values(estimator: Any, fitted: Any) -> None:
    X, y = data_for(estimator)
    gaps = X.copy()
    gaps[::7, -1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        predictions(fitted, gaps)  # it saw none in training
    if get_tags(estimator).input_tags.allow_nan:
        estimator.fit(gaps, y)
        assert len(predictions(estimator, gaps)) == len(X)
    else:
        with pytest.raises(ValueError, match="NaN"):
            estimator.fit(gaps, y)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_values(estimator: Any, fitted: Any, value: float) -> None:
    X, y = data_for(estimator)
    rows = X.copy()
    rows[3, -1] = value
    with pytest.raises(ValueError, match="infinity"):
        predictions(fitted, rows)
    with pytest.raises(ValueError, match="infinity"):
        estimator.fit(rows, y)


def test_text_as_a_feature(estimator: Any, fitted: Any) -> None:
    X, y = data_for(estimator)
    rows = X.astype(object)
    rows[:, -1] = "text"
    with pytest.raises(ValueError, match="text"):
        estimator.fit(rows, y)
    with pytest.raises(ValueError, match="text"):
        predictions(fitted, rows)
