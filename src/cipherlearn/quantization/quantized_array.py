"""Real values with the integers that stand for them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from cipherlearn.circuit import IntValue, RealValue
from cipherlearn.circuit.movement import follow
from cipherlearn.circuit.serialize import decode, encode, parse_json
from cipherlearn.errors import FormatError, InvalidTypeError
from cipherlearn.quantization.quantizers import (
    MAXIMUM_BITS,
    MinMaxQuantizationStats,
    QuantizationOptions,
    UniformQuantizationParameters,
    UniformQuantizer,
    check_bits,
)

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, eq=False)
class Entries:
    """What differs between the entries of the last axis.

    Parameters
    ----------
    noisy : numpy.ndarray of bool
        Whether they come from look-ups.
    lo, hi : numpy.ndarray of int64
        Their smallest and largest integers.
    """

    noisy: np.ndarray
    lo: np.ndarray
    hi: np.ndarray

    @classmethod
    def alike(cls, count: int, noisy: bool, limits: tuple[int, int]) -> Entries:
        """So many entries that do not differ."""
        return cls(np.full(count, noisy), *(np.full(count, limit) for limit in limits))

    @classmethod
    def joined(cls, parts: Sequence[Entries]) -> Entries:
        """Those of arrays that stand side by side."""
        return cls(
            np.concatenate([part.noisy for part in parts]),
            np.concatenate([part.lo for part in parts]),
            np.concatenate([part.hi for part in parts]),
        )

    @property
    def extents(self) -> np.ndarray:
        """How far their integers reach, from the lowest to the highest."""
        return (self.hi - self.lo).astype(np.float64)


class QuantizedArray:
    """Real values, their integers, and the quantizer between the two.

    Whichever side is given, the other is computed when it is first read. The array may also hold
    values of a circuit under construction (`cipherlearn.circuit.IntValue`, ``RealValue``): reading
    `qvalues` then adds the table look-up that quantizes.

    Parameters
    ----------
    n_bits : int
        Width of the integers; overrides the width in ``options``. Whole numbers that need fewer
        bits (``stats.step`` is known) get these.
    values : numpy.ndarray, float, or None
        Real values, or integers if not ``value_is_float``. None makes the quantizer only.
    value_is_float : bool, default=True
        Whether ``values`` are real.
    options : QuantizationOptions, optional
        Default: unsigned, asymmetric.
    stats : MinMaxQuantizationStats, optional
        Default: the range of ``values``.
    params : UniformQuantizationParameters, optional
        Default: computed from options and range. Needed if ``values`` are integers.
    **kwargs
        Members of the three, by name (``is_signed``, ``rmin`` and ``rmax``, ``scale``, ...), as an
        alternative to giving the objects.

    Attributes
    ----------
    holds_integers : bool
        Whether integers were given, and real values follow from them.

    Raises
    ------
    InvalidTypeError
        If values have the wrong dtype, a keyword is unknown, or only a part of a range is given.
    """

    #: What is known of operands that stand side by side; None where all entries are alike.
    entries: Entries | None = None

    def __init__(
        self,
        n_bits: int,
        values: Any,
        value_is_float: bool = True,
        options: QuantizationOptions | None = None,
        stats: MinMaxQuantizationStats | None = None,
        params: UniformQuantizationParameters | None = None,
        **kwargs: Any,
    ) -> None:
        n_bits = check_bits(n_bits, "n_bits", MAXIMUM_BITS)
        options, stats, params = _from_keywords(n_bits, options, stats, params, kwargs)
        self.n_bits = n_bits
        self.quantizer = UniformQuantizer(options, stats, params)
        self.holds_integers = values is not None and not value_is_float
        self._values: Any = None
        self._qvalues: Any = None
        if values is None:
            self._complete_parameters()
        elif value_is_float:
            self._values = _as_real(values)
            if stats is None and params is None:
                self._observe(self._values)
            self._complete_parameters()
        else:
            if params is None:
                raise InvalidTypeError(
                    "integers alone do not say what they stand for: give params (scale, zero_point)"
                )
            self._qvalues = _as_integers(values)

    def _observe(self, values: Any) -> None:
        if isinstance(values, (IntValue, RealValue)):
            raise InvalidTypeError(
                "values of a circuit have no data to observe: give stats or params"
            )
        self.quantizer.compute_quantization_stats(values)

    def _complete_parameters(self) -> None:
        if not self.quantizer.is_calibrated and self.quantizer.rmax is not None:
            narrower = self.quantizer.bits_of_whole_numbers(self.quantizer)
            self.n_bits = self.quantizer.n_bits = narrower or self.n_bits
            self.quantizer.compute_quantization_parameters(self.quantizer, self.quantizer)

    @property
    def values(self) -> Any:
        """The real values."""
        if self._values is None and self._qvalues is not None:
            self._values = self._dequantized()
        return self._values

    @values.setter
    def values(self, new: Any) -> None:
        self._values = new

    @property
    def qvalues(self) -> Any:
        """The integers."""
        if self._qvalues is None and self._values is not None:
            self._qvalues = self.quantizer.quant(self._values)
        return self._qvalues

    @qvalues.setter
    def qvalues(self, new: Any) -> None:
        self._qvalues = new

    def _dequantized(self) -> Any:
        return self.quantizer.dequant(self._qvalues)

    def quant(self) -> Any:
        """Quantize the real values again; returns the integers."""
        self._qvalues = self.quantizer.quant(self.values)
        return self._qvalues

    def dequant(self) -> Any:
        """Replace the real values by those that the integers stand for; returns them."""
        integers = self.qvalues
        self._values = None if integers is None else self._dequantized()
        return self._values

    def update_values(self, values: Any) -> Any:
        """Take new real values; returns their integers."""
        self._values = _as_real(values)
        self.holds_integers = False
        return self.quant()

    def update_quantized_values(self, qvalues: Any) -> Any:
        """Take new integers; returns the real values that they stand for."""
        self._qvalues = _as_integers(qvalues)
        self.holds_integers = True
        return self.dequant()

    def move(self, function: Callable[[np.ndarray], np.ndarray]) -> Self:
        """The same elements, moved: integers stay what they are, with the same quantizer.

        Parameters
        ----------
        function : callable
            Takes one array of doubles and returns one whose elements all come from it.
        """

        def in_doubles(part: np.ndarray) -> np.ndarray:
            return np.asarray(function(part.astype(np.float64))).astype(part.dtype)

        result = copy.copy(self)
        result.quantizer, result.entries = copy.copy(self.quantizer), None
        if not self.holds_integers:
            result.values, result.qvalues = follow(in_doubles, self.values), None
            return result
        result.values, result.qvalues = None, follow(in_doubles, self.qvalues)
        # One scale or zero-point a channel moves along.
        for name in ("scale", "zero_point"):
            parameter = np.asarray(getattr(self.quantizer, name))
            if parameter.ndim:
                moved = function(np.broadcast_to(parameter.astype(np.float64), self.qvalues.shape))
                setattr(result.quantizer, name, _without_repetition(np.asarray(moved)))
        return result

    def __call__(self) -> Any:
        """The integers."""
        return self.qvalues

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QuantizedArray):
            return NotImplemented
        return self.quantizer == other.quantizer and np.array_equal(self.qvalues, other.qvalues)

    __hash__ = None  # type: ignore[assignment]

    def dump_dict(self) -> dict[str, Any]:
        """Integers, real values and quantizer as JSON-compatible data."""
        return {
            "n_bits": self.n_bits,
            "values": encode(self.values),
            "qvalues": encode(self.qvalues),
            "holds_integers": self.holds_integers,
            "quantizer": self.quantizer.dump_dict(),
        }

    def dumps(self) -> str:
        """`dump_dict` as JSON text."""
        return json.dumps({"type_name": "QuantizedArray", **self.dump_dict()})

    def dump(self, file: IO[str]) -> None:
        """Write `dumps` to an open text file."""
        file.write(self.dumps())

    @classmethod
    def load_dict(cls, data: dict[str, Any]) -> Self:
        """The array whose `dump_dict` is given.

        Raises
        ------
        FormatError
            If the data is damaged, or of another kind.
        """
        try:
            result = cls(data["n_bits"], None)
            result.quantizer = UniformQuantizer.load_dict(data["quantizer"])
            result.holds_integers = bool(data["holds_integers"])
            reals, integers = decode(data["values"]), decode(data["qvalues"])
            result.values = None if reals is None else _as_real(reals)
            result.qvalues = None if integers is None else _as_integers(integers)
        except FormatError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"the saved QuantizedArray is damaged: {error!r}") from error
        return result

    @classmethod
    def loads(cls, text: str | bytes) -> Self:
        """The array in a JSON text."""
        data = parse_json(text)
        if not isinstance(data, dict) or data.get("type_name") != cls.__name__:
            raise FormatError(f"this is not a saved {cls.__name__}")
        return cls.load_dict(data)


class Accumulator(QuantizedArray):
    """The result of integer arithmetic: exact for who reads the integers, rounded for look-ups.

    Parameters
    ----------
    n_bits : int
        Width of what the accumulator is quantized to, later on.
    integers : numpy.ndarray of int64, or IntValue
    rounding : callable
        Applied to the integers before a look-up reads them.
    options, stats, params
        As for `QuantizedArray`.

    Attributes
    ----------
    plain : QuantizedArray or None
        The same values as integers of one scale, without the offsets and factors that look-ups
        read: for who multiplies them. None unless they have one scale.
    """

    plain: QuantizedArray | None = None

    def __init__(
        self,
        n_bits: int,
        integers: Any,
        rounding: Callable[[Any], Any],
        *,
        options: QuantizationOptions,
        stats: MinMaxQuantizationStats | None,
        params: UniformQuantizationParameters,
    ) -> None:
        super().__init__(n_bits, integers, False, options=options, stats=stats, params=params)
        self.quantizer.no_clipping = True
        self._rounding = rounding

    def move(self, function: Callable[[np.ndarray], np.ndarray]) -> Self:
        """As `QuantizedArray.move`."""
        result = super().move(function)
        result.plain = None if self.plain is None else self.plain.move(function)
        return result

    def _dequantized(self) -> Any:
        return self.quantizer.dequant(self._rounding(self._qvalues))


def _without_repetition(array: np.ndarray) -> np.ndarray:
    """Axes along which nothing changes (that of the batch) reduced to an extent of 1."""
    for axis in range(array.ndim):
        first = array.take([0], axis)
        array = first if bool((array == first).all()) else array
    return array


def _as_real(values: Any) -> Any:
    if isinstance(values, IntValue):
        return values.as_real()
    if isinstance(values, RealValue):
        return values
    array = np.asarray(values)
    if array.dtype.kind != "f":
        raise InvalidTypeError(
            f"real values are floating point, not {array.dtype}; integers need value_is_float=False"
        )
    return array


def _as_integers(values: Any) -> Any:
    if isinstance(values, IntValue):
        return values
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise InvalidTypeError(f"value_is_float=False needs integers, not {array.dtype}")
    return array


def _from_keywords(
    n_bits: int,
    options: QuantizationOptions | None,
    stats: MinMaxQuantizationStats | None,
    params: UniformQuantizationParameters | None,
    keywords: dict[str, Any],
) -> tuple[
    QuantizationOptions, MinMaxQuantizationStats | None, UniformQuantizationParameters | None
]:
    """Sort keyword arguments into options, range and parameters."""
    left = dict(keywords)
    flags = {f.name for f in fields(QuantizationOptions)} - {"n_bits"}
    chosen = {key: left.pop(key) for key in list(left) if key in flags}
    if options is None:
        checked = {k: v for k, v in chosen.items() if k not in ("is_narrow", "is_precomputed_qat")}
        options = QuantizationOptions(n_bits, **checked)
    else:
        options = options.quant_options
        options.n_bits = n_bits
    for key, value in chosen.items():
        setattr(options, key, bool(value))
    if stats is None:
        stats = _complete(MinMaxQuantizationStats, left, optional=frozenset())
    if params is None:
        params = _complete(UniformQuantizationParameters, left, optional=frozenset({"offset"}))
    if left:
        raise InvalidTypeError(f"QuantizedArray does not take the keywords {sorted(left)}")
    if params is not None and params.offset is None:
        params = params.quant_params
        params.offset = 2 ** (n_bits - 1) if options.is_signed else 0
    return options, stats, params


def _complete(kind: Any, keywords: dict[str, Any], optional: frozenset[str]) -> Any:
    names = {f.name for f in fields(kind) if f.init}
    given = {key: keywords.pop(key) for key in list(keywords) if key in names}
    if not given:
        return None
    missing = names - set(given) - optional
    if missing:
        raise InvalidTypeError(f"{sorted(given)} also needs {sorted(missing)}")
    return kind(**given)
