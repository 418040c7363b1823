"""Uniform quantization: options, observed ranges, parameters, and the quantizer of all three.

The affine scheme of Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference" (2018), section 2.1: ``real = scale * (integer - zero_point)``.
"""

from __future__ import annotations

import copy
import json
from dataclasses import Field, dataclass, field, fields
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from cipherlearn.circuit import Interval, IntValue, RealValue
from cipherlearn.circuit.serialize import decode, encode, parse_json
from cipherlearn.errors import (
    FormatError,
    InvalidParameterError,
    InvalidTypeError,
    NotCalibratedError,
)

if TYPE_CHECKING:
    from typing_extensions import Self

#: Ranges narrower than this hold a single value.
STABILITY_CONST = 10**-6

#: Below this magnitude a range has no room for steps of its own: doubles end soon after.
SMALLEST_MAGNITUDE = 1e-290

#: Widths that a quantizer accepts; circuits further restrict look-ups to 16 bits.
MAXIMUM_BITS = 32

_QUANTIZED_DTYPES = (np.int64, np.int32, np.float32, np.float64)


@dataclass
class _Saved:
    """Data classes that are written as JSON: their fields and nothing else."""

    def dump_dict(self) -> dict[str, Any]:
        """Fields as JSON-compatible data."""
        return {f.name: encode(getattr(self, f.name)) for f in self.saved_fields()}

    @classmethod
    def saved_fields(cls) -> list[Field[Any]]:
        """The fields that are written: those that can be given."""
        return [f for f in fields(cls) if f.init]

    def dumps(self) -> str:
        """Fields as JSON text."""
        return json.dumps({"type_name": type(self).__name__, **self.dump_dict()})

    def dump(self, file: IO[str]) -> None:
        """Write `dumps` to an open text file."""
        file.write(self.dumps())

    @classmethod
    def load_dict(cls, data: dict[str, Any]) -> Self:
        """The object whose `dump_dict` is given.

        Raises
        ------
        FormatError
            If a field is missing, unknown, or of another type.
        """
        if not isinstance(data, dict):
            raise FormatError(f"a saved {cls.__name__} has named fields; this is {data!r}")
        names = {f.name for f in cls.saved_fields()}
        given = {key: value for key, value in data.items() if key != "type_name"}
        if set(given) != names:
            raise FormatError(
                f"a saved {cls.__name__} has the fields {sorted(names)}, not {sorted(given)}"
            )
        result = cls.__new__(cls)
        for name, value in given.items():
            setattr(result, name, _checked_field(name, value))
        return result

    @classmethod
    def loads(cls, text: str | bytes) -> Self:
        """The object whose `dumps` is given."""
        data = parse_json(text)
        if not isinstance(data, dict) or data.get("type_name") != cls.__name__:
            raise FormatError(f"this is not a saved {cls.__name__}")
        return cls.load_dict(data)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        names = [f.name for f in self.saved_fields()]
        return all(_same(getattr(self, name), getattr(other, name)) for name in names)

    __hash__ = None  # type: ignore[assignment]


@dataclass(eq=False)
class QuantizationOptions(_Saved):
    """How to quantize.

    Parameters
    ----------
    n_bits : int
        Width of the integers, 1 to 32.
    is_signed : bool, default=False
        Whether integers may be negative.
    is_symmetric : bool, default=False
        Whether the range is centred at 0, with a zero-point of 0 (needs ``is_signed``).
    is_qat : bool, default=False
        Whether the values were already quantized in training (excludes ``is_symmetric``).

    Attributes
    ----------
    is_narrow : bool
        Whether the most negative signed integer is left out. False unless set.
    is_precomputed_qat : bool
        Whether scale and zero-point come from the trained model. False unless set.

    Raises
    ------
    InvalidParameterError
        If the width is out of range or the flags exclude each other.
    """

    n_bits: int
    is_signed: bool = False
    is_symmetric: bool = False
    is_qat: bool = False
    is_narrow: bool = False
    is_precomputed_qat: bool = False

    def __init__(
        self,
        n_bits: int,
        is_signed: bool = False,
        is_symmetric: bool = False,
        is_qat: bool = False,
    ) -> None:
        self.n_bits = check_bits(n_bits, "n_bits", MAXIMUM_BITS)
        self.is_signed = bool(is_signed)
        self.is_symmetric = bool(is_symmetric)
        self.is_qat = bool(is_qat)
        self.is_narrow = False
        self.is_precomputed_qat = False
        if self.is_qat and self.is_symmetric:
            raise InvalidParameterError("is_qat and is_symmetric exclude each other: choose one")
        if self.is_symmetric and not self.is_signed:
            raise InvalidParameterError("is_symmetric=True needs is_signed=True")

    @property
    def quant_options(self) -> QuantizationOptions:
        """A copy of the options alone."""
        result = QuantizationOptions.__new__(QuantizationOptions)
        result.copy_opts(self)
        return result

    def copy_opts(self, other: QuantizationOptions) -> None:
        """Take over the options of another object."""
        for f in fields(QuantizationOptions):
            setattr(self, f.name, getattr(other, f.name))

    def is_equal(self, other: QuantizationOptions, ignore_sign_qat: bool = False) -> bool:
        """Whether two sets of options quantize alike.

        Parameters
        ----------
        other : QuantizationOptions
        ignore_sign_qat : bool, default=False
            Do not compare signs when ``other`` is quantization-aware.
        """
        same_sign = self.is_signed == other.is_signed or (ignore_sign_qat and other.is_qat)
        return (
            same_sign
            and self.is_qat == other.is_qat
            and self.is_symmetric == other.is_symmetric
            and self.n_bits == other.n_bits
        )

    @property
    def integer_range(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        return self._limits(2 ** (self.n_bits - 1) if self.is_signed else 0)

    def _limits(self, offset: int) -> tuple[int, int]:
        narrow = self.is_narrow and offset > 0
        return -offset + int(narrow), 2**self.n_bits - 1 - offset


@dataclass(eq=False)
class MinMaxQuantizationStats(_Saved):
    """The observed range of real values.

    Parameters
    ----------
    rmax, rmin : float or None, default=None
        Largest and smallest value.

    Attributes
    ----------
    step : int or None
        Step of the whole numbers that all values are multiples of: see
        `cipherlearn.quantization.grid.observed_range`, which sets it. None unless set.
    """

    rmax: float | None = None
    rmin: float | None = None
    step: int | None = field(default=None, init=False)

    @property
    def quant_stats(self) -> MinMaxQuantizationStats:
        """A copy of the range alone."""
        result = MinMaxQuantizationStats()
        result.copy_stats(self)
        return result

    def copy_stats(self, other: MinMaxQuantizationStats) -> None:
        """Take over the range of another object."""
        self.rmax, self.rmin, self.step = other.rmax, other.rmin, other.step

    def bits_of_whole_numbers(self, options: QuantizationOptions) -> int | None:
        """Width that holds every multiple of `step` in the range; None if that is not narrower.

        Parameters
        ----------
        options : QuantizationOptions
            Width that is accepted; whether the range is symmetric.
        """
        if self.step is None or self.rmax is None or self.rmin is None or options.is_qat:
            return None
        if options.is_symmetric:
            bits = int(max(-self.rmin, self.rmax) // self.step).bit_length() + 1
        else:
            bits = max(1, int((self.rmax - self.rmin) // self.step).bit_length())
        return bits if bits <= options.n_bits else None

    def compute_quantization_stats(self, values: np.ndarray) -> None:
        """Observe an array; infinities and NaN are left out.

        Raises
        ------
        InvalidParameterError
            If no finite value is left.
        """
        array = np.asarray(values, dtype=np.float64)
        finite = array[np.isfinite(array)]
        if not finite.size:
            raise InvalidParameterError(
                f"no range can be observed: {array.size} values, none of them finite"
            )
        self.rmax, self.rmin = float(finite.max()), float(finite.min())


@dataclass(eq=False)
class UniformQuantizationParameters(_Saved):
    """Scale and zero-point.

    Parameters
    ----------
    scale : float, numpy.ndarray or None, default=None
        Size of one step.
    zero_point : int, numpy.ndarray or None, default=None
        Integer that stands for 0.
    offset : int or None, default=None
        ``2**(n_bits - 1)`` for signed integers, 0 otherwise.
    """

    scale: Any = None
    zero_point: Any = None
    offset: int | None = None

    @property
    def quant_params(self) -> UniformQuantizationParameters:
        """A copy of the parameters alone."""
        result = UniformQuantizationParameters()
        result.copy_params(self)
        return result

    def copy_params(self, other: UniformQuantizationParameters) -> None:
        """Take over the parameters of another object."""
        self.scale = copy.deepcopy(other.scale)
        self.zero_point = copy.deepcopy(other.zero_point)
        self.offset = other.offset

    def compute_quantization_parameters(
        self, options: QuantizationOptions, stats: MinMaxQuantizationStats
    ) -> None:
        """Scale and zero-point for a range.

        A range of one value keeps that value exactly, and so do whole numbers that the width has
        room for (`MinMaxQuantizationStats.step`). A scale that is set already is kept
        (quantization-aware training fixed it).

        Raises
        ------
        NotCalibratedError
            If the range was not observed.
        """
        if stats.rmax is None or stats.rmin is None:
            raise NotCalibratedError("observe values first: the range (rmin, rmax) is not known")
        rmax, rmin = float(stats.rmax), float(stats.rmin)
        self.offset = 2 ** (options.n_bits - 1) if options.is_signed else 0
        lowest, highest = options.integer_range
        if _is_single_value(rmax, rmin):
            self._for_single_value(rmax, rmin)
        elif stats.step and self.scale is None and stats.bits_of_whole_numbers(options):
            self.scale = float(stats.step)
            least, most = int(rmin // stats.step), int(rmax // stats.step)
            self.zero_point = 0 if lowest <= least and most <= highest else lowest - least
        elif options.is_symmetric:
            # One signed bit holds -1 and 0 only: its largest magnitude is 1.
            self.scale = max(abs(rmax), abs(rmin)) / max(highest, 1)
            self.zero_point = 0
        else:
            if self.scale is None:
                self.scale = (rmax - rmin) / max(highest - lowest, 1)
            exact = (rmax * lowest - rmin * highest) / (rmax - rmin)
            self.zero_point = 0 if options.is_qat else int(np.round(exact))

    def _for_single_value(self, rmax: float, rmin: float) -> None:
        self.offset = 0
        if abs(rmax) < STABILITY_CONST:
            self.scale, self.zero_point = 1.0, int(np.rint(-rmin))
        else:
            self.scale, self.zero_point = rmax, 0


@dataclass(eq=False)
class UniformQuantizer(UniformQuantizationParameters, MinMaxQuantizationStats, QuantizationOptions):
    """Turns real values into integers and back.

    Parameters
    ----------
    options : QuantizationOptions or None, default=None
        None stands for 8 unsigned bits.
    stats : MinMaxQuantizationStats or None, default=None
    params : UniformQuantizationParameters or None, default=None
    no_clipping : bool, default=False
        Whether integers may leave the range of their width (accumulators).
    """

    no_clipping: bool = False

    def __init__(
        self,
        options: QuantizationOptions | None = None,
        stats: MinMaxQuantizationStats | None = None,
        params: UniformQuantizationParameters | None = None,
        no_clipping: bool = False,
    ) -> None:
        UniformQuantizationParameters.__init__(self)
        MinMaxQuantizationStats.__init__(self)
        self.no_clipping = bool(no_clipping)
        self.copy_opts(QuantizationOptions(8) if options is None else options)
        if stats is not None:
            self.copy_stats(stats)
        if params is not None:
            self.copy_params(params)
            if isinstance(self.scale, (int, float, np.number)):
                self.scale = float(self.scale)

    @property
    def is_calibrated(self) -> bool:
        """Whether scale and zero-point are known."""
        return self.scale is not None and self.zero_point is not None

    def quant(self, values: Any, dtype: Any = np.int64) -> Any:
        """Integers of real values: rounded half to even, then clipped to the range.

        Parameters
        ----------
        values : array-like of float
        dtype : numpy dtype, default=int64
            One of int64, int32, float32, float64.

        Raises
        ------
        InvalidTypeError
            If ``dtype`` is none of these.
        InvalidParameterError
            If a value is NaN.
        NotCalibratedError
            If scale and zero-point are not known.
        """
        self.check_calibrated()
        if np.dtype(dtype) not in [np.dtype(known) for known in _QUANTIZED_DTYPES]:
            raise InvalidTypeError(
                f"quantized values are int64, int32, float32 or float64, not {dtype}"
            )
        reals = values if isinstance(values, RealValue) else _without_nan(values)
        integers = np.rint(reals / self.scale + self.zero_point)
        if not self.no_clipping:
            lowest, highest = self.integer_limits
            integers = np.clip(integers, lowest, highest)
        return integers.astype(dtype)

    def dequant(self, qvalues: Any) -> Any:
        """Real values that integers stand for, in float64.

        Raises
        ------
        NotCalibratedError
            If scale and zero-point are not known.
        """
        self.check_calibrated()
        if not isinstance(qvalues, (IntValue, RealValue)):
            qvalues = np.asarray(qvalues)
        # In a circuit, reals first: a subtraction of integers would be a step of its own.
        return self.scale * (qvalues.astype(np.float64) - self.zero_point)

    @property
    def integer_limits(self) -> tuple[int, int]:
        """Smallest and largest integer that `quant` returns."""
        return self._limits(self.offset or 0)

    def check_calibrated(self) -> None:
        """Raise `NotCalibratedError` unless scale and zero-point are known."""
        if not self.is_calibrated:
            raise NotCalibratedError(
                "the quantizer has no scale and zero-point yet: give params, or compute them from "
                "stats with compute_quantization_parameters"
            )


def check_bits(value: Any, name: str, highest: int, lowest: int = 1) -> int:
    """A width as int, or an error that says what is accepted."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise InvalidParameterError(
            f"{name} must be an integer from {lowest} to {highest}, not {value!r} "
            f"of type {type(value).__name__}"
        )
    if not lowest <= value <= highest:
        raise InvalidParameterError(f"{name} must lie between {lowest} and {highest}, not {value}")
    return int(value)


def _is_single_value(rmax: float, rmin: float) -> bool:
    """Whether a range is too narrow for steps: in absolute terms, or relative to small values."""
    magnitude = max(abs(rmax), abs(rmin))
    return rmax - rmin <= STABILITY_CONST * min(1.0, magnitude) or magnitude < SMALLEST_MAGNITUDE


def quantizer_of_results(interval: Interval, scale: np.ndarray) -> UniformQuantizer:
    """The quantizer of results that stand for multiples of a scale, one of each output."""
    reach = float(scale.max(initial=0.0))
    return UniformQuantizer(
        QuantizationOptions(interval.width, is_signed=interval.min < 0),
        MinMaxQuantizationStats(interval.max * reach, interval.min * reach),
        UniformQuantizationParameters(scale, 0, 0),
        no_clipping=True,
    )


def _without_nan(values: Any) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    missing = int(np.count_nonzero(np.isnan(array)))
    if missing:
        raise InvalidParameterError(
            f"{missing} of {array.size} values are NaN: no integer stands for them"
        )
    return array


def _checked_field(name: str, data: Any) -> Any:
    """A field of a saved object, once it has the type that the field takes."""
    try:
        value = decode(data)
        if name == "n_bits":
            return check_bits(value, name, MAXIMUM_BITS)
    except (InvalidParameterError, ValueError, TypeError) as error:
        raise FormatError(f"the saved field {name!r} is damaged: {error}") from error
    if name.startswith("is_") or name == "no_clipping":
        valid = isinstance(value, bool)
    else:
        array = np.asarray(value)
        valid = value is None or (array.dtype.kind in "if" and bool(np.isfinite(array).all()))
        valid = valid and not (name == "scale" and value is not None and (array == 0).any())
    if not valid:
        raise FormatError(f"the saved field {name!r} is damaged: it holds {value!r}")
    return value


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return np.array_equal(np.asarray(left), np.asarray(right))
    return bool(left == right)
