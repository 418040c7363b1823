"""Squared distances as sums: what the client computes for machines with radial kernels.

The squared distance of a row ``x`` from a point is an affine function of ``x`` and ``|x|^2``. So
the client sends the squared length as one feature more. Lengths are those from a center, and rows
far away from it would stretch the range of all sums: they are brought into a sphere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from cipherlearn.sklearn.networks.onnx_model import constant, model, node, run

#: Names of rows, and of what the client makes of them.
ROWS, MAPPED = "rows", "mapped"

#: Squared lengths that nothing is divided by.
_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Sphere:
    """Rows without the center, and their squared lengths.

    Beyond the radius, the squared length stays what it is there, and the row is mirrored: divided
    by its squared length in units of the radius. So it counts as the farther away from all points
    the farther it is, as it should.

    Parameters
    ----------
    center : numpy.ndarray of float64, shape (features,)
    square : float, default=infinity
        Squared radius.
    """

    center: np.ndarray
    square: float = np.inf

    def with_share(self, rows: np.ndarray, share: float) -> Sphere:
        """The same with as large a radius as a share of some rows needs."""
        squares = np.square(rows - self.center).sum(axis=1)
        return Sphere(self.center, max(float(np.quantile(squares, share)), _TINY))

    def nodes(self) -> list[onnx.NodeProto]:
        """The operators from `ROWS` to `MAPPED`."""
        return [
            node("Sub", [ROWS, "center"], "centered"),
            node("ReduceSumSquare", ["centered"], "square", axes=[1], keepdims=1),
            node("Min", ["square", "largest"], "inside"),
            node("Max", ["square", "tiny"], "divisor"),
            node("Div", ["inside", "divisor"], "factor"),
            node("Mul", ["centered", "factor"], "mirrored"),
            node("Concat", ["mirrored", "inside"], MAPPED, axis=1),
        ]

    def constants(self) -> list[onnx.TensorProto]:
        """What they read."""
        largest = min(self.square, float(np.finfo(np.float64).max))
        return [
            constant("center", self.center),
            constant("largest", largest),
            constant("tiny", _TINY),
        ]

    def onnx_model(self) -> onnx.ModelProto:
        """The function as an ONNX model."""
        n_features = len(self.center)
        inputs, outputs = {ROWS: n_features}, {MAPPED: n_features + 1}
        return model(self.nodes(), self.constants(), inputs, outputs)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Mapped rows: (rows, features) -> (rows, features + 1)."""
        return run(self.onnx_model(), rows)
