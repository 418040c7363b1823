"""Real values with the integers that stand for them."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import numpy as np

from cipherlearn.circuit import IntValue, RealValue
from cipherlearn.errors import InvalidTypeError
from cipherlearn.quantization.quantizers import (
    MinMaxQuantizationStats,
    QuantizationOptions,
    UniformQuantizationParameters,
    UniformQuantizer,
)


class QuantizedArray:
    """Real values, their integers, and the quantizer between the two.

    Whichever side is given, the other is computed when it is first read. The array may also hold
    values of a circuit under construction (`cipherlearn.circuit.IntValue`, ``RealValue``): reading
    `qvalues` then adds the table look-up that quantizes.

    Parameters
    ----------
    n_bits : int
        Width of the integers; overrides the width in ``options``.
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

    Raises
    ------
    InvalidTypeError
        If values have the wrong dtype, a keyword is unknown, or only a part of a range is given.
    """

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
        options, stats, params = _from_keywords(n_bits, options, stats, params, kwargs)
        self.n_bits = n_bits
        self.quantizer = UniformQuantizer(options, stats, params)
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
            self.quantizer.compute_quantization_parameters(self.quantizer, self.quantizer)

    @property
    def values(self) -> Any:
        """The real values."""
        if self._values is None and self._qvalues is not None:
            self._values = self.quantizer.dequant(self._qvalues)
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

    @property
    def holds_integers(self) -> bool:
        """Whether integers were given (and real values follow from them)."""
        return self._qvalues is not None and self._values is None

    def quant(self) -> Any:
        """Quantize the real values again; returns the integers."""
        self._qvalues = self.quantizer.quant(self.values)
        return self._qvalues

    def dequant(self) -> Any:
        """Replace the real values by those that the integers stand for; returns them."""
        self._values = self.quantizer.dequant(self.qvalues)
        return self._values

    def update_values(self, values: Any) -> Any:
        """Take new real values; returns their integers."""
        self._values = _as_real(values)
        return self.quant()

    def update_quantized_values(self, qvalues: Any) -> Any:
        """Take new integers; returns the real values that they stand for."""
        self._qvalues = _as_integers(qvalues)
        return self.dequant()

    def __call__(self) -> Any:
        """The integers."""
        return self.qvalues

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QuantizedArray):
            return NotImplemented
        return self.quantizer == other.quantizer and np.array_equal(self.qvalues, other.qvalues)

    __hash__ = None  # type: ignore[assignment]


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
        options = copy.deepcopy(options)
        options.n_bits = n_bits
    for key, value in chosen.items():
        setattr(options, key, value)
    if stats is None:
        stats = _complete(MinMaxQuantizationStats, left, optional=frozenset())
    if params is None:
        params = _complete(UniformQuantizationParameters, left, optional=frozenset({"offset"}))
    if left:
        raise InvalidTypeError(f"QuantizedArray does not take the keywords {sorted(left)}")
    if params is not None and params.offset is None:
        params.offset = 2 ** (n_bits - 1) if options.is_signed else 0
    return options, stats, params


def _complete(kind: Any, keywords: dict[str, Any], optional: frozenset[str]) -> Any:
    names = {f.name for f in fields(kind)}
    given = {key: keywords.pop(key) for key in list(keywords) if key in names}
    if not given:
        return None
    missing = names - set(given) - optional
    if missing:
        raise InvalidTypeError(f"{sorted(given)} also needs {sorted(missing)}")
    return kind(**given)
