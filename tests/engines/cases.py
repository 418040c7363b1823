"""Small circuits, one or two for every primitive, with look-ups of at most four bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cipherlearn.circuit import Builder, Circuit, IntValue
from cipherlearn.circuit.functions import concatenate, convolve

CASES: dict[str, Callable[[Builder], IntValue | list[IntValue]]] = {}


def case(function: Callable[[Builder], IntValue | list[IntValue]]) -> Callable[..., object]:
    """Register a case by the name of its function."""
    CASES[function.__name__] = function
    return function


def build(name: str) -> Circuit:
    """The circuit of a case."""
    builder = Builder()
    outputs = CASES[name](builder)
    return builder.finish(outputs if isinstance(outputs, list) else [outputs])


def integers(*shape: int, lo: int = -3, hi: int = 3, seed: int = 0) -> np.ndarray:
    """Reproducible weights."""
    return np.random.default_rng(seed).integers(lo, hi, shape, endpoint=True)


@case
def sums_and_differences(b: Builder) -> IntValue:
    x, y = b.input("x", (2, 3), -4, 7), b.input("y", (1, 3), 0, 3)
    return (x + y) - (5 - x) + integers(2, 3) - (-y)


@case
def products_by_constants(b: Builder) -> IntValue:
    x = b.input("x", (2, 3), -4, 7)
    return x * integers(1, 3, lo=-9, hi=9) * -2


@case
def products_of_two_encrypted_values(b: Builder) -> list[IntValue]:
    x, y = b.input("x", (2, 2), -2, 1), b.input("y", (2, 2), 0, 3)
    return [x * y, x * x]


@case
def matrix_products_by_constants(b: Builder) -> list[IntValue]:
    x = b.input("x", (2, 2, 3), -1, 2)
    return [x @ integers(3, 2), integers(2, 4, 2) @ x]


@case
def matrix_product_of_two_encrypted_values(b: Builder) -> IntValue:
    x, y = b.input("x", (2, 2), -1, 2), b.input("y", (2, 1), 0, 3)
    return x @ y


@case
def maximum(b: Builder) -> list[IntValue]:
    x, y = b.input("x", (2, 2), -3, 4), b.input("y", (1, 2), -1, 2)
    return [np.maximum(x, y), np.maximum(x, 1).astype(np.int64)]


@case
def convolution_of_images(b: Builder) -> IntValue:
    x = b.input("x", (1, 2, 4, 3), 0, 7)
    weights = integers(4, 1, 2, 2)
    return convolve(x, weights, strides=(2, 1), pads=(1, 0, 1, 0), dilations=(1, 2), groups=2)


@case
def convolution_with_uneven_padding(b: Builder) -> IntValue:
    x = b.input("x", (1, 1, 3, 3), -2, 5)
    weights = integers(2, 1, 2, 2)
    return convolve(x, weights, strides=(1, 2), pads=(0, 1, 2, 0), dilations=(1, 1))


@case
def convolution_of_sequences(b: Builder) -> IntValue:
    x = b.input("x", (2, 2, 5), -4, 3)
    return convolve(x, integers(3, 2, 2), strides=(2,), pads=(0, 1), dilations=(1,))


@case
def convolution_of_volumes(b: Builder) -> IntValue:
    x = b.input("x", (1, 1, 2, 3, 2), 0, 3)
    weights = integers(2, 1, 2, 2, 1)
    return convolve(x, weights, strides=(1, 1, 1), pads=(0, 1, 0, 0, 0, 1), dilations=(1, 1, 1))


@case
def totals(b: Builder) -> list[IntValue]:
    x = b.input("x", (2, 3, 2), -4, 3)
    return [x.sum(1), x.sum((0, 2), keepdims=True), x.sum()]


@case
def selections(b: Builder) -> list[IntValue]:
    x = b.input("x", (3, 4), -8, 7)
    return [
        x[1],
        x[:, 1:4:2],
        x[::-1, -1],
        x[:, np.array([3, 0, 0])],
        x[np.array([2, 1])],
        x[2, 3],
    ]


@case
def movements(b: Builder) -> list[IntValue]:
    x = b.input("x", (2, 1, 3), 0, 7)
    return [
        x.reshape(3, 2),
        x.transpose(2, 0, 1),
        x.broadcast_to((2, 2, 3)),
        concatenate([x[0], np.array([[-1, 0, 9]]), x[1]], axis=1),
    ]


@case
def lookups(b: Builder) -> IntValue:
    x = b.input("x", (2, 3), -3, 4)
    return np.rint(np.tanh(x * 0.5) * 6).astype(np.int64)


@case
def lookups_that_differ_by_element(b: Builder) -> IntValue:
    x = b.input("x", (2, 3), -3, 4)
    return x.lookup(integers(8, 2, 3, lo=-15, hi=15), -3)


@case
def lookups_that_differ_by_channel(b: Builder) -> IntValue:
    x = b.input("x", (1, 2, 2, 2), 5, 12)
    scales = np.array([0.3, -1.7]).reshape(1, 2, 1, 1)
    return np.rint(x * scales).astype(np.int64)


@case
def lookups_outside_of_their_table(b: Builder) -> IntValue:
    return b.input("x", (4,), -4, 11).lookup(np.array([7, -2, 3]), 1, 2)


@case
def rounded_lookups(b: Builder) -> list[IntValue]:
    x = b.input("x", (1, 3), 0, 31)
    accumulator = x * np.array([1, -2, 3]) + 40
    roundings = [accumulator.round(5, exact=exact) for exact in (True, False)]
    return [np.rint(rounded * 0.3 - 2).astype(np.int64) for rounded in roundings]


@case
def roundings_that_no_table_reads(b: Builder) -> IntValue:
    return b.input("x", (5,), -9, 22).round(2, exact=True) + 1


@case
def declared_ranges(b: Builder) -> IntValue:
    x = b.input("x", (1, 4), 0, 15)
    # Sixteen times as wide as declared: the smallest inputs only stay inside.
    accumulator = (x @ integers(4, 2, lo=0, hi=16, seed=1)).assume(0, 15)
    return np.rint(np.sqrt(accumulator)).astype(np.int64)


@case
def clear_inputs(b: Builder) -> IntValue:
    x = b.input("x", (2, 2), -3, 2)
    w = b.input("w", (2, 2), -4, 3, encrypted=False)
    squared = w.lookup(np.arange(-4, 4) ** 2, -4)  # the client computes this in the clear
    return x @ w + x * squared - w + np.maximum(x, w).sum(1, keepdims=True)


@case
def several_layers(b: Builder) -> IntValue:
    x = b.input("x", (1, 4), 0, 3)
    hidden = np.rint(np.maximum(x @ integers(4, 3, lo=-1, hi=1), 0) * 0.7).astype(np.int64)
    return hidden @ integers(3, 2) + 11


@case
def the_same_result_twice(b: Builder) -> list[IntValue]:
    x = b.input("x", (2,), 0, 7)
    y = x + 1
    return [y, x, y]


@case
def values_of_no_axis(b: Builder) -> list[IntValue]:
    x, y = b.input("x", (), 0, 5), b.input("y", (), -2, 2)
    return [x * 3 - y, np.abs(y).astype(np.int64)]


@case
def one_value_read_by_many(b: Builder) -> list[IntValue]:
    x = b.input("x", (2,), -3, 4)
    y = x * 5 - 3
    table = np.rint(np.abs(x) * 0.5).astype(np.int64)
    return [y, table, table - x, np.rint(y.round(3, exact=True) * 0.1).astype(np.int64)]


@case
def values_that_are_constant_in_part(b: Builder) -> IntValue:
    x = b.input("x", (1, 3), 0, 3)
    zeroed = x * np.array([1, 0, 2])
    return np.rint(np.sqrt(zeroed)).astype(np.int64) + (zeroed[:, 1:2] - 4)


@case
def bits_of_inputs(b: Builder) -> IntValue:
    return b.input("x", (1, 6), 0, 1) @ integers(6, 2, lo=-9, hi=9)


@case
def inputs_that_nothing_reads(b: Builder) -> IntValue:
    b.input("unused", (3,), 0, 3)
    return b.input("x", (2,), 0, 3) + 1
