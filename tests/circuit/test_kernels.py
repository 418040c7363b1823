from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.circuit import Primitive, evaluate, ir, kernels
from cipherlearn.errors import CircuitError
from tests.circuit.cases import CASES, circuit_of
from tests.circuit.programs import inputs_of
from tests.circuit.reference import reference_outputs


def test_every_primitive_has_a_case() -> None:
    names = {type(primitive).__name__ for primitive, _ in CASES.values()}
    assert names == set(ir.PRIMITIVES)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_equals_plain_python(name: str, rows: int) -> None:
    circuit = circuit_of(name)
    inputs = inputs_of(circuit, 1, rows)
    (found,) = evaluate(circuit, *inputs).outputs
    np.testing.assert_array_equal(found, reference_outputs(circuit, *inputs)[0])
    assert found.dtype == np.int64


@pytest.mark.parametrize("name", sorted(set(CASES) - {"input", "clear input"}))
def test_operands_without_batch_meet_batches(name: str) -> None:
    primitive, shapes = CASES[name]
    generator = np.random.default_rng(2)
    operands = [generator.integers(-9, 10, (3, *shape)) for shape in shapes]
    if not operands:
        return
    if len(operands) > 1:
        operands[-1] = operands[-1][:1]
    whole = kernels.apply(primitive, *operands)
    for row in range(3):
        rows = [operand[[row]] if len(operand) > 1 else operand for operand in operands]
        np.testing.assert_array_equal(kernels.apply(primitive, *rows)[0], whole[row])


@given(st.integers(-(2**61), 2**61), st.integers(0, 40))
def test_rounding_takes_halves_upwards(value: int, lsbs: int) -> None:
    (found,) = kernels.apply(ir.Round(lsbs), np.array([value])).tolist()
    step = 2**lsbs
    assert found % step == 0
    assert -step <= 2 * (value - found) < step


@given(st.data())
def test_gather_reads_the_table_of_each_element(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 3), max_size=3).map(tuple))
    extents = tuple(data.draw(st.sampled_from([1, n])) for n in shape)
    table = np.random.default_rng(0).integers(-99, 99, (4, *extents))
    rows = np.random.default_rng(data.draw(st.integers(0, 9))).integers(0, 4, (2, *shape))
    found = kernels.gather(table, rows)
    for place in np.ndindex(*rows.shape):
        column = tuple(i if n > 1 else 0 for i, n in zip(place[1:], extents, strict=True))
        assert found[place] == table[(rows[place], *column)]


def test_gather_spreads_common_rows_over_the_tables() -> None:
    table = np.arange(12).reshape(3, 2, 2)
    np.testing.assert_array_equal(
        kernels.gather(table, np.array([2, 0]).reshape(2, 1, 1)), table[[2, 0]]
    )


def test_reads_beyond_a_table_go_to_its_border() -> None:
    lookup = ir.Lookup(np.array([10, 20, 30]), start=-4, step=4)
    values = np.array([-100, -5, -4, -1, 0, 3, 4, 7, 8, 100])
    assert kernels.apply(lookup, values).tolist() == [10, 10, 10, 10, 20, 20, 30, 30, 30, 30]


def test_matrices_without_inner_extent_give_zeros() -> None:
    empty = np.zeros((3, 2, 0), dtype=np.int64)
    found = kernels.apply(ir.MatMul(), empty, np.zeros((1, 0, 4), dtype=np.int64))
    np.testing.assert_array_equal(found, np.zeros((3, 2, 4)))


def test_an_unknown_primitive_is_refused() -> None:
    class Unknown(Primitive):
        pass

    with pytest.raises(CircuitError, match="no kernel for the primitive Unknown"):
        kernels.apply(Unknown(), np.zeros(1, dtype=np.int64))
