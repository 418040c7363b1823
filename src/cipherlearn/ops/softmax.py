"""Softmax and its relatives."""

from __future__ import annotations

from cipherlearn.ops._composition import (
    Attributes,
    Operands,
    attribute,
    inner_axis,
    reduce,
    required,
)
from cipherlearn.ops._expand import Composer, Tensor
from cipherlearn.ops._registry import Kind, register


def _axis(operands: Operands, attributes: Attributes) -> int:
    return inner_axis(attribute(attributes, "axis", -1), required(operands).ndim)


# The usual subtraction of the maximum keeps exponentials finite. A table knows the range of what it
# looks up, so that this is left out: an encrypted maximum costs more than all the rest.
def _softmax(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    exponentials = composer.add("Exp", required(operands))
    total = reduce(composer, "ReduceSum", exponentials, (_axis(operands, attributes),))
    return composer.add("Mul", exponentials, composer.add("Reciprocal", total))


def _log_softmax(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    x = required(operands)
    exponentials = composer.add("Exp", x)
    total = reduce(composer, "ReduceSum", exponentials, (_axis(operands, attributes),))
    return composer.add("Sub", x, composer.add("Log", total))


register("Softmax", kind=Kind.MIXING, expand=_softmax, client=True)
register("LogSoftmax", kind=Kind.MIXING, expand=_log_softmax, client=True)
