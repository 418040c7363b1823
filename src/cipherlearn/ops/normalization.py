"""Normalizations: by fixed statistics, or by those of the value itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cipherlearn.errors import UnsupportedAttributeError
from cipherlearn.ops._composition import (
    Attributes,
    Operands,
    along_channels,
    attribute,
    clear,
    inner_axis,
    plain_axis,
    reduce,
    required,
    root,
)
from cipherlearn.ops._expand import Composer, Tensor
from cipherlearn.ops._operands import Array
from cipherlearn.ops._registry import Kind, register

_CONSTANTS = "Parameters of a normalization are weights: store them in the model"


def _check_inference(values: Mapping[str, Any]) -> str | None:
    if not values.get("training_mode"):
        return None
    return (
        f"training_mode={values['training_mode']} is not supported; accepted: 0, which uses the"
        " statistics of the training data. Export the model for inference (torch: `module.eval()`)."
    )


def _batch_normalization(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    x = required(operands)
    names = ("scale", "B", "input_mean", "input_var")
    scale, bias, mean, variance = (
        np.asarray(clear(operands, 1 + i, name, _CONSTANTS), dtype=np.float64)
        for i, name in enumerate(names)
    )
    factor = scale / np.sqrt(variance + attribute(attributes, "epsilon", 1e-5))
    return _affine(composer, x, factor, bias - mean * factor, axis=1)


def _affine(
    composer: Composer, x: Tensor, factor: Array | None, shift: Array | None, axis: int | None
) -> Tensor:
    """``factor * x + shift``; one value for each place on an axis, or broadcast as they are."""
    for op, values in (("Mul", factor), ("Add", shift)):
        if values is None:
            continue
        laid = values if axis is None else along_channels(values, x.ndim, axis)
        x = composer.add(op, x, laid.astype(x.sample.dtype))
    return x


def _centred(composer: Composer, x: Tensor, axes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The value less its mean, and the mean."""
    mean = reduce(composer, "ReduceMean", x, axes)
    return composer.add("Sub", x, mean), mean


def _inverse_root(composer: Composer, x: Tensor, axes: Sequence[int], epsilon: float) -> Tensor:
    """One over the root of the mean of the squares."""
    square = reduce(composer, "ReduceMean", composer.add("Mul", x, x), axes)
    positive = composer.add("Add", composer.add("Relu", square), float(epsilon))
    return composer.add("Reciprocal", composer.add("Sqrt", positive))


def _instance_normalization(
    composer: Composer, operands: Operands, attributes: Attributes
) -> Tensor:
    x = required(operands)
    factor, shift = (clear(operands, i, n, _CONSTANTS) for i, n in ((1, "scale"), (2, "B")))
    axes = tuple(range(2, x.ndim))
    centred, _ = _centred(composer, x, axes)
    epsilon = attribute(attributes, "epsilon", 1e-5)
    normal = composer.add("Mul", centred, _inverse_root(composer, centred, axes, epsilon))
    return _affine(composer, normal, factor, shift, axis=1)


def _group_normalization(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    x = required(operands)
    factor, shift = (clear(operands, i, n, _CONSTANTS) for i, n in ((1, "scale"), (2, "bias")))
    groups, channels = int(attributes["num_groups"]), x.shape[1]
    grouped = composer.reshape(x, groups, -1)
    centred, _ = _centred(composer, grouped, (2,))
    epsilon = attribute(attributes, "epsilon", 1e-5)
    normal = composer.add("Mul", centred, _inverse_root(composer, centred, (2,), epsilon))
    normal = composer.reshape(normal, *x.shape[1:])
    # Before operator set 21 there is one factor a group.
    factor, shift = (
        None if one is None else np.repeat(one, channels // one.size) for one in (factor, shift)
    )
    return _affine(composer, normal, factor, shift, axis=1)


def _layer_normalization(
    composer: Composer, operands: Operands, attributes: Attributes
) -> tuple[Tensor, Tensor, Tensor]:
    x = required(operands)
    first = inner_axis(attribute(attributes, "axis", -1), x.ndim)
    axes = tuple(range(first, x.ndim))
    centred, mean = _centred(composer, x, axes)
    inverse = _inverse_root(composer, centred, axes, attribute(attributes, "epsilon", 1e-5))
    normal = composer.add("Mul", centred, inverse)
    factor, shift = (clear(operands, i, n, _CONSTANTS) for i, n in ((1, "Scale"), (2, "B")))
    return _affine(composer, normal, factor, shift, axis=None), mean, inverse


def _rms_normalization(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    x = required(operands)
    first = inner_axis(attribute(attributes, "axis", -1), x.ndim)
    axes = tuple(range(first, x.ndim))
    inverse = _inverse_root(composer, x, axes, attribute(attributes, "epsilon", 1e-5))
    normal = composer.add("Mul", x, inverse)
    return _affine(composer, normal, clear(operands, 1, "scale", _CONSTANTS), None, axis=None)


def _mean_variance(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    x = required(operands)
    axes = [plain_axis(int(a), x.ndim) for a in attribute(attributes, "axes", (0, 2, 3))]
    if 0 in axes:
        raise UnsupportedAttributeError(
            f"axes={axes} include axis 0, the rows of the batch, which are encrypted one by one;"
            " accepted: axes from 1 on (axes=[2, 3] normalizes each image by itself)"
        )
    centred, _ = _centred(composer, x, axes)
    # The definition of the operator adds this number to the deviation, not to the variance.
    square = reduce(composer, "ReduceMean", composer.add("Mul", centred, centred), axes)
    deviation = composer.add("Add", root(composer, square), 1e-9)
    return composer.add("Mul", centred, composer.add("Reciprocal", deviation))


def _lp_normalization(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    x = required(operands)
    axis = inner_axis(attribute(attributes, "axis", -1), x.ndim)
    if attribute(attributes, "p", 2) == 1:
        norm = reduce(composer, "ReduceSum", composer.add("Abs", x), (axis,))
    else:
        squares = reduce(composer, "ReduceSum", composer.add("Mul", x, x), (axis,))
        norm = root(composer, squares)
    return composer.add("Mul", x, inverse_or_zero(composer, norm))


def inverse_or_zero(composer: Composer, norm: Tensor) -> Tensor:
    """One over a norm, and zero where it is zero (a value of norm zero stays as it is)."""
    is_zero = composer.add("Equal", norm, 0.0)
    safe = composer.add("Where", is_zero, np.ones((), norm.sample.dtype), norm)
    return composer.add("Reciprocal", safe)


register(
    "BatchNormalization", kind=Kind.MIXING, check=_check_inference, expand=_batch_normalization
)
register("InstanceNormalization", kind=Kind.MIXING, expand=_instance_normalization)
register("GroupNormalization", kind=Kind.MIXING, expand=_group_normalization)
register("LayerNormalization", kind=Kind.MIXING, expand=_layer_normalization)
register("RMSNormalization", kind=Kind.MIXING, expand=_rms_normalization)
register("MeanVarianceNormalization", kind=Kind.MIXING, expand=_mean_variance)
register("LpNormalization", kind=Kind.MIXING, expand=_lp_normalization, client=True)
