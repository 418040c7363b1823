from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherlearn.circuit import Builder, Circuit, Interval, Node, evaluate, ir
from cipherlearn.circuit.ir import prune
from cipherlearn.errors import CircuitError
from tests.circuit.programs import circuits, inputs_of, seeds


def node(primitive: ir.Primitive, *inputs: int) -> Node:
    return Node(primitive, inputs, Interval.full((2,), 0, 9), encrypted=True)


X = node(ir.Input("x", (2,), 0, 9))


def sample() -> Circuit:
    builder = Builder()
    x = builder.input("x", (2,), 0, 9)
    clear = builder.input("clear", (2,), 0, 1, encrypted=False)
    with builder.scope("first"):
        value = (x + clear).assume(np.array(0), np.array(9))
    builder.add(ir.Round(1, exact=False), clear)  # nothing reads it
    return builder.finish([value.round(2, exact=True), value * 2], ["rounded", "doubled"])


@pytest.mark.parametrize(
    ("nodes", "outputs", "names", "message"),
    [
        ((X,), (), (), "at least one output"),
        ((X,), (0,), ("a", "b"), "1 outputs need as many names, not 2"),
        ((X,), (0, 0), ("a", "a"), "must differ"),
        ((X,), (1,), (), "outside of the circuit"),
        ((X,), (-1,), (), "outside of the circuit"),
        ((X, node(ir.Add(), 0, 1)), (0,), (), r"node 1 \(Add\) reads a later node"),
        ((X, node(ir.Add(), 0, -1)), (0,), (), "reads a later node"),
    ],
)
def test_circuits_that_cannot_exist(
    nodes: tuple[Node, ...], outputs: tuple[int, ...], names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(CircuitError, match=message):
        Circuit(nodes, outputs, names)


def test_what_a_circuit_says_of_itself() -> None:
    circuit = sample()
    assert [i.label for i in circuit.inputs] == ["x", "clear"]
    assert circuit.input_positions == (0, 1)
    assert circuit.output_names == ("rounded", "doubled")
    assert [n.primitive.name for n in circuit.output_nodes] == ["Round", "Multiply"]
    assert [circuit.nodes[i].primitive.name for i in circuit.assumptions] == ["Assume"]
    assert not circuit.is_proved
    assert [n.label for n in circuit] == ["", "", "first", "first", "", "", ""]
    assert len(circuit) == len(circuit.nodes)


def test_outputs_have_names() -> None:
    assert Circuit((X, node(ir.Add(), 0, 0)), (1, 0)).output_names == ("output_0", "output_1")


def test_text() -> None:
    text = str(sample()).splitlines()
    assert text[0] == "%0 = Input() -> encrypted [2] in [0, 9], 4 bits"
    assert text[2] == "%2 = Add(%0, %1) -> encrypted [2] in [0, 10], 4 bits  # first"
    assert text[-1] == "return rounded=%4, doubled=%6"


def test_consumers_are_listed_once() -> None:
    circuit = Circuit((X, node(ir.Multiply(), 0, 0), node(ir.Add(), 0, 1)), (2,))
    assert circuit.consumers() == [[1, 2], [2], []]


def test_only_encrypted_approximate_rounding_leaves_a_choice() -> None:
    builder = Builder()
    x = builder.input("x", (2,), 0, 9)
    clear = builder.input("clear", (2,), 0, 9, encrypted=False)
    exact = builder.finish([x.round(1, exact=True) + clear.round(1, exact=False)])
    assert exact.is_deterministic
    assert exact.is_proved
    assert not builder.finish([x.round(1, exact=False)]).is_deterministic


def test_noisy_nodes() -> None:
    builder = Builder()
    x = builder.input("x", (2, 2), 0, 3)
    clear = builder.input("clear", (2, 2), 0, 3, encrypted=False)
    noisy = [
        x.lookup(np.arange(4), 0),
        x.round(1, exact=True),
        x.round(1, exact=False),
        x * x,
        x @ x,
        np.maximum(x, clear),
    ]
    exact = [
        x * 3,
        x * clear,
        x @ clear,
        x + x,
        x.sum(0),
        x[0],
        clear * clear,
        np.maximum(clear, 5),
    ]
    exact[-1] = exact[-1].astype(np.int64)
    positions = [v.position for v in (*noisy, *exact)]
    circuit = Circuit(tuple(builder), tuple(positions))
    assert [circuit.is_noisy(i) for i in positions] == [True] * len(noisy) + [False] * len(exact)


@settings(max_examples=60)
@given(circuits(), st.data(), seeds)
def test_a_part_computes_its_node(circuit: Circuit, data: st.DataObject, seed: int) -> None:
    position = data.draw(st.integers(0, len(circuit) - 1))
    part = circuit.truncate(position)
    inputs = inputs_of(circuit, seed)
    whole = evaluate(circuit, *inputs, keep=[position])
    np.testing.assert_array_equal(evaluate(part, *inputs).outputs[0], whole.values[position])
    assert part.inputs == circuit.inputs
    assert len(part) <= len(circuit)


def test_a_part_holds_nothing_else() -> None:
    circuit = sample()
    names = [n.primitive.name for n in circuit.truncate(2)]
    assert names == ["Input", "Input", "Add"]
    assert [n.primitive.name for n in circuit.truncate(0)] == ["Input", "Input"]


def test_pruning_keeps_inputs_and_what_is_read() -> None:
    unread = Circuit((X, node(ir.Add(), 0, 0), node(ir.Input("y", (2,), 0, 9)), X), (3,), ("z",))
    pruned = prune(unread)
    assert [n.primitive.name for n in pruned] == ["Input", "Input", "Input"]
    assert pruned.output_names == ("z",)


def test_primitives_keep_copies_of_arrays() -> None:
    table, positions = np.arange(4), np.array([1, 0])
    lookup, index = ir.Lookup(table, 0), ir.Index((slice(None), positions))
    table[:] = 7
    positions[:] = 5
    assert lookup.table.tolist() == [0, 1, 2, 3]
    part = index.key[1]
    assert isinstance(part, np.ndarray)
    assert part.tolist() == [1, 0]
    for array in (lookup.table, part):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_primitives_are_found_by_name() -> None:
    for name, kind in ir.PRIMITIVES.items():
        assert kind.__name__ == name
        assert issubclass(kind, ir.Primitive)
    assert set(ir.PRIMITIVES.values()) == set(ir.Primitive.__subclasses__()) & set(
        ir.PRIMITIVES.values()
    )
