"""What networks share, beside what `tests/sklearn/test_estimator_checks.py` checks."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris

from cipherlearn import sklearn as estimators
from cipherlearn.circuit import count_lookups
from cipherlearn.engines import estimate
from cipherlearn.errors import CostWarning, InvalidParameterError, ModelError, UnknownKeyError
from cipherlearn.quantization import QuantizedModule
from cipherlearn.sklearn.networks._estimator import CALIBRATION_ROWS, NetworkBits
from cipherlearn.sklearn.networks.network import Network
from tests.sklearn.quick import quick

X, Y = load_iris(return_X_y=True)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*Maximum iterations.*:sklearn.exceptions.ConvergenceWarning"
)


@pytest.mark.parametrize(
    ("n_bits", "rounding", "bits", "kept"),
    [
        (4, None, {"op_weights": 4, "op_inputs": 4, "model_inputs": 8, "model_outputs": 5}, 4),
        (1, None, {"op_weights": 1, "op_inputs": 1, "model_inputs": 8, "model_outputs": 5}, 2),
        (12, 6, {"op_weights": 12, "op_inputs": 12, "model_inputs": 12, "model_outputs": 12}, 6),
        (
            {"op_weights": 3, "op_inputs": 5, "model_inputs": 6},
            None,
            {"op_weights": 3, "op_inputs": 5, "model_inputs": 6, "model_outputs": 5},
            5,
        ),
    ],
)
def test_bits(n_bits: Any, rounding: Any, bits: dict[str, int], kept: int) -> None:
    found = NetworkBits.of(n_bits, rounding)
    assert found.as_dict == bits
    assert found.rounding is not None
    assert (found.rounding.n_bits, found.rounding.exact) == (kept, rounding is not None)
    assert not found.is_search
    assert found.precision.kept == kept
    assert found.linear.inputs >= 8


def test_bits_that_are_to_be_found() -> None:
    for found in (NetworkBits.of("auto", None), NetworkBits.of(4, "auto")):
        assert found.is_search
        assert found.precision.kept == 5


def test_wrong_rounding() -> None:
    for rounding, error in ((1, InvalidParameterError), ({"bits": 3}, UnknownKeyError)):
        model = estimators.SVC(rounding_threshold_bits=rounding)
        with pytest.raises(error, match="rounding_threshold_bits"):
            model.fit(X, Y)
        assert model.sklearn_model is None


@pytest.mark.parametrize(
    "name",
    ["SVC", *(pytest.param(n, marks=pytest.mark.slow) for n in ("MLPClassifier", "KernelRidge"))],
)
@pytest.mark.filterwarnings("ignore::cipherlearn.errors.AgreementWarning")  # 2 of 75 rows
def test_bits_are_found(name: str) -> None:
    model = quick(name).set_params(n_bits="auto", rounding_threshold_bits=None).fit(X[::2], Y[::2])
    assert isinstance(model.module_, QuantizedModule)
    assert model.module_.search is not None
    assert {"op_weights", "op_inputs"} <= model.n_bits_.keys()
    assert model.agreement_ > 0.9


def test_the_engine_computes_what_it_says() -> None:
    rows = np.concatenate([X[:50:7], X[50:100:7]])
    labels = np.repeat(["setosa", "versicolor"], 8)
    for model in (
        estimators.SVC(kernel="rbf", n_bits=3),
        estimators.MLPClassifier((3,), random_state=0, max_iter=400, n_bits=3),
    ):
        model.fit(rows, labels).compile()
        found = model.predict(rows[6:9], fhe="execute")
        np.testing.assert_array_equal(found, labels[6:9])
        scores = [model.module_.forward(rows[6:9], fhe=mode) for mode in ("execute", "disable")]
        # Approximate rounding may go to the step beside.
        np.testing.assert_allclose(*scores, atol=0.2 * np.ptp(scores[1]))


def test_many_lookups_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    model = estimators.MLPClassifier((6,), random_state=0).fit(X, Y)
    assert count_lookups(model.circuit).total == 6
    model.compile(engine="clear")
    monkeypatch.setattr(estimate, "MANY_LOOKUPS", 5)
    with pytest.warns(CostWarning, match=r"the neurons need 6 table look-ups .*hidden_layer_sizes"):
        model.compile(engine="clear")


def test_training_goes_on() -> None:
    model = quick("MLPRegressor")
    for part in np.array_split(np.random.default_rng(0).permutation(150), 5):
        model.partial_fit(X[part], Y[part] - 1.0)
    module = model.module_
    low, high = (module.input_quantizers[0].dequant(np.full((1, 4), n)) for n in (0, 255))
    assert (low[0] < X.min(axis=0) + 0.1).all()
    assert (high[0] > X.max(axis=0) - 0.3).all()
    model.fit(X[:50], Y[:50])
    assert (module.input_quantizers[0].scale != model.module_.input_quantizers[0].scale).any()


def test_rows_that_networks_are_quantized_on() -> None:
    model = estimators.MLPRegressor(hidden_layer_sizes=(2,), random_state=0)
    rows = np.random.default_rng(0).normal(size=(3 * CALIBRATION_ROWS, 2))
    model.fit(rows, rows[:, 0])
    assert model._seen is not None
    assert len(model._seen.rows) == CALIBRATION_ROWS
    kept = copy.deepcopy(model)._seen
    assert kept is not None
    assert not (kept.rows[:, None] == rows).all(axis=2).any()
    assert estimators.SVR().fit(X, Y)._seen is None
    again = estimators.MLPRegressor(hidden_layer_sizes=(2,), random_state=0, n_bits=8)
    again.fit(np.repeat(rows[:20], 3, axis=0), np.repeat(rows[:20, 0], 3))
    assert again._seen is not None
    assert len(again._seen.rows) == 20


def test_training_of_copies_goes_on() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 6)) @ np.diag([1, 1, 1, 5, 5, 0.1])
    targets = rows[:, 0] + np.tanh(rows[:, 1] * rows[:, 2])
    model = estimators.MLPRegressor(hidden_layer_sizes=(8,), random_state=0, max_iter=500, n_bits=6)
    model.fit(rows, targets)
    copied = copy.deepcopy(copy.deepcopy(model))  # as when they are pickled
    copied.partial_fit(rows[:5], targets[:5])
    found, wanted = copied.predict(rows), copied.sklearn_model.predict(rows)
    assert np.square(found - wanted).sum() < 0.03 * np.square(wanted - wanted.mean()).sum()


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("SVC", {"kernel": "poly"}),
        ("KernelRidge", {"gamma": 3.0}),
        ("MLPRegressor", {"activation": "tanh"}),
    ],
)
def test_parameters_that_are_set_after_fit(name: str, params: dict[str, Any]) -> None:
    model = quick(name).fit(X, Y)
    known = {key: model.get_params()[key] for key in params}
    with pytest.raises(InvalidParameterError, match=r"was set to .* after fit"):
        model.set_params(**params).predict(X)
    model.set_params(**known).predict(X)


def test_a_wrong_reading_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Network.__call__
    monkeypatch.setattr(Network, "__call__", lambda self, rows: right(self, rows) + 0.1)
    for name in ("SVC", "MLPRegressor"):
        with pytest.raises(ModelError, match=f"the {name} is not understood: .* differ by 0.1"):
            quick(name).fit(X, Y)


@pytest.mark.parametrize("most", [0, -3, 2.5, True, "few"])
def test_a_wrong_number_of_points(most: Any) -> None:
    with pytest.raises(InvalidParameterError, match="max_points must be a whole number above 0"):
        estimators.SVR(max_points=most).fit(X, Y)


@pytest.mark.filterwarnings("ignore::cipherlearn.errors.AgreementWarning")
def test_no_more_points_than_asked_for() -> None:
    found = [estimators.SVR(max_points=most).fit(X, Y) for most in (5, None)]
    few, enough = (count_lookups(model.circuit).total for model in found)
    assert few == 5 < enough < len(found[1].support_)
    assert found[0].agreement_ < found[1].agreement_
