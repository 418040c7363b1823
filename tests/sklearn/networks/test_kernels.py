"""Kernel machines as networks: what scikit-learn's kernels give."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import svm
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import r2_score
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.preprocessing import StandardScaler

from cipherlearn.circuit import count_lookups
from cipherlearn.errors import AgreementWarning, CalibrationWarning, ModelError
from cipherlearn.quantization import QuantizedModule
from cipherlearn.sklearn import SVC, KernelRidge
from cipherlearn.sklearn.linear.affine import Affine
from cipherlearn.sklearn.networks.kernels import KERNELS, Kernel, kernel_machine
from cipherlearn.sklearn.networks.likeness import rows_between
from cipherlearn.sklearn.networks.network import Network

GENERATOR = np.random.default_rng(0)
POINTS, ROWS = GENERATOR.normal(size=(12, 4)), GENERATOR.normal(size=(30, 4))
COEFFICIENTS, CONSTANT = GENERATOR.normal(size=(12, 2)), np.array([0.5, -1.0])


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_kernels_are_those_of_scikit_learn(name: str, shift: float) -> None:
    params = {"gamma": 0.3, "degree": 2, "coef0": 0.7}
    if shift and name != "rbf":
        return
    points, rows = POINTS + shift, ROWS + shift
    wanted = pairwise_kernels(rows, points, metric=name, filter_params=True, **params)
    kernel = Kernel.of(name, **params)
    found = kernel_machine(kernel, points, COEFFICIENTS, CONSTANT, rows.mean(axis=0))
    np.testing.assert_allclose(found(rows), wanted @ COEFFICIENTS + CONSTANT, rtol=1e-6)
    assert isinstance(found, Affine if name == "linear" else Network)


def test_equal_points_are_one_and_those_without_weight_none() -> None:
    points = np.concatenate([POINTS, POINTS[:3], POINTS[:1]])
    weights = np.concatenate([COEFFICIENTS, COEFFICIENTS[:3], np.zeros((1, 2))])
    weights[11] = 0.0
    center = np.zeros(4)
    found = kernel_machine(Kernel("rbf"), points, weights, CONSTANT, center)
    assert isinstance(found, Network)
    assert found.layers[0].weights.shape == (5, 11)
    kernels = pairwise_kernels(ROWS, points, metric="rbf", gamma=1.0)
    np.testing.assert_allclose(found(ROWS), kernels @ weights + CONSTANT)


def test_a_machine_without_points_is_constant() -> None:
    found = kernel_machine(Kernel("rbf"), np.zeros((0, 4)), np.zeros((0, 2)), CONSTANT, np.zeros(4))
    assert isinstance(found, Affine)
    np.testing.assert_array_equal(found(ROWS), np.tile(CONSTANT, (30, 1)))


@pytest.mark.parametrize("kernel", ["precomputed", "laplacian", np.dot, None])
def test_other_kernels_are_refused(kernel: object) -> None:
    with pytest.raises(ModelError, match=r"cannot be encrypted.* 'linear', 'poly', .*'sigmoid'"):
        Kernel.of(kernel, 1.0, 3.0, 0.0)


@pytest.mark.parametrize("gamma", [0.3, 10.0])
@pytest.mark.filterwarnings("ignore::cipherlearn.errors.AgreementWarning")
def test_steep_kernels_stay_in_their_range(gamma: float) -> None:
    rows, labels = load_breast_cancer(return_X_y=True)
    rows = StandardScaler().fit_transform(rows)[:120]
    model = SVC(gamma=gamma, n_bits=6).fit(rows, labels[:120])
    assert (model.predict(rows) == model.sklearn_model.predict(rows)).mean() > 0.95
    assert count_lookups(model.circuit).total <= len(model.support_vectors_)


@pytest.mark.filterwarnings("ignore::cipherlearn.errors.AgreementWarning")
def test_an_imported_machine_stays_what_it_is_with_few_rows() -> None:
    rows, labels = load_breast_cancer(return_X_y=True)
    rows = StandardScaler().fit_transform(rows)
    model = svm.SVC().fit(rows[::2], labels[::2])
    found = SVC.from_model(model, rows[:5], n_bits=6)
    assert (found.predict(rows[1::2]) == model.predict(rows[1::2])).mean() > 0.95


def test_agreement_is_taken_between_the_rows_that_coefficients_are_fitted_on() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3))
    model = KernelRidge(kernel="rbf", gamma=2.0, alpha=0.01, n_bits=6)
    with pytest.warns(AgreementWarning):
        model.fit(rows, rows[:, 0] * rows[:, 1])
    on_rows, between = (
        r2_score(model.sklearn_model.predict(of), model.predict(of))
        for of in (rows, rows_between(rows))
    )
    assert model.agreement_ == pytest.approx(between)
    assert on_rows > between


@pytest.mark.parametrize("gamma", [0.01, 0.2])
def test_rows_farther_out_than_those_of_training_are_told_of(gamma: float) -> None:
    rows = np.random.default_rng(0).normal(size=(150, 5))
    model = KernelRidge(kernel="rbf", gamma=gamma, alpha=0.1, n_bits=8).fit(rows, rows[:, 0])
    model.predict(rows)
    assert model.module_.clipped_count == 0
    with pytest.warns(CalibrationWarning, match="3 of 18 values"):
        model.predict(10 * rows[:3])
    assert model.module_.clipped_count == 3
    again = QuantizedModule.loads(model.module_.dumps())
    with pytest.warns(CalibrationWarning, match="far outside"):
        again.forward(10 * rows[:3])
