from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from cipherlearn.circuit import Builder, Circuit, IntValue, count_lookups
from cipherlearn.circuit.cost import lookups_of
from tests.circuit.programs import circuits


def test_lookups_are_counted_by_width_and_by_layer() -> None:
    builder = Builder()
    x = builder.input("x", (2, 3), 0, 15)
    with builder.scope("first"):
        y = (x * 0.3).astype(np.int64)
    with builder.scope("second"):
        z = np.rint(np.tanh(y + x) * 5).astype(np.int64)
        total = np.rint(z.sum() * 0.4).astype(np.int64)
    counts = count_lookups(builder.finish([total]))
    # 6 on x (4 bits), 6 on a sum up to 19 (5 bits), 1 on a sum of six z up to 5 (5 bits).
    assert counts.by_width == {4: 6, 5: 7}
    assert counts.by_label == {"first": 6, "second": 7}
    assert (counts.total, counts.rounded_bits) == (13, 0)


def test_rounding() -> None:
    builder = Builder()
    x = builder.input("x", (3,), 0, 2**10 - 33)
    exact, approximate = (x.round(6, exact=exact) for exact in (True, False))
    outputs = [np.rint(value * 0.01).astype(np.int64) for value in (exact, approximate)]
    counts = count_lookups(builder.finish(outputs))
    # The table reads the four bits that are left.
    assert counts.by_width == {4: 6}
    assert counts.rounded_bits == 3 * 6
    assert counts.total == 6


@pytest.mark.parametrize(
    ("function", "count", "width"),
    [
        (lambda x, y: x * y, 2 * 6, 6),
        (lambda x, y: x @ y.T, 2 * 4 * 3, 6),
        (np.maximum, 6, 6),
        (lambda x, y: x + y, 0, 0),
        (lambda x, y: x * 3 - y.sum(), 0, 0),
        (lambda x, y: x @ np.ones((3, 1), dtype=np.int64) + y[0, 0], 0, 0),
    ],
)
def test_operations_of_two_encrypted_values(function: object, count: int, width: int) -> None:
    builder = Builder()
    x, y = builder.input("x", (2, 3), 0, 7), builder.input("y", (2, 3), -16, 15)
    result = function(x, y)  # type: ignore[operator]
    assert isinstance(result, IntValue)
    circuit = builder.finish([result])
    assert count_lookups(circuit).by_width == ({width: count} if count else {})
    assert lookups_of(circuit, circuit.outputs[0]) == (count, width)


def test_what_is_not_encrypted_costs_nothing() -> None:
    builder = Builder()
    x = builder.input("x", (3,), 0, 7)
    clear = builder.input("clear", (3,), 0, 7, encrypted=False)
    function = clear.lookup(np.arange(8), 0).round(1, exact=True) * clear
    counts = count_lookups(builder.finish([x * function + np.maximum(clear, clear * clear)]))
    assert (counts.total, counts.rounded_bits, counts.by_label) == (0, 0, {})


@given(circuits())
def test_both_tallies_agree(circuit: Circuit) -> None:
    counts = count_lookups(circuit)
    assert counts.total == sum(counts.by_width.values()) == sum(counts.by_label.values())
    assert list(counts.by_width) == sorted(counts.by_width)
    assert all(count > 0 for count in counts.by_width.values())
