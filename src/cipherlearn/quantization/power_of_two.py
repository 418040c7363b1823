"""Layers between power-of-two scales: their look-up is a rounding of the accumulator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cipherlearn.quantization.declared import QuantizedToGrid
from cipherlearn.quantization.mixing import QuantizedMixingOp
from cipherlearn.quantization.quantized_module import QuantizedModule

#: By how much a scale may differ from a power of two.
TOLERANCE = 0.01

_LAYERS = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True)
class PowerOfTwoPattern:
    """A layer, what follows it, and the quantizer at the end.

    Parameters
    ----------
    path : tuple of str
        Names of the nodes from the layer to the quantizer.
    lsbs : int
        Bits of the accumulator below the step of the quantizer.
    """

    path: tuple[str, ...]
    lsbs: int


class PowerOfTwoScalingRoundPBSAdapter:
    """Finds layers whose input, weight and output scales are powers of two.

    What follows such a layer (a ReLU and a quantizer) only asks for the upper bits of its
    accumulator. The circuit takes the others off by exact rounding instead of looking all of them
    up: for these layers and for whatever else changes in such steps
    (`cipherlearn.circuit.steps`), with the results of the network, halves included. So there is
    nothing to be done to the module: this class tells where it happens.

    Parameters
    ----------
    qmodule : QuantizedModule
        Imported by `PostTrainingQATImporter`.

    Attributes
    ----------
    num_ignored_valid_patterns : int
        Layers that are such ones and are rounded already, as ``rounding_threshold_bits`` asks for.
        Known after `process`.
    """

    def __init__(self, qmodule: QuantizedModule) -> None:
        self._module = qmodule
        self.num_ignored_valid_patterns = 0

    def process(self) -> dict[str, PowerOfTwoPattern]:
        """Find the layers.

        Returns
        -------
        dict of str to PowerOfTwoPattern
            By the name of the layer's node.
        """
        self.num_ignored_valid_patterns = 0
        found: dict[str, PowerOfTwoPattern] = {}
        for output in self._module.quant_layers_dict:
            way = self._way_back(output)
            if way is None:
                continue
            layer, pattern = way
            if layer.rounding is not None:
                self.num_ignored_valid_patterns += 1
            else:
                found[layer.op_instance_name] = pattern
        return found

    def _way_back(self, output: str) -> tuple[QuantizedMixingOp, PowerOfTwoPattern] | None:
        """From a quantizer to a layer."""
        inputs, quantizer = self._module.quant_layers_dict[output]
        if not isinstance(quantizer, QuantizedToGrid) or quantizer.grid is None:
            return None
        path = [quantizer.op_instance_name]
        layers = self._module.quant_layers_dict
        while inputs[0] in layers:
            inputs, op = layers[inputs[0]]
            path.append(op.op_instance_name)
            if op.op_type() in _LAYERS and isinstance(op, QuantizedMixingOp):
                lsbs = _removed(op, quantizer.grid.scale)
                return None if lsbs is None else (op, PowerOfTwoPattern(tuple(path[::-1]), lsbs))
            if op.op_type() != "Relu":
                return None
        return None


def _removed(layer: QuantizedMixingOp, output_scale: float | np.ndarray) -> int | None:
    """Bits below the step of the output; None unless all scales are powers of two, and some are."""
    operand = layer.given_operand_quantizer(0)
    if operand is None or not layer.has_weights:
        return None
    exponents = []
    for scale in (operand.scale, layer.constant_inputs[1].quantizer.scale, output_scale):
        exponent = np.log2(np.asarray(scale, np.float64))
        near = np.abs(exponent - np.rint(exponent)) <= np.log2(1.0 + TOLERANCE)
        if exponent.size != 1 or not bool(near.all()):
            return None
        exponents.append(round(float(exponent)))
    lsbs = exponents[2] - exponents[0] - exponents[1]
    return lsbs if lsbs > 0 else None
