from __future__ import annotations

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


def test_all_estimators_are_there() -> None:
    assert len(NEIGHBORS) == 7
    assert all(hasattr(estimators, name) for name in NEIGHBORS)
