"""Quantization with weights that were learned: through the same steps as any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from cipherlearn.errors import InvalidParameterError, InvalidTypeError
from cipherlearn.ops._weights import WeightLayout
from cipherlearn.quantization.accumulators import expected_range, top_of_range
from cipherlearn.quantization.lookup_aware import PostTrainingLookupQuantization, integer_weights
from cipherlearn.quantization.mixing import FittedWeights, QuantizedMixingOp
from cipherlearn.quantization.quantized_array import Entries, QuantizedArray
from cipherlearn.quantization.quantizers import (
    UniformQuantizer,
)

#: A channel that is too large goes back to its analytic weights in steps of this share.
RETREAT = 0.125


@dataclass(frozen=True, eq=False)
class LearnedLayer:
    """Weights of one layer, before they are rounded.

    Parameters
    ----------
    weights : numpy.ndarray of shape (groups, channels, inputs)
        In steps of the analytic weights.
    shift : numpy.ndarray of shape (groups * channels,)
        Real values by which the mean of each channel leaves that of the float model.
    analytic : QuantizedMixingOp
        The layer as it was quantized before.
    """

    weights: np.ndarray
    shift: np.ndarray
    analytic: QuantizedMixingOp

    @property
    def known(self) -> QuantizedArray:
        """The analytic weights."""
        known: QuantizedArray = self.analytic.constant_inputs[1]
        return known

    @property
    def scale(self) -> np.ndarray:
        """Steps of the analytic weights, one a channel."""
        return np.ravel(self.known.quantizer.scale)

    @property
    def operand(self) -> UniformQuantizer | None:
        """The grid of the operand that the weights belong to, if it was chosen."""
        return self.analytic.given_operand_quantizer(0)

    def matrix(self) -> np.ndarray:
        """The analytic integers, of the shape of ``weights``."""
        return layout_of(self.analytic).matrix(np.asarray(self.known.qvalues), self.analytic.attrs)


def layout_of(op: QuantizedMixingOp) -> WeightLayout:
    """How a layer with chosen weights is a matrix product."""
    form = op.form
    if form is None or form.layout is None:
        raise InvalidTypeError(
            f"{op.op_instance_name} ({op.op_type()}) is not a product with constant weights: only "
            "layers whose weights were chosen can be learned"
        )
    return form.layout


class Replay(PostTrainingLookupQuantization):
    """Quantization as another converter does it, with learned weights for some layers.

    No channel leaves the range that its layer is rounded in, and none has larger weights than the
    layer had: one that does goes back towards the analytic weights. So the price stays what it was.

    Parameters
    ----------
    converter : PostTrainingLookupQuantization
    learned : mapping of str to LearnedLayer
        By the name of the layer's node.
    """

    def __init__(
        self, converter: PostTrainingLookupQuantization, learned: Mapping[str, LearnedLayer]
    ) -> None:
        vars(self).update(vars(converter))
        self.learned = learned
        ops = [op for _, op in converter.quant_ops_dict.values()]
        if not all(any(layer.analytic is op for op in ops) for layer in learned.values()):
            raise InvalidParameterError(
                "the weights were learned for another module than the one that this converter "
                "made last: quantize with it again, and learn from that"
            )
        #: Of operands side by side: the weights belong to these grids.
        self.grids = {
            op.op_instance_name: op.joint
            for op in ops
            if isinstance(op, QuantizedMixingOp) and op.keeps_grids
        }

    def choose_weights(
        self, op: QuantizedMixingOp, operands: list[QuantizedArray], target: np.ndarray
    ) -> None:
        """Take the learned weights: see `PostTrainingLookupQuantization.choose_weights`."""
        if op.keeps_grids:
            op.joint = self.grids.get(op.op_instance_name)
        learned = self.learned.get(op.op_instance_name)
        if learned is None:
            super().choose_weights(op, operands, target)
            return
        op.proves_range = learned.analytic.proves_range
        op.set_operand_quantizer(0, learned.operand)
        operand = operands[0]
        axes = tuple(a for a in range(target.ndim) if a != op.channel_axis % target.ndim)
        op.fitted = FittedWeights(np.zeros(1))
        share = np.zeros(learned.scale.size)
        # What the analytic weights reach, learned ones may reach.
        op.constant_inputs[1] = _constant(learned, share)
        excess = _excess(learned, op, op.exact_result(operand), axes, operand)
        allowed = np.maximum(excess, 1.0)
        share = np.ones(learned.scale.size)
        while True:
            op.constant_inputs[1] = _constant(learned, share)
            result = op.exact_result(operand)
            over = (_excess(learned, op, result, axes, operand) > allowed) & (share > 0)
            if not over.any():
                break
            share = np.where(over, share - RETREAT, share)
        shape = [-1 if axis not in axes else 1 for axis in range(target.ndim)]
        rest = (target - result).mean(axis=axes, keepdims=True) + learned.shift.reshape(shape)
        analytic = learned.analytic.fitted
        op.fitted = FittedWeights(rest, None if analytic is None else analytic.lsbs)


def _constant(learned: LearnedLayer, share: np.ndarray) -> QuantizedArray:
    """Integers between the analytic weights (share 0) and the learned ones (share 1)."""
    op, known, layout = learned.analytic, learned.known, layout_of(learned.analytic)
    shape = (*learned.weights.shape[:2], 1)
    analytic = learned.matrix()
    between = analytic + share.reshape(shape) * (learned.weights - analytic)
    integers = np.rint(between).astype(np.int64)
    return integer_weights(integers, learned.scale, layout, np.asarray(known.values), op.attrs)


def _excess(
    learned: LearnedLayer,
    op: QuantizedMixingOp,
    result: np.ndarray,
    axes: tuple[int, ...],
    operand: QuantizedArray,
) -> np.ndarray:
    """How many times each channel is too large: in range, in norm, or in a single weight."""
    found = replace(learned, analytic=op).matrix().reshape(learned.scale.size, -1)
    before = learned.matrix().reshape(learned.scale.size, -1)
    norms = np.linalg.norm(found, axis=1) / max(1.0, np.linalg.norm(before, axis=1).max())
    largest = np.abs(found).max(axis=1) / max(1, np.abs(before).max())
    excess = np.maximum(norms, largest)
    fitted, rounding = learned.analytic.fitted, op.rounding
    if fitted is None or not fitted.lsbs or rounding is None:
        return excess
    if op.proves_range:
        read = op.read_operands(operand)[0]
        limits, entries = read.quantizer.integer_limits, read.entries
        known = entries or Entries.alike(found.shape[1], op.follows_lookup, limits)
        extents = np.abs(found) @ known.extents
    else:
        scale = np.ravel(op.constant_inputs[1].quantizer.scale)
        lo, hi = expected_range(result, axes)
        extents = np.ravel(hi - lo) / scale
    top = top_of_range(int(rounding.n_bits), fitted.lsbs)
    return np.maximum(excess, extents / top)
