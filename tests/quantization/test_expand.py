from __future__ import annotations

import numpy as np
import pytest

from cipherlearn.errors import EncryptedOperandError
from cipherlearn.onnx import Graph, Node, execute, intermediate_values
from cipherlearn.quantization.expand import Provenance, expand
from tests.onnx_models import node
from tests.quantization.models import B, Nodes, V, W, X, graph

PRODUCTS = [node("MatMul", ["x", "w"], "a"), node("MatMul", ["x", "v"], "b")]


def expanded(nodes: Nodes, **constants: np.ndarray) -> tuple[Graph, Graph]:
    before = Graph.from_model(graph(nodes, **constants))
    samples = dict(intermediate_values(before, X[:1]))
    return before, expand(before, samples)


@pytest.mark.parametrize("op", ["Max", "Min", "Greater", "Where"])
def test_an_expanded_graph_computes_the_same(op: str) -> None:
    nodes = [*PRODUCTS, node("Greater", ["a", "b"], "c"), node("Where", ["c", "a", "b"], "y")]
    if op != "Where":
        nodes = [*PRODUCTS, node(op, ["a", "b"], "t"), node("Cast", ["t"], "y", to=1)]
    before, after = expanded(nodes, w=W, v=V)
    np.testing.assert_allclose(execute(after, X)[0], execute(before, X)[0], rtol=1e-5)
    assert after.output_names == before.output_names
    assert {"a", "b"} <= {name for item in after.nodes for name in item.outputs}


def test_functions_of_one_value_stay_as_they_are() -> None:
    nodes = [
        node("MatMul", ["x", "w"], "a"),
        node("Greater", ["a", "limits"], "c"),
        node("Where", ["c", "a", "limits"], "y"),
    ]
    before, after = expanded(nodes, w=W, limits=B)
    assert after.nodes == before.nodes


def test_an_operator_that_cannot_be_expanded_is_named() -> None:
    nodes = [*PRODUCTS, node("Mod", ["a", "b"], "y", name="rest", fmod=1)]
    with pytest.raises(EncryptedOperandError, match=r"node 'rest' \(Mod\): "):
        expanded(nodes, w=W, v=V)


def test_the_same_movement_of_a_value_is_the_same_value() -> None:
    known = Provenance(["x"])

    def move(output: str, order: list[int], shape: tuple[int, ...] = (1, 2, 3)) -> frozenset[str]:
        moved = Node("Transpose", output, ("x",), (output,), {"perm": order})
        known.record(moved, True, shape, {})
        return known.of([output])

    assert move("a", [0, 2, 1]) == move("b", [0, 2, 1])
    assert move("a", [0, 2, 1]) != move("b", [0, 1, 2])
    assert move("a", [0, 2, 1]) != move("b", [0, 2, 1], (1, 3, 2))
    assert known.of(["a", "x"]) > known.of(["x"])
    known.record(Node("Relu", "r", ("a",), ("r",)), True, (1, 2, 3), {})
    assert known.of(["r"]) == known.of(["a"])
    known.record(Node("MatMul", "m", ("a", "x"), ("m",)), False, (1, 2, 3), {})
    assert known.of(["m"]) == {"m"}
