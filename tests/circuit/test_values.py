from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.circuit import (
    Builder,
    IntValue,
    RealValue,
    count_lookups,
    evaluate,
    ir,
    kernels,
    tabulate,
)
from cipherlearn.errors import (
    AccumulatorOverflowError,
    CircuitError,
    EncryptedOperandError,
    InvalidTypeError,
    LookupWidthError,
)
from tests.circuit.programs import seeds

SCALES = np.array([0.5, -1.25, 3.0])
WEIGHTS = np.array([[1, -2], [0, 3], [4, 5]])

INTEGER_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "add": lambda x: x + 3,
    "add on the left": lambda x: np.array([[1, 2, 3]]) + x,
    "add a vector": lambda x: x + np.array([5, 6, 7]),
    "add more axes": lambda x: x + np.arange(6).reshape(2, 1, 3),
    "subtract": lambda x: x - np.array([[1], [2]]),
    "subtract from": lambda x: 10 - x,
    "multiply": lambda x: x * -4,
    "multiply by booleans": lambda x: x * np.array([True, False, True]),
    "negate": lambda x: -x,
    "square": lambda x: x * x,
    "maximum of two": lambda x: np.maximum(x, x[:, ::-1]),
    "matmul": lambda x: x @ WEIGHTS,
    "matmul on the left": lambda x: WEIGHTS @ x,
    "matmul with a vector": lambda x: x @ np.array([1, 2, 3]),
    "matmul of a vector": lambda x: np.array([1, -2]) @ x,
    "matmul of vectors": lambda x: x[0] @ x[1],
    "matmul with a stack": lambda x: x @ np.stack([WEIGHTS, -WEIGHTS]),
    "gram matrix": lambda x: x @ x.T,
    "sum": lambda x: x.sum(),
    "sum of columns": lambda x: x.sum(axis=0),
    "sum kept": lambda x: x.sum(axis=-1, keepdims=True),
    "sum over both": lambda x: x.sum(axis=(0, 1)),
    "no sum": lambda x: x.sum(axis=()),
    "np.sum": lambda x: np.sum(x, axis=1),
    "astype": lambda x: x.astype(np.int32) + 1,
    "reshape": lambda x: x.reshape(3, -1),
    "reshape by tuple": lambda x: x.reshape((6,)),
    "reshape back": lambda x: x.reshape(6).reshape(2, 3),
    "transpose": lambda x: x.transpose(),
    "transpose by name": lambda x: x.transpose(-1, 0),
    "transpose by tuple": lambda x: x.transpose((1, 0)),
    "transpose nothing": lambda x: x.transpose(0, 1),
    "T": lambda x: x.T,
    "column": lambda x: x[:, 1],
    "negative": lambda x: x[-1],
    "backwards": lambda x: x[::-1, ::-2],
    "array": lambda x: x[:, np.array([2, 2, 0])],
    "list": lambda x: x[[1, 0, 1]],
    "arrays": lambda x: x[np.array([0, 1]), np.array([2, 0])],
    "array beside integer": lambda x: x[0, [2, 1]],
    "mask": lambda x: x[:, np.array([True, False, True])],
    "new axis": lambda x: x[:, None],
    "ellipsis": lambda x: x[..., 0],
    "all": lambda x: x[:, :],
    "no index": lambda x: x[()],
    "grid": lambda x: x[np.array([[0], [1]]), np.array([[0, 2]])],
    "one element": lambda x: x[1, 2],
    "rows": lambda x: sum(row * (i + 1) for i, row in enumerate(x)),
}

REAL_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "scale": lambda x: x * 0.37,
    "divide": lambda x: x / 7,
    "divide a constant": lambda x: 1.0 / (x + 20),
    "channels": lambda x: x * SCALES + 1.5,
    "rows": lambda x: x * np.array([[0.1], [7.0]]),
    "elements": lambda x: x - np.arange(6.0).reshape(2, 3),
    "more axes": lambda x: x * np.arange(1.0, 3.0).reshape(2, 1, 1),
    "swish": lambda x: x * (1.0 / (1.0 + np.exp(-0.3 * x))),
    "shifted copies": lambda x: np.tanh(x + 1) * np.tanh(0.5 * (x - 2)),
    "vector beside matrix": lambda x: x * np.arange(2.0).reshape(2, 1, 1) + x,
    "integer vector beside matrix": lambda x: (x * np.arange(1, 3).reshape(2, 1, 1)) * 0.5 + x,
    "two broadcasts": lambda x: x * np.ones((4, 2, 1)) + x * np.ones((1, 2, 1)),
    "maximum": lambda x: np.maximum(x, 2),
    "relu": lambda x: np.maximum(0.1 * x, 0.0),
    "minimum": lambda x: np.minimum(x, np.array([1, 2, 3])),
    "compare": lambda x: x > 1,
    "equal": lambda x: x == 2,
    "logic": lambda x: (x > -2) & (x <= 2),
    "not": lambda x: ~(x > 0),
    "where": lambda x: np.where(x > 0, x, 0.01 * x),
    "clip": lambda x: np.clip(0.3 * x, -1, 2),
    "clip below": lambda x: np.clip(x, 0, None),
    "round": lambda x: np.round(x * 0.31, 1),
    "floor of quotient": lambda x: x // 3,
    "remainder": lambda x: x % 4,
    "power": lambda x: x**3,
    "shift": lambda x: x >> 1,
    "bits": lambda x: x & 5,
    "absolute": np.abs,
    "sign": np.sign,
    "float32": lambda x: x.astype(np.float32) * np.float32(0.1),
    "to float32": lambda x: (x * 0.1).astype(np.float32),
    "dtype": lambda x: np.add(x, 1, dtype=np.float32),
    "to boolean": lambda x: x.astype(bool),
    "real to boolean": lambda x: (x * 0.25).astype(np.bool_),
    "nan_to_num": lambda x: np.nan_to_num(x * 0.5, nan=3.0),
    "moved": lambda x: (x * SCALES)[:, ::-1].T.reshape(3, 2, 1),
    "moved before": lambda x: x.T[1] * 0.5,
    "picked": lambda x: (x @ WEIGHTS * 0.1)[:, :1] + 1.0,
    "picked channels": lambda x: (x * SCALES)[:, [0, 0, 2]],
    "ignores its operand": lambda x: np.where(x > 100, x, 1.5),
    "matmul scaled": lambda x: np.tanh((x @ WEIGHTS) * 0.05 + np.array([0.1, -0.2])),
}

LO, HI = -5, 6


def trace(function: Callable[[Any], Any], shape: tuple[int, ...] = (2, 3)) -> Any:
    builder = Builder()
    return function(builder.input("x", shape, LO, HI))


def samples(shape: tuple[int, ...] = (2, 3), rows: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(LO, HI, (rows, *shape), endpoint=True)


def real_results(value: RealValue, batch: np.ndarray) -> np.ndarray:
    """What the tables of a real value say, in floating point."""
    builder = value.source.builder
    used = [node.primitive for node in builder if isinstance(node.primitive, ir.Input)]
    assert len(used) == 1
    circuit = builder.finish([value.source])
    (integers,) = evaluate(circuit, batch).outputs
    interval = value.source.interval
    rows = (integers - interval.domain[0]) // interval.step
    found = kernels.gather(value.table, rows)
    return np.broadcast_to(found, (batch.shape[0], *value.shape))


@pytest.mark.parametrize("name", INTEGER_FUNCTIONS)
def test_integer_functions_mean_what_they_mean_in_numpy(name: str) -> None:
    function = INTEGER_FUNCTIONS[name]
    value = trace(function)
    assert isinstance(value, IntValue)
    batch = samples()
    (found,) = evaluate(value.builder.finish([value]), batch).outputs
    expected = np.stack([function(row) for row in batch])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", REAL_FUNCTIONS)
def test_real_functions_mean_what_they_mean_in_numpy(name: str) -> None:
    function = REAL_FUNCTIONS[name]
    value = trace(function)
    assert isinstance(value, RealValue)
    batch = samples()
    expected = np.stack([function(row) for row in batch])
    assert value.table.dtype == expected.dtype
    assert value.shape == expected.shape[1:]
    np.testing.assert_allclose(real_results(value, batch), expected, rtol=1e-12)


@pytest.mark.parametrize("name", REAL_FUNCTIONS)
def test_real_functions_become_one_lookup_at_most(name: str) -> None:
    value = trace(lambda x: REAL_FUNCTIONS[name](x).astype(np.int64))
    circuit = value.builder.finish([value])
    (found,) = evaluate(circuit, samples()).outputs
    expected = np.stack([REAL_FUNCTIONS[name](row).astype(np.int64) for row in samples()])
    np.testing.assert_array_equal(found, expected)
    assert count_lookups(circuit).total in {0, value.size}


def test_a_quantized_layer_is_the_same_in_numpy() -> None:
    def layer(x: Any) -> Any:
        accumulator = x @ WEIGHTS + np.array([3, -1])
        activation = np.maximum(accumulator * np.array([0.11, 0.07]) - 0.2, 0.0)
        return np.clip(np.rint(activation / 0.3) + 2, 0, 15).astype(np.int64)

    value = trace(layer)
    (found,) = evaluate(value.builder.finish([value]), samples()).outputs
    np.testing.assert_array_equal(found, layer(samples()))


CHAIN_STEPS: list[Callable[[Any, np.random.Generator], Any]] = [
    lambda v, g: v * g.integers(-2, 3, 3),
    lambda v, g: v + g.integers(-4, 5, (2, 1)),
    lambda v, _: v * 0.75,
    lambda v, _: np.tanh(v * 0.2) * 9,
    lambda v, _: np.where(v > 0, v, 0.5 * v) + v,
    lambda v, _: np.rint(v).astype(np.int64),
    lambda v, _: v[:, ::-1],
    lambda v, _: v.T.reshape(2, 3),
    lambda v, _: np.maximum(v, 1),
    lambda v, g: v[:, g.integers(0, 3, 3)],
]


@given(st.lists(st.sampled_from(CHAIN_STEPS), min_size=1, max_size=6), seeds)
def test_random_chains_mean_what_they_mean_in_numpy(
    steps: list[Callable[[Any, np.random.Generator], Any]], seed: int
) -> None:
    def chain(value: Any) -> Any:
        generator = np.random.default_rng(seed)
        for step in steps:
            value = step(value, generator)
        return np.rint(value).astype(np.int64)

    value = trace(chain)
    if value.encrypted:
        batch = samples(rows=10)
        (found,) = evaluate(value.builder.finish([value]), batch).outputs
        np.testing.assert_array_equal(found, np.stack([chain(row) for row in batch]))


def lookups(value: IntValue) -> list[ir.Lookup]:
    circuit = value.builder.finish([value])
    return [n.primitive for n in circuit if isinstance(n.primitive, ir.Lookup)]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x * 1.0).astype(np.int64),
        lambda x: np.rint((x * 0.5) * 2 + 3).astype(np.int64),
        lambda x: (x.astype(np.float64) + np.array([1.0, 2.0, 3.0])).astype(np.int64),
        lambda x: np.clip(x, LO - 1, HI + 1).astype(np.int64),
        lambda x: (x + 5).astype(np.float32).astype(np.int64),
    ],
)
def test_tables_that_only_shift_cost_nothing(function: Callable[[Any], Any]) -> None:
    value = trace(function)
    assert not lookups(value)
    (found,) = evaluate(value.builder.finish([value]), samples()).outputs
    np.testing.assert_array_equal(found, function(samples()))


def test_identity_is_the_value_itself() -> None:
    builder = Builder()
    x = builder.input("x", (2,), LO, HI)
    assert x.as_real().lookup().position == x.position
    assert x.astype(np.int8) is x


def test_channels_share_one_lookup_with_a_table_each() -> None:
    value = trace(lambda x: np.rint(np.tanh(x * SCALES) * 9).astype(np.int64))
    (lookup,) = lookups(value)
    assert lookup.table.shape == (HI - LO + 1, 1, 3)


def test_a_common_function_has_one_table() -> None:
    value = trace(lambda x: (x.reshape(6) * 2.5).T.reshape(3, 2).astype(np.int64))
    (lookup,) = lookups(value)
    assert lookup.table.size == HI - LO + 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x * 0.5 + y,
        lambda x, y: np.where(x > 0, y, 0),
        np.minimum,
        lambda x, y: x / y,
        lambda x, y: (x + y) * 0.5 + x,
        lambda x, _: x * 0.5 + x[:, ::-1],
    ],
)
def test_functions_of_two_values_are_refused(function: Callable[[Any, Any], Any]) -> None:
    builder = Builder()
    x, y = builder.input("x", (2, 3), LO, HI), builder.input("y", (2, 3), LO, HI)
    with builder.scope("mix"), pytest.raises(EncryptedOperandError, match="mix mixes two"):
        function(x, y)


def test_a_constant_of_the_circuit_is_a_constant() -> None:
    builder = Builder()
    x = builder.input("x", (3,), LO, HI)
    constant = builder.constant([1, 2, 3])
    value = np.minimum(x, constant) * 0.5
    assert value.source.position == x.position
    np.testing.assert_array_equal(
        real_results(value, samples((3,))), np.minimum(samples((3,)), [1, 2, 3]) * 0.5
    )
    maximum = np.maximum(constant, x)
    assert isinstance(maximum, RealValue)
    assert not (constant * 0.5).encrypted


def test_a_part_of_the_elements_has_a_part_of_the_domain() -> None:
    builder = Builder()
    x = builder.input("x", (1, 2), 0, 3)
    accumulator = x @ np.array([[1, 10], [0, 1]])
    assert accumulator.interval.domain_size == 34
    real = np.tanh(accumulator * 0.1)
    for column in (0, 1):
        part = real[:, column]
        assert part.table.shape[0] == part.source.interval.domain_size
        np.testing.assert_allclose(
            part.table.reshape(-1), np.tanh(part.source.interval.domain * 0.1)
        )


def test_moving_no_elements() -> None:
    value = trace(lambda x: ((x + 9) * 0.5)[:, 3:])
    assert value.shape == (2, 0)
    assert value.lookup().shape == (2, 0)


def test_tables_have_one_row_an_integer() -> None:
    builder = Builder()
    x = builder.input("x", (2, 3), 0, 3)
    assert RealValue(x, np.zeros(4)).table.shape == (4, 1, 1)
    with pytest.raises(CircuitError, match="does not have 4 rows"):
        RealValue(x, np.zeros(5))


MOVES: dict[str, Callable[[Any], Any]] = {
    "reshape": lambda v: v.reshape(6),
    "transpose": lambda v: v.T,
    "index": lambda v: v[:, 1:],
    "array index": lambda v: v[[1, 0, 1]],
    "flat index": lambda v: v[np.array([0, 1]), np.array([0, 1])],
    "broadcast": lambda v: np.broadcast_to(v, (4, 2, 3)),
    "concatenate": lambda v: np.concatenate([v, v[:, :1]], axis=-1),
    "several": lambda v: v.reshape(3, 2)[::-1].T,
}


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("exact", [True, False])
def test_movements_pass_below_rounding(name: str, exact: bool) -> None:
    builder = Builder()
    rounded = builder.input("x", (2, 3), 0, 100).round(3, exact=exact)
    moved = MOVES[name](rounded)
    primitive = moved.node.primitive
    assert isinstance(primitive, ir.Round)
    assert (primitive.lsbs, primitive.exact) == (3, exact)
    circuit = builder.finish([moved])
    assert sum(isinstance(node.primitive, ir.Round) for node in circuit) == 1
    batch = np.random.default_rng(0).integers(0, 100, (9, 2, 3))
    expected = np.stack([MOVES[name](row) for row in (batch + 4) // 8 * 8])
    np.testing.assert_array_equal(evaluate(circuit, batch).outputs[0], expected)


def test_a_table_behind_a_moved_rounding_reads_the_kept_bits() -> None:
    builder = Builder()
    rounded = builder.input("x", (2, 3), 0, 2**14 - 1).round(10, exact=False)
    value = (rounded.T * 0.01).astype(np.int64)
    (lookup,) = lookups(value)
    assert (lookup.step, lookup.table.shape[0]) == (1024, 17)
    reader = next(n for n in builder if n.primitive is lookup)
    assert isinstance(list(builder)[reader.inputs[0]].primitive, ir.Round)


@pytest.mark.parametrize(
    "function",
    [
        lambda v: v + 5,
        lambda v: 1 - v,
        lambda v: v * 3 - 7,
        lambda v: np.array([[1, 2, 3]]) + v,
        lambda v: v * np.array([[1], [-2]]),
        lambda v: v * np.arange(1, 3).reshape(2, 1, 1),
    ],
)
def test_constants_between_a_rounding_and_its_table_join_the_table(
    function: Callable[[Any], Any],
) -> None:
    builder = Builder()
    rounded = builder.input("x", (2, 3), 0, 255).round(4, exact=True)
    value = np.rint(function(rounded) * 0.1).astype(np.int64)
    circuit = builder.finish([value])
    assert list(count_lookups(circuit).by_width) == [5]
    batch = np.random.default_rng(0).integers(0, 256, (30, 2, 3))
    expected = np.rint(np.stack([function(row) for row in (batch + 8) // 16 * 16]) * 0.1)
    np.testing.assert_array_equal(evaluate(circuit, batch).outputs[0], expected)


def test_constants_that_differ_join_the_table_of_a_rounding() -> None:
    # The sums are as wide as the rounded value, and the look-up still stands next to the rounding.
    builder = Builder()
    rounded = builder.input("x", (2, 3), 0, 165).round(4, exact=True)
    value = np.rint((rounded + np.array([0, 16, 32])) * 0.1).astype(np.int64)
    names = [node.primitive.name for node in builder.finish([value])]
    assert names == ["Input", "Round", "Lookup"]


def test_constants_that_make_a_value_narrower_stay_before_its_table() -> None:
    builder = Builder()
    x = builder.input("x", (2, 3), 100, 107)
    value = np.rint((x - 100) * 0.3).astype(np.int64)
    assert count_lookups(builder.finish([value])).by_width == {3: 6}


def test_constants_that_differ_stay_out_of_a_common_table() -> None:
    def biased(x: Any) -> Any:
        return np.rint(np.tanh((x @ WEIGHTS + np.array([1, 2])) * 0.1) * 9).astype(np.int64)

    (lookup,) = lookups(trace(biased))
    assert lookup.table.size == lookup.table.shape[0]


def test_equal_constants_join_a_common_table() -> None:
    (lookup,) = lookups(trace(lambda x: np.rint((x + np.full((2, 3), 4)) * 0.3).astype(np.int64)))
    assert lookup.table.size == lookup.table.shape[0] == HI - LO + 1


def test_rounding_of_multiples_is_nothing() -> None:
    builder = Builder()
    x = builder.input("x", (2,), 0, 99)
    rounded = x.round(3, exact=False)
    assert rounded.round(2, exact=True) is rounded
    assert rounded.round(3, exact=True) is rounded
    assert x.round(0, exact=True) is x
    assert rounded.round(4, exact=True).position != rounded.position


def test_ranges_that_hold_anyway_are_not_declared() -> None:
    builder = Builder()
    x = builder.input("x", (2, 3), 0, 9)
    assert x.assume(np.array(0), np.array([9, 10, 11])) is x
    declared = x.assume(np.array(1), np.array([9, 10, 11]))
    assert isinstance(declared.node.primitive, ir.Assume)
    assert declared.interval.lo.tolist() == [[1, 1, 1]] * 2
    assert declared.interval.max == 9
    with pytest.raises(CircuitError, match="above its upper bound"):
        x.assume(np.array(5), np.array(4))


@pytest.mark.parametrize("table", [np.arange(4), np.array([[1, 2, 3]] * 4), np.zeros((4, 2, 1))])
def test_lookups_spread_their_tables(table: np.ndarray) -> None:
    builder = Builder()
    x = builder.input("x", (2, 3), 0, 3)
    circuit = builder.finish([x.lookup(table, 0)])
    batch = np.random.default_rng(0).integers(0, 4, (5, 2, 3))
    spread = np.broadcast_to(
        table.reshape(4, *(1,) * (3 - table.ndim), *table.shape[1:]), (4, 2, 3)
    )
    (found,) = evaluate(circuit, batch).outputs
    for place in np.ndindex(*batch.shape):
        assert found[place] == spread[(batch[place], *place[1:])]


def test_tables_too_wide_to_look_up() -> None:
    builder = Builder()
    x = builder.input("x", (2,), 0, 2**16)
    with builder.scope("fc2"), pytest.raises(LookupWidthError, match=r"fc2 needs .* on 17 bits"):
        x * 0.5
    with pytest.raises(LookupWidthError, match="rounding_threshold_bits"):
        x.as_real()
    with pytest.raises(LookupWidthError):
        x.lookup(np.arange(9), 0)
    narrow = builder.input("narrow", (2,), 0, 2**16 - 1)
    assert (narrow * 0.5).table.shape[0] == 2**16


def test_functions_that_are_not_finite() -> None:
    with pytest.raises(AccumulatorOverflowError, match="clip"):
        trace(lambda x: np.log(x - LO).astype(np.int64))
    with pytest.raises(AccumulatorOverflowError, match="-inf"):
        trace(lambda x: np.log(np.abs(x)).astype(np.int64))
    assert trace(lambda x: np.clip(np.log(x), -3, 3).astype(np.int64)).interval.min == -3


def test_undefined_entries_take_the_nearest_defined_one() -> None:
    value = trace(lambda x: np.sqrt(x).astype(np.int64))
    (found,) = evaluate(value.builder.finish([value]), samples()).outputs
    np.testing.assert_array_equal(found, np.sqrt(np.maximum(samples(), 0)).astype(np.int64))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x @ np.ones((3, 2)),
        lambda x: (x * 0.5) @ np.ones((3, 2), dtype=np.int64),
        lambda x: np.ones((2, 2)) @ (x * 0.5),
        lambda x: (x * 0.5).sum(),
        lambda x: np.sum(x * 0.5, axis=0),
        lambda x: (x * 0.5).astype(np.complex128),
        lambda x: x.astype(object),
    ],
)
def test_what_needs_integers_says_so(function: Callable[[Any], Any]) -> None:
    with pytest.raises(InvalidTypeError):
        trace(function)


@pytest.mark.parametrize(
    "function",
    [
        np.add.reduce,
        lambda x: np.add(x, 1, where=np.array([True, False, True])),
        lambda x: np.add(x, 1, out=np.zeros((2, 3))),
        lambda x: np.modf(x * 0.5),
        np.linalg.norm,
        np.sort,
    ],
)
def test_what_is_not_element_wise_is_refused(function: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError):
        trace(function)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum(axis=2),
        lambda x: x.transpose(0, 2),
        lambda x: x.transpose(0, 0),
        lambda x: x.broadcast_to((3, 3)),
        lambda x: x.broadcast_to((3,)),
        lambda x: x + np.ones(2, dtype=np.int64),
        lambda x: x @ np.ones((2, 2), dtype=np.int64),
        lambda x: x.reshape(4),
    ],
)
def test_shapes_that_do_not_fit_are_refused(function: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        trace(function)


@pytest.mark.parametrize("key", [2, -3, (0, 0, 0), [5], "a"])
def test_indices_outside_are_refused_as_numpy_does(key: Any) -> None:
    with pytest.raises(IndexError):
        trace(lambda x: x[key])


def test_encrypted_values_are_no_indices_and_no_conditions() -> None:
    with pytest.raises(EncryptedOperandError, match="index"):
        trace(lambda x: np.arange(9)[0] + x[x])
    with pytest.raises(EncryptedOperandError, match=r"np\.where"):
        trace(lambda x: 1 if x > 0 else 2)
    with pytest.raises(EncryptedOperandError, match="neither true nor false"):
        trace(lambda x: max(x, 0))


def test_reshapes_of_reshapes_are_one() -> None:
    builder = Builder()
    x = builder.input("x", (2, 3), 0, 3)
    assert x.reshape(6).reshape(1, 2, 3).reshape(2, 3).position == x.position
    assert x.reshape(6).reshape(3, 2).position == x.reshape(3, 2).position


def test_broadcasts_of_broadcasts_are_one() -> None:
    builder = Builder()
    x = builder.input("x", (1, 3), 0, 3)
    once = x.broadcast_to((5, 2, 3))
    twice = x.broadcast_to((2, 3)).broadcast_to((5, 2, 3))
    assert once.position == twice.position
    assert x.broadcast_to((1, 3)) is x
    with pytest.raises(CircuitError, match=r"cannot be repeated to \(4, 3\)"):
        x.broadcast_to((2, 3)).broadcast_to((4, 3))
    real = (x * 0.5).broadcast_to((2, 3))
    assert real.shape == (2, 3)
    assert real.table.size == 4


def test_values_have_shapes_and_hashes() -> None:
    value = trace(lambda x: x)
    assert (value.shape, value.ndim, value.size) == ((2, 3), 2, 6)
    assert len({value, value * 0.5}) == 2


def test_tabulate_gives_doubles() -> None:
    seen = []

    def function(x: np.ndarray, y: np.ndarray, c: float) -> np.ndarray:
        seen.append((x.dtype, y.dtype, c))
        return x * y + c

    value = trace(lambda x: tabulate(function, x, x * 0.5, 3.0))
    assert seen == [(np.float64, np.float64, 3.0)]
    np.testing.assert_allclose(real_results(value, samples()), samples() ** 2 * 0.5 + 3)


def test_tabulate_needs_an_encrypted_operand() -> None:
    with pytest.raises(InvalidTypeError, match="needs one"):
        tabulate(np.add, 1.0, 2.0)
