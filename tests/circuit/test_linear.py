from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherlearn.circuit import Builder, Circuit, count_lookups, evaluate
from cipherlearn.circuit.linear import fold_factors
from tests.circuit.programs import arrays_of, circuits, inputs_of, seeds

WEIGHTS = np.array([[1, 2], [0, -3], [5, 0]])


def assert_same_results(circuit: Circuit, folded: Circuit, seed: int = 0) -> None:
    inputs = inputs_of(circuit, seed, rows=8)
    before, after = evaluate(circuit, *inputs), evaluate(folded, *inputs)
    for found, expected in zip(after.outputs, before.outputs, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert folded.output_names == circuit.output_names
    assert count_lookups(folded).by_width == count_lookups(circuit).by_width


@settings(max_examples=60)
@given(circuits(), seeds)
def test_results_stay(circuit: Circuit, seed: int) -> None:
    assert_same_results(circuit, fold_factors(circuit), seed)


@given(st.data())
def test_results_stay_whatever_the_shape_of_the_factor(data: st.DataObject) -> None:
    builder = Builder()
    lead = data.draw(st.sampled_from([(), (1,), (2,)]))
    rows, columns = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    x = builder.input("x", (*lead, rows, 3), -5, 5)
    product = x @ arrays_of(data.draw, (3, columns), -9, 9)
    shape = tuple(data.draw(st.sampled_from([1, n])) for n in (*lead, rows, columns))
    shape = shape[data.draw(st.integers(0, len(shape))) :]
    circuit = builder.finish([product * arrays_of(data.draw, shape, -9, 9)])
    assert_same_results(circuit, fold_factors(circuit))


@pytest.mark.parametrize(
    ("function", "folds"),
    [
        (lambda x: (x @ WEIGHTS) * 3, True),
        (lambda x: 3 * (x @ WEIGHTS), True),
        (lambda x: (x @ WEIGHTS) * np.array([2, -7]), True),
        (lambda x: (x @ WEIGHTS) * np.array([[2], [-7]]), False),
        (lambda x: (x @ WEIGHTS) * np.array([[2, 1], [-7, 1]]), False),
        (lambda x: (WEIGHTS @ x) * 3, False),
        (lambda x: (x @ WEIGHTS) * x[:, :2], False),
        (lambda x: (x @ WEIGHTS) * (x @ WEIGHTS), False),
    ],
)
def test_factors_of_columns_join_the_weights(function: Callable[[Any], Any], folds: bool) -> None:
    builder = Builder()
    circuit = builder.finish([function(builder.input("x", (2, 3), -5, 5))])
    folded = fold_factors(circuit)
    assert_same_results(circuit, folded)
    multiplies = any(node.primitive.name == "Multiply" for node in folded)
    assert multiplies is not folds


def test_products_that_are_read_elsewhere_stay() -> None:
    builder = Builder()
    product = builder.input("x", (2, 3), -5, 5) @ WEIGHTS
    for outputs in ([product * 3, product + 1], [product * 3, product]):
        circuit = builder.finish(outputs)
        assert [str(node) for node in fold_factors(circuit)] == [str(node) for node in circuit]
