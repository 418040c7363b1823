"""Gaussian processes: their kernels, and what is not computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import gaussian_process
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

from cipherlearn.errors import InvalidParameterError, ModelError
from cipherlearn.sklearn import GaussianProcessRegressor

X = np.random.default_rng(0).normal(size=(80, 3))
Y = 100.0 + 30.0 * np.sin(X[:, 0]) + 20.0 * X[:, 1]
SEVERAL = np.stack([Y, 3.0 * Y + X[:, 2]], axis=1)


@pytest.mark.parametrize(
    "kernel",
    [
        1.0 * RBF(2.0) + WhiteKernel(0.01),
        WhiteKernel(0.01) + RBF(1.5) * ConstantKernel(3.0),
        2.0 * (RBF(np.array([2.0])) + WhiteKernel(0.01)),
    ],
    ids=str,
)
@pytest.mark.parametrize("targets", [Y, SEVERAL], ids=["one", "several"])
@pytest.mark.parametrize("normalize_y", [False, True])
def test_means_are_those_of_scikit_learn(kernel: Any, targets: Any, normalize_y: bool) -> None:
    options = {"kernel": kernel, "normalize_y": normalize_y, "optimizer": None}
    model = GaussianProcessRegressor(**options, n_bits=8).fit(X, targets)
    wanted = gaussian_process.GaussianProcessRegressor(**options).fit(X, targets).predict(X)
    found = model.predict(X)
    assert found.shape == wanted.shape
    assert np.square(found - wanted).mean() < 0.01 * wanted.var()


def test_deviations_are_refused() -> None:
    model = GaussianProcessRegressor(kernel=RBF(2.0) + WhiteKernel(0.1), optimizer=None).fit(X, Y)
    for option in ("return_std", "return_cov"):
        with pytest.raises(InvalidParameterError, match=r"deviations .*are not computed"):
            model.predict(X, **{option: True})


@pytest.mark.parametrize("kernel", [DotProduct(), RBF([1.0, 2.0, 1.0]), RBF() + RBF()], ids=str)
def test_other_kernels_are_refused(kernel: Any) -> None:
    model = GaussianProcessRegressor(kernel=kernel, alpha=0.1, optimizer=None)
    with pytest.raises(ModelError, match="cannot be encrypted: what can is an RBF kernel"):
        model.fit(X, Y)
