"""Quantization to a grid that the model declares: what QONNX adds to ONNX.

``Quant`` is the one form in which a declared grid exists here: whatever else a model declares grids
with is written with it when the model is read (`cipherlearn.onnx.simplify`). Pappalardo et al.,
"QONNX: Representing Arbitrary-Precision Quantized Neural Networks" (2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cipherlearn.errors import UnsupportedAttributeError
from cipherlearn.ops._operands import Array
from cipherlearn.ops._registry import register_function

#: The domain of the operators; models may spell it in other ways.
DOMAIN: Final = "qonnx.custom_op.general"
SAME_DOMAINS: Final = frozenset({DOMAIN, "onnx.brevitas", "finn.custom_op.general"})

QUANT: Final = f"{DOMAIN}.Quant"
BIPOLAR: Final = f"{DOMAIN}.BipolarQuant"
TRUNC: Final = f"{DOMAIN}.Trunc"

#: All operators that quantize to a grid.
GRID_OPERATORS: Final = frozenset({QUANT, BIPOLAR, TRUNC})

#: Widest integers that are looked at: biases have them.
MOST_BITS: Final = 32


def _half_up(x: Array) -> Array:
    return np.sign(x) * np.floor(np.abs(x) + 0.5)


def _half_down(x: Array) -> Array:
    return np.sign(x) * np.ceil(np.abs(x) - 0.5)


def _away(x: Array) -> Array:
    return np.sign(x) * np.ceil(np.abs(x))


_ROUNDINGS: Final[dict[str, Callable[[Array], Array]]] = {
    "ROUND": np.rint,
    "HALF_EVEN": np.rint,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": _away,
    "DOWN": np.trunc,
    "ROUND_TO_ZERO": np.trunc,
    "HALF_UP": _half_up,
    "HALF_DOWN": _half_down,
}

#: Names of roundings to the nearest integer, halves to the even one.
TO_NEAREST: Final = frozenset({"ROUND", "HALF_EVEN"})


@dataclass(frozen=True, eq=False)
class DeclaredGrid:
    """The grid that a node quantizes to: ``real = scale * (integer - zero_point)``.

    Parameters
    ----------
    scale, zero_point : numpy.ndarray of float64
        One of each, or one a channel: they broadcast against the values.
    n_bits : int
    is_signed, is_narrow : bool
        Whether integers may be negative, and whether the integer that has no counterpart is left
        out: the lowest one, or the highest one of unsigned integers.
    rounding : str, default="ROUND"
        How real values become integers.
    zero_after_rounding : bool, default=False
        Whether the zero-point is added to rounded values, as ``QuantizeLinear`` and torch do it: if
        it is odd, halves go elsewhere.
    """

    scale: Array
    zero_point: Array
    n_bits: int
    is_signed: bool
    is_narrow: bool
    rounding: str = "ROUND"
    zero_after_rounding: bool = False

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        return limits_of(self.n_bits, self.is_signed, self.is_narrow)


@dataclass(frozen=True)
class IntegerRange:
    """The integers that something other than QONNX quantizes to.

    Parameters
    ----------
    n_bits : int
    is_signed, is_narrow : bool
        As for `DeclaredGrid`.
    shift : int, default=0
        To be added to the zero-point: integers from elsewhere on are counted from 0 on.
    """

    n_bits: int
    is_signed: bool
    is_narrow: bool = False
    shift: int = 0

    @classmethod
    def of(cls, lo: int, hi: int) -> IntegerRange | None:
        """The range between two integers; None unless it has ``2**n`` or ``2**n - 1`` of them."""
        levels = hi - lo + 1
        n_bits = max(1, (levels - 1).bit_length())
        missing = 2**n_bits - levels
        if missing > 1 or levels < 2:
            return None
        if n_bits > 1 and lo == missing - 2 ** (n_bits - 1):
            return cls(n_bits, True, bool(missing))
        return cls(n_bits, False, bool(missing), -lo)

    @property
    def attributes(self) -> dict[str, Any]:
        """Of a ``Quant`` node that stands for the quantization."""
        return {
            "signed": int(self.is_signed),
            "narrow": int(self.is_narrow),
            "rounding_mode": "ROUND",
            "zero_after_rounding": 1,
        }


def declared_grid(
    name: str, attributes: Mapping[str, Any], operands: Mapping[int, Any]
) -> DeclaredGrid:
    """The grid that a node of this family declares.

    Parameters
    ----------
    name : str
        `QUANT`, `BIPOLAR` or `TRUNC`.
    attributes : mapping
    operands : mapping of int to numpy.ndarray
        Constant operands by position.
    """
    if name == BIPOLAR:
        scale = np.asarray(operands[1], np.float64)
        return DeclaredGrid(scale, np.zeros(()), 2, True, True)
    first, bits = (1, 3) if name == QUANT else (4, 5)
    scale = np.asarray(operands[first], np.float64)
    zero = np.asarray(operands[2], np.float64)
    if name == TRUNC:
        zero = zero * (np.asarray(operands[1], np.float64) / scale)
    rounding = str(attributes.get("rounding_mode", "ROUND")).upper()
    signed, narrow = bool(attributes.get("signed", 1)), bool(attributes.get("narrow", 0))
    after = bool(attributes.get("zero_after_rounding", 0))
    return DeclaredGrid(scale, zero, _bits(operands[bits]), signed, narrow, rounding, after)


def _bits(value: Any) -> int:
    return int(np.asarray(value).reshape(-1)[0])


def limits_of(n_bits: int, signed: bool, narrow: bool = False) -> tuple[int, int]:
    """Smallest and largest integer of a width."""
    if signed:
        return -(2 ** (n_bits - 1)) + int(narrow), 2 ** (n_bits - 1) - 1
    return 0, 2**n_bits - 1 - int(narrow)


def integers_on(grid: DeclaredGrid, values: Array) -> Array:
    """The integers of real values, computed in the type of the values, as training did.

    Parameters
    ----------
    grid : DeclaredGrid
    values : numpy.ndarray of float
    """
    scale, zero = grid.scale.astype(values.dtype), grid.zero_point.astype(values.dtype)
    rounded = _rounding(grid.rounding)
    with np.errstate(all="ignore"):
        if grid.zero_after_rounding:
            return np.clip(rounded(values / scale) + zero, *grid.limits)
        return np.clip(rounded(values / scale + zero), *grid.limits)


def _rounding(name: str) -> Callable[[Array], Array]:
    if name not in _ROUNDINGS:
        raise UnsupportedAttributeError(
            f"rounding_mode={name!r} is not supported; accepted: {', '.join(_ROUNDINGS)}"
        )
    return _ROUNDINGS[name]


def _quant(
    x: Array,
    scale: Array,
    zero_point: Array,
    bit_width: Array,
    /,
    *,
    signed: int = 1,
    narrow: int = 0,
    rounding_mode: str = "ROUND",
    zero_after_rounding: int = 0,
) -> Array:
    attributes = {
        "signed": signed,
        "narrow": narrow,
        "rounding_mode": rounding_mode,
        "zero_after_rounding": zero_after_rounding,
    }
    grid = declared_grid(QUANT, attributes, {1: scale, 2: zero_point, 3: bit_width})
    return _on_grid(grid, x)


def _on_grid(grid: DeclaredGrid, x: Array) -> Array:
    scale, zero = grid.scale.astype(x.dtype), grid.zero_point.astype(x.dtype)
    return scale * (integers_on(grid, x) - zero)


def _bipolar(x: Array, scale: Array, /) -> Array:
    return np.where(x >= 0, scale, -scale).astype(x.dtype)


def _trunc(
    x: Array,
    scale: Array,
    zero_point: Array,
    in_bit_width: Array,
    out_scale: Array,
    out_bit_width: Array,
    /,
    *,
    rounding_mode: str = "FLOOR",
    signed: int = 1,
    narrow: int = 0,
) -> Array:
    attributes = {"signed": signed, "narrow": narrow, "rounding_mode": rounding_mode}
    known = {1: scale, 2: zero_point, 3: in_bit_width, 4: out_scale, 5: out_bit_width}
    grid = declared_grid(TRUNC, attributes, known)
    # First the integers that the sum is made of, as exact as sums of reals allow.
    whole = np.rint(x / scale.astype(x.dtype) + zero_point.astype(x.dtype))
    parts = (grid.scale / scale).astype(x.dtype)
    integers = np.clip(_rounding(grid.rounding)(whole / parts), *grid.limits)
    return grid.scale.astype(x.dtype) * (integers - grid.zero_point.astype(x.dtype))


def _check_quant(values: Mapping[str, Any]) -> str | None:
    return _problem(values, ("scale", "zero_point", "bit_width"), "ROUND")


def _check_trunc(values: Mapping[str, Any]) -> str | None:
    names = ("scale", "zero_point", "in_bit_width", "out_scale", "out_bit_width")
    return _problem(values, names, "FLOOR")


def _check_bipolar(values: Mapping[str, Any]) -> str | None:
    return _problem(values, ("scale",), "ROUND")


def _problem(values: Mapping[str, Any], names: tuple[str, ...], default: str) -> str | None:
    """What is not supported in a node: its operands by name, and its attributes."""
    missing = [name for name in names if name not in values]
    if missing:
        return (
            f"{', '.join(missing)} depends on an input of the model: grids that are chosen anew for"
            " every sample are not supported. Use a quantizer with a learned or constant scale"
        )
    try:
        _rounding(str(values.get("rounding_mode", default)).upper())
    except UnsupportedAttributeError as error:
        return str(error)
    for name in names:
        array = np.asarray(values[name], np.float64)
        if name.endswith("bit_width"):
            whole = array.size and bool((array == array.flat[0]).all()) and array.flat[0] % 1 == 0
            if not whole or not 1 <= array.flat[0] <= MOST_BITS:
                return (
                    f"{name} is {array.tolist()}; accepted: one whole number from 1 to {MOST_BITS}"
                    " for all channels"
                )
        elif name == "zero_point" and bool((array % 1 != 0).any()):
            return f"{name} is not whole: {array.reshape(-1)[:4].tolist()}; no integer stands for 0"
        elif name.endswith("scale") and not bool((np.isfinite(array) & (array > 0)).all()):
            return f"{name} holds numbers that are not positive: {array.reshape(-1)[:4].tolist()}"
    return None


register_function(QUANT, _quant, raw_inputs={1, 2, 3}, check=_check_quant)
register_function(BIPOLAR, _bipolar, raw_inputs={1}, check=_check_bipolar)
register_function(TRUNC, _trunc, raw_inputs={1, 2, 3, 4, 5}, check=_check_trunc)
