from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from cipherlearn.circuit import (
    Builder,
    Circuit,
    Interval,
    IntValue,
    Node,
    count_lookups,
    evaluate,
    fuse,
    ir,
)
from cipherlearn.circuit import fuse as fuse_function
from tests.circuit.programs import (
    add_constant,
    circuits,
    combine,
    inputs_of,
    lookup,
    movement,
    rounding,
    seeds,
)

UNIVARIATE_STEPS = (add_constant, combine, lookup, lookup, lookup, rounding, movement)

X_RANGE = (-3, 4)


def assert_same_results(circuit: Circuit, fused: Circuit, seed: int) -> None:
    inputs = inputs_of(circuit, seed, rows=12)
    before, after = evaluate(circuit, *inputs), evaluate(fused, *inputs)
    for found, expected in zip(after.outputs, before.outputs, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert sum(after.overflows.values()) == sum(before.overflows.values())
    assert fused.output_names == circuit.output_names
    assert [i.label for i in fused.inputs] == [i.label for i in circuit.inputs]


def assert_no_dearer(circuit: Circuit, fused: Circuit) -> None:
    before, after = count_lookups(circuit), count_lookups(fused)
    assert after.total <= before.total
    assert after.rounded_bits <= before.rounded_bits
    # From the widest down: never more look-ups of some width or more.
    for width in range(1, 40):
        wide = [sum(n for w, n in c.by_width.items() if w >= width) for c in (before, after)]
        assert wide[1] <= wide[0]


@settings(max_examples=150)
@given(circuits(), seeds)
def test_results_stay_and_costs_do_not_grow(circuit: Circuit, seed: int) -> None:
    fused = fuse(circuit)
    assert_same_results(circuit, fused, seed)
    assert_no_dearer(circuit, fused)


@settings(max_examples=250)
@given(circuits(exact=True, steps=UNIVARIATE_STEPS, most=12), seeds)
def test_the_same_for_circuits_of_many_lookups(circuit: Circuit, seed: int) -> None:
    fused = fuse(circuit)
    assert_same_results(circuit, fused, seed)
    assert_no_dearer(circuit, fused)


def table(value: IntValue, function: Callable[[np.ndarray], np.ndarray]) -> IntValue:
    """A look-up node for a function, whatever the builder would make of it."""
    interval = value.interval
    domain = interval.domain.reshape(-1, *(1,) * value.ndim)
    entries = np.asarray(function(domain), dtype=np.int64)
    lookup = ir.Lookup(entries, int(domain.flat[0]), interval.step)
    return value.builder.add(lookup, value)


def fused_of(function: Callable[[IntValue], IntValue | list[IntValue]]) -> tuple[Circuit, Circuit]:
    builder = Builder()
    outputs = function(builder.input("x", (2, 3), *X_RANGE))
    circuit = builder.finish(outputs if isinstance(outputs, list) else [outputs])
    fused = fuse(circuit)
    assert_same_results(circuit, fused, 0)
    assert_no_dearer(circuit, fused)
    return circuit, fused


def widths(circuit: Circuit) -> dict[int, int]:
    return count_lookups(circuit).by_width


ONE_TABLE: dict[str, Callable[[IntValue], IntValue]] = {
    "two look-ups": lambda x: table(table(x, lambda v: v * v), lambda v: v // 3),
    "three look-ups": lambda x: table(
        table(table(x, lambda v: v + 1), lambda v: v % 3), lambda v: v - 5
    ),
    "a wider value between": lambda x: table(table(x, lambda v: v * 90), lambda v: v // 100),
    "a wider source": lambda x: table(table(x, lambda v: v > 0), lambda v: 5 * v - 2),
    "constants between": lambda x: table(
        3 - table(x, np.abs) * np.array([1, 2, 3]) + 1, lambda v: v // 2
    ),
    "constants before": lambda x: table(x * 3 - 7, lambda v: v // 2),
    "tables by channel": lambda x: table(
        table(x, lambda v: v * np.array([1, -2, 3])), lambda v: v // np.array([[2], [3]])
    ),
    "a branch": lambda x: table(x + table(x, lambda v: v % 4), lambda v: v // 2),
    "branches": lambda x: table(table(x, lambda v: v % 4) - table(x, np.abs) + 3, lambda v: v * v),
    "a square": lambda x: x * x,
    "a product of branches": lambda x: x * table(x, lambda v: v > 0),
    "a maximum of branches": lambda x: np.maximum(x, table(x, lambda v: v % 2)),
    "a maximum with a constant": lambda x: x.builder.add(
        ir.Maximum(), x, x.builder.constant(np.ones((2, 3), dtype=np.int64))
    ),
    "a rounding below": lambda x: table(
        table((x * 33).round(5, exact=True), lambda v: v // 32), lambda v: v % 3
    ),
}


@pytest.mark.parametrize("name", ONE_TABLE)
def test_becomes_one_table(name: str) -> None:
    _, fused = fused_of(ONE_TABLE[name])
    assert widths(fused) == {4: 6}, str(fused)


def test_inverse_tables_vanish() -> None:
    _, fused = fused_of(lambda x: table(table(x, lambda v: 9 - v), lambda v: 9 - v))
    assert [node.primitive.name for node in fused] == ["Input"]


def test_tables_that_shift_become_sums() -> None:
    _, fused = fused_of(lambda x: table(x * 2, lambda v: v // 2 + 5) + 1)
    assert widths(fused) == {}


def test_a_shared_narrow_value_is_read_where_it_is() -> None:
    # The sign is needed anyway: its reader stays on one bit rather than go back to four.
    def function(x: IntValue) -> list[IntValue]:
        sign = table(x, lambda v: v > 0)
        return [sign, table(sign, lambda v: 3 * v * v - 1), x @ np.ones((3, 1), dtype=np.int64)]

    circuit, fused = fused_of(function)
    assert widths(fused) == widths(circuit) == {1: 6, 4: 6}


def test_a_shared_chain_does_not_pull_its_readers_back() -> None:
    # Behind an operation of its own, the sharing of an earlier look-up still counts.
    def function(x: IntValue) -> list[IntValue]:
        sign = table(x, lambda v: v > 0)
        return [sign, table(sign + 1, lambda v: v * v * v)]

    _, fused = fused_of(function)
    assert widths(fused) == {1: 6, 4: 6}


def test_a_shared_value_that_is_no_narrower_is_passed_by() -> None:
    def function(x: IntValue) -> list[IntValue]:
        wide = table(x, lambda v: v * 3)
        return [table(wide, lambda v: v % 4), table(wide, lambda v: v % 5)]

    _, fused = fused_of(function)
    assert widths(fused) == {4: 12}


def test_a_narrow_lookup_saved_does_not_pay_for_a_wide_one() -> None:
    def function(x: IntValue) -> list[IntValue]:
        sign, parity = table(x, lambda v: v > 0), table(x, lambda v: v % 2)
        inverse = table(sign, lambda v: 1 - v)
        return [sign, parity, table(inverse + parity, lambda v: v // 2)]

    circuit, fused = fused_of(function)
    assert widths(circuit) == widths(fused) == {1: 6, 2: 6, 4: 12}


def test_outputs_stay() -> None:
    circuit, fused = fused_of(lambda x: [y := table(x, lambda v: v * v), table(y, lambda v: v % 7)])
    assert widths(circuit) == {4: 6, 5: 6}
    assert widths(fused) == {4: 12}


def test_values_of_two_sources_stay() -> None:
    builder = Builder()
    x, y = builder.input("x", (2,), 0, 3), builder.input("y", (2,), 0, 3)
    circuit = builder.finish([table(table(x, np.square) + y, lambda v: v // 2), x * y])
    fused = fuse(circuit)
    assert widths(fused) == widths(circuit)
    assert_same_results(circuit, fused, 0)


def test_broadcasts_are_not_crossed() -> None:
    # Two look-ups before the repetition are fewer than six behind it.
    def function(x: IntValue) -> IntValue:
        column = table(x[:, :1], lambda v: v % 3)
        return table(column * np.array([1, 2, 3]), lambda v: v // 2)

    circuit, fused = fused_of(function)
    assert widths(fused) == widths(circuit)


@pytest.mark.parametrize(
    "between",
    [
        lambda v: v.assume(np.array(0), np.array(5)),
        lambda v: v.builder.add(ir.Round(2, exact=True), v),
        lambda v: v.builder.add(ir.Round(2, exact=False), v),
    ],
)
def test_declared_ranges_and_roundings_are_not_crossed(between: Callable[[Any], Any]) -> None:
    circuit, fused = fused_of(lambda x: table(between(table(x, np.abs) * 4), lambda v: v // 3))
    names = [node.primitive.name for node in circuit]
    assert [node.primitive.name for node in fused] == names


def test_steps_are_kept() -> None:
    def function(x: IntValue) -> list[IntValue]:
        rounded = (x * 40).round(5, exact=True)
        largest = np.maximum(rounded, 64 - rounded)
        return [largest, table(largest, lambda v: v // 32)]

    _, fused = fused_of(function)
    assert fused.nodes[fused.outputs[0]].interval.step == 32


def test_values_too_wide_to_look_up_are_not_sources() -> None:
    builder = Builder()
    x = builder.input("x", (2,), 0, 2**20)
    circuit = builder.finish([x * x])
    assert widths(fuse(circuit)) == widths(circuit)


def test_tables_too_large_for_memory_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fuse_function.__globals__, "MAXIMUM_TABLE_ENTRIES", 8 * 6 - 1)

    def function(x: IntValue) -> IntValue:
        return table(table(x, np.square) * np.arange(6).reshape(2, 3), lambda v: v // 2)

    circuit, fused = fused_of(function)
    assert widths(fused) == widths(circuit)
    monkeypatch.setitem(fuse_function.__globals__, "MAXIMUM_TABLE_ENTRIES", 8 * 6)
    assert widths(fused_of(function)[1]) == {4: 6}


def test_entries_that_never_occur_may_be_huge() -> None:
    # The second element stays small; the common domain would take it beyond 62 bits.
    builder = Builder()
    x = builder.input("x", (1, 2), 0, 7)
    wide = x @ np.array([[100, 0], [0, 1]])
    product = wide * np.array([1, 100]) * 2**52
    circuit = builder.finish([builder.add(ir.Maximum(), product, builder.constant([[0, 5]]))])
    fused = fuse(circuit)
    assert_same_results(circuit, fused, 0)
    assert widths(circuit) == {63: 2}
    assert widths(fused) == {10: 2}


def test_circuits_that_no_builder_made() -> None:
    whole, known = Interval.full((2,), 0, 3), Interval.constant(np.array([5, 5]))
    nodes = (
        Node(ir.Input("x", (2,), 0, 3), (), whole, encrypted=True),
        Node(ir.Constant(np.array([5, 5])), (), known, encrypted=False),
        Node(ir.Maximum(), (1, 1), known, encrypted=False),
        Node(ir.Add(), (0, 2), Interval.full((2,), 5, 8), encrypted=True),
    )
    circuit = Circuit(nodes, (3,))
    assert_same_results(circuit, fuse(circuit), 0)


def test_labels_stay() -> None:
    builder = Builder()
    with builder.scope("first"):
        y = table(builder.input("x", (2,), 0, 7), lambda v: v * v)
    with builder.scope("second"):
        z = table(y, lambda v: v % 5)
    assert count_lookups(fuse(builder.finish([z]))).by_label == {"second": 2}
