"""From a float model and calibration data to a quantized module."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from cipherlearn import ops
from cipherlearn.errors import (
    CipherlearnError,
    InvalidParameterError,
    ModelError,
    UnquantizedTensorError,
)
from cipherlearn.onnx import Graph, Node
from cipherlearn.quantization.base_quantized_op import QuantizedOp
from cipherlearn.quantization.calibration import check_calibration_data
from cipherlearn.quantization.grid import uniform_grid_scale
from cipherlearn.quantization.mixing import QuantizedMixingOp
from cipherlearn.quantization.n_bits import (
    Rounding,
    get_n_bits_dict,
    process_rounding_threshold_bits,
)
from cipherlearn.quantization.quantized_array import QuantizedArray
from cipherlearn.quantization.quantized_module import QuantizedModule
from cipherlearn.quantization.quantized_ops import quantized_class
from cipherlearn.quantization.quantizers import (
    QuantizationOptions,
    UniformQuantizationParameters,
    UniformQuantizer,
)


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

    def __init__(
        self, n_bits: int | Mapping[str, int], numpy_model: Any, rounding_threshold_bits: Any = None
    ) -> None:
        self.n_bits = get_n_bits_dict(n_bits)
        self.numpy_model = numpy_model
        self.rounding: Rounding | None = process_rounding_threshold_bits(rounding_threshold_bits)
        if self.rounding is not None and self.rounding.n_bits == "auto":
            raise InvalidParameterError(
                "rounding_threshold_bits='auto' needs the search of build_quantized_module or of the "
                "compile functions; a converter takes a number of bits"
            )
        self.rounding_threshold_bits = rounding_threshold_bits
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
        self.quant_ops_dict, self.quant_params = {}, {}
        walk = _Walk(self, graph, data)
        walk.run()
        return QuantizedModule._from_layers(
            ordered_module_input_names=graph.input_names,
            ordered_module_output_names=graph.output_names,
            quant_layers_dict=self.quant_ops_dict,
            input_quantizers=[walk.quantized[name].quantizer for name in graph.input_names],
            output_quantizers=[walk.quantized[name].quantizer for name in graph.output_names],
            calibration_data=data,
            onnx_model=self.numpy_model.onnx_model if keep_onnx else None,
            numpy_model=self.numpy_model if keep_onnx else None,
        )

    def options_for_inputs(self, n_bits: int, values: list[np.ndarray]) -> QuantizationOptions:
        """How operands with these calibration values are quantized."""
        return QuantizationOptions(n_bits, is_signed=any(bool((v < 0).any()) for v in values))

    @abstractmethod
    def quantize_constant(self, values: np.ndarray, name: str) -> Any:
        """A constant of an operator that computes on integers (integers stay as they are)."""

    def operand_quantizer(
        self, value: QuantizedArray, name: str, n_bits: int
    ) -> UniformQuantizer | None:
        """The quantizer of an operand that computes on integers; None to derive it from the range."""
        del value, name, n_bits
        return None


class _Walk:
    """One pass over the graph, in topological order, with calibration data."""

    def __init__(self, converter: ONNXConverter, graph: Graph, data: list[np.ndarray]) -> None:
        self.converter = converter
        self.graph = graph
        self.quantized: dict[str, QuantizedArray] = {}
        self.floats: dict[str, np.ndarray] = {}
        self.producers: dict[str, frozenset[str]] = {}
        for info, array in zip(graph.inputs, data, strict=True):
            self.floats[info.name] = array
            self.quantized[info.name] = self._input(info.name, array)
            self.producers[info.name] = frozenset({info.name})

    def _input(self, name: str, array: np.ndarray) -> QuantizedArray:
        options = self.converter.options_for_inputs(self.converter.n_bits_model_inputs, [array])
        sample = QuantizedArray(options.n_bits, array, options=options)
        # From here on the client's integers are what there is: calibrate on what they stand for.
        return QuantizedArray(
            options.n_bits,
            sample.qvalues,
            value_is_float=False,
            options=options,
            stats=sample.quantizer,
            params=sample.quantizer,
        )

    def run(self) -> None:
        for node in self.graph.nodes:
            try:
                self._node(node)
            except CipherlearnError as error:
                if node.name in str(error):
                    raise
                raise type(error)(f"node {node.name!r} ({node.op}): {error}") from error
        for info in self.graph.outputs:
            if info.name not in self.quantized:
                raise ModelError(
                    f"the output {info.name!r} is a constant: it does not depend on any input. "
                    "Remove it from the model, there is nothing to encrypt"
                )

    def _node(self, node: Node) -> None:
        if len([name for name in node.outputs if name]) != 1:
            raise ModelError(f"{len(node.outputs)} outputs are not supported, only one is")
        variable = [name for name in node.inputs if name in self.quantized]
        if not variable:
            raise ModelError("a constant node is left: simplify the model first")
        op = self._make(node, variable)
        output = node.outputs[0]
        floats = [self._calibration_values(name) for name in variable]
        op.produces_graph_output = output in self.graph.output_names
        result = op.calibrate(*floats)
        operands = [self.quantized[name] for name in variable]
        if isinstance(op, QuantizedMixingOp):
            op.calibrate_accumulator(*operands)
        self.quantized[output] = op(*operands)
        self.floats[output] = result
        self.producers[output] = self._producers_of(node, op, variable)
        self.converter.quant_ops_dict[output] = (tuple(variable), op)

    def _calibration_values(self, name: str) -> np.ndarray:
        if self.converter.calibrates_on_quantized_data:
            return np.asarray(self.quantized[name].values)
        return self.floats[name]

    def _make(self, node: Node, variable: list[str]) -> QuantizedOp:
        kind = quantized_class(node.op)
        names = set().union(*(self.producers[name] for name in variable))
        reads_input = all(name in self.graph.input_names for name in variable)
        converter = self.converter
        n_bits = converter.n_bits_model_inputs if reads_input else converter.n_bits_op_inputs
        values = [np.asarray(self.quantized[name].values) for name in variable]
        options: dict[str, Any] = {
            "n_bits_output": converter.n_bits_model_outputs,
            "op_instance_name": node.name,
            "int_input_names": names,
            "input_quant_opts": converter.options_for_inputs(n_bits, values),
            "opset": self.graph.opset,
            **node.attributes,
        }
        if issubclass(kind, QuantizedMixingOp):
            options["rounding_threshold_bits"] = converter.rounding
        op = kind(**options, constant_inputs=self._raw_constants(node))
        if not op.can_fuse():
            self._quantize_constants(op, node)
            for position, name in enumerate(node.inputs):
                if name in self.quantized:
                    found = converter.operand_quantizer(self.quantized[name], name, n_bits)
                    op.set_operand_quantizer(position, found)
        return op

    def _raw_constants(self, node: Node) -> dict[int | str, Any]:
        constants: dict[int | str, Any] = {}
        for position, name in enumerate(node.inputs):
            if name in self.graph.constants:
                value = self.graph.constants[name]
                constants[position] = value.astype(np.float64) if value.dtype.kind == "f" else value
                self.converter.quant_params.setdefault(name, value)
        return constants

    def _quantize_constants(self, op: QuantizedOp, node: Node) -> None:
        form = op.form if isinstance(op, QuantizedMixingOp) else None
        real = form.real_inputs if form is not None else frozenset()
        raw = ops.get(node.op).raw_inputs
        for position, value in op.constant_inputs.items():
            if position not in real and position not in raw:
                name = node.inputs[position]
                op.constant_inputs[position] = self.converter.quantize_constant(value, name)
                self.converter.quant_params[name] = op.constant_inputs[position]

    def _producers_of(self, node: Node, op: QuantizedOp, variable: list[str]) -> frozenset[str]:
        """Names of the integer values that the output is an element-wise function of."""
        if not op.can_fuse():
            return frozenset({node.outputs[0]})
        union = frozenset().union(*(self.producers[name] for name in variable))
        if ops.get(node.op).kind is not ops.Kind.MOVEMENT or node.op == "Identity":
            return union
        # The same movement of the same value is the same value again.
        text = repr((node.op, sorted(node.attributes.items()), _constants_digest(op)))
        return frozenset(f"{text}({name})" for name in union)


class PostTrainingAffineQuantization(ONNXConverter):
    """Affine quantization of a trained float model, on calibration data.

    Weights are quantized per tensor: symmetric where their bulk straddles 0 evenly, else asymmetric.
    Layers are calibrated on the quantized outputs of the layers before them.

    Parameters
    ----------
    n_bits, numpy_model, rounding_threshold_bits
        As for `ONNXConverter`.
    """

    def quantize_constant(self, values: np.ndarray, name: str) -> Any:
        """Quantize weights at ``op_weights`` bits; integers stay raw, booleans take one bit."""
        del name
        if isinstance(values, QuantizedArray) or values.dtype.kind in "iu":
            return values
        if values.dtype.kind == "b":
            return QuantizedArray(1, values.astype(np.float64))
        symmetric = _straddles_zero(values)
        options = QuantizationOptions(
            self.n_bits_op_weights, is_signed=symmetric, is_symmetric=symmetric
        )
        return QuantizedArray(options.n_bits, values, options=options)


class PostTrainingQATImporter(ONNXConverter):
    """Import of a model that was trained with quantization in the loop.

    Weights and operands of the layers that compute on integers must lie on a uniform grid already;
    its step is found in the weights, and for operands in the calibration data. Nothing is rounded a
    second time.

    Parameters
    ----------
    n_bits, numpy_model, rounding_threshold_bits
        As for `ONNXConverter`; ``n_bits`` are the widths that the model was trained for.

    Raises
    ------
    UnquantizedTensorError
        From `quantize_module`: lists the tensors that reach an integer layer unquantized.
    """

    calibrates_on_quantized_data = False

    def __init__(
        self, n_bits: int | Mapping[str, int], numpy_model: Any, rounding_threshold_bits: Any = None
    ) -> None:
        super().__init__(n_bits, numpy_model, rounding_threshold_bits)
        self._unquantized: list[str] = []

    def quantize_module(
        self, *calibration_data: np.ndarray, keep_onnx: bool = True
    ) -> QuantizedModule:
        """Import the model: see `ONNXConverter.quantize_module`."""
        self._unquantized = []
        module = super().quantize_module(*calibration_data, keep_onnx=keep_onnx)
        if self._unquantized:
            raise UnquantizedTensorError(
                f"these tensors reach a layer that computes on integers without being quantized: "
                f"{', '.join(self._unquantized)}. Quantize them in the model (on a uniform grid of "
                "at most n_bits), or use post-training quantization (import_qat=False)"
            )
        return module

    def options_for_inputs(self, n_bits: int, values: list[np.ndarray]) -> QuantizationOptions:
        """Signed, as trained."""
        del values
        return QuantizationOptions(n_bits, is_signed=True, is_qat=True)

    def quantize_constant(self, values: np.ndarray, name: str) -> Any:
        """The weights on their own grid."""
        if isinstance(values, QuantizedArray) or values.dtype.kind in "iub":
            return values
        return self._on_grid(values, name, self.n_bits_op_weights) or QuantizedArray(
            self.n_bits_op_weights, values, is_signed=True, is_qat=True
        )

    def operand_quantizer(
        self, value: QuantizedArray, name: str, n_bits: int
    ) -> UniformQuantizer | None:
        """The grid that the operand's calibration data lies on."""
        if value.holds_integers and not value.quantizer.no_clipping:
            return None
        on_grid = self._on_grid(np.asarray(value.values), name, n_bits)
        return None if on_grid is None else on_grid.quantizer

    def _on_grid(self, values: np.ndarray, name: str, n_bits: int) -> QuantizedArray | None:
        scale = uniform_grid_scale(values, n_bits)
        if scale is None:
            self._unquantized.append(name)
            return None
        options = QuantizationOptions(n_bits, is_signed=True, is_qat=True)
        options.is_precomputed_qat = True
        params = UniformQuantizationParameters(scale, 0, 2 ** (n_bits - 1))
        result = QuantizedArray(n_bits, values, options=options, params=params)
        result.quantizer.compute_quantization_stats(values)
        return result


def _straddles_zero(values: np.ndarray) -> bool:
    low, high = np.percentile(values, (3, 97))
    if not low < 0 < high:
        return False
    return bool(1 / 3 <= high / -low <= 3)


def _constants_digest(op: QuantizedOp) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for position, value in sorted(op.constant_inputs.items()):
        digest.update(f"{position}{np.shape(value)}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


__all__ = [
    "ONNXConverter",
    "PostTrainingAffineQuantization",
    "PostTrainingQATImporter",
    "UniformQuantizer",
]
