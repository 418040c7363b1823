"""Coefficients of kernel machines that bear the errors of look-ups.

Trained coefficients are often large and cancel each other, and then so small an error of a kernel
as rounding leaves counts for more than the result. Kernels with near points are nearly the same
function, so others give the same results with far smaller coefficients: those of least squares, on
rows of training, with the errors of the kernels as a penalty (Tikhonov regularization; as for
errors in variables). The rest of the function stays what it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from cipherlearn.sklearn.networks.network import Layer, Network

#: Shares of rows inside of a sphere that are tried.
_SHARES = (0.8, 0.9, 0.95, 0.98, 1.0)

#: How far sums reach beyond what was seen, and the variance of rounding to a step of 1.
_MARGIN, _ROUNDING = 1.2, 1.0 / 12.0

#: Errors that numbers have anyway, as a share of the variance of a usual kernel.
_LEAST = 1e-10


@dataclass(frozen=True)
class Precision:
    """What look-ups read and give.

    Parameters
    ----------
    kept, given : int
        Bits.
    """

    kept: int
    given: int

    def variances(self, sums: np.ndarray, kernels: np.ndarray) -> np.ndarray:
        """Of the error of each kernel, a mean over rows (rows, points)."""
        extents = _MARGIN * np.ptp(sums, axis=0)
        order = np.argsort(sums, axis=0)
        ordered, results = (np.take_along_axis(of, order, axis=0) for of in (sums, kernels))
        # A kernel is a function of its sum: how steep it is, from one row to the next.
        steps = np.diff(ordered, axis=0)
        slopes = np.divide(
            np.diff(results, axis=0), steps, out=np.zeros_like(steps), where=steps > 0
        )
        read = np.square(extents / 2**self.kept) * np.square(slopes).mean(axis=0)
        written = np.square(np.ptp(kernels, axis=0) / 2**self.given)
        return np.asarray(_ROUNDING * (read + written))


def steadied(network: Network, rows: np.ndarray, precision: Precision) -> Network:
    """The machine with coefficients, and a sphere if it has one, of least expected error.

    Parameters
    ----------
    network : Network
        Of two layers: kernels, and their sums.
    rows : numpy.ndarray, shape (rows, features)
    precision : Precision
    """
    wanted = network(rows)
    spheres = [network.sphere]
    if network.sphere is not None:
        spheres = [network.sphere.with_share(rows, share) for share in _SHARES]
    tried = [_fitted(replace(network, sphere=of), rows, wanted, precision) for of in spheres]
    return min(tried, key=lambda each: each[0])[1]


def _fitted(
    network: Network, rows: np.ndarray, wanted: np.ndarray, precision: Precision
) -> tuple[float, Network]:
    """Expected squared error, and the machine with the coefficients that leave it."""
    first, last = network.layers
    kernels = replace(network, layers=(first,))(rows)
    sums = replace(network, layers=(replace(first, function=""),))(rows)
    noise = precision.variances(sums, kernels)
    mean, middle = kernels.mean(axis=0), wanted.mean(axis=0)
    centered, targets = kernels - mean, wanted - middle
    gram = centered.T @ centered / len(rows) + np.diag(noise)
    usual = float(np.trace(gram)) / len(gram)
    gram += _LEAST * (usual if usual > 0 else 1.0) * np.eye(len(gram))
    weights = scipy.linalg.solve(gram, centered.T @ targets / len(rows), assume_a="pos")
    error = np.square(centered @ weights - targets).mean(axis=0) + noise @ np.square(weights)
    layers = (first, Layer(weights, middle - mean @ weights, last.function))
    return float(error.sum()), replace(network, layers=layers)
