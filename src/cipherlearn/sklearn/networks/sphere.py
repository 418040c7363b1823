"""Squared distances as sums: what the client computes for machines with radial kernels.

The squared distance of a row ``x`` from a point is an affine function of ``x`` and ``|x|^2``. So
the client sends the squared length as one feature more. Lengths are those from a center, and rows
far away from it would stretch the range of all sums: they are brought into a sphere. That is no
answer for rows farther out than any that were seen: these are counted as clipped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx

from cipherlearn.sklearn.networks.onnx_model import constant, model, node, run

#: Names of rows, and of what the client makes of them.
ROWS, MAPPED = "rows", "rows_and_squared_lengths"

#: Squared lengths that nothing is divided by.
_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Sphere:
    """Rows without the center, and their squared lengths.

    Beyond the radius, the squared length stays what it is there, and the row is mirrored: divided
    by its squared length in units of the radius. So sums keep their range, and its distances from
    points come nearer to each other the farther it is. They do not grow: whether it can be told
    from rows at the radius depends on the kernel.

    Beyond the reach, the squared length grows again. Quantization, whose range ends at the radius,
    clips it, and so it is counted and told of.

    Parameters
    ----------
    center : numpy.ndarray of float64, shape (features,)
    square : float, default=infinity
        Squared radius.
    reach : float, default=infinity
        The largest squared length that is expected.
    """

    center: np.ndarray
    square: float = np.inf
    reach: float = np.inf

    def with_share(self, rows: np.ndarray, share: float) -> Sphere:
        """The same with as large a radius as a share of some rows needs."""
        square = float(np.quantile(self._squares(rows), share))
        return replace(self, square=max(square, _TINY))

    def reaching(self, rows: np.ndarray) -> Sphere:
        """The same, expecting rows as far out as some rows are."""
        return replace(self, reach=max(float(self._squares(rows).max()), _TINY))

    def _squares(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(np.square(rows - self.center).sum(axis=1))

    def nodes(self) -> list[onnx.NodeProto]:
        """The operators from `ROWS` to `MAPPED`."""
        return [
            node("Sub", [ROWS, "center"], "centered"),
            node("ReduceSumSquare", ["centered"], "square", axes=[1], keepdims=1),
            node("Min", ["square", "largest"], "inside"),
            node("Max", ["square", "tiny"], "divisor"),
            node("Div", ["inside", "divisor"], "factor"),
            node("Mul", ["centered", "factor"], "mirrored"),
            node("Sub", ["square", "reach"], "farther"),
            node("Max", ["farther", "zero"], "beyond"),
            node("Add", ["inside", "beyond"], "length"),
            node("Concat", ["mirrored", "length"], MAPPED, axis=1),
        ]

    def constants(self) -> list[onnx.TensorProto]:
        """What they read."""
        largest = float(np.finfo(np.float64).max)
        return [
            constant("center", self.center),
            constant("largest", min(self.square, largest)),
            constant("reach", min(self.reach, largest)),
            constant("tiny", _TINY),
            constant("zero", 0.0),
        ]

    def onnx_model(self) -> onnx.ModelProto:
        """The function as an ONNX model."""
        n_features = len(self.center)
        inputs, outputs = {ROWS: n_features}, {MAPPED: n_features + 1}
        return model(self.nodes(), self.constants(), inputs, outputs)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Mapped rows: (rows, features) -> (rows, features + 1)."""
        return run(self.onnx_model(), rows)
