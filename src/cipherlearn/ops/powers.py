"""Means, powers, remainders and limits: arithmetic that is written with simpler one."""

from __future__ import annotations

from cipherlearn.ops._composition import (
    Attributes,
    Operands,
    cast,
    floating,
    operand,
    refuse_encrypted,
    required,
    total,
)
from cipherlearn.ops._expand import Composer, Tensor
from cipherlearn.ops._registry import register


def _mean(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    del attributes
    given = [one for one in operands if one is not None]
    return composer.add("Mul", total(composer, given), 1.0 / len(given))


def _power(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    """With an encrypted exponent; the base must be positive, or the logarithm is undefined."""
    del attributes
    base, exponent = (required(operands, i) for i in range(2))
    dtype = base.sample.dtype
    base = floating(composer, base)
    exponent = cast(composer, exponent, base.sample.dtype)
    result = composer.add("Exp", composer.add("Mul", exponent, composer.add("Log", base)))
    return cast(composer, result if dtype.kind == "f" else composer.add("Round", result), dtype)


def _clip(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    del attributes
    value, low, high = (operand(operands, i) for i in range(3))
    result = required(operands) if value is None else value
    result = result if low is None else composer.add("Max", result, low)
    return result if high is None else composer.add("Min", result, high)


register("Mean", expand=_mean)
register("Pow", expand=_power)
register("Clip", expand=_clip)
register(
    "Mod",
    expand=refuse_encrypted(
        "A remainder is looked up in a table, for a constant divisor: make the divisor a constant,"
        " or leave the remainder to the client after decryption"
    ),
)
