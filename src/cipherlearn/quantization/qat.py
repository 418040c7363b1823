"""Import of models that were trained with quantization in the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cipherlearn import ops
from cipherlearn.errors import (
    CalibrationWarning,
    InvalidParameterError,
    UnquantizedTensorError,
    warn,
)
from cipherlearn.onnx import Graph, Node
from cipherlearn.ops import qonnx
from cipherlearn.quantization.base_quantized_op import QuantizedOp
from cipherlearn.quantization.declared import (
    QuantizedToGrid,
    declares_grids,
    grid_of,
    quantizer_of,
    without_seen_ranges,
)
from cipherlearn.quantization.grid import channel_grids, grid_quantizer, on_grids
from cipherlearn.quantization.mixing import QuantizedMixingOp
from cipherlearn.quantization.n_bits import get_n_bits_dict
from cipherlearn.quantization.post_training import ONNXConverter
from cipherlearn.quantization.prepare import Parts
from cipherlearn.quantization.quantized_array import Accumulator, QuantizedArray
from cipherlearn.quantization.quantized_module import QuantizedModule
from cipherlearn.quantization.quantizers import MAXIMUM_BITS, UniformQuantizer, check_bits
from cipherlearn.quantization.shared_grid import SAME_STEP, CommonScale

#: Widest grid that is looked for in data, where no bits are given.
QAT_BITS = 8

#: By how much of a step a sum may differ without a word: then it rounds alike nearly always.
TOLD_ABOVE = 1e-3

#: Widest grid that functions are evaluated on to see whether they keep it.
MOST_LEVELS_BITS = 16

#: What bits are given for, by the names in ``n_bits``.
_ROLES = ("model_inputs", "op_inputs", "op_weights")


@dataclass
class _Findings:
    """What is wrong with a model, all of it."""

    inputs: dict[str, str] = field(default_factory=dict)
    tensors: list[str] = field(default_factory=list)
    grids: list[str] = field(default_factory=list)
    bits: dict[str, str] = field(default_factory=dict)

    def report(self) -> None:
        """Raise what there is to say, if there is anything."""
        parts = []
        if self.inputs:
            told = "; ".join(f"{name!r} {why}" for name, why in self.inputs.items())
            parts.append(
                f"the network does not begin with a quantizer: {told}. Add one as its first layer, "
                "and let everything read what it gives (Brevitas: QuantIdentity(bit_width=...))"
            )
        if self.tensors:
            parts.append(
                "these tensors reach a layer that computes on integers without being quantized: "
                f"{', '.join(self.tensors)}. Quantize them in the model (on a uniform grid of at "
                "most n_bits), or use post-training quantization (import_qat=False)"
            )
        if self.grids:
            parts.append("grids that integers cannot be computed on: " + "; ".join(self.grids))
        if parts:
            raise UnquantizedTensorError("\n".join(parts))
        if self.bits:
            raise InvalidParameterError(
                f"n_bits and the model disagree: {'; '.join(self.bits.values())}. The model was "
                "trained with its bits: leave n_bits out, or give those"
            )


class PostTrainingQATImporter(ONNXConverter):
    """Import of a model that was trained with quantization in the loop.

    Where the model declares grids (with ``Quant`` nodes of QONNX, or pairs of ``QuantizeLinear``
    and ``DequantizeLinear``), these are taken over: constants are the declared integers, and
    quantizers give the declared integers, whatever real functions stand before them. Other
    constants must lie on a uniform grid, which is then theirs. The calibration data only tells the
    ranges of accumulators.

    A model that declares none quantizes with operators of its own. Then weights and operands of the
    layers that compute on integers must lie on a uniform grid; its step is found in the weights,
    and for operands in the calibration data. Nothing is rounded a second time.

    Parameters
    ----------
    n_bits : int, dict or None
        The widths that the model was trained for; None takes those that it declares. An int is
        compared with all of them, a dictionary as `get_n_bits_dict` takes it key by key. For models
        that declare grids it may also be one of ``model_inputs`` and ``model_outputs``.
    numpy_model, rounding_threshold_bits
        As for `ONNXConverter`.
    bounds : {"observed", "proved"}, default="observed"
        Whether accumulators get the range that calibration data leads to expect, or one that no
        input can leave.

    Attributes
    ----------
    asked : dict of str to int
        Bits that are compared with those of the model.

    Raises
    ------
    UnquantizedTensorError
        From `quantize_module`: lists the tensors that reach an integer layer unquantized, and
        grids that integers cannot be computed on.
    InvalidParameterError
        From `quantize_module`, if the model declares other bits than ``n_bits``.
    """

    calibrates_on_quantized_data = False

    def __init__(
        self,
        n_bits: int | Mapping[str, int] | None,
        numpy_model: Any,
        rounding_threshold_bits: Any = None,
        bounds: str = "observed",
    ) -> None:
        super().__init__(widths_of(n_bits), numpy_model, rounding_threshold_bits)
        self.asked = asked_bits(n_bits)
        self.bounds = bounds
        self._findings = _Findings()
        self._grids: Mapping[str, QuantizedArray] = {}
        self._trained: Mapping[str, tuple[np.ndarray, np.ndarray]] = {}
        self._declares = False

    @property
    def keeps_sums(self) -> bool:  # type: ignore[override]
        """Whether sums of integers are read as they are: only grids are ever quantized to."""
        return self._declares

    def quantize_module(
        self, *calibration_data: np.ndarray, keep_onnx: bool = True
    ) -> QuantizedModule:
        """Import the model: see `ONNXConverter.quantize_module`."""
        self._findings = _Findings()
        module = super().quantize_module(*calibration_data, keep_onnx=keep_onnx)
        self._findings.report()
        self._tell_untrained(module)
        return module

    def _tell_untrained(self, module: QuantizedModule) -> None:
        """Warn of sums that are rounded in other steps than those that training was done for."""
        ops = (op for _, op in module.quant_layers_dict.values())
        rounded = [op for op in ops if isinstance(op, QuantizedMixingOp) and op.lsbs_to_remove]
        others = [op for op in rounded if op.trained_range is None or op.proves_range]
        if self._trained and others:
            warn(
                f"training rounded other sums, or in other ranges, than those of "
                f"{', '.join(op.op_instance_name for op in others)}: results may be less accurate "
                "than those of the network. Give bounds='observed', and the rounding of to_qat",
                CalibrationWarning,
            )

    def parts(self, graph: Graph, data: list[np.ndarray]) -> Parts:
        """The model, whether it declares grids, and the ranges of sums that it was trained for."""
        parts = super().parts(graph, data)
        body, self._trained = without_seen_ranges(parts.body)
        parts = replace(parts, body=body)
        self._grids = parts.grids
        self._declares = declares_grids(parts.body, parts.grids)
        return parts

    def feature_grids(self, name: str, graph: Graph, values: np.ndarray) -> UniformQuantizer | None:
        """The grid that the model declares for an input: the client quantizes to it."""
        if not self._declares:
            return super().feature_grids(name, graph, values)
        found = {}
        for node in _readers(name, graph):
            grid = grid_of(node, graph)
            if grid is None:
                self._findings.inputs[name] = f"is read by {node}"
                return None
            if node.op != qonnx.QUANT or grid.rounding not in qonnx.TO_NEAREST:
                self._findings.inputs[name] = (
                    f"is quantized by {node}, which does not round to the nearest integer"
                )
                return None
            found[node.name] = quantizer_of(grid)
        if not found:
            return super().feature_grids(name, graph, values)
        first, *others = found.values()
        if any(other != first for other in others):
            self._findings.inputs[name] = f"is quantized to several grids ({', '.join(found)})"
            return None
        return first

    def quantize_input(self, values: np.ndarray) -> QuantizedArray:
        """An input on its own grid, if it has one; the client quantizes any other to its range."""
        known = None if self._declares else grid_quantizer(values, self.n_bits_model_inputs)
        if known is None:
            return super().quantize_input(values)
        return QuantizedArray(known.n_bits, values, options=known, stats=known, params=known)

    def quantize_constant(self, values: Any, name: str) -> Any:
        """The weights on their own grid."""
        if isinstance(values, QuantizedArray) or values.dtype.kind in "iub":
            return super().quantize_constant(values, name)
        known = grid_quantizer(values, self.n_bits_op_weights)
        if known is None:
            self._note_tensor(name)
            return QuantizedArray(self.n_bits_op_weights, values, is_signed=True)
        return QuantizedArray(known.n_bits, values, options=known, stats=known, params=known)

    def quantize_weights(self, op: QuantizedOp, position: int, values: Any, name: str) -> Any:
        """The weights on their own grid, or on one for each channel of the result."""
        form = op.form if isinstance(op, QuantizedMixingOp) else None
        layout = None if form is None or position != 1 else form.layout
        held = self._grids.get(name)
        if held is not None:
            self._compare("op_weights", f"the weights {name!r} of {op.op_instance_name}", held)
            scale = np.asarray(held.quantizer.scale)
            if scale.size > 1 and not _is_per_channel(scale, layout, values, op.attrs):
                self._findings.grids.append(
                    f"the weights {name!r} of {op.op_instance_name} have scales of shape "
                    f"{scale.shape}; accepted: one, or one for each channel of the result"
                )
                return QuantizedArray(self.n_bits_op_weights, np.asarray(values))
            return held
        weights, n_bits = np.asarray(values), self.n_bits_op_weights
        plain = weights.dtype.kind == "f" and grid_quantizer(weights, n_bits) is None
        if layout is None or not plain or not layout.accepts(weights, op.attrs):
            return self.quantize_constant(values, name)
        matrix = layout.matrix(weights, op.attrs)
        steps = channel_grids(matrix.reshape(-1, matrix.shape[-1]), n_bits)
        if steps is None:
            return self.quantize_constant(values, name)
        known = on_grids(weights, n_bits, layout.along_weights(steps, weights.shape, op.attrs))
        return QuantizedArray(n_bits, weights, options=known, stats=known, params=known)

    def operand_quantizer(
        self, value: QuantizedArray, name: str, n_bits: int, from_client: bool = False
    ) -> UniformQuantizer | None:
        """The declared grid; where none is, the client's, or that of the calibration data."""
        if not self._declares:
            if value.holds_integers and not value.quantizer.no_clipping:
                return value.quantizer
            known = grid_quantizer(np.asarray(value.values), n_bits)
            if known is None:
                self._note_tensor(name)
            return known
        if _is_sum(value):
            return None
        if not value.quantizer.is_precomputed_qat:
            self._note_tensor(name)
            return None
        self._compare("model_inputs" if from_client else "op_inputs", f"{name!r}", value)
        if np.size(value.quantizer.scale) > 1:
            self._findings.grids.append(
                f"the activations {name!r} have one scale a channel; accepted: one scale"
            )
            return QuantizedArray(n_bits, np.asarray(value.values)).quantizer
        return value.quantizer

    def check_joined(self, op: QuantizedMixingOp, operands: Mapping[str, QuantizedArray]) -> None:
        """Take note of operands that are no integers, or not of the same steps."""
        if not self._declares:
            return
        exact = {n: op.exact(v) for n, v in operands.items() if not isinstance(v, Accumulator)}
        exact |= {n: op.exact(v) for n, v in operands.items() if _is_sum(v)}
        loose = [n for n in operands if n not in exact or not _is_declared(exact[n])]
        for name in loose:
            self._note_tensor(name)
        form = op.form
        if form is not None and form.prepare:
            self._findings.grids.append(
                f"{op.op_instance_name} ({op.op_type()}) divides by an encrypted value: quantize "
                "its reciprocal, and multiply"
            )
        if loose or form is None:
            return
        quantizers = [value.quantizer for value in exact.values()]
        if any(np.size(q.scale) > 1 for q in quantizers):
            self._findings.grids.append(f"{', '.join(exact)} have one scale a channel")
        elif form.keeps_grid and any(q != quantizers[0] for q in quantizers):
            self._findings.grids.append(
                f"{op.op_instance_name} ({op.op_type()}) joins {', '.join(exact)}, which have "
                "different grids: let one quantizer serve them all"
            )
        elif form.common_scale:
            named = dict(enumerate(exact.values()))
            moved = CommonScale.of_grids(named, op.input_quant_opts).inexactness(named)
            if moved > TOLD_ABOVE:
                warn(
                    f"{op.op_instance_name} ({op.op_type()}) adds {', '.join(exact)}, whose steps "
                    f"have no common part: their sum is off by up to {moved:.2g} of the smaller "
                    "step. Let one quantizer serve both, and it is exact",
                    CalibrationWarning,
                )

    def choose_weights(
        self, op: QuantizedMixingOp, operands: list[QuantizedArray], target: np.ndarray
    ) -> None:
        """Weights stay; accumulators get the range that is asked for, or trained for."""
        del operands, target
        op.trained_range = self._trained.get(op.op_instance_name)
        op.proves_range = self.bounds == "proved"

    def keep_grid(self, op: QuantizedOp, operands: list[QuantizedArray]) -> None:
        """Take note that a function of a grid gives values of that grid only, as ReLU does."""
        if len(operands) != 1 or not op.can_fuse() or op.moves_elements():
            return
        known = operands[0].quantizer
        constants = [c for c in op.constant_inputs.values() if c is not None]
        varies = np.size(known.scale) > 1 or any(np.size(constant) > 1 for constant in constants)
        if not self._declares or not _is_declared(operands[0]) or varies:
            return
        lo, hi = known.integer_limits
        if hi - lo < 2**MOST_LEVELS_BITS:
            levels = known.dequant(np.arange(lo, hi + 1))
            found = op.float_result(levels) / known.scale + known.zero_point
            whole = np.rint(found)
            near = np.abs(found - whole).max() <= SAME_STEP * max(-lo, hi)
            if near and lo <= whole.min() and whole.max() <= hi:
                op.output_quant_opts = known.quant_options
                op.output_quant_stats = known.quant_stats
                op.output_quant_params = known.quant_params

    def take_grid(self, op: QuantizedOp) -> None:
        """Let a quantizer of the model give the integers of its grid."""
        if isinstance(op, QuantizedToGrid):
            op.grid = quantizer_of(op.declared)

    def _compare(self, role: str, what: str, value: QuantizedArray) -> None:
        """Take note if a grid has other bits than are asked for."""
        asked, found = self.asked.get(role), value.quantizer.n_bits
        if asked is not None and asked != found:
            self._findings.bits[what] = f"{what} has {found} bits, {role} is {asked}"

    def _note_tensor(self, name: str) -> None:
        if name not in self._findings.tensors and name not in self._findings.inputs:
            self._findings.tensors.append(name)


def widths_of(n_bits: int | Mapping[str, int] | None) -> dict[str, int]:
    """Widths for all that `get_n_bits_dict` knows, where a model may declare its own.

    Parameters
    ----------
    n_bits : int, dict or None
        As for `PostTrainingQATImporter`.

    Raises
    ------
    InvalidParameterError, UnknownKeyError
        As `get_n_bits_dict` does.
    """
    if n_bits is None:
        return get_n_bits_dict(QAT_BITS)
    if isinstance(n_bits, Mapping) and set(n_bits) == {"model_inputs", "model_outputs"}:
        outputs = check_bits(n_bits["model_outputs"], "n_bits['model_outputs']", MAXIMUM_BITS)
        widest = min(QAT_BITS, outputs)
        return get_n_bits_dict({**n_bits, "op_inputs": widest, "op_weights": QAT_BITS})
    return get_n_bits_dict(n_bits)


def asked_bits(n_bits: int | Mapping[str, int] | None) -> dict[str, int]:
    """The bits that a model is to have, by what they are of."""
    if n_bits is None:
        return {}
    if isinstance(n_bits, Mapping):
        return {role: n_bits[role] for role in _ROLES if role in n_bits}
    return dict.fromkeys(_ROLES, int(n_bits))


def _readers(name: str, graph: Graph) -> list[Node]:
    """What computes on a tensor, wherever it is moved before."""
    found = []
    for node in graph.consumers(name):
        if ops.get(node.op).kind is ops.Kind.MOVEMENT:
            found += [reader for output in node.outputs for reader in _readers(output, graph)]
        else:
            found.append(node)
    return found


def _is_sum(value: QuantizedArray) -> bool:
    return isinstance(value, Accumulator) and value.plain is not None


def _is_declared(value: QuantizedArray) -> bool:
    return value.holds_integers and value.quantizer.is_precomputed_qat


def _is_per_channel(
    scale: np.ndarray, layout: Any, values: Any, attributes: Mapping[str, Any]
) -> bool:
    """Whether scales of weights belong to the channels of the result."""
    weights = np.asarray(values)
    if layout is None or not layout.accepts(weights, attributes):
        return False
    matrix = layout.matrix(np.broadcast_to(scale, weights.shape), attributes)
    return bool((matrix == matrix[..., :1]).all())
