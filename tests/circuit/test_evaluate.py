from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings

from cipherlearn.circuit import Builder, Circuit, Primitive, evaluate, ir
from cipherlearn.circuit.evaluate import Semantics
from cipherlearn.circuit.kernels import EXACT_IN_DOUBLE
from cipherlearn.errors import InvalidParameterError, InvalidShapeError, InvalidTypeError
from tests.circuit.programs import circuits, inputs_of, seeds
from tests.circuit.reference import reference_outputs, reference_values

# The name `evaluate` of the package is the function, which hides the module.
MODULE = sys.modules["cipherlearn.circuit.evaluate"]


def small_circuit() -> Circuit:
    builder = Builder()
    x = builder.input("x", (3,), -4, 4)
    y = builder.input("y", (2, 3), 0, 5, encrypted=False)
    declared = (x * y).assume(np.array(-5), np.array(5))
    return builder.finish([declared.sum(axis=1), x], ["product", "x"])


@settings(max_examples=150)
@given(circuits(), seeds)
def test_equals_plain_python(circuit: Circuit, seed: int) -> None:
    inputs = inputs_of(circuit, seed)
    outputs = evaluate(circuit, *inputs).outputs
    for found, expected in zip(outputs, reference_outputs(circuit, *inputs), strict=True):
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, expected)


@settings(max_examples=40)
@given(circuits(), seeds)
def test_kept_values_are_those_of_the_nodes(circuit: Circuit, seed: int) -> None:
    inputs = inputs_of(circuit, seed, rows=2)
    kept = evaluate(circuit, *inputs, keep=range(len(circuit))).values
    for row in range(2):
        for position, value in enumerate(reference_values(circuit, [a[row] for a in inputs])):
            np.testing.assert_array_equal(kept[position][row], value.astype(np.int64))


@settings(max_examples=40)
@given(circuits(), seeds)
def test_chunks_change_nothing(circuit: Circuit, seed: int) -> None:
    inputs = inputs_of(circuit, seed, rows=7)
    whole = evaluate(circuit, *inputs, keep=circuit.outputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "CHUNK_ELEMENTS", 1)
        pieces = evaluate(circuit, *inputs, keep=circuit.outputs)
    assert whole.overflows == pieces.overflows
    assert whole.values.keys() == pieces.values.keys()
    for one, other in zip(whole.outputs, pieces.outputs, strict=True):
        np.testing.assert_array_equal(one, other)
    for position, value in whole.values.items():
        np.testing.assert_array_equal(value, pieces.values[position])


@settings(max_examples=40)
@given(circuits())
def test_no_rows_in_no_rows_out(circuit: Circuit) -> None:
    evaluation = evaluate(circuit, *inputs_of(circuit, 0, rows=0))
    for output, node in zip(evaluation.outputs, circuit.output_nodes, strict=True):
        assert output.shape == (0, *node.shape)
    assert evaluation.overflow_count == 0


def test_large_constants_do_not_make_chunks_small(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = Builder()
    x = builder.input("x", (1, 50), 0, 3)
    sums = x @ np.ones((50, 50), dtype=np.int64)
    circuit = builder.finish([sums.lookup(np.arange(151), 0)])
    sizes = []

    class Watching(Semantics):
        def compute(self, primitive: Primitive, *operands: np.ndarray) -> np.ndarray:
            sizes.append(operands[0].shape[0])
            return super().compute(primitive, *operands)

    monkeypatch.setattr(MODULE, "CHUNK_ELEMENTS", 500)
    evaluate(circuit, np.zeros((30, 1, 50), dtype=np.int64), semantics=Watching())
    assert sizes == [10, 10, 10]


@pytest.mark.parametrize("primitive", ["matmul", "convolve"])
@pytest.mark.parametrize("offset", [-1, 0, 1, 3])
def test_sums_are_exact_around_the_end_of_doubles(primitive: str, offset: int) -> None:
    # The products lie around 2**53, where doubles begin to skip odd integers.
    large = 2**26
    assert 2 * large * (large + offset) >= EXACT_IN_DOUBLE - 2**28
    builder = Builder()
    x = builder.input("x", (1, 1, 3), -large, large)
    weights = np.array([large + offset, large + offset, 1])
    if primitive == "matmul":
        value = x @ weights.reshape(3, 1)
    else:
        convolution = ir.Convolve((1,), (0, 0), (1,))
        value = builder.add(convolution, x, builder.constant(weights.reshape(1, 1, 3)))
    rows = np.array([[large, large, 1], [large, large - 1, 0], [-large, -large, -1]])
    (found,) = evaluate(builder.finish([value]), rows.reshape(-1, 1, 1, 3)).outputs
    expected = [sum(int(a) * int(w) for a, w in zip(row, weights, strict=True)) for row in rows]
    assert found.reshape(-1).tolist() == expected


def test_integers_far_beyond_doubles_are_exact() -> None:
    builder = Builder()
    x = builder.input("x", (1, 2), 0, 2**40)
    circuit = builder.finish([x @ np.array([[2**20 + 1], [3]])])
    (found,) = evaluate(circuit, np.array([[[2**40 - 1, 5]]])).outputs
    assert found.item() == (2**40 - 1) * (2**20 + 1) + 15


def test_values_outside_of_declared_ranges_are_counted_and_moved_to_the_border() -> None:
    x = np.array([[4, 0, -4], [1, 1, 1]])
    y = np.array([[[5, 5, 5], [0, 0, 2]], [[5, 5, 5], [4, 4, 4]]])
    evaluation = evaluate(small_circuit(), x, y)
    # 20, 0, -20 and 0, 0, -8 become 5, 0, -5 and 0, 0, -5.
    assert evaluation.outputs[0].tolist() == [[0, -5], [15, 12]]
    assert list(evaluation.overflows.values()) == [3]
    assert evaluation.overflow_count == 3


def test_results_are_copies() -> None:
    x = np.array([[1, 2, 3]])
    outputs = evaluate(small_circuit(), x, np.zeros((1, 2, 3), dtype=np.int64)).outputs
    outputs[1][:] = 9
    assert x.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, np.int64])
def test_integers_of_any_width_are_read(dtype: type[np.integer]) -> None:
    y = np.full((1, 2, 3), 5, dtype=dtype)
    outputs = evaluate(small_circuit(), np.ones((1, 3), dtype=dtype), y).outputs
    assert outputs[0].tolist() == [[15, 15]]
    assert outputs[0].dtype == np.int64


X, Y = np.zeros((1, 3), dtype=np.int64), np.zeros((1, 2, 3), dtype=np.int64)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ([X], InvalidShapeError, r"1 arrays were given; the circuit takes 2 \('x', 'y'\)"),
        ([X, Y, Y], InvalidShapeError, "3 arrays"),
        ([X.astype(float), Y], InvalidTypeError, "'x' has dtype float64"),
        ([X, Y.astype(bool)], InvalidTypeError, "'y' has dtype bool"),
        ([X.astype(object), Y], InvalidTypeError, "object"),
        ([X[0], Y], InvalidShapeError, r"must be \(rows, 3\)"),
        ([np.int64(0), Y], InvalidShapeError, r"shape \(\)"),
        ([X, np.zeros((1, 3, 2), dtype=np.int64)], InvalidShapeError, r"\(rows, 2, 3\)"),
        ([np.zeros((2, 3), dtype=np.int64), Y], InvalidShapeError, "1 rows, 'x' has 2"),
        ([X + 5, Y], InvalidParameterError, "from 5 to 5; it takes -4 to 4"),
        ([X, Y - 1], InvalidParameterError, "from -1 to -1"),
        ([X.astype(np.uint64) + np.uint64(2**63), Y], InvalidParameterError, "9223372036854775808"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    inputs: list[np.ndarray], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        evaluate(small_circuit(), *inputs)


def test_inputs_without_axes_need_rows() -> None:
    builder = Builder()
    circuit = builder.finish([builder.input("x", (), 0, 9) + 1])
    assert evaluate(circuit, np.array([3, 9])).outputs[0].tolist() == [4, 10]
    with pytest.raises(InvalidShapeError, match=r"must be \(rows\)"):
        evaluate(circuit, np.array(3))


def test_other_semantics_compute_what_may_err_and_nothing_else() -> None:
    builder = Builder()
    x = builder.input("x", (2, 2), 0, 3)
    clear = builder.input("clear", (2, 2), 0, 3, encrypted=False)
    table = np.arange(4)
    outputs = [
        x.lookup(table, 0) + clear.lookup(table, 0) * x,
        np.maximum(x, clear),
        x.round(1, exact=True) + x.round(1, exact=False) + clear.round(1, exact=False),
        x * x.T,
        x @ x.T,
    ]
    circuit = builder.finish(outputs)
    seen = []

    class Watching(Semantics):
        def compute(self, primitive: Primitive, *operands: np.ndarray) -> np.ndarray:
            seen.append(primitive.name)
            return super().compute(primitive, *operands)

    inputs = inputs_of(circuit, 0)
    watched = evaluate(circuit, *inputs, semantics=Watching())
    assert sorted(seen) == ["Lookup", "MatMul", "Maximum", "Multiply", "Round", "Round"]
    for found, expected in zip(watched.outputs, evaluate(circuit, *inputs).outputs, strict=True):
        np.testing.assert_array_equal(found, expected)
