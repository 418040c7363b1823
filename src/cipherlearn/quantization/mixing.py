"""Quantized operators that combine encrypted values: computed on integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cipherlearn import ops
from cipherlearn.circuit import Builder, Interval
from cipherlearn.errors import (
    CircuitError,
    EncryptedOperandError,
    InvalidParameterError,
    InvalidTypeError,
    ModelError,
    NotCalibratedError,
    UnsupportedAttributeError,
)
from cipherlearn.ops._integer import Affine, IntegerForm, add_bias
from cipherlearn.quantization.accumulators import (
    AccumulatorPlan,
    Observed,
    plain_sum,
    plan_accumulator,
    plan_as_trained,
    same_steps,
    squeezed,
)
from cipherlearn.quantization.base_quantized_op import QuantizedOp, numbers, observed_values
from cipherlearn.quantization.grid import observed_range
from cipherlearn.quantization.n_bits import Rounding, process_rounding_threshold_bits
from cipherlearn.quantization.quantized_array import Accumulator, QuantizedArray
from cipherlearn.quantization.quantizers import (
    MinMaxQuantizationStats,
    UniformQuantizationParameters,
)
from cipherlearn.quantization.shared_grid import CommonGrid, CommonScale, SideBySide

#: A sum with at most this many bits more than an operand asks for is multiplied as it is.
MOST_SUM_BITS = 4

#: Bits that an observed range must save where no look-up reads the accumulator.
OUTPUT_LEAST_SAVING = 2


@dataclass(frozen=True, eq=False)
class FittedWeights:
    """Integer weights that were chosen for the integers of the operand.

    Parameters
    ----------
    correction : numpy.ndarray
        Real values added to the result, one a channel; broadcasts against the result.
    lsbs : int or None, default=None
        Bits of the accumulator that the weights were chosen to have rounded off.
    """

    correction: np.ndarray
    lsbs: int | None = None


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
    proves_range : bool
        Whether the accumulator keeps the range that no input can leave, whatever it costs. False
        unless set.
    trained_range : tuple of numpy.ndarray or None
        Lowest and highest real result that training was done for, where that is known. None unless
        set.
    keeps_sums : bool
        Whether an operand that is a sum of integers is read as it is, not quantized. False unless
        set.
    keeps_grids : bool
        Whether operands that stand side by side keep grids of their own. False unless set.
    operand_bits_of : tuple of str
        Layers that say how many bits an operand without a grid has. Empty unless set.
    fitted : FittedWeights or None
        Set where the constant operand was chosen for the integers of the encrypted one: its scale
        then takes that of the encrypted operand in.
    """

    def __init__(self, *args: Any, rounding_threshold_bits: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rounding: Rounding | None = process_rounding_threshold_bits(rounding_threshold_bits)
        self.feeds_lookup = True
        self.follows_lookup = True
        self.read_elsewhere: frozenset[int] = frozenset()
        self.plan: AccumulatorPlan | None = None
        self.proved_range: tuple[int, int] | None = None
        self.proves_range = False
        self.trained_range: tuple[np.ndarray, np.ndarray] | None = None
        self.fitted: FittedWeights | None = None
        self.keeps_grids = False
        self.keeps_sums = False
        self.operand_bits_of: tuple[str, ...] = ()
        self.joint: CommonScale | CommonGrid | SideBySide | None = None
        self._prepared_stats: dict[int, MinMaxQuantizationStats] = {}
        self._observed_inputs: tuple[np.ndarray, ...] | None = None
        self._made: list[Affine] | None = None

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
        if self._current_plan() is None:
            raise NotCalibratedError(f"{self.op_instance_name} was not calibrated")
        accumulator = self._accumulate(self.read_operands(*q_inputs), attrs)
        result = self.make_output_quant_parameters(
            accumulator.integers, accumulator.scale, accumulator.zero_point
        )
        if self.form is not None and self.form.sums:
            result.plain = plain_sum(
                accumulator, self.proved_range, self.output_quant_stats, self.keeps_sums
            )
        return result

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
        if self.can_fuse():
            return
        if sample_shapes is None:
            sample_shapes = [(1, *q_input.values.shape[1:]) for q_input in q_inputs]
        self._observe_operands(q_inputs)
        if self.form is not None and self.form.keeps_grid:
            return
        self.plan = AccumulatorPlan.unchanged()
        found = self._observed_integers(q_inputs)
        general = found and self.proved_integers(q_inputs, sample_shapes)
        if not found or not general or not same_steps(found, general):
            return
        proved: Interval = general.integers.interval
        self.proved_range = proved.min, proved.max
        rounding = self.rounding if self.feeds_lookup else None
        axis = None if self.form is None else self.form.channel_axis
        observed = Observed.along(found.integers, axis, proved.shape)
        if self.trained_range is not None and rounding is not None and not self.proves_range:
            self.plan = plan_as_trained(proved, observed, self.trained_range, found, rounding)
            return
        if self.proves_range:
            observed = observed.widened(proved)
        lsbs = None if self.fitted is None else self.fitted.lsbs
        self.plan = plan_accumulator(proved, observed, rounding, self._least_saving(), lsbs)
        if self.proves_range and not self.plan.is_proved:
            raise ModelError(
                f"{self.op_instance_name} ({self.op_type()}): the weights reach farther than the "
                "range that is rounded. Round to more bits, or give bounds='observed'"
            )

    def _least_saving(self) -> float:
        """Bits that are worth a range which is only observed.

        Every bit counts where a look-up reads the accumulator. A result needs no look-up: its width
        matters to the look-ups before it only, and to none in a linear model.
        """
        if self.feeds_lookup:
            return 1
        return OUTPUT_LEAST_SAVING if self.follows_lookup else float("inf")

    def exact_result(self, *q_inputs: QuantizedArray) -> np.ndarray:
        """Real values of the accumulator, before any rounding: `calibrate_accumulator` not needed.

        Parameters
        ----------
        *q_inputs : QuantizedArray
            Quantized calibration data.
        """
        accumulator = self._accumulate(self.read_operands(*q_inputs), self.attrs)
        return np.asarray(accumulator.scale * accumulator.centred)

    @property
    def channel_axis(self) -> int:
        """Axis of the result whose entries have ranges of their own."""
        axis = None if self.form is None else self.form.channel_axis
        return -1 if axis is None else axis

    @property
    def has_weights(self) -> bool:
        """Whether it multiplies its operand by constant weights (of a linear layer)."""
        is_linear = self.form is not None and self.form.layout is not None
        return is_linear and isinstance(self.constant_inputs.get(1), QuantizedArray)

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
    ) -> Accumulator:
        """An integer result with what its integers stand for.

        It is brought to the look-up that follows: with the offset, the factor and the rounding that
        calibration chose for it. Where `q_impl` calls this more than once, or its steps depend on
        who computes the operands, the integers are taken as they are.

        Parameters
        ----------
        q_values : numpy.ndarray of int64, or IntValue
        scale, zero_point : float or numpy.ndarray
            ``real = scale * (q_values - zero_point)``.
        """
        plan = self._current_plan() or AccumulatorPlan.unchanged()
        if self._made is not None:
            self._made.append(Affine(q_values, scale, zero_point))
        params = UniformQuantizationParameters(
            squeezed(scale / plan.factor), squeezed(plan.factor * zero_point + plan.offset), 0
        )
        options, stats = self.output_quant_opts, self.output_quant_stats
        integers = plan.place(q_values)
        return Accumulator(
            self.n_bits, integers, plan.round, options=options, stats=stats, params=params
        )

    def _on_grid(
        self, q_inputs: Sequence[QuantizedArray], attrs: Mapping[str, Any]
    ) -> QuantizedArray:
        """Integers of the operands, on the grid that these share."""
        if self.joint is None:
            self._observe_operands(self._unobserved())
        if not isinstance(self.joint, (CommonGrid, SideBySide)):
            raise NotCalibratedError(f"{self.op_instance_name} was not calibrated")
        integers = self._accumulate(self.read_operands(*q_inputs), attrs).integers
        return self.joint.result(integers)

    def _unobserved(self) -> list[QuantizedArray]:
        """Calibration data quantized as the operator does it on its own."""
        options = self.input_quant_opts
        if self._observed_inputs is None:
            raise NotCalibratedError(f"{self.op_instance_name} was not calibrated")
        return [
            QuantizedArray(options.n_bits, x, options=options, stats=observed_range(x))
            for x in self._observed_inputs
        ]

    def _accumulate(self, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Affine:
        affine = [self._as_affine(o, i) for i, o in enumerate(operands)]
        accumulator = self.integer_compute(affine, attrs)
        return accumulator if self.fitted is None else add_bias(accumulator, self.fitted.correction)

    def exact(self, operand: QuantizedArray) -> QuantizedArray:
        """An operand as integers that lie on a grid of their own, if it is read as these."""
        plain = operand.plain if isinstance(operand, Accumulator) and self.keeps_sums else None
        return operand if plain is None else plain

    def _quantized(self, operand: QuantizedArray, position: int) -> QuantizedArray:
        operand = self.exact(operand)
        if self.joint is not None:
            return self.joint.quantize(operand, position)
        if self.form is None or position in self._operand_quantizers:
            return super()._quantized(operand, position)
        plain = self.sum_taken(operand)
        if plain is not None and position not in self.form.prepare:
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

    def sum_taken(self, operand: QuantizedArray) -> QuantizedArray | None:
        """The integers of a sum that is multiplied as it is, without a look-up; None for any other.

        That makes the accumulator wider, which costs little where it is rounded, or not looked up.
        """
        plain = operand.plain if isinstance(operand, Accumulator) else None
        width_is_free = self.rounding is not None or not self.feeds_lookup
        most = self.input_quant_opts.n_bits + MOST_SUM_BITS
        return plain if plain is not None and width_is_free and plain.n_bits <= most else None

    def _observe_operands(self, q_inputs: Sequence[QuantizedArray]) -> None:
        """What operands need before they can be quantized: something in common, or a range."""
        if self.form is None:
            return
        positions = range(len(q_inputs) + len(self.constant_inputs))
        encrypted = (i for i in positions if i not in self.constant_inputs)
        operands = dict(zip(encrypted, map(self.exact, q_inputs), strict=True))
        if self.form.keeps_grid:
            self.joint = self._common_grid(operands)
        if self.form.common_scale:
            self.joint = self._common_scale(operands)
        if self.form.prepare and self.integer_operands:
            raise UnsupportedAttributeError(
                f"{self.op_instance_name} ({self.op_type()}) divides an encrypted integer by "
                "another one, which would have to be truncated: cast both to float before"
            )
        for position, q_input in operands.items():
            if position in self.form.prepare:
                self._prepared_stats[position] = self._prepared_range(q_input, position)

    def _common_scale(self, operands: Mapping[int, QuantizedArray]) -> CommonScale:
        constants, options = self._joined_constants(), self.input_quant_opts
        if self.keeps_sums and all(o.quantizer.is_precomputed_qat for o in operands.values()):
            return CommonScale.of_grids(operands, options)
        return CommonScale.of(operands, constants, options, self.read_elsewhere)

    def _common_grid(self, operands: Mapping[int, QuantizedArray]) -> CommonGrid | SideBySide:
        constants = self._joined_constants()
        if self.keeps_grids:
            # Grids that weights were learned for stay.
            given = self.joint if isinstance(self.joint, SideBySide) else None
            return given or SideBySide.of(operands, self.input_quant_opts)
        own = self._operand_quantizers.get(next(iter(operands)))
        if own is not None and len(operands) == 1 and not constants:
            return CommonGrid(own)
        return CommonGrid.of(list(operands.values()), constants, self.input_quant_opts)

    def _joined_constants(self) -> list[np.ndarray]:
        return [np.asarray(c) for p, c in self.constant_inputs.items() if self._is_joined(p)]

    def _is_joined(self, position: int) -> bool:
        """Whether a constant is an operand like the encrypted ones (not axes, for example)."""
        raw = ops.get(self.op_type()).raw_inputs
        return position not in raw and self.constant_inputs[position] is not None

    def _constant(self, position: int, quantized: bool) -> Any:
        joint = self.joint
        if quantized and isinstance(joint, (CommonScale, CommonGrid)) and self._is_joined(position):
            return joint.constant(self.constant_inputs[position])
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
        return observed_range(prepared)

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
        scale = quantizer.scale if constant or self.fitted is None else 1.0
        return Affine(operand.qvalues, scale, quantizer.zero_point, constant)

    def _observed_integers(self, q_inputs: Sequence[QuantizedArray]) -> Affine | None:
        """The integers that the operator makes of calibration data; None if it is not one tensor.

        An operator of a user's own hands them over in `make_output_quant_parameters`.
        """
        if not self._has_own_q_impl():
            return self._accumulate(self.read_operands(*q_inputs), self.attrs)
        made: list[Affine] = []
        self._made = made
        try:
            self.q_impl(*q_inputs, **self.attrs)
        finally:
            self._made = None
        return made[0] if len(made) == 1 else None

    def proved_integers(
        self, q_inputs: Sequence[QuantizedArray], sample_shapes: Sequence[tuple[int, ...]]
    ) -> Affine | None:
        """The accumulator in a circuit, of one row whose operands take any integer of their width.

        None if the operator does not make one tensor.
        """
        builder = Builder()
        shapes = iter(sample_shapes)
        operands = self.read_operands(*q_inputs)
        places = [i for i in range(len(operands)) if i not in self.constant_inputs]
        for place in places:
            operand = operands[place]
            if isinstance(operand, QuantizedArray):
                known = operand.quantizer
                source = builder.input(f"operand_{place}", next(shapes), *known.integer_limits)
                if operand.entries is not None:
                    source = source.assume(operand.entries.lo, operand.entries.hi)
                operands[place] = QuantizedArray(
                    operand.n_bits, source, False, options=known, stats=known, params=known
                )
        try:
            with builder.scope(self.op_instance_name):
                if self._has_own_q_impl():
                    return self._observed_integers([operands[place] for place in places])
                return self._accumulate(operands, self.attrs)
        except CircuitError as error:
            raise type(error)(f"{self.op_instance_name}: {error}") from error

    def _has_own_q_impl(self) -> bool:
        return type(self).q_impl is not QuantizedMixingOp.q_impl

    def _current_plan(self) -> AccumulatorPlan | None:
        """What is done to the accumulator, once there is calibration data."""
        if self.plan is None and self._observed_inputs is not None:
            self.calibrate_accumulator(*self._unobserved())
        return self.plan
