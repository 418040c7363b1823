"""Comparisons, logic and operations on bits."""

from __future__ import annotations

import numpy as np

from cipherlearn.ops._composition import (
    Attributes,
    Operands,
    cast,
    refuse_encrypted,
    required,
    subtractable,
)
from cipherlearn.ops._expand import Composer, Expand, Tensor
from cipherlearn.ops._registry import register


def _compare(op: str) -> Expand:
    """Comparison of two encrypted values: of their difference with zero."""

    def expand(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
        del attributes
        values = [subtractable(composer, required(operands, i)) for i in range(2)]
        return composer.add(op, composer.add("Sub", *values), 0)

    return expand


def _count(op: str, threshold: float) -> Expand:
    """Logic of two encrypted values: how many of them are true."""

    def expand(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
        del attributes
        left, right = (cast(composer, required(operands, i), np.float32) for i in range(2))
        return composer.add(op, composer.add("Add", left, right), threshold)

    return expand


def _differ(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    del attributes
    left, right = (cast(composer, required(operands, i), np.float32) for i in range(2))
    difference = composer.add("Abs", composer.add("Sub", left, right))
    return composer.add("Greater", difference, 0.5)


for _op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
    register(_op, expand=_compare(_op))
register("And", expand=_count("Greater", 1.5))
register("Or", expand=_count("Greater", 0.5))
register("Xor", expand=_differ)
register("Not")
register("IsInf", "IsNaN")
register("BitwiseNot")
register(
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    expand=refuse_encrypted(
        "Bits can be combined with constants, or with functions of the same value: make one"
        " operand a constant, or replace the node by sums and products"
    ),
)
