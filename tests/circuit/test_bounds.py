from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherlearn.circuit import Builder, Circuit, Interval, IntValue, evaluate, ir
from cipherlearn.circuit.bounds import infer, range_extremes
from cipherlearn.circuit.functions import convolve
from cipherlearn.circuit.interval import MAXIMUM_MAGNITUDE
from cipherlearn.errors import AccumulatorOverflowError
from tests.circuit.cases import CASES, circuit_of
from tests.circuit.programs import arrays_of, circuits, inputs_of, seeds


def check_values(circuit: Circuit, inputs: list[np.ndarray]) -> None:
    kept = evaluate(circuit, *inputs, keep=range(len(circuit))).values
    for node, values in zip(circuit.nodes, kept.values(), strict=True):
        assert node.shape == values.shape[1:]
        assert (values >= node.interval.lo).all(), node
        assert (values <= node.interval.hi).all(), node
        assert not (values % node.interval.step).any(), node


@settings(max_examples=200)
@given(circuits(), seeds)
def test_no_value_leaves_its_range(circuit: Circuit, seed: int) -> None:
    check_values(circuit, inputs_of(circuit, seed, rows=20))


@pytest.mark.parametrize("name", CASES)
def test_no_value_of_a_primitive_leaves_its_range(name: str) -> None:
    circuit = circuit_of(name)
    check_values(circuit, inputs_of(circuit, 3, rows=200))


def corners(*values: IntValue) -> list[np.ndarray]:
    """All combinations of smallest and largest integers of the inputs."""
    ends = [
        end
        for value in values
        for end in zip(value.interval.lo.flat, value.interval.hi.flat, strict=True)
    ]
    rows = np.array(list(itertools.product(*ends)))
    cuts = np.cumsum([value.size for value in values])[:-1]
    parts = np.split(rows, cuts, axis=1)
    return [part.reshape(-1, *value.shape) for part, value in zip(parts, values, strict=True)]


def assert_attained(result: IntValue, *inputs: IntValue) -> None:
    circuit = result.builder.finish([result])
    (values,) = evaluate(circuit, *corners(*inputs)).outputs
    np.testing.assert_array_equal(values.min(axis=0), result.interval.lo)
    np.testing.assert_array_equal(values.max(axis=0), result.interval.hi)


@given(st.data())
def test_linear_layers_attain_their_ranges(data: st.DataObject) -> None:
    lo = data.draw(st.integers(-9, 3))
    builder = Builder()
    x = builder.input("x", (2, 3), lo, lo + data.draw(st.integers(0, 9)))
    # Channels of different ranges: the layer's bounds go by element.
    value = x * arrays_of(data.draw, (1, 3), -3, 3) + arrays_of(data.draw, (2, 3), -5, 5)
    kind = data.draw(st.sampled_from(["right", "left", "convolve", "sum", "multiply"]))
    if kind == "right":
        value = value @ arrays_of(data.draw, (3, 4), -9, 9)
    elif kind == "left":
        value = arrays_of(data.draw, (4, 2), -9, 9) @ value
    elif kind == "convolve":
        kernel = arrays_of(data.draw, (3, 2, 2), -9, 9)
        image = value.reshape(1, 2, 3)
        value = convolve(image, kernel, strides=(1,), pads=(1, 0), dilations=(1,))
    elif kind == "sum":
        value = value.sum(axis=data.draw(st.sampled_from([None, 0, 1])))
    else:
        value = arrays_of(data.draw, (2, 3), -9, 9) * value
    if value.encrypted:
        assert_attained(value, x)


@given(st.data())
def test_products_of_encrypted_matrices_attain_their_ranges(data: st.DataObject) -> None:
    builder = Builder()
    bounds = [sorted(data.draw(st.tuples(st.integers(-9, 9), st.integers(-9, 9)))) for _ in "xy"]
    x = builder.input("x", (1, 2), *bounds[0])
    y = builder.input("y", (2, 2), *bounds[1])
    assert_attained(x @ y, x, y)


@pytest.mark.parametrize("function", [np.add, np.subtract, np.multiply, np.maximum])
def test_operations_of_two_values_attain_their_ranges(function: np.ufunc) -> None:
    builder = Builder()
    x = builder.input("x", (1, 2), -3, 5)
    y = builder.input("y", (2, 1), -7, -2)
    assert_attained(function(x, y), x, y)


@given(st.data())
def test_range_extremes_equal_a_search(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 40))
    extents = data.draw(st.sampled_from([(), (1, 1), (2, 1), (2, 3)]))
    table = arrays_of(data.draw, (rows, *extents), -99, 99)
    ends = np.sort(arrays_of(data.draw, (2, 1, 2, 3), 0, rows - 1), axis=0)
    lowest, highest = range_extremes(table, *ends)
    for place in np.ndindex(2, 3):
        column = tuple(i if n > 1 else 0 for i, n in zip(place, extents, strict=False))
        part = [table[(row, *column)] for row in range(ends[0, 0][place], ends[1, 0][place] + 1)]
        assert (lowest[0][place], highest[0][place]) == (min(part), max(part))


def test_range_extremes_of_no_elements() -> None:
    none = np.zeros((1, 0), dtype=np.int64)
    lowest, highest = range_extremes(np.arange(5), none, none)
    assert lowest.shape == highest.shape == (1, 0)


HALF = Interval.full((2, 2), -MAXIMUM_MAGNITUDE // 2, MAXIMUM_MAGNITUDE // 2)
ROOT = Interval.full((2, 2), -(2**31), 2**31)
IMAGE = Interval.full((1, 1, 2), 0, 2**31)


@pytest.mark.parametrize(
    ("primitive", "operands"),
    [
        (ir.Add(), (HALF, HALF)),
        (ir.Subtract(), (HALF, HALF)),
        (ir.Multiply(), (ROOT, ROOT)),
        (ir.Multiply(), (HALF, Interval.full((2, 2), 2, 2))),
        (ir.MatMul(), (ROOT, ROOT)),
        (ir.MatMul(), (Interval.constant(np.full((1, 2), 2**30)), ROOT)),
        (ir.Convolve((1,), (0, 0), (1,)), (IMAGE, Interval.constant(np.full((1, 1, 2), 2**30)))),
        (ir.Sum((0, 1)), (HALF,)),
        (ir.Round(61), (Interval.full((1,), 0, MAXIMUM_MAGNITUDE - 1),)),
        (ir.Input("x", (1,), 0, MAXIMUM_MAGNITUDE), ()),
        (ir.Constant(np.array([-MAXIMUM_MAGNITUDE])), ()),
        (ir.Lookup(np.array([2**62]), 0), (ROOT,)),
    ],
)
def test_more_than_62_bits_are_refused(
    primitive: ir.Primitive, operands: tuple[Interval, ...]
) -> None:
    with pytest.raises(AccumulatorOverflowError, match="62 bits"):
        infer(primitive, *operands)


def test_62_bits_are_enough_for_what_fits_them() -> None:
    limit = MAXIMUM_MAGNITUDE - 1
    whole = Interval.full((2,), -limit, limit)
    assert infer(ir.Maximum(), whole, whole).max == limit
    weights = Interval.constant(np.array([[1], [0]]))
    assert infer(ir.MatMul(), Interval.full((1, 2), 0, limit // 2), weights).max == limit // 2


EIGHTS = Interval(np.array([-16, 0]), np.array([16, 24]), step=8)
TWELVES = Interval(np.array([-12, 0]), np.array([12, 24]), step=12)
ZEROS = Interval.constant(np.zeros(2, dtype=np.int64))


@pytest.mark.parametrize(
    ("primitive", "operands", "step"),
    [
        (ir.Round(3), (Interval.full((2,), 0, 99),), 8),
        (ir.Round(2), (EIGHTS,), 8),
        (ir.Round(4), (EIGHTS,), 16),
        (ir.Add(), (EIGHTS, TWELVES), 4),
        (ir.Subtract(), (EIGHTS, Interval.constant(np.array([4, 20]))), 4),
        (ir.Add(), (EIGHTS, ZEROS), 8),
        (ir.Concatenate(0), (ZEROS, EIGHTS, ZEROS), 8),
        (ir.Maximum(), (EIGHTS, EIGHTS), 8),
        (ir.Sum((0,)), (EIGHTS,), 8),
        (ir.Index((1,)), (EIGHTS,), 8),
        (ir.Broadcast((3, 2)), (Interval.full((1, 2), 0, 0),), 1),
        (ir.Assume(np.array([-8, 0]), np.array([8, 16])), (EIGHTS,), 8),
        (ir.Assume(np.array([-8, 0]), np.array([6, 16])), (EIGHTS,), 2),
        (ir.Multiply(), (EIGHTS, EIGHTS), 1),
        (ir.Lookup(np.array([8, 16]), 0), (EIGHTS,), 1),
        (ir.Constant(np.array([6, -9])), (), 3),
    ],
)
def test_known_divisors(primitive: ir.Primitive, operands: tuple[Interval, ...], step: int) -> None:
    assert infer(primitive, *operands).step == step
