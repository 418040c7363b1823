from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cipherlearn.circuit import Builder, Circuit, IntValue, evaluate, ir
from cipherlearn.engines._legalize import LEAST_ROUNDED_BITS, Legalized, legalize
from cipherlearn.engines._regions import find_regions
from cipherlearn.errors import CompilationError, LookupWidthError
from tests.circuit.programs import circuits
from tests.engines.cases import CASES, build
from tests.engines.conformance import inputs_of
from tests.engines.modular import run_modular


def shifted(legal: Legalized, inputs: list[np.ndarray]) -> list[np.ndarray]:
    return [batch - offset for batch, offset in zip(inputs, legal.input_offsets, strict=True)]


def check_meaning(circuit: Circuit, seed: int) -> None:
    """The rewritten circuit gives the same results: exactly, and in modular arithmetic."""
    legal = legalize(circuit)
    inputs = inputs_of(circuit, seed, rows=4)
    expected = evaluate(circuit, *inputs).outputs
    moved = shifted(legal, inputs)
    exact = evaluate(legal.circuit, *moved).outputs
    modular = run_modular(legal.circuit, find_regions(legal.circuit), *moved)
    for known, offset, *found in zip(expected, legal.output_offsets, exact, modular, strict=True):
        for value in found:
            np.testing.assert_array_equal(value + offset, known)


def is_encrypted(circuit: Circuit) -> bool:
    """Whether all outputs depend on what is encrypted."""
    try:
        legalize(circuit)
    except CompilationError:
        return False
    return True


def one_output(function: object) -> Circuit:
    builder = Builder()
    return builder.finish([function(builder)])  # type: ignore[operator]


def lookups_of(circuit: Circuit) -> list[ir.Node]:
    return [node for node in circuit if isinstance(node.primitive, ir.Lookup) and node.encrypted]


@settings(max_examples=200)
@given(circuits(), st.integers(0, 1000))
def test_random_circuits_keep_their_meaning(circuit: Circuit, seed: int) -> None:
    assume(is_encrypted(circuit))
    check_meaning(circuit, seed)


@pytest.mark.parametrize("name", sorted(CASES))
def test_cases_keep_their_meaning(name: str) -> None:
    check_meaning(build(name), 0)


@settings(max_examples=100)
@given(circuits(), st.integers(0, 1000))
def test_narrowed_lookups_keep_their_meaning(circuit: Circuit, seed: int) -> None:
    assume(is_encrypted(circuit))
    everywhere = frozenset(range(len(circuit)))
    legal = legalize(circuit, everywhere)
    inputs = inputs_of(circuit, seed)
    found = evaluate(legal.circuit, *shifted(legal, inputs)).outputs
    expected = evaluate(circuit, *inputs).outputs
    for value, offset, known in zip(found, legal.output_offsets, expected, strict=True):
        np.testing.assert_array_equal(value + offset, known)
    nodes = legal.circuit.nodes
    for node in lookups_of(legal.circuit):
        assert isinstance(nodes[node.inputs[0]].primitive, ir.Round)


@settings(max_examples=100)
@given(circuits())
def test_only_what_an_engine_knows_is_left(circuit: Circuit) -> None:
    assume(is_encrypted(circuit))
    legal = legalize(circuit).circuit
    for node in legal:
        if not node.encrypted:
            continue
        operands = [legal.nodes[index] for index in node.inputs]
        assert not isinstance(node.primitive, ir.Maximum)
        if isinstance(node.primitive, (ir.Multiply, ir.MatMul)):
            assert not all(operand.encrypted for operand in operands)
        if isinstance(node.primitive, (ir.Input, ir.Lookup, ir.Round)):
            read = operands[0] if operands else node
            assert read.interval.min >= 0
        if isinstance(node.primitive, ir.Lookup):
            assert node.primitive.start == 0
        if isinstance(node.primitive, ir.Round):
            assert node.primitive.exact or node.primitive.lsbs >= LEAST_ROUNDED_BITS
    assert all(node.interval.min >= 0 for node in legal.output_nodes if node.interval.min < 0)


def widths_read(circuit: Circuit) -> list[int]:
    legal = legalize(circuit).circuit
    return [(len(n.primitive.table) - 1).bit_length() for n in lookups_of(legal)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("lo", "hi"), [(0, 15), (5000, 5015), (-15, 0), (-14, 1)])
def test_a_range_costs_its_length_wherever_it_lies(lo: int, hi: int) -> None:
    circuit = one_output(
        lambda b: np.rint(np.abs(b.input("x", (3,), lo, hi) * 0.3)).astype(np.int64)
    )
    assert widths_read(circuit) == [4]
    check_meaning(circuit, 0)


def test_channels_are_shifted_one_by_one() -> None:
    def channels(b: Builder) -> IntValue:
        x = b.input("x", (1, 3), 0, 7) + np.array([0, 100, -100])
        return np.rint(x * np.array([0.5, 0.7, -0.2])).astype(np.int64)

    circuit = one_output(channels)
    assert widths_read(circuit) == [3]
    check_meaning(circuit, 0)


def test_one_table_for_all_elements_stays_one() -> None:
    def spread(b: Builder) -> IntValue:
        x = b.input("x", (1, 3), 0, 1) + np.array([0, 2, 6])
        return x.lookup(np.arange(8) % 3, 0)

    circuit = one_output(spread)
    [lookup] = lookups_of(legalize(circuit).circuit)
    assert lookup.primitive.table.size == 8  # type: ignore[attr-defined]
    check_meaning(circuit, 0)


@pytest.mark.parametrize(("exact", "bits"), [(True, 3), (False, 4)])
def test_rounding_keeps_room_for_the_step_above(exact: bool, bits: int) -> None:
    # 0 to 29 in steps of four: exactly, 28 is the last one; approximately, 32 may be reached.
    def rounded(b: Builder) -> IntValue:
        return np.rint(b.input("x", (3,), 0, 29).round(2, exact=exact) * 1.5).astype(np.int64)

    circuit = one_output(rounded)
    assert widths_read(circuit) == [bits]
    check_meaning(circuit, 0)


def test_multiples_are_read_by_their_number() -> None:
    def multiples(b: Builder) -> IntValue:
        x = b.input("x", (2,), 0, 63).round(4, exact=True)
        moved = b.add(ir.Sum((0,), False), x)
        return np.rint(moved * 0.1).astype(np.int64)

    # The sum of two multiples of 16 from 0 to 64: nine of them.
    assert widths_read(one_output(multiples))[-1] == 4


def test_products_and_maxima_take_the_lookups_that_are_counted() -> None:
    assert len(lookups_of(legalize(build("maximum")).circuit)) == 2
    # Two for a product of two values, one for a square.
    assert len(lookups_of(legalize(build("products_of_two_encrypted_values")).circuit)) == 3


@pytest.mark.parametrize("name", ["first", "second"])
def test_constant_outputs_are_named(name: str) -> None:
    builder = Builder()
    x = builder.input("x", (2,), 0, 3)
    with builder.scope("dead_layer"):
        constant = x * 0 + 7
    outputs = {"first": constant, "second": x + 1}
    if name == "second":
        outputs = {"first": x + 1, "second": constant}
    circuit = builder.finish(list(outputs.values()), list(outputs))
    with pytest.raises(CompilationError, match=f"'{name}' is constant.*'dead_layer'"):
        legalize(circuit)


def test_outputs_of_clear_inputs_alone_are_named() -> None:
    builder = Builder()
    known = builder.input("x", (2,), 5, 5)
    clear = builder.input("w", (2,), 0, 3, encrypted=False)
    circuit = builder.finish([known * clear], ["score"])
    with pytest.raises(CompilationError, match="'score' is the same for all encrypted inputs"):
        legalize(circuit)


def test_lookups_beyond_sixteen_bits_are_named() -> None:
    builder = Builder()
    x, y = builder.input("x", (2,), 0, 2**16 - 1), builder.input("y", (2,), 0, 2**16 - 1)
    with builder.scope("product_layer"):
        circuit = builder.finish([x * y])
    with pytest.raises(LookupWidthError, match=r"'product_layer', Multiply .* 17 bits"):
        legalize(circuit)
