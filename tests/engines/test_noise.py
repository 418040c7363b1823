from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cipherlearn.circuit import Builder, Circuit, IntValue, evaluate, ir
from cipherlearn.circuit.functions import convolve
from cipherlearn.engines import _noise
from cipherlearn.engines._legalize import legalize
from cipherlearn.engines._noise import filler, missing_variance
from cipherlearn.engines._regions import find_regions
from cipherlearn.engines.concrete import ConcreteEngine
from tests.circuit import programs
from tests.engines.test_legalize import is_encrypted


def missing_of(*outputs: IntValue) -> list[float]:
    """What is missing, without positions."""
    legal = legalize(outputs[0].builder.finish(list(outputs))).circuit
    return list(missing_variance(legal, find_regions(legal), reduce=False).values())


def value(*shape: int) -> IntValue:
    return Builder().input("x", shape, 0, 3)


def repeated(x: IntValue, times: int) -> IntValue:
    return x.reshape(*x.shape, 1).broadcast_to((*x.shape, times))


def test_independent_sums_miss_nothing() -> None:
    builder = Builder()
    x, y = builder.input("x", (1, 4), 0, 3), builder.input("y", (1, 4), 0, 3)
    weights = np.array([[3, -2], [1, 0], [-5, 4], [7, 1]])
    table = np.rint(np.sqrt(x * 1.0)).astype(np.int64)
    assert missing_of(x @ weights * np.array([-3, 2]) + 5) == []
    assert missing_of(x + y - table, table.sum()) == []
    assert missing_of(x.reshape(2, 2)[::-1] * 3, x.transpose(1, 0).sum(0)) == []


def test_what_is_added_to_itself_counts_with_the_square() -> None:
    x = value(5)
    assert missing_of(x + x) == [4 - 2]
    assert missing_of(x * 8 + x * 8) == [16**2 - 2 * 8**2]
    assert missing_of(repeated(x, 16).sum(1)) == [16**2 - 16]
    assert missing_of(x[np.zeros(3, dtype=np.int64)].reshape(1, 3) @ np.array([[1], [2], [3]])) == [
        6**2 - 14
    ]


def test_differences_that_cancel_miss_nothing() -> None:
    x = value(5)
    assert missing_of(x * 64 - x * 63) == []


def test_products_in_a_row_are_one_product() -> None:
    x = value(1, 2)
    first, second = np.array([[1, 1], [2, 2]]), np.array([[3], [3]])
    # Each column of the first has the variance 5; together they are x @ [[6], [12]].
    assert missing_of((x @ first) @ second) == [180 - 9 * 5 * 2]


def test_windows_that_overlap_are_counted_together() -> None:
    x = value(1, 1, 1, 3)
    windows = convolve(
        x, np.ones((1, 1, 1, 2), dtype=int), strides=(1, 1), pads=(0,) * 4, dilations=(1, 1)
    )
    # Two windows of two share the middle: 1 + 4 + 1 in place of 4.
    assert missing_of(windows.sum(3)) == [2]


def test_clear_factors_of_any_sign_do_not_cancel() -> None:
    builder = Builder()
    x = builder.input("x", (2,), 0, 3)
    w = builder.input("w", (2,), -4, 3, encrypted=False)
    v = builder.input("v", (2,), -3, 4, encrypted=False)
    assert missing_of(x * w + x * v) == [64 - 32]
    assert missing_of(x * w - x * v) == [64 - 32]


def test_many_sources_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    x = value(1, 8)
    weights = np.random.default_rng(0).integers(-3, 3, (8, 8))
    product = repeated(x, 4).sum(2) @ weights
    [exact] = missing_of(product)
    monkeypatch.setattr(_noise, "MOST_ELEMENTS", 0)
    [estimated] = missing_of(product)
    assert exact < estimated < 3 * exact


@settings(max_examples=150)
@given(programs.circuits(steps=tuple(s for s in programs.STEPS if s is not programs.declared)))
def test_linear_circuits_miss_no_noise(circuit: Circuit) -> None:
    """Against slopes: how far each result moves when one integer of the inputs moves by one."""
    assume(all(known.encrypted and known.lo < known.hi for known in circuit.inputs))
    assume(is_encrypted(circuit))
    legal = legalize(circuit).circuit
    assume(not any(isinstance(n.primitive, (ir.Lookup, ir.Assume)) for n in legal if n.encrypted))
    regions = find_regions(legal)
    missing = missing_variance(legal, regions, reduce=False)
    weights = _noise._weights(legal, regions, reduce=False)
    estimates: dict[int, _noise._Estimate] = {}
    for position, node in enumerate(legal.nodes):
        if node.encrypted:
            estimates[position] = _noise._estimate(position, node, legal, weights, estimates)
    variances = [np.zeros(node.shape) for node in legal.output_nodes]
    for place, known in enumerate(legal.inputs):
        size = int(np.prod(known.shape))
        batches = [np.zeros((size + 1, *i.shape), dtype=np.int64) for i in legal.inputs]
        batches[place][1:] = np.eye(size, dtype=np.int64).reshape(size, *known.shape)
        for index, output in enumerate(evaluate(legal, *batches).outputs):
            variances[index] += ((output[1:] - output[0]) ** 2).sum(axis=0)
    for position, variance in zip(legal.outputs, variances, strict=True):
        believed = estimates[position].variance + missing.get(position, 0.0)
        assert variance.max() <= believed * (1 + 1e-9)


@given(st.floats(0.1, 1e9), st.integers(1, 20))
def test_fillers_stand_for_at_least_the_variance(variance: float, width: int) -> None:
    assume(variance < 1e4 * 4.0**width)
    factors = filler(variance, width)
    total = sum(2.0 * factor**2 for factor in factors)
    assert variance <= total
    assert total - 2.0 * factors[-1] ** 2 < variance
    assert all(1 <= factor < 1 << width for factor in factors)


# Without corrections, each of these has wrong results in every run.


@pytest.mark.parametrize("times", [16, 50])
def test_repeated_ciphertexts_are_right(times: int) -> None:
    x = Builder().input("x", (128,), 0, 10)
    check_right(repeated(x, times).sum(1))


@pytest.mark.parametrize(("lo", "hi"), [(-20, 20), (-1, 20), (-20, -1)])
def test_factors_of_both_signs_are_right(lo: int, hi: int) -> None:
    x = Builder().input("x", (256,), 0, 10)
    weights = np.random.default_rng(0).integers(lo, hi, 256, endpoint=True)
    weights[:2] = lo, hi
    check_right(x * weights)


def check_right(output: IntValue) -> None:
    circuit = output.builder.finish([output])
    [known] = circuit.inputs
    generator = np.random.default_rng(0)
    with ConcreteEngine().compile(circuit) as program:
        program.keygen()
        for _ in range(5):
            sample = generator.integers(known.lo, known.hi, known.shape, endpoint=True)
            expected = evaluate(circuit, sample[None]).outputs[0][0]
            np.testing.assert_array_equal(program.encrypt_run_decrypt(sample), expected)
