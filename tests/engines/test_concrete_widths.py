"""Widths on real encrypted data: where values wrap, where reads begin and end, random circuits."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cipherlearn.circuit import Builder, Circuit, IntValue, ir
from cipherlearn.engines import CompileOptions, self_check
from cipherlearn.engines._legalize import legalize
from cipherlearn.engines._regions import find_regions
from cipherlearn.engines.concrete import ConcreteEngine, ConcreteProgram
from tests.circuit.programs import circuits
from tests.engines.conformance import check_circuit, check_rows
from tests.engines.test_legalize import is_encrypted

ENGINE = ConcreteEngine()

EQUAL_PAIRS = np.array([[[v, v]] for v in range(4)])

#: What one random circuit may cost: bits of its widest look-up, and their number.
MOST_BITS, MOST_LOOKUPS = 4, 24


def is_small(circuit: Circuit) -> bool:
    """Whether a circuit takes a second or two on encrypted data."""
    if not is_encrypted(circuit):
        return False
    count = 0
    for node in legalize(circuit).circuit:
        if not node.encrypted:
            continue
        if isinstance(node.primitive, ir.Lookup):
            count += node.size
            if math.log2(len(node.primitive.table)) > MOST_BITS:
                return False
        if isinstance(node.primitive, ir.Round) and node.primitive.exact:
            count += node.size * node.primitive.lsbs
    return 0 < count <= MOST_LOOKUPS


@settings(max_examples=6, suppress_health_check=list(HealthCheck))
@given(circuits(), st.integers(0, 1000))
def test_random_circuits(circuit: Circuit, seed: int) -> None:
    assume(is_small(circuit))
    check_circuit(ENGINE, circuit, seed)


def compiled(*outputs: IntValue, options: CompileOptions | None = None) -> ConcreteProgram:
    program = ENGINE.compile(outputs[0].builder.finish(list(outputs)), options)
    program.keygen(seed=0)
    return program


def check_everywhere(program: ConcreteProgram) -> None:
    """Check one row with every integer of the only input at once, in two orders."""
    [known] = program.circuit.inputs
    everything = np.arange(known.lo, known.hi + 1)
    rows = np.stack([everything, everything[::-1]]).reshape(2, *known.shape)
    check_rows(program, [rows])


def test_sums_may_wrap_between_readers() -> None:
    # Values between the input and the table need 13 bits and a sign; what the table reads needs 4.
    x = Builder().input("x", (16,), 0, 15)
    back = (x - 3000) * 2 + 6000 - x
    program = compiled(np.rint(np.sqrt(back.assume(0, 15) * 1.0)).astype(np.int64))
    assert max(find_regions(legalize(program.circuit).circuit).width.values()) == 4
    assert program._compiled.reduced
    check_everywhere(program)


@pytest.mark.parametrize("weight", [129, -1000, 4096 + 1])
def test_weights_are_reduced_to_the_width_that_is_read(weight: int) -> None:
    x = Builder().input("x", (1, 2), 0, 3)
    # Equal inputs cancel the weight, all others leave the declared range.
    declared = (x @ np.array([[weight], [5 - weight]])).assume(0, 15)
    program = compiled(np.rint(declared * 0.5).astype(np.int64), declared)
    assert program._compiled.reduced
    check_rows(program, [EQUAL_PAIRS])


def test_one_precision_for_all_needs_no_reduction() -> None:
    x = Builder().input("x", (1, 2), 0, 3)
    declared = (x @ np.array([[129], [-124]])).assume(0, 15)
    ENGINE.check_available()
    configuration = importlib.import_module("concrete.fhe").Configuration(single_precision=True)
    options = CompileOptions.of(configuration=configuration, p_error=2**-20)
    circuit = x.builder.finish([declared * 3])
    with ENGINE.compile(circuit, options) as program:
        program.keygen(seed=0)
        assert not program._compiled.reduced
        check_rows(program, [EQUAL_PAIRS])


def test_residues_are_compiled_again_without_reduction(monkeypatch: pytest.MonkeyPatch) -> None:
    x = Builder().input("x", (1, 2), 0, 3)
    declared = (x @ np.array([[129], [-124]])).assume(0, 15)
    circuit = x.builder.finish([declared])
    module = importlib.import_module("cipherlearn.engines.concrete")
    made = []

    class Residues(module.Compiled):  # type: ignore[misc, name-defined]
        def __post_init__(self) -> None:
            super().__post_init__()
            self.figures["packing_key_switch_count"] = 1
            made.append(self)

    monkeypatch.setattr(module, "Compiled", Residues)
    with ENGINE.compile(circuit) as program:
        assert [one.reduced for one in made] == [True, False]
        assert [one.folder.exists() for one in made] == [False, True]
        program.keygen(seed=0)
        check_rows(program, [EQUAL_PAIRS])


def test_a_lookup_reads_its_few_bits_of_a_wide_value() -> None:
    x = Builder().input("x", (12,), -5, 6)
    table = np.rint(np.abs(x) * 0.5).astype(np.int64)
    check_everywhere(compiled(x * 2**18 + 3, table))


@pytest.mark.parametrize(("lo", "hi"), [(0, 31), (-16, 15), (3, 34)])
def test_exact_rounding_at_the_ends_of_the_range(lo: int, hi: int) -> None:
    x = Builder().input("x", (32,), lo, hi)
    program = compiled(np.rint(x.round(3, exact=True) * 0.5 + 1).astype(np.int64))
    check_everywhere(program)


@pytest.mark.parametrize(("lo", "hi", "lsbs"), [(0, 31, 3), (-16, 15, 2), (3, 18, 1)])
def test_approximate_rounding_at_the_ends_of_the_range(lo: int, hi: int, lsbs: int) -> None:
    x = Builder().input("x", (hi - lo + 1,), lo, hi)
    program = compiled(np.rint(x.round(lsbs, exact=False) * 0.5 + 1).astype(np.int64))
    check_everywhere(program)


def test_multiples_are_read_without_more_errors_than_asked_for() -> None:
    # Errors of one look-up in a thousand: without room below the decision it is one in ten.
    x = Builder().input("x", (8, 64), 0, 7)
    program = compiled(
        np.rint((x * 2).round(1, exact=False) * 0.5).astype(np.int64),
        options=CompileOptions.of(p_error=1e-3),
    )
    sample = np.random.default_rng(0).integers(0, 7, (8, 64), endpoint=True)
    assert (program.encrypt_run_decrypt(sample) != sample).mean() < 0.02


def test_exact_rounding_of_values_that_a_sum_reads() -> None:
    x = Builder().input("x", (24,), -9, 14)
    check_everywhere(compiled(x.round(2, exact=True) + x))


def test_tables_of_negative_entries_that_differ_by_element() -> None:
    x = Builder().input("x", (8,), -4, 3)
    tables = np.random.default_rng(0).integers(-40, 2, (8, 8))
    check_everywhere(compiled(x.lookup(tables, -4) * -3))


def test_a_table_with_one_entry_for_some_elements() -> None:
    x = Builder().input("x", (4,), 0, 3)
    tables = np.array([[5, 0, 1, 7], [5, 1, 0, 7], [5, 2, 2, 7], [5, 3, 9, 7]])
    check_everywhere(compiled(x.lookup(tables, 0)))


@settings(max_examples=3)
@given(st.integers(0, 2**32 - 1))
def test_random_networks_are_right_bit_for_bit(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x = Builder().input("x", (1, 6), 0, 1)
    value: Any = x
    for columns in (4, 3):
        accumulator = value @ generator.integers(-1, 1, (value.shape[1], columns), endpoint=True)
        scale = generator.uniform(0.1, 0.4, columns)
        value = np.clip(np.rint(accumulator * scale), 0, 2).astype(np.int64)
    circuit = x.builder.finish([value @ generator.integers(-3, 3, (3, 2))])
    assume(is_encrypted(circuit))
    with ENGINE.compile(circuit) as program:
        rows = generator.integers(0, 1, (8, 1, 6), endpoint=True)
        assert self_check(program, rows).rows == 8


def test_lists_select_before_tables_of_many_bits() -> None:
    # The engine itself cannot, where integers are remainders: from 11 bits on.
    b = Builder()
    x = b.input("x", (1, 6), 0, 1)
    chosen = x[:, np.array([4, 5, 0, 2, 2, 1, 3, 0, 1, 2, 3])]
    code = (chosen * 2 ** np.arange(11)).sum(axis=1, keepdims=True)
    y = code.lookup(np.arange(2**11)[:, None, None] % 5, 0)
    assert ENGINE.compile(b.finish([y])).complexity > 0
