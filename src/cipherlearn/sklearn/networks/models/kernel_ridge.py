"""Ridge regression with kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import kernel_ridge

from cipherlearn.sklearn import _kinds as kinds
from cipherlearn.sklearn._steps import dense
from cipherlearn.sklearn.linear.affine import Affine
from cipherlearn.sklearn.networks._estimator import KernelMachine
from cipherlearn.sklearn.networks.kernels import Kernel, kernel_machine
from cipherlearn.sklearn.networks.network import Network

PACKAGE = "sklearn"
EXTRA = None


class KernelRidge(kinds.Regressor, KernelMachine, wraps=kernel_ridge.KernelRidge):
    """Ridge regression with a kernel: a look-up for every row of training; see `NetworkEstimator`.

    The kernel "linear" needs none.
    """

    _built_for = ("kernel", "gamma", "degree", "coef0")

    @classmethod
    def read(cls, model: Any, center: np.ndarray) -> Affine | Network:
        """The sum of kernels with all rows of training."""
        points = dense(model.X_fit_)
        gamma = 1.0 / points.shape[1] if model.gamma is None else model.gamma
        kernel = Kernel.of(model.kernel, gamma, model.degree, model.coef0)
        coefficients = model.dual_coef_.reshape(len(points), -1)
        return kernel_machine(kernel, points, coefficients, np.zeros(coefficients.shape[1]), center)
