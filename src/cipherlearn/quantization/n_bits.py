"""Bit-widths and rounding as users give them, brought into one form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cipherlearn.errors import InvalidParameterError, UnknownKeyError
from cipherlearn.quantization.quantizers import check_bits

#: Fewest bits of the model's inputs and outputs, unless others are asked for.
DEFAULT_MODEL_BITS = 5

#: Widest operand or weight; a look-up can read 16 bits, and accumulators need some of them.
MAXIMUM_MODEL_BITS = 16

#: Kept bits that rounding accepts.
ROUNDING_RANGE = (2, 8)

_KEYS = ("model_inputs", "op_weights", "op_inputs", "model_outputs")


def bits_by_key(
    n_bits: Mapping[str, Any], ranges: Mapping[str, tuple[int, int]], mandatory: Sequence[str]
) -> dict[str, int]:
    """A dictionary of widths, checked.

    Parameters
    ----------
    n_bits : dict
    ranges : dict
        The fewest and the most bits, for each key that is taken.
    mandatory : sequence of str
        Keys that must be there.

    Raises
    ------
    UnknownKeyError
        If there are other keys.
    InvalidParameterError
        If a key is missing, or a width is not an integer in its range.
    """
    if unknown := sorted(str(key) for key in n_bits if key not in ranges):
        raise UnknownKeyError(f"n_bits does not take the keys {unknown}; it takes {list(ranges)}")
    if missing := [key for key in mandatory if key not in n_bits]:
        raise InvalidParameterError(f"n_bits lacks the mandatory keys {missing}")
    return {
        key: check_bits(value, f"n_bits[{key!r}]", ranges[key][1], ranges[key][0])
        for key, value in n_bits.items()
    }


def get_n_bits_dict(n_bits: int | Mapping[str, int]) -> dict[str, int]:
    """Bit-widths of inputs, weights, activations and outputs.

    Parameters
    ----------
    n_bits : int or dict
        One width for weights and activations (inputs and outputs of the model then have 5 bits at
        least), or a dictionary with ``op_inputs`` and ``op_weights``, and optionally
        ``model_inputs`` (default 5) and ``model_outputs`` (default: the larger of 5 and
        ``op_inputs``).

    Returns
    -------
    dict
        With the keys ``model_inputs``, ``op_weights``, ``op_inputs``, ``model_outputs``.

    Raises
    ------
    InvalidParameterError
        If a width is not an integer from 1 to 16, a mandatory key is missing, or the outputs have
        fewer bits than the activations.
    UnknownKeyError
        If the dictionary has other keys.

    Examples
    --------
    >>> get_n_bits_dict(3)
    {'model_inputs': 5, 'op_weights': 3, 'op_inputs': 3, 'model_outputs': 5}
    """
    if not isinstance(n_bits, Mapping):
        bits = check_bits(n_bits, "n_bits", MAXIMUM_MODEL_BITS)
        model_bits = max(DEFAULT_MODEL_BITS, bits)
        return dict(zip(_KEYS, (model_bits, bits, bits, model_bits), strict=True))
    ranges = dict.fromkeys(_KEYS, (1, MAXIMUM_MODEL_BITS))
    given = bits_by_key(n_bits, ranges, ("op_inputs", "op_weights"))
    given.setdefault("model_inputs", DEFAULT_MODEL_BITS)
    given.setdefault("model_outputs", max(DEFAULT_MODEL_BITS, given["op_inputs"]))
    if given["model_outputs"] < given["op_inputs"]:
        raise InvalidParameterError(
            f"model_outputs ({given['model_outputs']}) must not be smaller than op_inputs "
            f"({given['op_inputs']})"
        )
    return {key: given[key] for key in _KEYS}


@dataclass(frozen=True)
class Rounding:
    """Rounding of accumulators before table look-ups.

    Parameters
    ----------
    n_bits : int or "auto"
        Bits kept, 2 to 8. ``"auto"`` leaves them to the search of the compile functions.
    exact : bool
        Exact rounding costs look-ups for the bits removed; approximate rounding costs none and may
        land on the neighbouring value.
    """

    n_bits: int | str
    exact: bool = True


@dataclass(frozen=True)
class LayerBits:
    """Bits of one layer.

    Parameters
    ----------
    weights, inputs : int
        Width of its weights, and of its operand where a look-up quantizes it.
    kept : int or None
        Bits of its accumulator that look-ups read; None for all.
    exact : bool, default=False
        Whether the accumulator is rounded exactly.
    """

    weights: int
    inputs: int
    kept: int | None
    exact: bool = False

    @property
    def rounding(self) -> Rounding | None:
        """Rounding of the accumulator."""
        return None if self.kept is None else Rounding(self.kept, self.exact)

    def __str__(self) -> str:
        kept = "all" if self.kept is None else f"{self.kept} {'exact' if self.exact else ''}"
        return f"weights {self.weights}, inputs {self.inputs}, kept {kept.strip()}"


def process_rounding_threshold_bits(given: Any) -> Rounding | None:
    """The rounding that a user asked for.

    Parameters
    ----------
    given : None, int, dict or Rounding
        Kept bits; or a dictionary with ``n_bits`` (2 to 8, or ``"auto"``) and ``method``
        (``"exact"``, ``"approximate"`` in any case, or a member of the engine's ``Exactness``;
        default exact).

    Raises
    ------
    UnknownKeyError
        If the dictionary has other keys.
    InvalidParameterError
        If the bits or the method are not among these.
    """
    if given is None:
        return None
    if isinstance(given, Rounding):
        return Rounding(_kept_bits(given.n_bits), given.exact)
    if not isinstance(given, Mapping):
        return Rounding(_kept_bits(given))
    unknown = sorted(str(key) for key in given if key not in ("n_bits", "method"))
    if unknown:
        raise UnknownKeyError(
            f"rounding_threshold_bits does not take the keys {unknown}; it takes 'n_bits' and "
            "'method'"
        )
    if "n_bits" not in given:
        raise InvalidParameterError("rounding_threshold_bits needs the key 'n_bits'")
    return Rounding(_kept_bits(given["n_bits"]), _is_exact(given.get("method", "exact")))


def _kept_bits(given: Any) -> int | str:
    if isinstance(given, str) and given.lower() == "auto":
        return "auto"
    if isinstance(given, (bool, str)) or not isinstance(given, (int, np.integer)):
        raise InvalidParameterError(
            "rounding_threshold_bits must be None, an integer from 2 to 8, 'auto', or a "
            f"dictionary with 'n_bits' and 'method', not {given!r}"
        )
    lowest, highest = ROUNDING_RANGE
    return check_bits(given, "rounding_threshold_bits", highest, lowest)


def _is_exact(given: Any) -> bool:
    # The engine's enumeration has the method as its value; asking for that avoids importing it.
    name = str(getattr(given, "value", given)).lower()
    if name not in ("exact", "approximate"):
        raise InvalidParameterError(
            f"the rounding method must be 'exact' or 'approximate', not {given!r}"
        )
    return name == "exact"
