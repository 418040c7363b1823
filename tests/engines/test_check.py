from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cipherlearn.circuit import Builder, Circuit, ir, kernels
from cipherlearn.engines import CompileOptions, self_check
from cipherlearn.engines.check import SelfCheck, find_difference, locate_difference
from cipherlearn.engines.clear import ClearCiphertext, ClearEngine, ClearProgram
from cipherlearn.errors import CompilationError, InvalidShapeError, SelfCheckError
from tests.engines.cases import build


class FaultyEngine(ClearEngine):
    """An engine that adds one to the result of one primitive, and refuses some results."""

    def __init__(self, faulty: ir.Primitive, refused: tuple[ir.Primitive, ...] = ()) -> None:
        super().__init__()
        self.faulty = faulty
        self.refused = refused

    def compile(self, circuit: Circuit, options: CompileOptions | None = None) -> ClearProgram:
        if circuit.output_nodes[0].primitive in self.refused:
            raise CompilationError("refused")
        return FaultyProgram(circuit, CompileOptions() if options is None else options, self)


class FaultyProgram(ClearProgram):
    engine: FaultyEngine

    def _run(self, encrypted: tuple[Any, ...]) -> tuple[Any, ...]:
        given = iter(self._open(encrypted))
        values: list[np.ndarray] = []
        for node in self.circuit:
            if isinstance(node.primitive, ir.Input):
                values.append(next(given))
                continue
            value = kernels.apply(node.primitive, *(values[index] for index in node.inputs))
            values.append(value + 1 if node.primitive is self.engine.faulty else value)
        return tuple(ClearCiphertext(values[p], self._key or b"") for p in self.circuit.outputs)


def network() -> Circuit:
    """Two layers and a side branch; node 3 and the like are found by their label."""
    builder = Builder()
    x = builder.input("x", (1, 4), 0, 3)
    with builder.scope("first"):
        accumulator = x @ np.array([[1, -1], [2, 0], [0, 1], [1, 1]])
    with builder.scope("activation"):
        hidden = np.rint(np.abs(accumulator * 0.7)).astype(np.int64)
    with builder.scope("side"):
        side = np.rint(np.sqrt(x * 1.0)).astype(np.int64)
    with builder.scope("second"):
        result = hidden @ np.array([[1], [2]])
    with builder.scope("sum"):
        total = result + side.sum(axis=1, keepdims=True)
    return builder.finish([side, total], ["side", "total"])


def position_of(circuit: Circuit, label: str) -> int:
    return [p for p, n in enumerate(circuit) if n.label == label and n.encrypted][-1]


def batch(rows: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, (rows, 1, 4), endpoint=True)


@pytest.mark.parametrize("name", ["several_layers", "rounded_lookups", "clear_inputs"])
def test_a_right_engine_passes(name: str) -> None:
    circuit = build(name)
    inputs = [np.full((2, *known.shape), known.hi) for known in circuit.inputs]
    assert self_check(ClearEngine().compile(circuit), *inputs) == SelfCheck(2, 0, 0)


def test_keys_that_exist_are_kept() -> None:
    program = ClearEngine().compile(network())
    program.keygen()
    encrypted = program.encrypt(batch()[0])
    self_check(program, batch())
    program.run(encrypted)


@pytest.mark.parametrize("label", ["first", "activation", "side", "second", "sum"])
def test_the_first_differing_node_is_named(label: str) -> None:
    circuit = network()
    faulty = circuit.nodes[position_of(circuit, label)]
    program = FaultyEngine(faulty.primitive).compile(circuit)
    with pytest.raises(SelfCheckError, match=rf"first node that differs is .*# {label}"):
        self_check(program, batch())


def test_nodes_that_cannot_be_results_are_passed_over() -> None:
    circuit = network()
    faulty = circuit.nodes[position_of(circuit, "first")].primitive
    engine = FaultyEngine(faulty, refused=(faulty,))
    program = engine.compile(circuit)
    with pytest.raises(SelfCheckError, match=r"first node that differs is .*# activation"):
        self_check(program, batch())


def test_a_fault_of_the_whole_only_is_said_to_be_one() -> None:
    circuit = network()
    faulty = circuit.nodes[position_of(circuit, "first")].primitive
    everything = tuple(node.primitive for node in circuit)
    engine = FaultyEngine(faulty)
    program = engine.compile(circuit)
    engine.refused = everything
    with pytest.raises(SelfCheckError, match="right on its own"):
        self_check(program, batch())


def test_locating_can_be_left_out() -> None:
    circuit = network()
    faulty = circuit.nodes[position_of(circuit, "second")]
    engine = FaultyEngine(faulty.primitive)
    program = engine.compile(circuit)
    engine.refused = tuple(node.primitive for node in circuit)
    with pytest.raises(SelfCheckError, match=r"1 of 1 elements of total differ") as caught:
        self_check(program, batch(), locate=False)
    assert "first node" not in str(caught.value)


def test_the_message_shows_where_and_what() -> None:
    circuit = network()
    side = circuit.nodes[position_of(circuit, "side")].primitive
    program = FaultyEngine(side).compile(circuit)
    program.keygen()
    sample = [np.array([[[0, 1, 2, 3]]])]
    found = find_difference(program, sample)
    assert found is not None
    assert found.output == circuit.outputs[0]
    assert "4 of 4 elements of side differ" in found.text
    assert "at [0, 0], is 1 and should be 0" in found.text
    assert locate_difference(program, sample) == position_of(circuit, "side")


def test_rows_that_overflow_are_left_out() -> None:
    builder = Builder()
    x = builder.input("x", (2,), 0, 7)
    circuit = builder.finish([x.sum(keepdims=True).assume(0, 7) + 1])
    rows = np.array([[1, 2], [7, 7], [3, 4]])
    assert self_check(ClearEngine().compile(circuit), rows) == SelfCheck(2, 1, 0)
    assert self_check(ClearEngine().compile(circuit), rows[1:2]) == SelfCheck(0, 1, 0)


def test_differences_that_p_error_explains_are_counted() -> None:
    engine = ClearEngine("simulated", random_state=0)
    program = engine.compile(network(), CompileOptions.of(p_error=0.4))
    result = self_check(program, batch(20))
    assert result.rows == 20
    assert 10 < result.differing <= 20


def test_approximate_rounding_may_land_on_either_side() -> None:
    circuit = build("rounded_lookups")
    program = ClearEngine("simulated").compile(circuit)
    rows = np.random.default_rng(0).integers(0, 31, (100, 1, 3), endpoint=True)
    assert self_check(program, rows).rows == 100


def test_impossible_integers_are_a_difference() -> None:
    circuit = network()

    class Refusing(ClearProgram):
        def _decrypt(self, _: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
            raise SelfCheckError("outside of what the circuit can give")

    program = Refusing(circuit, CompileOptions(), ClearEngine())
    with pytest.raises(SelfCheckError, match=r"outside of what.*right on its own"):
        self_check(program, batch())


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(InvalidShapeError):
        self_check(ClearEngine().compile(network()), np.zeros((4, 4), dtype=np.int64))
