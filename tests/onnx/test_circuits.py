from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.circuit import Circuit, evaluate, ir
from cipherlearn.errors import CircuitError
from cipherlearn.onnx import from_circuit, run_with_onnxruntime
from cipherlearn.onnx.circuits import _Writer, _written
from tests.circuit.cases import CASES, circuit_of
from tests.circuit.programs import circuits, inputs_of


def assert_same(circuit: Circuit, seed: int) -> None:
    model = from_circuit(circuit)
    onnx.checker.check_model(model, full_check=True)
    batches = inputs_of(circuit, seed)
    wanted = evaluate(circuit, *batches).outputs
    for row in range(len(batches[0])):
        found = run_with_onnxruntime(model, *(batch[row] for batch in batches))
        for ours, theirs in zip(wanted, found, strict=True):
            np.testing.assert_array_equal(theirs, ours[row])


@given(circuits(), st.integers(0, 2**32 - 1))
def test_it_computes_what_the_circuit_computes(circuit: Circuit, seed: int) -> None:
    assert_same(circuit, seed)


@pytest.mark.parametrize("name", CASES)
def test_every_primitive_is_written(name: str) -> None:
    assert_same(circuit_of(name), 0)


def test_names_and_types_are_those_of_the_circuit() -> None:
    circuit = circuit_of(next(iter(CASES)))
    graph = from_circuit(circuit, "model").graph
    assert graph.name == "model"
    assert [value.name for value in graph.input] == [known.label for known in circuit.inputs]
    assert [value.name for value in graph.output] == list(circuit.output_names)
    assert len({node.name for node in graph.node}) == len(graph.node)


def test_other_primitives_are_an_error() -> None:
    class Unknown(ir.Primitive):
        pass

    with pytest.raises(CircuitError, match=r"Unknown .* cannot be written"):
        _written(Unknown(), _Writer())
