"""Small networks: affine layers with a function after each but the last."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from cipherlearn.errors import ModelError
from cipherlearn.onnx import Graph
from cipherlearn.quantization import QuantizedModule
from cipherlearn.sklearn.linear.affine import Affine
from cipherlearn.sklearn.networks.onnx_model import constant, model, node, run
from cipherlearn.sklearn.networks.sphere import MAPPED, ROWS, Sphere
from cipherlearn.torch.compile import build_quantized_module
from cipherlearn.torch.numpy_module import NumpyModule

SCORES = "scores"


@dataclass(frozen=True, eq=False)
class Layer:
    """``function(x @ weights + constant)``.

    Parameters
    ----------
    weights : numpy.ndarray of float64, shape (inputs, outputs)
    constant : numpy.ndarray of float64, shape (outputs,)
    function : str, default=""
        An operator of ONNX with one operand, or ``"Pow"``; none if empty.
    exponent : float, default=1.0
        Of ``"Pow"``.
    most : float, default=infinity
        Sums are limited to it before the function. No row may reach beyond; but ranges have a
        margin, and an exponential function gives anything there.
    """

    weights: np.ndarray
    constant: np.ndarray
    function: str = ""
    exponent: float = 1.0
    most: float = np.inf

    def nodes(self, source: str, result: str) -> list[onnx.NodeProto]:
        """The operators, from one tensor to another."""
        names = [f"{result}/{of}" for of in ("weights", "constant", "exponent", "sums")]
        if not self.function:
            return [node("Gemm", [source, *names[:2]], result)]
        found = [node("Gemm", [source, *names[:2]], names[3])]
        sums = names[3]
        if np.isfinite(self.most):
            sums = f"{result}/limited"
            found.append(node("Min", [names[3], f"{result}/most"], sums))
        operands = [sums, *([names[2]] if self.function == "Pow" else [])]
        return [*found, node(self.function, operands, result)]

    def constants(self, result: str) -> list[onnx.TensorProto]:
        """What they read."""
        values = {"weights": self.weights, "constant": self.constant}
        if self.function == "Pow":
            values["exponent"] = np.array(self.exponent)
        if self.function and np.isfinite(self.most):
            values["most"] = np.array(self.most)
        return [constant(f"{result}/{name}", array) for name, array in values.items()]


@dataclass(frozen=True, eq=False)
class Network:
    """Layers one after the other.

    Parameters
    ----------
    layers : tuple of Layer
    sphere : Sphere, optional
        What the client computes of the rows; by default nothing.
    points : numpy.ndarray of float64, shape (outputs of the first layer, features), optional
        Rows that a kernel machine measures distances from.
    """

    layers: tuple[Layer, ...]
    sphere: Sphere | None = None
    points: np.ndarray | None = None

    @property
    def n_features(self) -> int:
        """How many features there are."""
        return len(self.layers[0].weights) if self.sphere is None else len(self.sphere.center)

    def after(self, first: Affine) -> Network:
        """The function of what an affine one gives.

        Raises
        ------
        ModelError
            If it is one of kernels.
        """
        if self.points is not None:
            raise ModelError("kernels other than linear ones take encrypted features as they are")
        layer = self.layers[0]
        composed = Affine(layer.weights, layer.constant).after(first)
        begun = replace(layer, weights=composed.weights, constant=composed.constant)
        return replace(self, layers=(begun, *self.layers[1:]))

    def onnx_model(self) -> onnx.ModelProto:
        """The network, with what the client computes."""
        if self.sphere is None:
            return self._layers_model(ROWS)
        nodes, constants = self._operators(MAPPED)
        return model(
            [*self.sphere.nodes(), *nodes],
            [*self.sphere.constants(), *constants],
            {ROWS: self.n_features},
            self._outputs,
        )

    def _layers_model(self, source: str) -> onnx.ModelProto:
        """The layers alone."""
        inputs = {source: len(self.layers[0].weights)}
        return model(*self._operators(source), inputs, self._outputs)

    @property
    def _outputs(self) -> dict[str, int]:
        return {SCORES: len(self.layers[-1].constant)}

    def _operators(self, source: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        names = [*(f"layer{number}" for number in range(len(self.layers) - 1)), SCORES]
        between = list(zip(self.layers, [source, *names], names, strict=False))
        nodes = [each for layer, *ends in between for each in layer.nodes(*ends)]
        return nodes, [each for layer, _, result in between for each in layer.constants(result)]

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Scores of rows: (rows, features) -> (rows, outputs)."""
        return run(self.onnx_model(), rows)

    def quantized(self, rows: np.ndarray, **options: Any) -> QuantizedModule:
        """The network, quantized on some rows.

        Parameters
        ----------
        rows : numpy.ndarray of float64, shape (rows, features)
        **options
            As for `cipherlearn.torch.build_quantized_module`.
        """
        if self.sphere is None:
            return build_quantized_module(self.onnx_model(), rows, **options)
        body = self._layers_model(MAPPED)
        module = build_quantized_module(body, self.sphere(rows), keep_onnx=False, **options)
        module.head = Graph.from_model(self.sphere.onnx_model())
        module.numpy_model = NumpyModule(self.onnx_model())
        module.onnx_model = module.numpy_model.onnx_model
        return module
