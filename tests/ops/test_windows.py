"""Windows: where they lie, and sums, products and maxima over them, against plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cipherlearn.circuit import Builder, evaluate
from cipherlearn.errors import InvalidShapeError
from cipherlearn.ops._windows import (
    Axis,
    axes_of,
    cross_correlation,
    window_maximum,
    window_sizes,
    window_sum,
)


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    """Windows that all hold an element of the input."""
    extent, kernel = draw(st.integers(2, 6)), draw(st.integers(1, 3))
    stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    pads = draw(st.tuples(st.integers(0, kernel - 1), st.integers(0, kernel - 1)))
    assume(extent + sum(pads) > dilation * (kernel - 1))
    attributes = {"strides": [stride], "dilations": [dilation], "pads": list(pads)}
    (axis,) = axes_of({**attributes, "ceil_mode": draw(st.booleans())}, [extent], [kernel])
    inside = (axis.positions >= 0) & (axis.positions < extent)
    assume(bool(inside.any(axis=1).all()))
    return axis


def windows(values: np.ndarray, chosen: list[Axis]) -> dict[tuple[int, ...], np.ndarray]:
    """For each window, its elements (padding left out): shape (batch, channels, taps)."""
    result = {}
    for place in itertools.product(*(range(axis.count) for axis in chosen)):
        taps = [
            [p for p in axis.positions[i] if 0 <= p < axis.extent]
            for i, axis in zip(place, chosen, strict=True)
        ]
        result[place] = np.stack([values[(..., *tap)] for tap in itertools.product(*taps)], axis=-1)
    return result


def image(chosen: list[Axis], seed: int) -> np.ndarray:
    shape = (2, 3, *(axis.extent for axis in chosen))
    return np.random.default_rng(seed).integers(-9, 10, shape)


@settings(max_examples=40)
@given(chosen=st.lists(axes(), min_size=1, max_size=2), seed=st.integers(0, 99))
def test_sums_maxima_and_sizes_are_those_of_the_windows(chosen: list[Axis], seed: int) -> None:
    values = image(chosen, seed)
    sums, maxima = window_sum(values, chosen), window_maximum(values, chosen)
    sizes = window_sizes(chosen, padded=False)
    expected = windows(values, chosen)
    assert sums.shape == maxima.shape == (2, 3, *(axis.count for axis in chosen))
    for place, elements in expected.items():
        np.testing.assert_array_equal(sums[(..., *place)], elements.sum(axis=-1))
        np.testing.assert_array_equal(maxima[(..., *place)], elements.max(axis=-1))
        assert sizes[(0, 0, *place)] == elements.shape[-1]


@settings(max_examples=40)
@given(
    chosen=st.lists(axes(), min_size=1, max_size=2),
    groups=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_arrays_reals_and_circuits_agree_on_a_correlation(
    chosen: list[Axis], groups: int, seed: int
) -> None:
    values = image(chosen, seed)
    kernel = (axis.kernel for axis in chosen)
    weights = np.random.default_rng(seed).integers(-4, 5, (6, 3 // groups, *kernel))
    found = cross_correlation(values, weights, chosen, groups)
    reals = cross_correlation(values.astype(float), weights.astype(float), chosen, groups)
    np.testing.assert_allclose(reals, found)
    builder = Builder()
    source = builder.input("x", (1, *values.shape[1:]), -9, 9)
    circuit = builder.finish([cross_correlation(source, weights, chosen, groups)])
    np.testing.assert_array_equal(evaluate(circuit, values[:, None]).outputs[0][:, 0], found)


@given(extent=st.integers(1, 12), kernel=st.integers(1, 5), stride=st.integers(1, 4))
def test_same_padding_gives_a_window_for_each_step(extent: int, kernel: int, stride: int) -> None:
    attributes = {"strides": [stride], "auto_pad": "SAME_UPPER"}
    (upper,) = axes_of(attributes, [extent], [kernel])
    (lower,) = axes_of({**attributes, "auto_pad": "SAME_LOWER"}, [extent], [kernel])
    assert upper.count == lower.count == -(-extent // stride)
    assert (upper.begin, upper.end) == (lower.end, lower.begin)
    assert 0 <= upper.end - upper.begin <= 1


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidShapeError, match="a window of 5 does not fit an input of 3 with 0"):
        axes_of({"dilations": [2]}, [3], [3])
    with pytest.raises(InvalidShapeError, match=r"\(3, 3\) does not fit an input with 1 axes"):
        axes_of({}, [3], [3, 3])
    with pytest.raises(InvalidShapeError, match="was given where 4 numbers are needed"):
        axes_of({"pads": [1, 1]}, [4, 4], [2, 2])
