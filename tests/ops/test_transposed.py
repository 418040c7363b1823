"""Transposed convolutions are the transposed linear map of convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cipherlearn import ops
from cipherlearn.circuit import Builder, evaluate
from cipherlearn.ops._transposed import transposed_correlation
from cipherlearn.ops._windows import axes_of, cross_correlation


@settings(max_examples=40)
@given(
    count=st.integers(1, 4),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    pads=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    groups=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
def test_inner_products_move_to_the_other_side(
    count: int,
    kernel: int,
    stride: int,
    dilation: int,
    pads: tuple[int, int],
    groups: int,
    seed: int,
) -> None:
    """<convolve(x), y> = <x, transposed(y)>, for every x and y."""
    extent = (count - 1) * stride + dilation * (kernel - 1) + 1 - sum(pads)
    assume(extent >= 1)
    attributes = {
        "strides": [stride],
        "dilations": [dilation],
        "pads": list(pads),
        "group": groups,
    }
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-9, 10, (1, 2, extent)), rng.integers(-9, 10, (1, 4, count))
    weights = rng.integers(-4, 5, (4, 2 // groups, kernel))
    axes = axes_of(attributes, [extent], [kernel])
    assume(axes[0].count == count)
    forward = cross_correlation(x, weights, axes, groups)
    back = transposed_correlation(y, weights, attributes)
    assert back.shape == x.shape
    assert (forward * y).sum() == (x * back).sum()


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 3], "output_padding": [1, 2]},
        {"strides": [2, 2], "output_shape": [7, 9]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [3, 2], "auto_pad": "SAME_LOWER"},
        {"pads": [2, 1, 0, 2]},
    ],
)
def test_integers_reals_and_circuits_are_what_onnx_says(attributes: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    values, weights = rng.integers(-9, 10, (2, 2, 3, 4)), rng.integers(-4, 5, (2, 3, 3, 2))
    (expected,) = ops.get("ConvTranspose").numpy(
        values.astype(float), weights.astype(float), **attributes
    )
    found = transposed_correlation(values, weights, attributes)
    np.testing.assert_array_equal(found, expected)
    builder = Builder()
    source = builder.input("x", (1, 2, 3, 4), -9, 9)
    circuit = builder.finish([transposed_correlation(source, weights, attributes)])
    np.testing.assert_array_equal(evaluate(circuit, values[:, None]).outputs[0][:, 0], found)
