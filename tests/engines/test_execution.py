from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cipherlearn.circuit import Builder, Circuit, evaluate, simulate
from cipherlearn.engines import CompileOptions, get_engine
from cipherlearn.engines.execution import FheMode, run_circuit
from cipherlearn.errors import (
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
    NotCompiledError,
)

BATCH = np.random.default_rng(0).integers(0, 16, (9, 3))


def circuit(two_outputs: bool = False) -> Circuit:
    """Squares of sums that may leave their declared range."""
    builder = Builder()
    x = builder.input("x", (3,), 0, 15)
    total = (x @ np.array([[1, 2], [2, 1], [1, 1]])).assume(np.int64(0), np.int64(31))
    square = np.rint(total.as_real() ** 2).astype(np.int64)
    return builder.finish([square, total] if two_outputs else [square])


def compiled(made: Circuit, **options: Any) -> Any:
    return get_engine("clear").compile(made, CompileOptions.of(**options))


@pytest.mark.parametrize("mode", ["disable", "simulate", "execute"])
def test_modes_are_given_by_name_or_as_members(mode: str) -> None:
    assert FheMode.of(mode) == mode
    assert FheMode.of(FheMode(mode)) is FheMode(mode)
    assert FheMode.is_valid(mode)
    assert FheMode.is_valid(FheMode(mode))
    made = circuit()
    program = compiled(made)
    for given in (mode, FheMode(mode)):
        found = run_circuit(made, program, BATCH, fhe=given)
        np.testing.assert_array_equal(found.outputs[0], evaluate(made, BATCH).outputs[0])


@pytest.mark.parametrize("mode", ["Disable", "fhe", "", None, 3, [], {}])
def test_other_modes_list_the_known_ones(mode: Any) -> None:
    assert not FheMode.is_valid(mode)
    with pytest.raises(InvalidParameterError, match="one of 'disable', 'simulate', 'execute', not"):
        FheMode.of(mode)
    with pytest.raises(InvalidParameterError, match="one of 'disable', 'simulate', 'execute', not"):
        run_circuit(circuit(), None, BATCH, fhe=mode)


def test_the_clear_mode_needs_no_program() -> None:
    made = circuit()
    assert run_circuit(made, None, BATCH).outputs[0].shape == (9, 2)
    for mode in ("simulate", "execute"):
        with pytest.raises(NotCompiledError, match=r"call compile\(\) before fhe='" + mode):
            run_circuit(made, None, BATCH, fhe=mode)


def test_several_outputs_are_stacked_row_by_row() -> None:
    made = circuit(two_outputs=True)
    program = compiled(made)
    expected = evaluate(made, BATCH)
    found = run_circuit(made, program, BATCH, fhe="execute")
    assert len(found.outputs) == 2
    for left, right in zip(found.outputs, expected.outputs, strict=True):
        assert left.dtype == np.int64
        np.testing.assert_array_equal(left, right)
    assert found.overflows == expected.overflows
    assert found.overflow_count > 0


def test_keys_are_made_once_when_they_are_needed() -> None:
    made = circuit()
    program = compiled(made)
    run_circuit(made, program, BATCH, fhe="simulate")
    assert not program.has_keys
    empty = run_circuit(made, program, BATCH[:0], fhe="execute")
    assert empty.outputs[0].shape == (0, 2)
    assert not program.has_keys, "no row, no keys"
    run_circuit(made, program, BATCH[:1], fhe="execute")
    value = program.encrypt(BATCH[0])
    run_circuit(made, program, BATCH, fhe="execute")
    program.run(value)  # the keys are still those that it was encrypted with


def test_simulation_uses_the_programs_probability_and_the_seed() -> None:
    made = circuit()
    program = compiled(made, p_error=0.2)
    first = run_circuit(made, program, BATCH, fhe="simulate", random_state=4).outputs[0]
    again = simulate(made, BATCH, p_error=0.2, random_state=4).outputs[0]
    np.testing.assert_array_equal(first, again)
    assert (first != evaluate(made, BATCH).outputs[0]).any()
    other = run_circuit(made, program, BATCH, fhe="simulate", random_state=5).outputs[0]
    assert (first != other).any()


@pytest.mark.parametrize("mode", ["disable", "simulate", "execute"])
def test_inputs_are_checked_in_every_mode(mode: str) -> None:
    made = circuit()
    program = compiled(made)
    with pytest.raises(InvalidShapeError, match="'x' has shape"):
        run_circuit(made, program, BATCH[:, :2], fhe=mode)
    with pytest.raises(InvalidTypeError, match="'x' has dtype float64"):
        run_circuit(made, program, BATCH / 2, fhe=mode)
    with pytest.raises(InvalidParameterError, match="it takes 0 to 15"):
        run_circuit(made, program, BATCH + 9, fhe=mode)
