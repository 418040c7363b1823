"""Coefficients of kernel machines that bear the errors of look-ups, and fewer points.

Trained coefficients are often large and cancel each other, and then so small an error of a kernel
as rounding leaves counts for more than the result. Kernels with near points are nearly the same
function, so others give the same results with far smaller coefficients: those of least squares
with the errors of the kernels as a penalty (Tikhonov regularization; as for errors in variables).
For the same reason some of the points are enough (a reduced set, as of Burges, ICML 1996): they are
chosen one group after the other, those first that explain most of what is left (as in orthogonal
matching pursuit). The rest of the function stays what it is.

What the trained function gives is known for any row. So there may be as many rows as least squares
need to find that function, and not another one that has the same values on a few rows: beside
those that are given, such as are like them (a smoothed bootstrap).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from cipherlearn.sklearn.networks.likeness import rows_like
from cipherlearn.sklearn.networks.network import Layer, Network

#: Shares of rows inside of a sphere that are tried.
_SHARES = (0.8, 0.9, 0.95, 0.98, 1.0)

#: How far sums reach beyond what was seen, and the variance of rounding to a step of 1.
_MARGIN, _ROUNDING = 1.2, 1.0 / 12.0

#: How much more error fewer points may leave, and in how many groups they are chosen.
_MORE_ERROR, _GROUPS = 1.25, 40

#: Rows for each point of the machine, and at most.
_ROWS_PER_POINT, _MOST_ROWS = 4, 4000

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


@dataclass(frozen=True, eq=False)
class Regression:
    """Least squares of targets on kernels that bear errors.

    Parameters
    ----------
    gram : numpy.ndarray, shape (points, points)
        Covariance of kernels, with the variances of their errors on the diagonal.
    cross : numpy.ndarray, shape (points, outputs)
        Covariance of kernels and targets.
    spread : float
        Variance of the targets, added up.
    means : tuple of two numpy.ndarray
        Of kernels and of targets.
    """

    gram: np.ndarray
    cross: np.ndarray
    spread: float
    means: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(
        cls, network: Network, rows: np.ndarray, targets: np.ndarray, variances: np.ndarray
    ) -> Regression:
        """Of the kernels of a machine, on some rows, with the variances of the kernels' errors."""
        kernels = replace(network, layers=network.layers[:1])(rows)
        means = kernels.mean(axis=0), targets.mean(axis=0)
        centered, wanted = kernels - means[0], targets - means[1]
        gram = centered.T @ centered / len(rows) + np.diag(variances)
        usual = float(np.trace(gram)) / len(gram)
        gram += _LEAST * (usual if usual > 0 else 1.0) * np.eye(len(gram))
        spread = float(np.square(wanted).mean(axis=0).sum())
        return cls(gram, centered.T @ wanted / len(rows), spread, means)

    def coefficients(self, points: np.ndarray) -> np.ndarray:
        """Of some points."""
        part = self.gram[np.ix_(points, points)]
        return np.asarray(scipy.linalg.solve(part, self.cross[points], assume_a="pos"))

    def error(self, points: np.ndarray) -> float:
        """Expected squared error with some points, added up over outputs."""
        return self.spread - float((self.coefficients(points) * self.cross[points]).sum())

    def enough(self, most: int | None) -> np.ndarray:
        """As few points as hardly add to the error, and not more than so many."""
        every = np.arange(len(self.gram))
        least = _MORE_ERROR * self.error(every)
        most = len(every) if most is None else min(most, len(every))
        group = -(-most // _GROUPS)
        points = every[:0]
        while len(points) < most and (not len(points) or self.error(points) > least):
            found = self.gram[:, points] @ self.coefficients(points) if len(points) else 0.0
            gains = np.square(self.cross - found).sum(axis=1) / self.gram.diagonal()
            gains[points] = -1.0
            order = np.argsort(-gains, kind="stable")
            points = np.concatenate([points, order[: min(group, most - len(points))]])
        return np.sort(points)

    def machine(self, network: Network, points: np.ndarray) -> Network:
        """A machine with some of its points, and the coefficients for them."""
        first, _ = network.layers
        weights = self.coefficients(points)
        kept = replace(first, weights=first.weights[:, points], constant=first.constant[points])
        constant = self.means[1] - self.means[0][points] @ weights
        places = None if network.points is None else network.points[points]
        return replace(network, layers=(kept, Layer(weights, constant)), points=places)


def _variances(network: Network, rows: np.ndarray, precision: Precision) -> np.ndarray:
    """Of the errors of the kernels of a machine whose ranges are those of some rows."""
    first = network.layers[0]
    kernels = replace(network, layers=(first,))(rows)
    sums = replace(network, layers=(replace(first, function=""),))(rows)
    return precision.variances(sums, kernels)


def steadied(
    network: Network, rows: np.ndarray, precision: Precision, most: int | None = None
) -> Network:
    """The machine with coefficients, and a sphere if it has one, of least expected error.

    Parameters
    ----------
    network : Network
        Of two layers: kernels, and their sums.
    rows : numpy.ndarray, shape (rows, features)
        Those that ranges are taken from. Coefficients are fitted on them, and on more that are
        like these.
    precision : Precision
    most : int, optional
        Points at most.
    """
    more = min(_ROWS_PER_POINT * len(network.layers[1].weights), _MOST_ROWS) - len(rows)
    fitted = np.concatenate([rows, rows_like(rows, max(0, more))])
    wanted = network(fitted)
    spheres = [network.sphere]
    if network.sphere is not None:
        spheres = [network.sphere.with_share(rows, share) for share in _SHARES]
    machines = [replace(network, sphere=sphere) for sphere in spheres]
    tried = [
        (Regression.of(each, fitted, wanted, _variances(each, rows, precision)), each)
        for each in machines
    ]
    every = np.arange(len(network.layers[1].weights))
    best, machine = min(tried, key=lambda each: each[0].error(every))
    if machine.sphere is not None:
        machine = replace(machine, sphere=machine.sphere.reaching(rows))
    return best.machine(machine, best.enough(most))
