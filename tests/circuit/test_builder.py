from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cipherlearn.circuit import Builder, Circuit, IntValue, evaluate, ir
from cipherlearn.errors import AccumulatorOverflowError, CircuitError, LookupWidthError
from tests.circuit.cases import CASES, build


def names(circuit: Circuit) -> list[str]:
    return [node.primitive.name for node in circuit]


@pytest.mark.parametrize("name", sorted(set(CASES) - {"input", "clear input"}))
def test_equal_operations_become_one_node(name: str) -> None:
    builder, value = build(name)
    primitive, _ = CASES[name]
    operands = [IntValue(builder, index) for index in value.node.inputs]
    count = len(list(builder))
    assert builder.add(primitive, *operands).position == value.position
    again = type(primitive)(**vars(primitive))
    assert builder.add(again, *operands).position == value.position
    assert len(list(builder)) == count


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ir.Round(1), ir.Round(1, exact=False)),
        (ir.Round(1), ir.Round(2)),
        (ir.Sum((0,)), ir.Sum((0,), keepdims=True)),
        (ir.Index((0,)), ir.Index((1,))),
        (ir.Index((slice(0, 1),)), ir.Index((slice(0, 2),))),
        (ir.Index((np.array([0]),)), ir.Index((np.array([1]),))),
        (ir.Lookup(np.arange(4), 0), ir.Lookup(np.arange(4), 1)),
        (ir.Lookup(np.arange(4), 0), ir.Lookup(np.arange(1, 5), 0)),
        (ir.Lookup(np.arange(4), 0), ir.Lookup(np.arange(4).reshape(2, 2, 1), 0)),
        (ir.Reshape((2, 2)), ir.Reshape((4,))),
    ],
)
def test_different_operations_stay_apart(one: ir.Primitive, other: ir.Primitive) -> None:
    builder = Builder()
    x = builder.input("x", (2, 2), 0, 9)
    assert builder.add(one, x).position != builder.add(other, x).position


def test_malformed_operations_are_not_taken_for_known_ones() -> None:
    builder = Builder()
    x = builder.input("x", (2, 2), 0, 9)
    table = np.arange(4)
    x.lookup(table.reshape(4, 1, 1), 0)
    x.round(1, exact=True)
    with pytest.raises(CircuitError, match="int64"):
        builder.add(ir.Lookup(table.view(np.float64).reshape(4, 1, 1), 0), x)
    with pytest.raises(CircuitError, match="True or False"):
        builder.add(ir.Round(1, 1), x)  # type: ignore[arg-type]


def test_operands_in_another_order_stay_apart() -> None:
    builder = Builder()
    x, y = builder.input("x", (2,), 0, 9), builder.input("y", (2,), 0, 9)
    assert (x - y).position != (y - x).position


def test_operations_on_constants_become_constants() -> None:
    builder = Builder()
    constant = builder.constant(np.array([[3, -5]]))
    results = [
        constant + 1,
        constant.T,
        constant.lookup(np.arange(10, 19), -5),
        constant @ np.array([[1], [2]]),
        constant.round(2, exact=False),
    ]
    values = [result.node.primitive for result in results]
    assert [v.values.tolist() for v in values if isinstance(v, ir.Constant)] == [
        [[4, -4]],
        [[3], [-5]],
        [[18, 10]],
        [[-7]],
        [[4, -4]],
    ]


def test_sums_of_constants_that_overflow_are_refused() -> None:
    builder = Builder()
    large = builder.constant(2**61)
    with pytest.raises(AccumulatorOverflowError):
        large + large


def test_declared_ranges_of_constants_still_count() -> None:
    builder = Builder()
    declared = builder.constant(np.array([7])).assume(np.array([0]), np.array([5]))
    circuit = builder.finish([declared + builder.input("x", (1,), 0, 1)])
    evaluation = evaluate(circuit, np.array([[1]]))
    assert evaluation.overflow_count == 1
    assert evaluation.outputs[0].tolist() == [[6]]


@pytest.mark.parametrize(
    ("values", "dtype"), [(True, bool), ([1, 2], int), (np.array([[5]], dtype=np.uint16), int)]
)
def test_constants(values: Any, dtype: type) -> None:
    del dtype
    node = Builder().constant(values).node
    assert isinstance(node.primitive, ir.Constant)
    assert node.primitive.values.dtype == np.int64
    np.testing.assert_array_equal(node.primitive.values, values)


@pytest.mark.parametrize("values", [1.0, [0.5], "text", None, 2**70, [1j]])
def test_constants_hold_integers(values: Any) -> None:
    with pytest.raises(CircuitError, match="a circuit holds integers"):
        Builder().constant(values)


@pytest.mark.parametrize("values", [2**62, -(2**62), np.array([1, 2**64 - 1], dtype=np.uint64)])
def test_constants_fit_62_bits(values: Any) -> None:
    with pytest.raises(AccumulatorOverflowError, match="62 bits"):
        Builder().constant(values)


def test_inputs() -> None:
    builder = Builder()
    x = builder.input("x", (np.int32(2), 3), np.int8(-4), np.int8(5), encrypted=False)  # type: ignore[arg-type]
    assert (x.shape, x.interval.min, x.interval.max, x.encrypted) == ((2, 3), -4, 5, False)
    primitive = x.node.primitive
    assert isinstance(primitive, ir.Input)
    assert [type(n) for n in (*primitive.shape, primitive.lo, primitive.hi)] == [int] * 4


def test_inputs_need_names_of_their_own() -> None:
    builder = Builder()
    builder.input("x", (2,), 0, 1)
    with pytest.raises(CircuitError, match="two inputs are named 'x'"):
        builder.input("x", (2,), 0, 1)
    with pytest.raises(CircuitError, match="two inputs are named 'x'"):
        builder.add(ir.Input("x", (3,), 0, 1))


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(CircuitError, match="not a range"):
        Builder().input("x", (2,), 3, 2)


def test_encryption_spreads() -> None:
    builder = Builder()
    x = builder.input("x", (2,), 0, 1)
    clear = builder.input("clear", (2,), 0, 1, encrypted=False)
    assert not (clear + 1).encrypted
    assert not builder.constant([1, 2]).encrypted
    assert (clear + x).encrypted


def test_labels_are_those_of_the_innermost_scope() -> None:
    builder = Builder()
    x = builder.input("x", (2,), 0, 1)
    with builder.scope("outer"):
        a = x + 1
        with builder.scope("inner"):
            b = x + 2
        c = x + 3
        a_again = x + 1
    assert [v.node.label for v in (x, a, b, c, a_again)] == ["", "outer", "inner", "outer", "outer"]
    with pytest.raises(ZeroDivisionError), builder.scope("broken"):
        1 / 0  # noqa: B018
    assert builder.label == ""


def test_values_of_two_builders_do_not_mix() -> None:
    x, y = Builder().input("x", (2,), 0, 1), Builder().input("y", (2,), 0, 1)
    with pytest.raises(CircuitError, match="Add mixes values of two builders"):
        x + y
    with pytest.raises(CircuitError, match="mixes values of two builders"):
        x * 0.5 + y * 0.5


def test_what_nothing_reads_is_left_out() -> None:
    builder = Builder()
    x = builder.input("x", (2,), 0, 1)
    builder.input("unread", (2,), 0, 1)
    x * 5
    circuit = builder.finish([x + 1], ["sum"])
    assert names(circuit) == ["Input", "Input", "Constant", "Add"]
    assert circuit.output_names == ("sum",)


def test_outputs_that_are_no_integer_values_of_the_builder() -> None:
    builder = Builder()
    x = builder.input("x", (2,), 0, 1)
    other = Builder().input("x", (2,), 0, 1)
    for output in (x * 0.5, other, np.array([1]), 3):
        with pytest.raises(
            CircuitError, match="the output 'score' is not an integer value of this"
        ):
            builder.finish([output], ["score"])  # type: ignore[list-item]
    with pytest.raises(CircuitError, match=r"the output number 1 is not .* astype"):
        builder.finish([x, x * 0.5])  # type: ignore[list-item]


def test_outputs_that_are_not_encrypted() -> None:
    builder = Builder()
    x = builder.input("x", (2,), 0, 1)
    clear = builder.input("clear", (2,), 0, 1, encrypted=False)
    with pytest.raises(CircuitError, match="'b' does not depend on an encrypted input"):
        builder.finish([x, clear + 1], ["a", "b"])
    with pytest.raises(CircuitError, match="number 0 does not depend"):
        builder.finish([builder.constant(1)])


@pytest.mark.parametrize("given", [["a"], ["a", "b", "c"], ["a", "a"]])
def test_outputs_need_as_many_names(given: list[str]) -> None:
    builder = Builder()
    x = builder.input("x", (2,), 0, 1)
    with pytest.raises(CircuitError, match="names"):
        builder.finish([x, x + 1], given)


def test_no_outputs() -> None:
    with pytest.raises(CircuitError, match="at least one output"):
        Builder().finish([])


def test_the_kernel_of_a_convolution_is_constant() -> None:
    builder = Builder()
    image = builder.input("x", (1, 1, 4), 0, 1)
    kernel = builder.input("w", (1, 1, 2), 0, 1)
    with pytest.raises(CircuitError, match="kernel"):
        builder.add(ir.Convolve((1,), (0, 0), (1,)), image, kernel)


def test_the_width_of_lookups_is_limited() -> None:
    builder = Builder()
    x = builder.input("x", (2,), 0, 2**17)
    below = builder.input("below", (2,), -(2**15), 2**15 - 1)
    table = ir.Lookup(np.arange(3), 0)
    with builder.scope("fc1"), pytest.raises(LookupWidthError, match=r"fc1 needs .* on 18 bits"):
        builder.add(table, x)
    assert builder.add(table, below).interval.max == 2
    # After rounding, only the kept bits are read.
    assert builder.add(table, x.round(4, exact=False)).interval.max == 2
