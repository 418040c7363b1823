"""Softmax and its relatives."""

from __future__ import annotations

import numpy as np

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


def _shifted(composer: Composer, x: Tensor) -> Tensor:
    """The value less a number, which keeps exponentials of large values finite.

    The number is the largest value of the sample, not the maximum of each row as usual: that would
    be encrypted, and cost more than all the rest.
    """
    finite = x.sample[np.isfinite(x.sample)]
    return composer.add("Sub", x, float(np.rint(finite.max(initial=-np.inf)))) if finite.size else x


def _softmax(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    exponentials = composer.add("Exp", _shifted(composer, required(operands)))
    total = reduce(composer, "ReduceSum", exponentials, (_axis(operands, attributes),))
    return composer.add("Mul", exponentials, composer.add("Reciprocal", total))


def _log_softmax(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    x = _shifted(composer, required(operands))
    exponentials = composer.add("Exp", x)
    total = reduce(composer, "ReduceSum", exponentials, (_axis(operands, attributes),))
    return composer.add("Sub", x, composer.add("Log", total))


register("Softmax", kind=Kind.MIXING, expand=_softmax, client=True)
register("LogSoftmax", kind=Kind.MIXING, expand=_log_softmax, client=True)
