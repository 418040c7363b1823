"""Images made larger or smaller."""

from __future__ import annotations

import numpy as np

from cipherlearn.errors import UnsupportedAttributeError
from cipherlearn.ops._composition import (
    Attributes,
    Operands,
    attribute,
    clear,
    required,
    take,
    transpose,
)
from cipherlearn.ops._expand import Composer, Tensor
from cipherlearn.ops._operands import Array
from cipherlearn.ops._registry import Kind, register


def _resize(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    x = required(operands)
    names = ("roi", "scales", "sizes")
    rest = [clear(operands, 1 + i, name) for i, name in enumerate(names)]
    nearest = attribute(attributes, "mode", "nearest") == "nearest"

    def run(array: Array) -> Array:
        return composer.evaluate("Resize", [array, *rest], composer.opset, attributes)[0]

    # The axes are resized one after the other, whatever the sizes are computed from.
    shape = x.shape
    target = run(np.zeros(shape)).shape
    if run(np.zeros(shape)).any() or not np.allclose(run(np.ones(shape)), 1.0):
        raise UnsupportedAttributeError(
            "coordinate_transformation_mode='tf_crop_and_resize' with a region that exceeds the"
            f" image (roi={np.ravel(rest[0] if rest[0] is not None else ()).tolist()}) is not"
            " supported; accepted: regions inside. Add a Pad node for the borders"
        )
    for axis in range(1, x.ndim):
        if nearest:
            index = _along(run(_coordinates(shape, axis)), axis)
            if not np.array_equal(index, np.arange(shape[axis])):
                x = take(composer, x, index, axis)
        else:
            rows = [
                _along(run((_coordinates(shape, axis) == i).astype(np.float64)), axis)
                for i in range(shape[axis])
            ]
            x = _interpolated(composer, x, np.reshape(rows, (shape[axis], target[axis])), axis)
    return x


def _coordinates(shape: tuple[int, ...], axis: int) -> Array:
    """At each place, its number along one axis."""
    numbers = np.arange(shape[axis], dtype=np.float64)
    return np.broadcast_to(
        numbers.reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape
    )


def _along(values: Array, axis: int) -> Array:
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)[:, 0]


def _interpolated(composer: Composer, x: Tensor, weights: Array, axis: int) -> Tensor:
    """Weighted means of the elements along an axis."""
    if np.array_equal(weights, np.eye(len(weights))):
        return x
    order = [i for i in range(x.ndim) if i != axis] + [axis]
    product = composer.add("MatMul", transpose(composer, x, order), weights.astype(x.sample.dtype))
    return transpose(composer, product, np.argsort(order).tolist())


register("Resize", kind=Kind.MIXING, raw_inputs={1, 2, 3}, expand=_resize)
