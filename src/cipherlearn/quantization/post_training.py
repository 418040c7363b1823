"""From a float model and calibration data to a quantized module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cipherlearn.errors import InvalidParameterError, InvalidTypeError
from cipherlearn.onnx import Graph
from cipherlearn.quantization.base_quantized_op import QuantizedOp
from cipherlearn.quantization.calibration import check_calibration_data
from cipherlearn.quantization.client_side import split_tail
from cipherlearn.quantization.grid import observed_range
from cipherlearn.quantization.mixing import QuantizedMixingOp
from cipherlearn.quantization.n_bits import (
    LayerBits,
    Rounding,
    get_n_bits_dict,
    process_rounding_threshold_bits,
)
from cipherlearn.quantization.prepare import Parts, prepare
from cipherlearn.quantization.quantized_array import QuantizedArray
from cipherlearn.quantization.quantized_module import QuantizedModule
from cipherlearn.quantization.quantizers import QuantizationOptions, UniformQuantizer
from cipherlearn.quantization.walk import Walk, check_clear_operands, check_outputs, check_rows


class ONNXConverter:
    """Turns the graph of a float model into quantized operators, layer by layer.

    Subclasses decide how constants and operands are quantized, and on what data the next layer is
    calibrated.

    Parameters
    ----------
    n_bits : int or dict
        See `get_n_bits_dict`.
    numpy_model : NumpyModule
        The float model.
    rounding_threshold_bits : None, int or dict, default=None
        Bits of the accumulators that look-ups read: see `process_rounding_threshold_bits`.
        ``"auto"`` is resolved by `cipherlearn.torch`'s compile functions, which have the data.

    Attributes
    ----------
    n_bits : dict
    quant_ops_dict : dict
        Output tensor -> (input tensors, quantized operator), after `quantize_module`.
    quant_params : dict
        Constant tensors, quantized or raw, by name.
    """

    #: Whether a layer is calibrated on the quantized outputs of the layers before it.
    calibrates_on_quantized_data = True
    #: Whether `choose_weights` is given the results of the float model, on float inputs.
    needs_float_values = False
    #: Whether sums of integers are read as they are, instead of being quantized.
    keeps_sums = False

    def __init__(
        self, n_bits: int | Mapping[str, int], numpy_model: Any, rounding_threshold_bits: Any = None
    ) -> None:
        self.n_bits = get_n_bits_dict(n_bits)
        self.numpy_model = numpy_model
        self.rounding: Rounding | None = process_rounding_threshold_bits(rounding_threshold_bits)
        if self.rounding is not None and self.rounding.n_bits == "auto":
            raise InvalidParameterError(
                "rounding_threshold_bits='auto' needs the search of build_quantized_module or of "
                "the compile functions; a converter takes a number of bits"
            )
        self.rounding_threshold_bits = rounding_threshold_bits
        #: Layers with bits of their own, by the name of their node.
        self.layers: Mapping[str, LayerBits] = {}
        self.quant_ops_dict: dict[str, tuple[tuple[str, ...], QuantizedOp]] = {}
        self.quant_params: dict[str, Any] = {}

    @property
    def n_bits_model_inputs(self) -> int:
        """Bits of the model's inputs."""
        return self.n_bits["model_inputs"]

    @property
    def n_bits_model_outputs(self) -> int:
        """Bits of the model's outputs."""
        return self.n_bits["model_outputs"]

    @property
    def n_bits_op_inputs(self) -> int:
        """Bits of the operands of operators."""
        return self.n_bits["op_inputs"]

    @property
    def n_bits_op_weights(self) -> int:
        """Bits of constants (weights)."""
        return self.n_bits["op_weights"]

    def rounding_of(self, layer: str) -> Rounding | None:
        """Rounding of the accumulator of a layer, by the name of its node."""
        own = self.layers.get(layer)
        return self.rounding if own is None else own.rounding

    def input_bits_of(self, layer: str) -> int:
        """Bits of the operands of a layer, by the name of its node."""
        del layer
        return self.n_bits_op_inputs

    def quantize_module(
        self, *calibration_data: np.ndarray, keep_onnx: bool = True
    ) -> QuantizedModule:
        """Quantize the model.

        Parameters
        ----------
        *calibration_data : numpy.ndarray of float, each of shape (rows, *shape)
            One array an input of the model; at least two rows.
        keep_onnx : bool, default=True
            Whether the module keeps the float model (`QuantizedModule.onnx_model`).

        Returns
        -------
        QuantizedModule

        Raises
        ------
        InvalidParameterError, InvalidShapeError, InvalidTypeError
            If the data is empty, holds NaN or infinity, or does not fit the inputs.
        ModelError
            If a node cannot be quantized; the message names it.
        """
        graph = Graph.from_model(self.numpy_model.onnx_model)
        data = check_calibration_data(graph, calibration_data)
        check_outputs(graph)
        check_clear_operands(split_tail(graph)[0])
        check_rows(graph, data)
        parts = self.parts(graph, data)
        body = parts.body
        walk = Walk(
            self,
            body,
            parts.data,
            parts.samples,
            parts.encodings,
            parts.plain,
            parts.side_by_side,
        )
        walk.run()
        self.quant_ops_dict, self.quant_params = walk.layers, walk.parameters
        return QuantizedModule.from_layers(
            ordered_module_input_names=body.input_names,
            ordered_module_output_names=body.output_names,
            quant_layers_dict=self.quant_ops_dict,
            input_quantizers=walk.quantizers(body.input_names),
            output_quantizers=walk.quantizers(body.output_names),
            calibration_data=parts.data,
            head=parts.head,
            tail=parts.tail,
            bypassed=parts.bypassed,
            onnx_model=self.numpy_model.onnx_model if keep_onnx else None,
            numpy_model=self.numpy_model if keep_onnx else None,
        )

    def parts(self, graph: Graph, data: list[np.ndarray]) -> Parts:
        """The float model as it is quantized: see `prepare`.

        Parameters
        ----------
        graph : Graph
        data : list of numpy.ndarray
        """
        return prepare(graph, data)

    def quantize_input(self, values: np.ndarray) -> QuantizedArray:
        """An input of the model, as the client quantizes it."""
        options = self.options_for_inputs(self.n_bits_model_inputs, [values])
        return QuantizedArray(options.n_bits, values, options=options, stats=observed_range(values))

    def feature_grids(self, name: str, graph: Graph, values: np.ndarray) -> UniformQuantizer | None:
        """Grids of its own for every feature of an input; None for one grid.

        Parameters
        ----------
        name : str
        graph : Graph
        values : numpy.ndarray
            Calibration data.
        """
        del name, graph, values
        return None

    def options_for_inputs(self, n_bits: int, values: list[np.ndarray]) -> QuantizationOptions:
        """How operands with these calibration values are quantized: signed if one is negative."""
        return QuantizationOptions(n_bits, is_signed=any(bool((v < 0).any()) for v in values))

    def quantize_constant(self, values: Any, name: str) -> Any:
        """A constant of an operator that computes on integers (integers stay as they are).

        Raises
        ------
        InvalidTypeError
            If the constant is real: a subclass decides what to do with it.
        """
        if isinstance(values, QuantizedArray) or values.dtype.kind in "iub":
            return values
        raise InvalidTypeError(
            f"{type(self).__name__} does not say how the constant {name!r} is quantized: use "
            "PostTrainingAffineQuantization or PostTrainingQATImporter, or override "
            "quantize_constant"
        )

    def quantize_weights(self, op: QuantizedOp, position: int, values: Any, name: str) -> Any:
        """As `quantize_constant`, with the operator that reads the constant, and where it does."""
        del op, position
        return self.quantize_constant(values, name)

    def operand_quantizer(
        self, value: QuantizedArray, name: str, n_bits: int, from_client: bool = False
    ) -> UniformQuantizer | None:
        """The quantizer of an operand of integer arithmetic; None derives it from the range."""
        del value, name, n_bits, from_client
        return None

    def check_joined(self, op: QuantizedMixingOp, operands: Mapping[str, QuantizedArray]) -> None:
        """Look at operands that are added, compared or put side by side, by name."""

    def keep_grid(self, op: QuantizedOp, operands: list[QuantizedArray]) -> None:
        """Let a function give integers of its operand's grid, where these are all it gives."""

    def take_grid(self, op: QuantizedOp) -> None:
        """Let a quantizer of the model give the integers of its grid, if the subclass does."""

    def choose_weights(
        self, op: QuantizedMixingOp, operands: list[QuantizedArray], target: np.ndarray
    ) -> None:
        """Replace the constants of an operator, if the subclass does: called once a layer.

        Parameters
        ----------
        op : QuantizedMixingOp
            Its accumulator is not calibrated yet.
        operands : list of QuantizedArray
            Quantized calibration data.
        target : numpy.ndarray
            The layer's result in float.
        """


class PostTrainingAffineQuantization(ONNXConverter):
    """Affine quantization of a trained float model, on calibration data.

    Weights are quantized per tensor: symmetric where their bulk straddles 0 evenly, asymmetric
    elsewhere.
    Layers are calibrated on the quantized outputs of the layers before them.

    Parameters
    ----------
    n_bits, numpy_model, rounding_threshold_bits
        As for `ONNXConverter`.
    """

    def quantize_constant(self, values: Any, name: str) -> Any:
        """Quantize weights at ``op_weights`` bits; integers and booleans stay as they are."""
        if isinstance(values, QuantizedArray) or values.dtype.kind in "iub":
            return super().quantize_constant(values, name)
        symmetric = _straddles_zero(values)
        options = QuantizationOptions(
            self.n_bits_op_weights, is_signed=symmetric, is_symmetric=symmetric
        )
        stats = observed_range(values, is_complete=True)
        return QuantizedArray(options.n_bits, values, options=options, stats=stats)


def _straddles_zero(values: np.ndarray) -> bool:
    low, high = np.percentile(values, (3, 97))
    if not low < 0 < high:
        return False
    return bool(1 / 3 <= high / -low <= 3)
