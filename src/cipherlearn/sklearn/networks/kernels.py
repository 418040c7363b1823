"""Kernel machines: sums of kernels between a row and fixed points, as networks.

A kernel is a function of one number that is affine in what the client sends: of the row, or of the
row and its squared length. So each point costs one look-up, and a linear kernel none at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cipherlearn.errors import ModelError
from cipherlearn.sklearn.linear.affine import Affine
from cipherlearn.sklearn.networks.network import Layer, Network
from cipherlearn.sklearn.networks.sphere import Sphere

#: Kernels that are known, by the names that scikit-learn has for them.
KERNELS = {
    "linear": "linear",
    "poly": "poly",
    "polynomial": "poly",
    "rbf": "rbf",
    "sigmoid": "sigmoid",
}


@dataclass(frozen=True)
class Kernel:
    """A function of two rows.

    Parameters
    ----------
    name : {"linear", "poly", "rbf", "sigmoid"}
        ``x y``, ``(gamma x y + coef0) ** degree``, ``exp(-gamma |x - y|^2)`` or
        ``tanh(gamma x y + coef0)``.
    gamma, degree, coef0 : float
    """

    name: str
    gamma: float = 1.0
    degree: float = 3.0
    coef0: float = 0.0

    @classmethod
    def of(cls, name: Any, gamma: float, degree: float, coef0: float) -> Kernel:
        """From the parameters of a model of scikit-learn.

        Raises
        ------
        ModelError
            If a kernel of that name is not known, or it is a function.
        """
        if not isinstance(name, str) or name not in KERNELS:
            raise ModelError(
                f"the kernel {name!r} cannot be encrypted: kernels that are functions of one sum "
                f"can, which are {', '.join(map(repr, KERNELS))}"
            )
        return cls(KERNELS[name], float(gamma), float(degree), float(coef0))

    def layer(self, points: np.ndarray, center: np.ndarray) -> Layer:
        """The kernels with points, of what the client sends.

        Parameters
        ----------
        points : numpy.ndarray, shape (points, features)
        center : numpy.ndarray, shape (features,)
            That lengths are measured from.
        """
        if self.name == "rbf":
            moved = points - center
            squares = np.square(moved).sum(axis=1)
            of_square = np.full((1, len(points)), -self.gamma)
            weights = np.concatenate([2.0 * self.gamma * moved.T, of_square])
            return Layer(weights, -self.gamma * squares, "Exp", most=0.0)
        weights, constant = self.gamma * points.T, np.full(len(points), self.coef0)
        if self.name == "sigmoid":
            return Layer(weights, constant, "Tanh")
        return Layer(weights, constant, "Pow", self.degree)


def kernel_machine(
    kernel: Kernel,
    points: np.ndarray,
    coefficients: np.ndarray,
    constant: np.ndarray,
    center: np.ndarray,
) -> Affine | Network:
    """The function ``sum of coefficients * kernel(x, points) + constant``.

    Parameters
    ----------
    kernel : Kernel
    points : numpy.ndarray, shape (points, features)
        Equal ones are taken together, and those without weight left out.
    coefficients : numpy.ndarray, shape (points, outputs)
    constant : numpy.ndarray, shape (outputs,)
    center : numpy.ndarray, shape (features,)
        The middle of the rows.
    """
    constant = np.asarray(constant, dtype=np.float64)
    points, same = np.unique(points, axis=0, return_inverse=True)
    together = np.zeros((len(points), len(constant)))
    np.add.at(together, same.reshape(-1), coefficients)
    used = together.any(axis=1)
    points, together = points[used], together[used]
    if kernel.name == "linear" or not len(points):
        return Affine(points.T @ together, constant)
    sphere = Sphere(center) if kernel.name == "rbf" else None
    layers = (kernel.layer(points, center), Layer(together, constant))
    return Network(layers, sphere, points)
