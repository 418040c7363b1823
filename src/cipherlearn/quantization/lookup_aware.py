"""Post-training quantization for table look-ups: the most accuracy for the bits that are paid for.

A look-up costs by the bits that it reads. Steps of weights and activations that differ from channel
to channel cost nothing, and neither do the bits of weights that meet fresh encryptions only. So
every layer's integers are chosen for the look-up that reads them: see `layer_fit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cipherlearn import ops
from cipherlearn.errors import CalibrationWarning, InvalidParameterError, warn
from cipherlearn.onnx import Graph, Node
from cipherlearn.ops._weights import WeightLayout
from cipherlearn.quantization.base_quantized_op import numbers
from cipherlearn.quantization.bypass import BYPASS, around_lookups
from cipherlearn.quantization.clipping import feature_quantizer, least_error_quantizer
from cipherlearn.quantization.grid import observed_range
from cipherlearn.quantization.layer_fit import (
    Fit,
    Layer,
    bits_to_round,
    fit_least_error,
    fit_to_range,
)
from cipherlearn.quantization.mixing import FittedWeights, QuantizedMixingOp
from cipherlearn.quantization.n_bits import DEFAULT_MODEL_BITS, LayerBits
from cipherlearn.quantization.post_training import PostTrainingAffineQuantization
from cipherlearn.quantization.prepare import Parts
from cipherlearn.quantization.quantized_array import Entries, QuantizedArray
from cipherlearn.quantization.quantizers import (
    QuantizationOptions,
    UniformQuantizationParameters,
    UniformQuantizer,
)

#: Bits of weights that meet fresh encryptions and are rounded afterwards: they cost nothing.
FREE_WEIGHT_BITS = 6

#: Input rows (windows of convolutions) that least squares looks at, at most.
MOST_ROWS = 40_000

#: What an observed range is: seen in calibration data, or implied by the integers of the inputs.
BOUNDS = ("observed", "proved")


class PostTrainingLookupQuantization(PostTrainingAffineQuantization):
    """Post-training quantization made for table look-ups.

    Layers with constant weights (``Gemm``, ``MatMul``, ``Conv``) get

    - integer weights from least squares between the layer's quantized inputs and the float model's
      outputs (`cipherlearn.quantization.least_squares`), with a step for each output channel;
    - where the accumulator is rounded, steps that make every channel fill the rounded range;
    - an exact correction of each channel's mean;
    - operands with a grid for each input channel, clipped for least squared error.

    Everything else is quantized as by `PostTrainingAffineQuantization`.

    Parameters
    ----------
    n_bits, numpy_model, rounding_threshold_bits
        As for `ONNXConverter`. Rounding is what makes low widths accurate: give it.
    bounds : {"observed", "proved"}, default="observed"
        Whether the range of rounded accumulators is the one that calibration data leads to expect
        (results beyond it are wrong; they are counted), or one that no input can leave (wider, so
        rounding is coarser).
    bypass : {"hidden", "none", "outputs"}, default="hidden"
        Which activations have their linear part go around the look-up, where approximate rounding
        makes it coarse: see `cipherlearn.quantization.bypass`. ``"outputs"`` takes those before the
        model's outputs as well, which brings most and **tells the client more of the model**: the
        linear part of an output becomes an output of its own, which the client adds, and whose
        weights a few chosen inputs tell.
    """

    needs_float_values = True

    def __init__(
        self,
        n_bits: int | Mapping[str, int],
        numpy_model: Any,
        rounding_threshold_bits: Any = None,
        bounds: str = "observed",
        bypass: str = "hidden",
    ) -> None:
        super().__init__(n_bits, numpy_model, rounding_threshold_bits)
        if bounds not in BOUNDS:
            raise InvalidParameterError(f"bounds must be one of {list(BOUNDS)}, not {bounds!r}")
        self.bounds = bounds
        if bypass not in BYPASS:
            raise InvalidParameterError(f"bypass must be one of {list(BYPASS)}, not {bypass!r}")
        self.bypass = bypass

    @classmethod
    def of_layers(
        cls,
        numpy_model: Any,
        common: LayerBits,
        layers: Mapping[str, LayerBits],
        input_bits: int,
        bounds: str = "observed",
        bypass: str = "hidden",
    ) -> PostTrainingLookupQuantization:
        """A converter with bits of their own for some layers.

        Parameters
        ----------
        numpy_model : NumpyModule
        common : LayerBits
            For all other layers.
        layers : mapping of str to LayerBits
            By the name of the layer's node (`QuantizedModule.weight_layers` lists them).
        input_bits : int
            Bits of the model's inputs.
        bounds, bypass
            As for the class.
        """
        n_bits = {
            "model_inputs": input_bits,
            "op_inputs": common.inputs,
            "op_weights": common.weights,
            "model_outputs": max(DEFAULT_MODEL_BITS, common.inputs),
        }
        converter = cls(n_bits, numpy_model, common.rounding, bounds, bypass)
        converter.layers = dict(layers)
        return converter

    def parts(self, graph: Graph, data: list[np.ndarray]) -> Parts:
        """The float model, with linear parts of activations around their look-ups."""
        parts = super().parts(graph, data)
        if self.bypass != "none":
            parts = around_lookups(parts, self.bits_of, self.bypass)
        if self.bypass == "outputs" and "outputs" not in parts.bypassed.values():
            warn(
                "bypass='outputs' changes nothing: no activation before an output of this model "
                "is a rounded layer's, read by nothing but layers with weights of the size that "
                "bypass takes. Leave the option out",
                CalibrationWarning,
            )
        return parts

    def bits_of(self, layer: str) -> LayerBits:
        """All bits of a layer."""
        rounding = self.rounding_of(layer)
        kept = None if rounding is None else int(rounding.n_bits)
        exact = rounding is not None and rounding.exact
        return LayerBits(self.weight_bits_of(layer), self.input_bits_of(layer), kept, exact)

    def input_bits_of(self, layer: str) -> int:
        """Bits of a layer's operand."""
        own = self.layers.get(layer)
        return super().input_bits_of(layer) if own is None else own.inputs

    def weight_bits_of(self, layer: str) -> int:
        """Bits of a layer's weights."""
        own = self.layers.get(layer)
        return self.n_bits_op_weights if own is None else own.weights

    def feature_grids(self, name: str, graph: Graph, values: np.ndarray) -> UniformQuantizer | None:
        """Grids of its own for every feature, if linear layers alone read the input.

        The steps then are a part of their weights, which costs nothing. Whole numbers keep the grid
        that represents them.
        """
        axes = {_operand_axis(reader, name, graph) for reader in graph.consumers(name)}
        n_bits = self.n_bits_model_inputs
        whole = observed_range(values).bits_of_whole_numbers(QuantizationOptions(n_bits))
        if len(axes) != 1 or None in axes or whole or name in graph.output_names:
            return None
        (axis,) = axes
        return None if axis is None else feature_quantizer(values, n_bits, axis)

    def operand_quantizer(
        self, value: QuantizedArray, name: str, n_bits: int, from_client: bool = False
    ) -> UniformQuantizer | None:
        """The client's integers as they are, if their features have grids of their own."""
        del name, n_bits, from_client
        by_client = value.holds_integers and not value.quantizer.no_clipping
        return value.quantizer if by_client and np.size(value.quantizer.scale) > 1 else None

    def choose_weights(
        self, op: QuantizedMixingOp, operands: list[QuantizedArray], target: np.ndarray
    ) -> None:
        """Replace the weights of a layer by integers chosen for its operand.

        Parameters
        ----------
        op : QuantizedMixingOp
        operands : list of QuantizedArray
            Quantized calibration data.
        target : numpy.ndarray
            The float model's result of this layer.
        """
        op.proves_range = self.bounds == "proved"
        weights = op.constant_inputs.get(1)
        layout = None if op.form is None else op.form.layout
        if layout is None or 0 in op.constant_inputs or not isinstance(weights, QuantizedArray):
            return
        reals = np.asarray(weights.values)
        if not layout.accepts(reals, op.attrs) or _is_exact(weights, operands[0]):
            return
        operand = operands[0]
        is_shared = 0 in op.read_elsewhere or op.sum_taken(operand) is not None
        if not is_shared and _is_free(operand):
            quantizer = least_error_quantizer(
                np.asarray(numbers(operand)), op.input_quant_opts.n_bits, layout.operand_axis
            )
            op.set_operand_quantizer(0, quantizer)
        integers = op.read_operands(operand)[0]
        layers = _layers(op, layout, reals, integers, target)
        entries = integers.entries
        if entries is None:
            _warn_of_few_rows(op, layers[0])
            count, limits = layers[0].inputs.shape[1], integers.quantizer.integer_limits
            entries = Entries.alike(count, op.follows_lookup, limits)
        lsbs, fits = self._fits(op, layers, entries)
        matrix = np.stack([fit.integers for fit in fits])
        scale = np.concatenate([fit.scale for fit in fits])
        op.constant_inputs[1] = integer_weights(matrix, scale, layout, reals, op.attrs)
        op.fitted = FittedWeights(np.zeros(1))
        rest = target - op.exact_result(operand)
        axes = tuple(a for a in range(rest.ndim) if a != op.channel_axis % rest.ndim)
        op.fitted = FittedWeights(rest.mean(axis=axes, keepdims=True), lsbs)

    def _fits(
        self, op: QuantizedMixingOp, layers: list[Layer], entries: Entries
    ) -> tuple[int | None, list[Fit]]:
        """Bits that rounding takes off, if any, and integer weights for each group."""
        rounding = op.rounding if op.feeds_lookup else None
        bits = self.weight_bits_of(op.op_instance_name)
        # What stands beside fresh encryptions shares their steps, and needs them as fine.
        if rounding is not None and not rounding.exact and not entries.noisy.all():
            bits = max(bits, FREE_WEIGHT_BITS)
        limit = max(1, 2 ** (bits - 1) - 1)
        if rounding is None:
            return None, [fit_least_error(layer, limit, op.follows_lookup) for layer in layers]
        proved = entries.extents if self.bounds == "proved" else np.zeros(0)
        kept = int(rounding.n_bits)
        lsbs = bits_to_round(layers, limit, kept, entries.noisy, proved)
        return lsbs, [fit_to_range(layer, lsbs, kept, entries.noisy, proved) for layer in layers]


def _operand_axis(node: Node, name: str, graph: Graph) -> int | None:
    """The axis of a linear layer's operand that its weights run along; None for other operators."""
    form = ops.get(node.op).integer
    layout = None if form is None else form.layout
    if layout is None or node.inputs[0] != name or node.inputs[1] not in graph.constants:
        return None
    weights = graph.constants[node.inputs[1]]
    return layout.operand_axis if layout.accepts(weights, node.attributes) else None


def _warn_of_few_rows(op: QuantizedMixingOp, layer: Layer) -> None:
    rows, inputs = layer.inputs.shape
    if rows < inputs:
        warn(
            f"{op.op_instance_name} ({op.op_type()}): {rows} calibration rows for {inputs} inputs; "
            "directions that they do not show keep the float weights. Give more calibration data",
            CalibrationWarning,
        )


def _is_exact(weights: QuantizedArray, operand: QuantizedArray) -> bool:
    """Whether whole numbers are multiplied by weights that are on their grid: counts, selections.

    What follows may ask whether two of them are equal; least squares would spoil that.
    """
    on_grid = weights.quantizer.dequant(weights.qvalues)
    is_whole = operand.quantizer.step is not None
    return is_whole and bool(np.allclose(on_grid, weights.values, rtol=1e-6, atol=0.0))


def _is_free(operand: QuantizedArray) -> bool:
    """Whether the grid of an operand can be chosen: it is no integer yet, nor whole numbers."""
    accumulator = operand.holds_integers and operand.quantizer.no_clipping
    return (accumulator or not operand.holds_integers) and operand.quantizer.step is None


def _layers(
    op: QuantizedMixingOp,
    layout: WeightLayout,
    weights: np.ndarray,
    operand: QuantizedArray,
    target: np.ndarray,
) -> list[Layer]:
    """The groups of a layer, each with calibration data."""
    known = operand.quantizer
    sample = operand.qvalues - np.asarray(known.zero_point)
    per_row = max(1, target[:1].size // target.shape[op.channel_axis])
    taken = slice(None, None, max(1, len(sample) * per_row // MOST_ROWS))
    inputs = layout.inputs(sample[taken].astype(np.float64), weights.shape, op.attrs)
    scale = np.broadcast_to(np.ravel(known.scale), (sample.shape[layout.operand_axis],))
    matrix = layout.matrix(weights, op.attrs) * layout.along_inputs(scale, weights.shape, op.attrs)
    results = layout.targets(target[taken], len(inputs))
    return [Layer(*parts) for parts in zip(inputs, results, matrix, strict=True)]


def integer_weights(
    matrix: np.ndarray,
    scale: np.ndarray,
    layout: WeightLayout,
    reals: np.ndarray,
    attributes: Mapping[str, Any],
) -> QuantizedArray:
    """Chosen integers in the layout of the operator; their real values are the float weights.

    Parameters
    ----------
    matrix : numpy.ndarray of int64, shape (groups, channels, inputs)
    scale : numpy.ndarray of shape (groups * channels,)
        Steps.
    layout : WeightLayout
    reals : numpy.ndarray
        The float weights, as the operator has them.
    attributes : mapping
        Of the operator.
    """
    largest = max(1, int(np.abs(matrix).max()))
    options = QuantizationOptions(largest.bit_length() + 1, is_signed=True, is_symmetric=True)
    params = UniformQuantizationParameters(
        layout.along_weights(scale, reals.shape, attributes), 0, 0
    )
    integers = layout.weights(matrix, reals.shape, attributes)
    result = QuantizedArray(options.n_bits, integers, False, options=options, params=params)
    result.values = reals
    return result
