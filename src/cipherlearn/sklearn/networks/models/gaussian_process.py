"""Gaussian processes: the mean of what they expect."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import gaussian_process
from sklearn.gaussian_process import kernels

from cipherlearn.errors import ModelError
from cipherlearn.sklearn import _kinds as kinds
from cipherlearn.sklearn.linear.affine import Affine
from cipherlearn.sklearn.networks._estimator import KernelMachine
from cipherlearn.sklearn.networks.kernels import Kernel, kernel_machine
from cipherlearn.sklearn.networks.network import Network

PACKAGE = "sklearn"
EXTRA = None


class GaussianProcessRegressor(
    kinds.Expecting, KernelMachine, wraps=gaussian_process.GaussianProcessRegressor
):
    """The mean of a Gaussian process with an RBF kernel: see `KernelMachine`.

    The kernel may have a factor (``ConstantKernel``) and a term for noise (``WhiteKernel``).
    """

    _built_for = ()  # it predicts with ``kernel_``, which training found

    @staticmethod
    def _is_trained(model: Any) -> bool:
        return hasattr(model, "alpha_")  # scikit-learn's predicts before it is fitted as well

    @classmethod
    def read(cls, model: Any, center: np.ndarray) -> Affine | Network:
        """The sum of kernels with all rows of training."""
        factor, gamma = _radial(model.kernel_)
        points = np.asarray(model.X_train_, dtype=np.float64)
        scale, mean = (np.atleast_1d(v) for v in (model._y_train_std, model._y_train_mean))  # noqa: SLF001
        coefficients = factor * scale * model.alpha_.reshape(len(points), -1)
        constant = np.broadcast_to(mean, coefficients.shape[1:])
        return kernel_machine(Kernel("rbf", gamma), points, coefficients, constant, center)


def _radial(kernel: Any) -> tuple[float, float]:
    """The factor of a kernel, and the gamma of its radial function.

    Raises
    ------
    ModelError
        If it is of another kind.
    """
    if isinstance(kernel, kernels.RBF) and np.size(kernel.length_scale) == 1:
        return 1.0, 0.5 / float(np.squeeze(kernel.length_scale)) ** 2
    if isinstance(kernel, kernels.KernelOperator):
        pair = kernel.k1, kernel.k2
        # Noise has no part in what is expected of other rows.
        left_out = (
            kernels.WhiteKernel if isinstance(kernel, kernels.Sum) else kernels.ConstantKernel
        )
        for one, other in (pair, pair[::-1]):
            if isinstance(one, left_out):
                factor, gamma = _radial(other)
                return factor * getattr(one, "constant_value", 1.0), gamma
    raise ModelError(
        f"the kernel {kernel} cannot be encrypted: what can is an RBF kernel with one "
        "length_scale, times a ConstantKernel, plus a WhiteKernel"
    )
