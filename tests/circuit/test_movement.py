from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cipherlearn.circuit import Builder, IntValue, RealValue, evaluate, ir
from cipherlearn.circuit.movement import follow

MOVES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], set[str]]] = {
    "nothing": (lambda a: a, set()),
    "reshape": (lambda a: a.reshape(4, 3), {"Reshape"}),
    "transpose": (lambda a: a.transpose(2, 0, 1), {"Transpose"}),
    "swap": (lambda a: np.swapaxes(a, 0, 1), {"Transpose"}),
    "flip": (lambda a: a[::-1], {"Reshape", "Index"}),
    "roll": (lambda a: np.roll(a, 1, axis=2), {"Reshape", "Index"}),
    "tile": (lambda a: np.tile(a, (2, 1, 1)), {"Reshape", "Index"}),
    "crop": (lambda a: a[1:, :, 1:], {"Reshape", "Index"}),
    "diagonal": (np.diagonal, {"Reshape", "Index"}),
    "one": (lambda a: a[1, 0, 2], {"Reshape", "Index"}),
    "none": (lambda a: a[:0], {"Reshape", "Index"}),
}


@pytest.mark.parametrize("name", MOVES)
def test_integers_move_as_positions_do(name: str) -> None:
    function, used = MOVES[name]
    builder = Builder()
    moved = follow(function, builder.input("x", (2, 2, 3), -9, 9))
    assert isinstance(moved, IntValue)
    circuit = builder.finish([moved])
    assert {node.primitive.name for node in circuit} - {"Input"} <= used
    batch = np.random.default_rng(0).integers(-9, 10, (5, 2, 2, 3))
    expected = np.stack([function(row) for row in batch])
    np.testing.assert_array_equal(evaluate(circuit, batch).outputs[0], expected)


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("scale", [np.float64(0.5), np.arange(1.0, 13.0).reshape(2, 2, 3)])
def test_functions_move_with_their_integers(name: str, scale: np.ndarray) -> None:
    function, _ = MOVES[name]
    builder = Builder()
    moved = follow(function, builder.input("x", (2, 2, 3), -9, 9) * scale)
    assert isinstance(moved, RealValue)
    batch = np.random.default_rng(0).integers(-9, 10, (5, 2, 2, 3))
    (found,) = evaluate(builder.finish([np.rint(moved * 8).astype(np.int64)]), batch).outputs
    expected = np.stack([function(row * scale) for row in batch])
    np.testing.assert_array_equal(found, np.rint(expected * 8).astype(np.int64))


def test_arrays_are_moved_by_the_function_itself() -> None:
    assert follow(np.ravel, np.eye(2)).tolist() == [1, 0, 0, 1]


def test_many_axes_are_not_tried_in_every_order() -> None:
    builder = Builder()
    value = follow(np.transpose, builder.input("x", (1, 2, 1, 2, 1, 2), 0, 3))
    circuit = builder.finish([value])
    assert not any(isinstance(node.primitive, ir.Transpose) for node in circuit)
    batch = np.random.default_rng(0).integers(0, 4, (3, 1, 2, 1, 2, 1, 2))
    expected = np.stack([row.T for row in batch])
    np.testing.assert_array_equal(evaluate(circuit, batch).outputs[0], expected)
