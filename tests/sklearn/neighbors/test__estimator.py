from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from sklearn.utils.estimator_checks import check_estimator

from cipherlearn import sklearn as estimators
from cipherlearn.errors import InvalidParameterError, UnknownKeyError
from cipherlearn.sklearn.neighbors._estimator import SelectionBits
from tests.sklearn.quick import NEIGHBORS, data_for, predictions, quick
from tests.sklearn.test_estimator_checks import expected_failures

pytestmark = pytest.mark.filterwarnings(
    "ignore::cipherlearn.errors.AgreementWarning",
    "ignore::cipherlearn.errors.CalibrationWarning",
    "ignore:Estimator's parameters.*:sklearn.exceptions.SkipTestWarning",
    "ignore:One or more samples have no neighbors",
)


def test_bits() -> None:
    assert SelectionBits.of(5).as_dict == {"op_inputs": 5, "op_distances": 4}
    given = {"op_inputs": 6, "op_distances": 3}
    assert SelectionBits.of(given).as_dict == given
    assert SelectionBits.of({"op_inputs": 2}).as_dict == {"op_inputs": 2, "op_distances": 4}


@pytest.mark.parametrize(
    ("n_bits", "error"),
    [
        (9, InvalidParameterError),
        ({"op_inputs": 4, "op_weights": 4}, UnknownKeyError),
        ({"op_distances": 4}, InvalidParameterError),
        ({"op_inputs": 4, "op_distances": 9}, InvalidParameterError),
        ({"op_inputs": 4, "op_distances": 1}, InvalidParameterError),
    ],
    ids=repr,
)
def test_wrong_bits(n_bits: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="n_bits"):
        SelectionBits.of(n_bits)


@pytest.mark.parametrize("name", NEIGHBORS)
def test_scikit_learn_checks_with_revealed_distances(name: str) -> None:
    estimator = quick(name).set_params(reveal="distances", n_bits=10)
    found = check_estimator(
        estimator, expected_failed_checks=expected_failures(estimator), on_skip=None, on_fail=None
    )
    failed = [each for each in found if each["status"] == "failed"]
    assert not failed


@pytest.mark.parametrize("name", NEIGHBORS)
def test_revealed_distances_cost_no_look_up(name: str) -> None:
    estimator = quick(name).set_params(reveal="distances", n_bits=10)
    X, y = data_for(estimator)
    estimator.fit(X, y).compile(engine="clear")
    assert not estimator.cost().lookups_by_width
    found = predictions(estimator, X[:9], fhe="execute")
    np.testing.assert_array_equal(found, predictions(estimator, X[:9]))
    theirs = estimator._library_predictions(estimator.sklearn_model, X.astype(np.float64))
    if theirs.dtype.kind == "f":
        np.testing.assert_allclose(predictions(estimator, X), theirs, atol=0.3 * np.std(theirs))
    else:
        assert (predictions(estimator, X) == theirs).mean() > 0.95


def test_post_processing_gives_what_predict_gives() -> None:
    for name in NEIGHBORS:
        estimator = quick(name)
        X, y = data_for(estimator)
        estimator.fit(X, y)
        counts = estimator.module_.forward(estimator._rows(X))
        method = "predict_proba" if hasattr(estimator, "predict_proba") else "predict"
        found = estimator.post_processing(counts)
        np.testing.assert_array_equal(found, getattr(estimator, method)(X))


@pytest.mark.parametrize("name", ["KNeighborsClassifier", "RadiusNeighborsRegressor"])
def test_decrypted_results_lack_the_length_of_the_row(name: str) -> None:
    estimator = quick(name).set_params(reveal="distances", n_bits=10, weights="distance")
    X, y = data_for(estimator)
    estimator.fit(X, y)
    rows = estimator._rows(X)
    module = estimator.module_
    decrypted = module.dequantize_output(module.quantized_forward(module.quantize_input(rows)))
    with pytest.raises(InvalidParameterError, match=r"needs the distances.*module_\.lengths"):
        estimator.post_processing(decrypted)
    whole = module.post_processing(decrypted) + module.lengths(rows)
    np.testing.assert_allclose(whole, module.forward(rows))
    if name == "KNeighborsClassifier":
        estimator.set_params(weights="uniform")
        found = estimator.post_processing(decrypted)
        np.testing.assert_array_equal(found, estimator.predict_proba(X))


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        *((name, {}, {"reveal": "distances"}) for name in NEIGHBORS),
        *((name, {"reveal": "distances"}, {"reveal": "selection"}) for name in NEIGHBORS),
        ("KNeighborsClassifier", {}, {"n_neighbors": 50}),
        ("KNeighborsRegressor", {"reveal": "distances"}, {"p": 1}),
        ("RadiusNeighborsClassifier", {}, {"radius": 9.0}),
        ("RadiusNeighborsRegressor", {}, {"weights": "distance"}),
        ("KNeighborsRegressor", {"metric_params": {"w": np.ones(4)}}, {"metric_params": None}),
        ("NearestCentroid", {}, {"metric": "manhattan"}),
    ],
)
def test_what_models_are_built_with_is_not_set_after_fit(
    name: str, before: dict[str, Any], after: dict[str, Any]
) -> None:
    estimator = quick(name).set_params(**before)
    X, y = data_for(estimator)
    found = predictions(estimator.fit(X, y), X)
    known = {parameter: estimator.get_params()[parameter] for parameter in after}
    estimator.set_params(**after)
    for use in (estimator.predict, estimator.post_processing, estimator.compile):
        with pytest.raises(InvalidParameterError, match=next(iter(after))):
            use(X)
    np.testing.assert_array_equal(predictions(estimator.set_params(**known), X), found)


def test_what_selects_distances_may_be_set_after_fit() -> None:
    for name, after in (
        ("KNeighborsClassifier", {"n_neighbors": 30, "weights": "distance"}),
        ("RadiusNeighborsClassifier", {"radius": 1.2}),
    ):
        estimator = quick(name).set_params(reveal="distances", n_bits=12)
        X, y = data_for(estimator)
        found = estimator.fit(X, y).set_params(**after).predict(X)
        theirs = estimator.sklearn_model.set_params(**after)
        assert (found == theirs.predict(X)).mean() > 0.97


@pytest.mark.parametrize(
    ("name", "selection", "distances"),
    [
        ("KNeighborsClassifier", "how many .* of each class; the same of all rows", "the classes"),
        ("KNeighborsRegressor", "range of the targets.*sums of the bits.*of all rows", "targets"),
        ("RadiusNeighborsClassifier", "widened by the radius.*label of outliers", "the label"),
        ("RadiusNeighborsRegressor", "range of the targets.*sums of the bits", "the targets"),
        ("NearestCentroid", "which center is the nearest", "the priors.*the deviations"),
        ("KMeans", "which center is the nearest", "distances from all centers"),
        ("MiniBatchKMeans", "which center is the nearest", "distances from all centers"),
    ],
)
def test_what_the_client_learns(name: str, selection: str, distances: str) -> None:
    for reveal, told in (("selection", selection), ("distances", distances)):
        estimator = quick(name).set_params(reveal=reveal)
        found = estimator.fit(*data_for(estimator)).client_learns
        assert found.startswith("ranges of the features")
        assert re.search(told, found)
        assert ("tell where" in found) == (reveal == "distances")


def test_all_estimators_are_there() -> None:
    assert len(NEIGHBORS) == 7
    assert all(hasattr(estimators, name) for name in NEIGHBORS)
