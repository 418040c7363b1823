"""The base of all quantized operators, and the contract for a user's own.

An operator either *fuses* (it is computed on real values, and ends up inside a table look-up with
its neighbours) or *mixes* encrypted values (it is computed on integers, and its result is an
accumulator). The same methods run on arrays, during calibration, and on values of a circuit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from cipherlearn import ops
from cipherlearn.circuit import IntValue, RealValue, tabulate
from cipherlearn.errors import (
    CalibrationWarning,
    EncryptedOperandError,
    InvalidParameterError,
    InvalidShapeError,
    NotCalibratedError,
    warn,
)
from cipherlearn.quantization.grid import observed_range
from cipherlearn.quantization.quantized_array import QuantizedArray
from cipherlearn.quantization.quantizers import (
    MinMaxQuantizationStats,
    QuantizationOptions,
    UniformQuantizationParameters,
    UniformQuantizer,
)

#: Every quantized operator class.
ALL_QUANTIZED_OPS: set[type[QuantizedOp]] = set()

#: Quantized operator class of every ONNX operator, by its qualified name.
ONNX_OPS_TO_QUANTIZED_IMPL: dict[str, type[QuantizedOp]] = {}


class QuantizedOp:
    """An operator between quantized values; this class computes it on reals (it fuses).

    Subclasses set ``_impl_for_op_named`` to the qualified name of an ONNX operator; they are found
    by that name from then on. Operands, attributes and defaults are read off ONNX's schema, or off
    the signature of a user's function (see `cipherlearn.ops.register_numpy`). An operator that
    mixes encrypted values derives from `QuantizedMixingOp`, or overrides `q_impl`.

    Parameters
    ----------
    n_bits_output : int
        Width of the output, where it is quantized.
    op_instance_name : str
        Name of the node in the model.
    int_input_names : set of str, default={"0"}
        Names of the integer values that the operands are functions of.
    constant_inputs : dict, optional
        Operands that are known, by position or by name.
    input_quant_opts : QuantizationOptions, optional
        How encrypted operands are quantized. Default: signed, ``n_bits_output`` bits.
    **attrs
        Attributes of the ONNX node.

    Attributes
    ----------
    integer_operands : dict of int to numpy.dtype
        Encrypted operands that the model holds as integers or booleans, by position. Quantized
        values are carried as reals: they are rounded before the operator computes on them.

    Raises
    ------
    InvalidParameterError
        If a constant or an attribute does not belong to the operator.
    """

    _impl_for_op_named: ClassVar[str | None] = None
    #: Whether encrypted operands are quantized as finely as the model's outputs.
    quantize_inputs_with_model_outputs_precision: ClassVar[bool] = False

    def __init_subclass__(cls, is_utility: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if is_utility or cls._impl_for_op_named is None:
            return
        replaced = ONNX_OPS_TO_QUANTIZED_IMPL.get(cls._impl_for_op_named)
        if replaced is not None:
            ALL_QUANTIZED_OPS.discard(replaced)
        ALL_QUANTIZED_OPS.add(cls)
        ONNX_OPS_TO_QUANTIZED_IMPL[cls._impl_for_op_named] = cls

    def __init__(
        self,
        n_bits_output: int,
        op_instance_name: str,
        int_input_names: set[str] | None = None,
        constant_inputs: Mapping[int | str, Any] | None = None,
        input_quant_opts: QuantizationOptions | None = None,
        **attrs: Any,
    ) -> None:
        self.n_bits = n_bits_output
        self.op_instance_name = op_instance_name
        self._int_input_names = set(int_input_names) if int_input_names is not None else {"0"}
        self.opset = int(attrs.pop("opset", ops.NEWEST_OPSET))
        self._signature = ops.get(self.op_type()).signature(self.opset)
        self.constant_inputs = self._by_position(constant_inputs or {})
        self.attrs = self._with_defaults(attrs)
        if input_quant_opts is None:
            input_quant_opts = QuantizationOptions(n_bits_output, is_signed=True)
        self.input_quant_opts = input_quant_opts.quant_options
        if self.can_fuse():
            self.input_quant_opts.is_qat = False
            self._check_one_encrypted_value()
        self.output_quant_opts = QuantizationOptions(n_bits_output)
        self.output_quant_stats: MinMaxQuantizationStats | None = None
        self.output_quant_params: UniformQuantizationParameters | None = None
        self.produces_graph_output = False
        self.integer_operands: dict[int, np.dtype[Any]] = {}
        self._operand_quantizers: dict[int, UniformQuantizer] = {}

    @classmethod
    def op_type(cls) -> str:
        """Qualified name of the ONNX operator.

        Raises
        ------
        InvalidParameterError
            If the class does not implement one.
        """
        if cls._impl_for_op_named is None:
            raise InvalidParameterError(
                f"{cls.__name__} does not say which operator it implements: set _impl_for_op_named"
            )
        return cls._impl_for_op_named

    @property
    def impl(self) -> Any:
        """The operator's NumPy function, which returns a tuple."""
        return ops.get(self.op_type()).numpy

    @property
    def int_input_names(self) -> set[str]:
        """Names of the integer values that the operands are functions of."""
        return self._int_input_names

    def can_fuse(self) -> bool:
        """Whether the operator is computed on reals, inside a table look-up."""
        return True

    def _check_one_encrypted_value(self) -> None:
        if len(self._int_input_names) > 1:
            raise EncryptedOperandError(
                f"{self.op_instance_name} ({self.op_type()}) combines {len(self._int_input_names)} "
                "encrypted values; it works with one of them and constants, or with functions of "
                "one value. Add, Sub, Mul, Div, Gemm and MatMul combine encrypted values"
            )

    def must_quantize_input(self, position: int) -> bool:
        """Whether an operand is read as integers."""
        del position
        return not self.can_fuse()

    def calibrate(self, *inputs: np.ndarray) -> np.ndarray:
        """Observe the operator's output on real data.

        Parameters
        ----------
        *inputs : numpy.ndarray
            The encrypted operands, batch axis first.

        Returns
        -------
        numpy.ndarray
            The output in float.
        """
        return self._observe(self.float_result(*inputs))

    def float_result(self, *inputs: np.ndarray) -> np.ndarray:
        """The float meaning of the operator on real values of its encrypted operands.

        Quantized constants count as the real values that they were made from.
        """
        operands = self._prepare_inputs_with_constants(
            *inputs, calibrate=True, quantize_actual_values=False
        )
        return np.asarray(self.call_impl(*operands, **self.attrs))

    def read_operands(self, *q_inputs: QuantizedArray) -> list[Any]:
        """All operands in order, as the operator reads them: what `q_impl` computes on.

        Parameters
        ----------
        *q_inputs : QuantizedArray
            The encrypted operands.

        Returns
        -------
        list of QuantizedArray, numpy.ndarray or None
            Quantized, where an operand is; None where an optional one is not given.
        """
        return self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=True
        )

    def _observe(self, result: np.ndarray) -> np.ndarray:
        reals = result.astype(np.float64)
        missing = int(np.count_nonzero(np.isnan(reals)))
        if missing:
            warn(
                f"{self.op_instance_name} ({self.op_type()}) is not a number for {missing} of "
                f"{reals.size} calibration values; the nearest value that is one stands in",
                CalibrationWarning,
            )
        options, stats = self.output_quant_opts, observed_range(result)
        quantizer = QuantizedArray(self.n_bits, reals, options=options, stats=stats).quantizer
        self.output_quant_opts = quantizer.quant_options
        self.output_quant_stats = quantizer.quant_stats
        self.output_quant_params = quantizer.quant_params
        return reals

    def __call__(self, *q_inputs: QuantizedArray) -> QuantizedArray:
        """The operator on quantized operands (the encrypted ones, in order)."""
        return self.q_impl(*q_inputs, **self.attrs)

    def q_impl(self, *q_inputs: QuantizedArray, **attrs: Any) -> QuantizedArray:
        """Compute on real values; override to compute on integers.

        Parameters
        ----------
        *q_inputs : QuantizedArray
            The encrypted operands.
        **attrs
            The attributes.
        """
        if self.moves_elements():
            return self._move(*q_inputs, **attrs)
        operands = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=False, quantize_actual_values=False
        )
        return self.prepare_output(self.call_impl(*operands, **attrs))

    @classmethod
    def moves_elements(cls) -> bool:
        """Whether the operator only puts elements elsewhere: integers stay what they are."""
        return ops.get(cls.op_type()).kind is ops.Kind.MOVEMENT

    def _move(self, *q_inputs: QuantizedArray, **attrs: Any) -> QuantizedArray:
        if len(q_inputs) != 1 or 0 in self.constant_inputs:
            raise EncryptedOperandError(
                f"{self.op_instance_name} ({self.op_type()}) moves one encrypted value, its first "
                f"operand; {len(q_inputs)} were given: all others must be constants"
            )
        known = self._prepare_inputs_with_constants(
            *q_inputs, calibrate=True, quantize_actual_values=False
        )[1:]

        def moved(array: np.ndarray) -> np.ndarray:
            # Not rounded to the operand's dtype: the array may hold places instead of values.
            return np.asarray(self.impl(array, *known, opset=self.opset, **attrs)[0])

        result = q_inputs[0].move(moved)
        if result.holds_integers:
            return result
        return self.prepare_output(result.values)

    def _compute(self, arrays: list[Any], attrs: Mapping[str, Any]) -> np.ndarray:
        for position, dtype in self.integer_operands.items():
            arrays[position] = _rounded(arrays[position], dtype)
        result: np.ndarray = self.impl(*arrays, opset=self.opset, **attrs)[0]
        return result

    def call_impl(self, *operands: Any, **attrs: Any) -> Any:
        """The NumPy meaning, on real arrays or on real values of a circuit."""
        if not any(isinstance(operand, (IntValue, RealValue)) for operand in operands):
            return self._compute(list(operands), attrs)
        given = [operand is not None for operand in operands]

        def without_gaps(*arrays: Any) -> np.ndarray:
            left = iter(arrays)
            return self._compute([next(left) if present else None for present in given], attrs)

        return tabulate(without_gaps, *(o for o in operands if o is not None))

    def prepare_output(self, values: Any) -> QuantizedArray:
        """The operator's output, with the quantizer that calibration found.

        Raises
        ------
        NotCalibratedError
            If the operator was not calibrated.
        """
        if self.output_quant_params is None:
            raise NotCalibratedError(f"{self.op_instance_name} was not calibrated")
        return QuantizedArray(
            self.output_quant_opts.n_bits,
            values.astype(np.float64),
            options=self.output_quant_opts,
            stats=self.output_quant_stats,
            params=self.output_quant_params,
        )

    def _prepare_inputs_with_constants(
        self, *inputs: Any, calibrate: bool, quantize_actual_values: bool
    ) -> list[Any]:
        """All operands in order, encrypted and known ones.

        Parameters
        ----------
        *inputs : numpy.ndarray or QuantizedArray
            The encrypted operands.
        calibrate : bool
            Whether ``inputs`` are real arrays.
        quantize_actual_values : bool
            Whether operands are returned as `QuantizedArray` (else as reals).

        Raises
        ------
        InvalidShapeError
            If operands are missing or left over.
        """
        total = len(inputs) + len(self.constant_inputs)
        least, most = self._signature.min_inputs, len(self._signature.inputs)
        if total < least or (total > most and not self._signature.variadic):
            raise InvalidShapeError(
                f"{self.op_instance_name} ({self.op_type()}) takes {least} to {most} operands; "
                f"{len(inputs)} inputs and {len(self.constant_inputs)} constants were given"
            )
        encrypted = iter(inputs)
        count = max([total - 1, *self.constant_inputs]) + 1
        operands: list[Any] = []
        for position in range(count):
            if position in self.constant_inputs:
                operands.append(self._constant(position, quantize_actual_values))
            elif (operand := next(encrypted, None)) is None or calibrate:
                operands.append(operand)
            elif quantize_actual_values:
                operands.append(self._quantized(operand, position))
            else:
                operands.append(observed_values(operand))
        return operands

    def _constant(self, position: int, quantized: bool) -> Any:
        constant = self.constant_inputs[position]
        if isinstance(constant, QuantizedArray) and not quantized:
            return constant.values
        return constant

    def set_operand_quantizer(self, position: int, quantizer: UniformQuantizer | None) -> None:
        """Quantize an operand with given scale and zero-point.

        Parameters
        ----------
        position : int
            Which operand.
        quantizer : UniformQuantizer or None
            None derives scale and zero-point from the range of the operand.
        """
        if quantizer is not None:
            self._operand_quantizers[position] = quantizer

    def given_operand_quantizer(self, position: int) -> UniformQuantizer | None:
        """What `set_operand_quantizer` was given for an operand, if anything."""
        return self._operand_quantizers.get(position)

    def _quantized(self, operand: QuantizedArray, position: int) -> QuantizedArray:
        """The operand as this operator reads it."""
        fixed = self._operand_quantizers.get(position)
        if fixed is None:
            return requantize(operand, self.input_quant_opts)
        if operand.holds_integers and operand.quantizer == fixed:
            return operand
        reals = numbers(operand)
        return QuantizedArray(fixed.n_bits, reals, options=fixed, stats=fixed, params=fixed)

    def _by_position(self, constants: Mapping[int | str, Any]) -> dict[int, Any]:
        names = self._signature.input_names
        result: dict[int, Any] = {}
        for key, value in constants.items():
            if isinstance(key, str) and not key.isdigit() and key not in names:
                raise InvalidParameterError(
                    f"{self.op_type()} has no operand {key!r}; it has {', '.join(names)}"
                )
            position = names.index(str(key)) if key in names else int(key)
            if position >= len(names) and not self._signature.variadic:
                raise InvalidParameterError(
                    f"{self.op_type()} has no operand number {position}; it has {', '.join(names)}"
                )
            result[position] = value
        return result

    def _with_defaults(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        known = self._signature.attributes
        unknown = sorted(set(attrs) - set(known))
        if unknown:
            raise InvalidParameterError(
                f"{self.op_instance_name} ({self.op_type()}) has no attributes {unknown}; it has "
                f"{sorted(known)}"
            )
        return {**self._signature.defaults, **attrs}


def _rounded(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Reals as integers or booleans, as near as the type allows."""
    whole = np.rint(np.nan_to_num(values))
    if dtype.kind == "b":
        return whole != 0
    limits = np.iinfo(dtype)
    return np.clip(whole, float(limits.min), float(limits.max)).astype(dtype)


def requantize(operand: QuantizedArray, options: QuantizationOptions) -> QuantizedArray:
    """A value quantized with other options, over the range observed where it was made.

    Integers that are quantized in this way already stay as they are, and so do narrower ones: more
    bits would cost look-ups and say nothing new.

    Parameters
    ----------
    operand : QuantizedArray
    options : QuantizationOptions
    """
    quantizer = operand.quantizer
    if operand.holds_integers and not quantizer.no_clipping:
        same = quantizer.is_equal(options, ignore_sign_qat=True)
        narrower = quantizer.n_bits < options.n_bits and np.size(quantizer.scale) == 1
        if same or narrower or quantizer.is_precomputed_qat:
            return operand
    reals = numbers(operand)
    return QuantizedArray(options.n_bits, reals, options=options, stats=quantizer.quant_stats)


def observed_values(operand: QuantizedArray) -> Any:
    """Real values of an operand, no further out than what calibration data showed.

    The grid of a quantizer ends up to half a step outside of the observed range, where a function
    may not be defined (the logarithm below 0). Nobody ever asked for these values.
    """
    quantizer = operand.quantizer
    inside = not operand.holds_integers or quantizer.no_clipping or quantizer.is_qat
    if inside or quantizer.rmin is None or quantizer.rmax is None:
        return operand.values
    return np.clip(operand.values, quantizer.rmin, quantizer.rmax)


def numbers(operand: QuantizedArray) -> Any:
    """As `observed_values`, with a number where an array holds none.

    In a circuit it is the nearest entry of the table; calibration only needs one of the range.
    """
    reals = observed_values(operand)
    if isinstance(reals, np.ndarray) and bool(np.isnan(reals).any()):
        rmin = operand.quantizer.rmin
        return np.where(np.isnan(reals), 0.0 if rmin is None else rmin, reals)
    return reals
