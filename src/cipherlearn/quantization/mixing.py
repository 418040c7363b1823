"""Quantized operators that combine encrypted values: computed on integers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cipherlearn import ops
from cipherlearn.circuit import Builder, Interval, RealValue
from cipherlearn.errors import CircuitError, InvalidTypeError, NotCalibratedError
from cipherlearn.ops._integer import Affine, IntegerForm
from cipherlearn.quantization.accumulators import AccumulatorPlan, Observed, plan_accumulator
from cipherlearn.quantization.base_quantized_op import QuantizedOp, requantize
from cipherlearn.quantization.n_bits import Rounding, process_rounding_threshold_bits
from cipherlearn.quantization.quantized_array import QuantizedArray
from cipherlearn.quantization.quantizers import UniformQuantizationParameters


class QuantizedMixingOp(QuantizedOp, is_utility=True):
    """An operator that combines encrypted values: computed on integers.

    The integer arithmetic is the operator's own (`cipherlearn.ops`); this class quantizes operands,
    observes the accumulator during calibration, and decides what happens to it before the look-up
    that follows (`cipherlearn.quantization.accumulators`).

    Parameters
    ----------
    *args, **kwargs
        As for `QuantizedOp`.
    rounding_threshold_bits : None, int, dict or Rounding
        Bits of the accumulator that look-ups read.
    """

    def __init__(self, *args: Any, rounding_threshold_bits: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rounding: Rounding | None = process_rounding_threshold_bits(rounding_threshold_bits)
        self.plan: AccumulatorPlan | None = None
        self.common_scale: float | None = None
        self.channel_axis = None if self.form is None else self.form.channel_axis

    @property
    def form(self) -> IntegerForm | None:
        """The operator's integer form."""
        form: IntegerForm | None = ops.get(self.op_type()).integer
        return form

    def can_fuse(self) -> bool:
        """Whether all operands are functions of one integer value, element by element."""
        if self.form is None or not self.form.univariate:
            return False
        return len(self._int_input_names) == 1

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> QuantizedArray:
        """Compute on integers; on reals where the operator fuses."""
        if self.can_fuse():
            return super().q_impl(*q_inputs, **attrs)
        if self.plan is None:
            raise NotCalibratedError(f"{self.op_instance_name} was not calibrated")
        accumulator = self._accumulate(q_inputs, attrs)
        return self._finish(accumulator, self.plan)

    def calibrate_accumulator(self, *q_inputs: QuantizedArray) -> None:
        """Observe the integer accumulator, and decide its range, offset and rounding.

        Parameters
        ----------
        *q_inputs : QuantizedArray
            Quantized calibration data.
        """
        if self.can_fuse():
            return
        values = self._accumulate(q_inputs, self.attrs).integers
        proved = self._proved_range(q_inputs)
        observed = Observed.of(values, self.channel_axis)
        if len(observed.lo.shape) != len(proved.shape) or not all(
            extent in (1, known) for extent, known in zip(observed.lo.shape, proved.shape)
        ):
            observed = Observed.of(values, None)
        rounding = None if self.produces_graph_output else self.rounding
        self.plan = plan_accumulator(proved, observed, rounding)

    @property
    def lsbs_to_remove(self) -> int:
        """Bits that rounding takes off the accumulator (0 before calibration)."""
        return 0 if self.plan is None else self.plan.lsbs

    def integer_compute(self, operands: list[Any], attrs: Mapping[str, Any]) -> Affine:
        """The accumulator on prepared operands (`Affine` values, reals, or None)."""
        if self.form is None:
            raise InvalidTypeError(
                f"{self.op_type()} has no integer form: override q_impl or integer_compute in "
                f"{type(self).__name__}"
            )
        return self.form.compute(operands, attrs)

    def _accumulate(self, q_inputs: tuple[QuantizedArray, ...], attrs: Mapping[str, Any]) -> Affine:
        operands = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )
        return self.integer_compute([self._as_affine(o, i) for i, o in enumerate(operands)], attrs)

    def _quantized(self, operand: QuantizedArray, position: int) -> QuantizedArray:
        if self.form is None or position in self._operand_quantizers:
            return super()._quantized(operand, position)
        if self.form.common_scale:
            return self._on_common_scale(operand)
        return requantize(operand, self.input_quant_opts, self.form.prepare.get(position))

    def _on_common_scale(self, operand: QuantizedArray) -> QuantizedArray:
        """Integers on the scale of the sum, with a zero-point of 0, so that they can be added."""
        if self.common_scale is None:
            raise NotCalibratedError(f"{self.op_instance_name} was not calibrated")
        options = self.input_quant_opts
        params = UniformQuantizationParameters(self.common_scale, 0, 0)
        result = QuantizedArray(options.n_bits, operand.values, options=options, params=params)
        result.quantizer.no_clipping = True
        return result

    def calibrate(self, *inputs: np.ndarray) -> np.ndarray:
        """Observe output and, where operands must share one, their scale."""
        result = super().calibrate(*inputs)
        if self.form is not None and self.form.common_scale:
            spans = [float(np.ptp(np.asarray(x))) for x in inputs if np.size(x)]
            spans += [float(np.ptp(c.values)) for c in self.constant_inputs.values() if np.size(c)]
            largest = max([*spans, 1e-6])
            self.common_scale = largest / (2**self.input_quant_opts.n_bits - 1)
        return result

    def _as_affine(self, operand: Any, position: int) -> Any:
        if operand is None or (self.form is not None and position in self.form.real_inputs):
            return operand
        constant = position in self.constant_inputs
        if not isinstance(operand, QuantizedArray):
            array = np.asarray(operand)
            if array.dtype.kind not in "iub":
                raise InvalidTypeError(
                    f"{self.op_instance_name}: the operand number {position} is a real constant"
                )
            return Affine(array.astype(np.int64), 1.0, 0, constant)
        quantizer = operand.quantizer
        return Affine(operand.qvalues, quantizer.scale, quantizer.zero_point, constant)

    def _finish(self, accumulator: Affine, plan: AccumulatorPlan) -> QuantizedArray:
        """The accumulator with offset, factor and rounding, and what its integers stand for."""
        integers = plan.apply(accumulator.integers)
        scale = accumulator.scale / plan.factor
        zero_point = plan.factor * accumulator.zero_point + plan.offset
        params = UniformQuantizationParameters(_squeezed(scale), _squeezed(zero_point), 0)
        result = QuantizedArray(
            self.n_bits,
            integers,
            value_is_float=False,
            options=self.output_quant_opts,
            stats=self.output_quant_stats,
            params=params,
        )
        result.quantizer.no_clipping = True
        return result

    def _proved_range(self, q_inputs: tuple[QuantizedArray, ...]) -> Interval:
        """Range of the accumulator for one sample whose operands take any integer of their width."""
        builder = Builder()
        placeholders = [
            _placeholder(builder, q_input, f"operand_{i}") for i, q_input in enumerate(q_inputs)
        ]
        try:
            with builder.scope(self.op_instance_name):
                integers = self._accumulate(tuple(placeholders), self.attrs).integers
        except CircuitError as error:
            raise type(error)(f"{self.op_instance_name}: {error}") from error
        interval: Interval = integers.interval
        return interval


def _placeholder(builder: Builder, sample: QuantizedArray, name: str) -> QuantizedArray:
    """A value of a circuit that stands for calibration data, one sample of it."""
    values = sample.qvalues if sample.holds_integers else sample.values
    shape = (1, *values.shape[1:])
    if sample.holds_integers:
        lowest, highest = int(values.min()), int(values.max())
        if not sample.quantizer.no_clipping:
            lowest, highest = sample.quantizer.integer_limits
        result = QuantizedArray(
            sample.n_bits,
            builder.input(name, shape, lowest, highest),
            value_is_float=False,
            options=sample.quantizer,
            stats=sample.quantizer,
            params=sample.quantizer,
        )
        result.quantizer.no_clipping = sample.quantizer.no_clipping
        return result
    # Only the range matters: two integers that stand for the smallest and the largest real.
    stats = sample.quantizer.quant_stats
    ends = np.array([stats.rmin, stats.rmax], dtype=np.float64)
    source = builder.input(name, shape, 0, 1)
    real = RealValue(source, ends.reshape(2, *(1,) * len(shape)))
    return QuantizedArray(sample.n_bits, real, options=sample.quantizer, stats=stats)


def _squeezed(value: Any) -> Any:
    """Arrays of one entry as plain numbers."""
    array = np.asarray(value)
    return array.reshape(-1)[0].item() if array.size == 1 else array
