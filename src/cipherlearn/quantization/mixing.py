"""Quantized operators that combine encrypted values: computed on integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cipherlearn import ops
from cipherlearn.circuit import Builder, Interval
from cipherlearn.errors import (
    CircuitError,
    EncryptedOperandError,
    InvalidParameterError,
    InvalidTypeError,
    NotCalibratedError,
    UnsupportedAttributeError,
)
from cipherlearn.ops._integer import Affine, IntegerForm
from cipherlearn.quantization.accumulators import AccumulatorPlan, Observed, plan_accumulator
from cipherlearn.quantization.base_quantized_op import QuantizedOp, numbers, observed_values
from cipherlearn.quantization.n_bits import Rounding, process_rounding_threshold_bits
from cipherlearn.quantization.quantized_array import Accumulator, QuantizedArray
from cipherlearn.quantization.quantizers import (
    MinMaxQuantizationStats,
    QuantizationOptions,
    UniformQuantizationParameters,
)
from cipherlearn.quantization.shared_grid import CommonGrid, CommonScale

#: A sum with at most this many bits more than an operand asks for is multiplied as it is.
MOST_SUM_BITS = 4

#: Bits that an observed range must save where no look-up reads the accumulator.
OUTPUT_LEAST_SAVING = 2


class QuantizedMixingOp(QuantizedOp, is_utility=True):
    """An operator that combines encrypted values: computed on integers.

    The integer arithmetic is the operator's own (`cipherlearn.ops`); this class quantizes operands,
    observes the accumulator during calibration, and decides what happens to it before the look-up
    that follows (`cipherlearn.quantization.accumulators`).

    An operator of a user's own overrides `integer_compute`, or `q_impl` as a whole.

    Parameters
    ----------
    *args, **kwargs
        As for `QuantizedOp`.
    rounding_threshold_bits : None, int, dict or Rounding
        Bits of the accumulator that look-ups read.

    Attributes
    ----------
    feeds_lookup : bool
        Whether a look-up reads the result (else rounding it would save nothing). True unless set.
    follows_lookup : bool
        Whether an operand comes from a look-up, whose noise a wide result makes costly. True unless
        set.
    read_elsewhere : frozenset of int
        Positions of operands that another operator quantizes as well. None unless set.
    """

    def __init__(self, *args: Any, rounding_threshold_bits: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rounding: Rounding | None = process_rounding_threshold_bits(rounding_threshold_bits)
        self.feeds_lookup = True
        self.follows_lookup = True
        self.read_elsewhere: frozenset[int] = frozenset()
        self.plan: AccumulatorPlan | None = None
        self.proved_range: tuple[int, int] | None = None
        self.joint: CommonScale | CommonGrid | None = None
        self._prepared_stats: dict[int, MinMaxQuantizationStats] = {}
        self._observed_inputs: tuple[np.ndarray, ...] | None = None

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
        if self.form is not None and self.form.keeps_grid:
            return self._on_grid(q_inputs, attrs)
        if self.plan is None and self._observed_inputs is not None:
            self.calibrate_accumulator(*self._unobserved())
        if self.plan is None:
            raise NotCalibratedError(f"{self.op_instance_name} was not calibrated")
        return self._finish(self._accumulate(self._operands(q_inputs), attrs), self.plan)

    def calibrate(self, *inputs: np.ndarray) -> np.ndarray:
        """Observe the operator's output on real data: see `QuantizedOp.calibrate`.

        The accumulator is observed by `calibrate_accumulator`. Where that is not called, it follows
        from these inputs, quantized as the operator does it on its own.
        """
        self._observed_inputs = inputs
        return super().calibrate(*inputs)

    def calibrate_accumulator(
        self, *q_inputs: QuantizedArray, sample_shapes: Sequence[tuple[int, ...]] | None = None
    ) -> None:
        """Observe the integer accumulator, and decide its range, offset and rounding.

        Parameters
        ----------
        *q_inputs : QuantizedArray
            Quantized calibration data.
        sample_shapes : sequence of tuple of int, optional
            Shapes of the operands for one row. Default: a first axis of extent 1.
        """
        self._observed_inputs = None
        if self.can_fuse() or not self._has_accumulator():
            return
        if sample_shapes is None:
            sample_shapes = [(1, *q_input.values.shape[1:]) for q_input in q_inputs]
        self._observe_operands(q_inputs)
        if self.form is not None and self.form.keeps_grid:
            return
        operands = self._operands(q_inputs)
        values = self._accumulate(operands, self.attrs).integers
        proved = self._proved_range(operands, sample_shapes)
        self.proved_range = proved.min, proved.max
        rounding = self.rounding if self.feeds_lookup else None
        observed = self._observed(values, proved.shape)
        self.plan = plan_accumulator(proved, observed, rounding, self._least_saving())

    def _least_saving(self) -> float:
        """Bits that are worth a range which is only observed.

        Every bit counts where a look-up reads the accumulator. A result needs no look-up: its width
        matters to the look-ups before it only, and to none in a linear model.
        """
        if self.feeds_lookup:
            return 1
        return OUTPUT_LEAST_SAVING if self.follows_lookup else float("inf")

    @property
    def lsbs_to_remove(self) -> int:
        """Bits that rounding takes off the accumulator (0 before calibration)."""
        return 0 if self.plan is None else self.plan.lsbs

    def integer_compute(self, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Affine:
        """The accumulator; override it for an operator of your own.

        Parameters
        ----------
        operands : sequence of Affine, numpy.ndarray or None
            All operands in order: integers with scale and zero-point, real constants where the
            integer form asks for them, None where an optional one is not given.
        attrs : mapping
            Attributes of the node.

        Returns
        -------
        Affine
        """
        if self.form is None:
            raise InvalidTypeError(
                f"{self.op_type()} combines encrypted values and has no integer form: derive from "
                "QuantizedMixingOp and override integer_compute or q_impl"
            )
        return self.form.compute(operands, attrs)

    def make_output_quant_parameters(
        self, q_values: Any, scale: Any, zero_point: Any
    ) -> QuantizedArray:
        """An integer result with what its integers stand for.

        Parameters
        ----------
        q_values : numpy.ndarray of int64, or IntValue
        scale, zero_point : float or numpy.ndarray
            ``real = scale * (q_values - zero_point)``.
        """
        params = UniformQuantizationParameters(_squeezed(scale), _squeezed(zero_point), 0)
        rounding = _unchanged if self.plan is None else self.plan.round
        options, stats = self.output_quant_opts, self.output_quant_stats
        return Accumulator(
            self.n_bits, q_values, rounding, options=options, stats=stats, params=params
        )

    def _has_accumulator(self) -> bool:
        kind, base = type(self), QuantizedMixingOp
        known = self.form is not None or kind.integer_compute is not base.integer_compute
        return known or kind.q_impl is base.q_impl

    def _on_grid(
        self, q_inputs: Sequence[QuantizedArray], attrs: Mapping[str, Any]
    ) -> QuantizedArray:
        """Integers of the operands, on the grid that these share."""
        if self.joint is None:
            self._observe_operands(self._unobserved())
        if not isinstance(self.joint, CommonGrid):
            raise NotCalibratedError(f"{self.op_instance_name} was not calibrated")
        integers = self._accumulate(self._operands(q_inputs), attrs).integers
        return self.joint.result(integers)

    def _unobserved(self) -> list[QuantizedArray]:
        """Calibration data quantized as the operator does it on its own."""
        options = self.input_quant_opts
        if self._observed_inputs is None:
            raise NotCalibratedError(f"{self.op_instance_name} was not calibrated")
        return [QuantizedArray(options.n_bits, x, options=options) for x in self._observed_inputs]

    def _operands(self, q_inputs: Sequence[QuantizedArray]) -> list[Any]:
        return self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )

    def _observed(self, values: np.ndarray, sample: tuple[int, ...]) -> Observed:
        """Ranges apart along the channels, unless that is where the rows of the batch are."""
        axis = None if self.form is None else self.form.channel_axis
        for candidate in (axis, -2):
            if axis is not None and values.ndim >= 2:
                observed = Observed.of(values, candidate)
                if _fits(observed.lo.shape, sample):
                    return observed
        return Observed.of(values, None)

    def _accumulate(self, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Affine:
        return self.integer_compute([self._as_affine(o, i) for i, o in enumerate(operands)], attrs)

    def _quantized(self, operand: QuantizedArray, position: int) -> QuantizedArray:
        if self.joint is not None:
            return self.joint.quantize(operand, position)
        if self.form is None or position in self._operand_quantizers:
            return super()._quantized(operand, position)
        plain = operand.plain if isinstance(operand, Accumulator) else None
        if plain is not None and self._takes(plain) and position not in self.form.prepare:
            return plain
        if position in self.form.real_inputs:
            raise EncryptedOperandError(
                f"{self.op_instance_name}: the operand number {position} of {self.op_type()} must "
                "be a constant; add an encrypted value with Add"
            )
        prepare = self.form.prepare.get(position)
        if prepare is None:
            return super()._quantized(operand, position)
        with np.errstate(all="ignore"):
            reals = prepare(numbers(operand))
        return QuantizedArray(
            self.input_quant_opts.n_bits,
            reals,
            options=self.input_quant_opts,
            stats=self._prepared_stats.get(position),
        )

    def _takes(self, plain: QuantizedArray) -> bool:
        """Whether a sum is multiplied as it is: that makes the accumulator wider."""
        width_is_free = self.rounding is not None or not self.feeds_lookup
        return width_is_free and plain.n_bits <= self.input_quant_opts.n_bits + MOST_SUM_BITS

    def _observe_operands(self, q_inputs: Sequence[QuantizedArray]) -> None:
        """What operands need before they can be quantized: something in common, or a range."""
        if self.form is None:
            return
        positions = range(len(q_inputs) + len(self.constant_inputs))
        encrypted = (i for i in positions if i not in self.constant_inputs)
        operands = dict(zip(encrypted, q_inputs, strict=True))
        if self.form.keeps_grid:
            self.joint = self._common_grid(operands)
        if self.form.common_scale:
            self.joint = CommonScale.of(operands, self.input_quant_opts, self.read_elsewhere)
        if self.form.prepare and self.integer_operands:
            raise UnsupportedAttributeError(
                f"{self.op_instance_name} ({self.op_type()}) divides an encrypted integer by "
                "another one, which would have to be truncated: cast both to float before"
            )
        for position, q_input in operands.items():
            if position in self.form.prepare:
                self._prepared_stats[position] = self._prepared_range(q_input, position)

    def _common_grid(self, operands: Mapping[int, QuantizedArray]) -> CommonGrid:
        constants = [np.asarray(c) for p, c in self.constant_inputs.items() if self._is_joined(p)]
        own = self._operand_quantizers.get(next(iter(operands)))
        if own is not None and len(operands) == 1 and not constants:
            return CommonGrid(own)
        return CommonGrid.of(list(operands.values()), constants, self.input_quant_opts)

    def _is_joined(self, position: int) -> bool:
        """Whether a constant is an operand like the encrypted ones (not axes, for example)."""
        raw = ops.get(self.op_type()).raw_inputs
        return position not in raw and self.constant_inputs[position] is not None

    def _constant(self, position: int, quantized: bool) -> Any:
        if quantized and self.joint is not None and self._is_joined(position):
            return self.joint.constant(self.constant_inputs[position])
        return super()._constant(position, quantized)

    def _prepared_range(self, q_input: QuantizedArray, position: int) -> MinMaxQuantizationStats:
        prepare = {} if self.form is None else self.form.prepare
        with np.errstate(all="ignore"):
            prepared = prepare[position](observed_values(q_input))
        undefined = int(np.count_nonzero(~np.isfinite(prepared)))
        if undefined:
            raise InvalidParameterError(
                f"{self.op_instance_name} ({self.op_type()}): the operand number {position} is 0 "
                f"for {undefined} of {prepared.size} calibration values. Keep an encrypted divisor "
                "away from 0 (add a small constant), and its range narrow"
            )
        stats = MinMaxQuantizationStats()
        stats.compute_quantization_stats(prepared)
        return stats

    def _as_affine(self, operand: Any, position: int) -> Any:
        raw = position in ops.get(self.op_type()).raw_inputs
        if operand is None or raw:
            return operand
        if self.form is not None and position in self.form.real_inputs:
            return operand.values if isinstance(operand, QuantizedArray) else operand
        constant = position in self.constant_inputs
        if not isinstance(operand, QuantizedArray):
            array = np.asarray(operand)
            if array.dtype.kind not in "iub":
                raise InvalidTypeError(
                    f"{self.op_instance_name}: the operand number {position} is a real constant; "
                    "give integers or a QuantizedArray"
                )
            return Affine(array.astype(np.int64), 1.0, 0, constant)
        quantizer = operand.quantizer
        return Affine(operand.qvalues, quantizer.scale, quantizer.zero_point, constant)

    def _finish(self, accumulator: Affine, plan: AccumulatorPlan) -> QuantizedArray:
        """The accumulator with offset and factor, and what its integers stand for."""
        result = self.make_output_quant_parameters(
            plan.place(accumulator.integers),
            accumulator.scale / plan.factor,
            plan.factor * accumulator.zero_point + plan.offset,
        )
        if self.form is not None and self.form.sums and isinstance(result, Accumulator):
            result.plain = self._plain(accumulator)
        return result

    def _plain(self, accumulator: Affine) -> QuantizedArray | None:
        """A sum as integers of one scale and zero-point, if it has these."""
        scale, zero = _squeezed(accumulator.scale), _single(accumulator.zero_point)
        if np.size(scale) != 1 or zero is None or not self.proved_range:
            return None
        low, high = self.proved_range
        options = QuantizationOptions((high - low).bit_length())
        params = UniformQuantizationParameters(scale, zero, -low)
        return QuantizedArray(
            options.n_bits,
            accumulator.integers,
            False,
            options=options,
            stats=self.output_quant_stats,
            params=params,
        )

    def _proved_range(
        self, operands: Sequence[Any], sample_shapes: Sequence[tuple[int, ...]]
    ) -> Interval:
        """Range of the accumulator of one row, whose operands take any integer of their width."""
        builder = Builder()
        shapes = iter(sample_shapes)
        placeholders: list[Any] = []
        for position, operand in enumerate(operands):
            if position in self.constant_inputs or not isinstance(operand, QuantizedArray):
                placeholders.append(operand)
                continue
            limits = operand.quantizer.integer_limits
            source = builder.input(f"operand_{position}", next(shapes), *limits)
            quantizer = operand.quantizer
            placeholders.append(
                QuantizedArray(operand.n_bits, source, False, options=quantizer, params=quantizer)
            )
        try:
            with builder.scope(self.op_instance_name):
                integers = self._accumulate(placeholders, self.attrs).integers
        except CircuitError as error:
            raise type(error)(f"{self.op_instance_name}: {error}") from error
        interval: Interval = integers.interval
        return interval


def _fits(observed: tuple[int, ...], proved: tuple[int, ...]) -> bool:
    """Whether observed ranges belong to the channels of one row."""
    return len(observed) == len(proved) and all(
        extent in (1, known) for extent, known in zip(observed, proved, strict=True)
    )


def _single(zero_point: Any) -> int | None:
    """The zero-point that all elements share, if it is a whole number."""
    array = np.asarray(zero_point, dtype=np.float64)
    first = float(array.flat[0])
    return int(first) if first.is_integer() and bool((array == first).all()) else None


def _squeezed(value: Any) -> Any:
    """Arrays of one entry as plain numbers."""
    array = np.asarray(value)
    return array.reshape(-1)[0].item() if array.size == 1 else array


def _unchanged(integers: Any) -> Any:
    return integers
