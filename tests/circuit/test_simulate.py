from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherlearn.circuit import Builder, Circuit, allowed_results, evaluate, ir, simulate
from cipherlearn.circuit.simulate import NoisySemantics
from cipherlearn.errors import InvalidParameterError, InvalidShapeError
from tests.circuit.programs import circuits, inputs_of, seeds

#: What is used by default: errors of look-ups never show in a test.
P_ERROR = 2.0**-40


def one_value(function: Callable[[Any], Any], lo: int, hi: int, size: int = 100) -> Circuit:
    builder = Builder()
    return builder.finish([function(builder.input("x", (size,), lo, hi))])


def errors(circuit: Circuit, inputs: list[np.ndarray], p_error: float) -> np.ndarray:
    """Differences from the exact result."""
    noisy = simulate(circuit, *inputs, p_error=p_error, random_state=1).outputs[0]
    return noisy - evaluate(circuit, *inputs).outputs[0]


def assert_rate(found: float, expected: float, trials: int) -> None:
    # Five standard deviations: one seed in two million would fail, and this one is fixed.
    deviation = math.sqrt(expected * (1 - expected) / trials)
    assert abs(found - expected) < 5 * deviation


@pytest.mark.parametrize("p_error", [0.01, 0.2])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.lookup(np.arange(64) * 10, 0),
        lambda x: np.maximum(x * 10, x.builder.input("y", x.shape, 0, 0)),
        lambda x: x.round(1, exact=True),
    ],
)
def test_lookups_fail_at_the_given_rate(function: Callable[[Any], Any], p_error: float) -> None:
    circuit = one_value(function, 0, 63)
    # Away from the ends, where a neighbour is missing.
    x = np.random.default_rng(0).integers(5, 58, (2000, 100))
    inputs = [x, np.zeros_like(x)][: len(circuit.inputs)]
    found = errors(circuit, inputs, p_error)
    assert_rate(float((found != 0).mean()), p_error, found.size)
    assert_rate(float((found > 0).mean()), p_error / 2, found.size)
    assert len(set(np.unique(found).tolist())) == 3


def test_failing_lookups_read_the_neighbour() -> None:
    circuit = one_value(lambda x: x.lookup(np.arange(16) ** 2, 0), 0, 15)
    x = np.random.default_rng(0).integers(0, 16, (500, 100))
    noisy = simulate(circuit, x, p_error=0.3).outputs[0]
    read = np.sqrt(noisy).astype(int)
    assert (read * read == noisy).all()
    assert (np.abs(read - x) <= 1).all()
    assert {-1, 0, 1} == set(np.unique(read - x).tolist())


def test_products_fail_in_two_lookups() -> None:
    builder = Builder()
    x, y = builder.input("x", (100,), 0, 50), builder.input("y", (100,), 0, 50)
    circuit = builder.finish([x * y])
    generator = np.random.default_rng(0)
    inputs = [generator.integers(10, 51, (2000, 100)) for _ in range(2)]
    p_error = 0.05
    found = errors(circuit, inputs, p_error)
    # An error of the sum moves the product by about half of it.
    total, difference = inputs[0] + inputs[1], inputs[0] - inputs[1]
    assert (np.abs(found) <= (total + np.abs(difference)) // 2 + 1).all()
    sums_only = np.abs(np.abs(found) - total / 2) <= 0.5
    assert sums_only.mean() > 0.5 * p_error
    assert 0.8 * 2 * p_error < (found != 0).mean() < 2 * p_error


def test_quarter_squares_of_slips() -> None:
    semantics = NoisySemantics(0.5, np.random.default_rng(0))
    left, right = np.arange(-9, 10)[:, None], np.arange(-7, 8)[None]
    possible = {
        (a, b): {
            (a + b + s) ** 2 // 4 - (a - b + d) ** 2 // 4 for s in (-1, 0, 1) for d in (-1, 0, 1)
        }
        for a in left.flat
        for b in right.flat
    }
    seen: dict[tuple[int, int], set[int]] = {key: set() for key in possible}
    for _ in range(200):
        found = semantics.compute(ir.Multiply(), left, right)
        for key, value in zip(possible, found.reshape(-1).tolist(), strict=True):
            seen[key].add(value)
    assert seen == possible


def test_matrix_products_fail_in_two_lookups_a_term() -> None:
    builder = Builder()
    x, y = builder.input("x", (1, 4), 0, 30), builder.input("y", (4, 1), 0, 30)
    circuit = builder.finish([x @ y])
    generator = np.random.default_rng(0)
    inputs = [generator.integers(5, 31, (20_000, *shape)) for shape in ((1, 4), (4, 1))]
    p_error = 0.01
    found = errors(circuit, inputs, p_error)
    wrong = 1 - (1 - p_error) ** 8
    assert 0.8 * wrong < (found != 0).mean() < wrong


def test_exact_rounding_fails_once_for_each_bit() -> None:
    circuit = one_value(lambda x: x.round(4, exact=True), 0, 1023)
    x = np.random.default_rng(0).integers(0, 1024, (2000, 100))
    found = errors(circuit, [x], 0.01)
    assert_rate(float((found != 0).mean()), 1 - 0.99**4, found.size)
    assert set(np.unique(found).tolist()) == {-16, 0, 16}


def test_linear_and_clear_operations_do_not_fail() -> None:
    builder = Builder()
    x = builder.input("x", (2, 3), 0, 9)
    clear = builder.input("clear", (2, 3), 0, 9, encrypted=False)
    function = clear.lookup(np.arange(10) ** 2, 0).round(1, exact=False) * clear
    circuit = builder.finish([(x + function) @ np.arange(6).reshape(3, 2) + x.sum(), x * clear])
    inputs = inputs_of(circuit, 0, rows=50)
    noisy = simulate(circuit, *inputs, p_error=0.5)
    for found, expected in zip(noisy.outputs, evaluate(circuit, *inputs).outputs, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("lsbs", [4, 6, 8])
def test_approximate_rounding_moves_a_few_percent_to_the_adjacent_multiple(lsbs: int) -> None:
    circuit = one_value(lambda x: x.round(lsbs, exact=False), 0, 2**12 - 1)
    x = np.random.default_rng(0).integers(0, 2**12, (1000, 100))
    (noisy,) = simulate(circuit, x, p_error=P_ERROR).outputs
    moved = noisy != evaluate(circuit, x).outputs[0]
    assert 0.03 < moved.mean() < 0.07
    step = 2**lsbs
    assert not (noisy % step).any()
    assert (np.abs(noisy - x) < step).all()
    # Only values near a boundary move, and multiples never do.
    assert (np.abs(x % step - step / 2)[moved] < step / 3).all()
    assert not moved[x % step == 0].any()


def test_approximate_rounding_of_negative_values() -> None:
    circuit = one_value(lambda x: x.round(5, exact=False), -2000, -1)
    x = np.random.default_rng(0).integers(-2000, 0, (500, 100))
    (noisy,) = simulate(circuit, x, p_error=P_ERROR).outputs
    assert (np.abs(noisy - x) < 32).all()
    assert 0.03 < (noisy != evaluate(circuit, x).outputs[0]).mean() < 0.07


@pytest.mark.parametrize("p_error", [0.02, 0.2])
def test_noise_of_half_a_step_has_the_given_probability(p_error: float) -> None:
    # Just above a multiple, only noise of half a step upwards shows.
    circuit = one_value(lambda x: x.round(16, exact=False), 0, 2**20)
    x = np.full((2000, 100), 3 * 2**16 + 1)
    (noisy,) = simulate(circuit, x, p_error=p_error).outputs
    assert set(np.unique(noisy).tolist()) == {3 * 2**16, 4 * 2**16}
    assert_rate(float((noisy != 3 * 2**16).mean()), p_error / 2, noisy.size)


def test_no_noise_moves_a_value_beyond_its_neighbours() -> None:
    circuit = one_value(lambda x: x.round(3, exact=False), 0, 2**12 - 1)
    x = np.random.default_rng(0).integers(0, 2**12, (500, 100))
    (noisy,) = simulate(circuit, x, p_error=0.9).outputs
    assert (np.abs(noisy - x) < 8).all()


def test_larger_errors_move_more() -> None:
    circuit = one_value(lambda x: x.round(6, exact=False), 0, 2**12 - 1)
    x = np.random.default_rng(0).integers(0, 2**12, (500, 100))
    exact = evaluate(circuit, x).outputs[0]
    rates = [
        (simulate(circuit, x, p_error=p).outputs[0] != exact).mean() for p in (2**-60, 2**-40, 0.01)
    ]
    assert rates == sorted(rates)
    assert rates[0] > 0


@settings(max_examples=80)
@given(circuits(), seeds)
def test_without_failing_lookups_results_are_allowed_ones(circuit: Circuit, seed: int) -> None:
    inputs = inputs_of(circuit, seed, rows=5)
    allowed = allowed_results(circuit, *inputs)
    exact = evaluate(circuit, *inputs).outputs
    noisy = simulate(circuit, *inputs, p_error=P_ERROR, random_state=seed).outputs
    for (lowest, highest), one, other in zip(allowed, exact, noisy, strict=True):
        assert lowest.shape == highest.shape == one.shape
        assert lowest.dtype == highest.dtype == np.int64
        assert ((lowest <= one) & (one <= highest)).all()
        assert ((lowest <= other) & (other <= highest)).all()
        if circuit.is_deterministic:
            np.testing.assert_array_equal(lowest, highest)
            np.testing.assert_array_equal(other, one)


def test_allowed_results_are_both_neighbours() -> None:
    circuit = one_value(lambda x: x.round(3, exact=False).lookup(np.arange(20) * 2, 0), 0, 40, 5)
    x = np.array([[0, 1, 7, 8, 20]])
    ((lowest, highest),) = allowed_results(circuit, x)
    assert lowest.tolist() == [[0, 0, 0, 16, 32]]
    assert highest.tolist() == [[0, 16, 16, 16, 38]]


def test_allowed_results_of_clear_rounding_are_exact() -> None:
    builder = Builder()
    x = builder.input("x", (1,), 0, 9)
    clear = builder.input("clear", (1,), 0, 9, encrypted=False)
    circuit = builder.finish([x + clear.round(2, exact=False)])
    ((lowest, highest),) = allowed_results(circuit, np.array([[1]]), np.array([[5]]))
    assert lowest.tolist() == highest.tolist() == [[5]]


def test_no_rows() -> None:
    circuit = one_value(lambda x: x.round(3, exact=False), 0, 40, 5)
    none = np.zeros((0, 5), dtype=np.int64)
    ((lowest, highest),) = allowed_results(circuit, none)
    assert lowest.shape == highest.shape == (0, 5)
    assert simulate(circuit, none, p_error=P_ERROR).outputs[0].shape == (0, 5)


def test_inputs_are_checked() -> None:
    circuit = one_value(lambda x: x + 1, 0, 40, 5)
    with pytest.raises(InvalidShapeError):
        allowed_results(circuit, np.zeros((1, 4), dtype=np.int64))
    with pytest.raises(InvalidParameterError):
        simulate(circuit, np.full((1, 5), 41), p_error=P_ERROR)


@given(st.integers(0, 100))
def test_the_same_seed_gives_the_same_errors(seed: int) -> None:
    circuit = one_value(lambda x: (x.round(2, exact=False) * 0.3).astype(np.int64), 0, 255)
    x = np.random.default_rng(0).integers(0, 256, (20, 100))
    once, again, other = (
        simulate(circuit, x, p_error=0.1, random_state=s).outputs[0] for s in (seed, seed, seed + 1)
    )
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()


def test_overflows_are_counted() -> None:
    circuit = one_value(lambda x: x.assume(np.array(2), np.array(5)), 0, 9, 4)
    assert simulate(circuit, np.array([[0, 3, 5, 9]]), p_error=P_ERROR).overflow_count == 2


@pytest.mark.parametrize("p_error", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_error_probabilities_lie_between_0_and_1(p_error: float) -> None:
    circuit = one_value(lambda x: x + 1, 0, 9, 4)
    with pytest.raises(InvalidParameterError, match="p_error must lie between 0 and 1"):
        simulate(circuit, np.zeros((1, 4), dtype=np.int64), p_error=p_error)


def test_other_primitives_are_exact() -> None:
    semantics = NoisySemantics(0.5, np.random.default_rng(0))
    found = semantics.compute(ir.Add(), np.array([[1]]), np.array([[2]]))
    assert found.tolist() == [[3]]
