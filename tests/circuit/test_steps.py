from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherlearn.circuit import Builder, Circuit, count_lookups, evaluate, ir, steps
from cipherlearn.circuit.steps import round_steps
from tests.circuit.programs import circuits, inputs_of, seeds


def table_of(function: Callable[[Any], Any], lo: Any, hi: Any, top: int = 255) -> Circuit:
    """A function of two integers that are the input, moved into ranges of their own."""
    builder = Builder()
    value = builder.input("x", (1, 2), 0, top).assume(np.asarray(lo), np.asarray(hi))
    return builder.finish([function(value.as_real()).astype(np.int64)])


def everything(circuit: Circuit) -> np.ndarray:
    known = circuit.inputs[0]
    values = np.arange(known.lo, known.hi + 1)[:, None, None] + np.zeros(known.shape, np.int64)
    (output,) = evaluate(circuit, values).outputs
    return output


def roundings(circuit: Circuit) -> list[ir.Round]:
    return [n.primitive for n in circuit.nodes if isinstance(n.primitive, ir.Round)]


def check(circuit: Circuit, lsbs: int) -> Circuit:
    narrowed = round_steps(circuit)
    np.testing.assert_array_equal(everything(narrowed), everything(circuit))
    assert [rounding.lsbs for rounding in roundings(narrowed)] == ([lsbs] if lsbs else [])
    assert all(rounding.exact for rounding in roundings(narrowed))
    return narrowed


@pytest.mark.parametrize("offset", [0, 1, 7, 8, 200, 255])
@pytest.mark.parametrize("exponent", [2, 3, 5])
def test_even_steps_are_rounded_off(exponent: int, offset: int) -> None:
    circuit = table_of(lambda x: np.floor((x + offset) / 2**exponent), 0, 255)
    narrowed = check(circuit, exponent)
    width = max(count_lookups(narrowed).by_width)
    assert width <= 8 - exponent + 1
    assert count_lookups(narrowed).rounded_bits == 2 * exponent


@pytest.mark.parametrize("threshold", [1, 100, 128, 129, 255])
def test_a_comparison_reads_one_bit(threshold: int) -> None:
    circuit = table_of(lambda x: x >= threshold, 0, 255)
    narrowed = round_steps(circuit)
    np.testing.assert_array_equal(everything(narrowed), everything(circuit))
    assert set(count_lookups(narrowed).by_width) == {1}


def test_a_quantization_with_saturation_is_a_rounding() -> None:
    circuit = table_of(lambda x: np.clip(np.floor(x / 16 + 0.5), 2, 9), 0, 255)
    narrowed = check(circuit, 4)
    assert set(count_lookups(narrowed).by_width) <= {4, 5}


def test_channels_have_offsets_of_their_own() -> None:
    offsets = np.array([[3.0, 10.0]])
    circuit = table_of(lambda x: np.floor((x + offsets) / 16), 0, 255)
    check(circuit, 4)


def test_channels_that_do_not_change_do_not_matter() -> None:
    factors = np.array([[0.0, 1.0]])
    circuit = table_of(lambda x: factors * np.floor(x / 16), 0, 255)
    check(circuit, 4)


def test_ranges_of_channels_count() -> None:
    # Beyond its own range, a channel does not read its table.
    circuit = table_of(lambda x: np.where(x < 64, np.floor(x / 16), x), [[0, 0]], [[63, 79]])
    check(circuit, 0)
    narrow = table_of(lambda x: np.where(x < 64, np.floor(x / 16), x), [[0, 0]], [[63, 63]])
    check(narrow, 4)


def test_negative_values_are_moved() -> None:
    builder = Builder()
    value = builder.input("x", (1, 2), -100, 100)
    check(builder.finish([np.floor(value.as_real() / 8).astype(np.int64)]), 3)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x // 3,
        lambda x: np.rint(x / 2),  # halves to even: too fine to be worth two look-ups
        lambda x: x * 1.0,
        lambda x: np.where(x < 16, np.floor(x / 16), x),
    ],
)
def test_other_tables_stay(function: Callable[[Any], Any]) -> None:
    check(table_of(function, 0, 255), 0)


@pytest.mark.parametrize("exponent", [4, 5])
@pytest.mark.parametrize("lowest", [0, -120])
def test_halves_that_go_to_even_integers_are_two_roundings(exponent: int, lowest: int) -> None:
    builder = Builder()
    value = builder.input("x", (1, 2), lowest, lowest + 255)
    reals = value.as_real() / 2**exponent + np.array([[0.0, 1.25]])
    circuit = builder.finish([np.clip(np.rint(reals), -1, 6).astype(np.int64)])
    narrowed = round_steps(circuit)
    np.testing.assert_array_equal(everything(narrowed), everything(circuit))
    assert [rounding.lsbs for rounding in roundings(narrowed)] == [exponent + 1] * 2
    assert max(count_lookups(narrowed).by_width) <= 8 - exponent


def test_narrow_look_ups_stay() -> None:
    top = 2 ** (steps.LEAST_WIDTH - 1) - 1
    check(table_of(lambda x: np.floor(x / 8), 0, top, top), 0)
    top = 2**steps.LEAST_WIDTH - 1
    check(table_of(lambda x: np.floor(x / 8), 0, top, top), 3)


def test_rounded_values_stay_rounded_once() -> None:
    builder = Builder()
    value = builder.input("x", (1, 2), 0, 4095).round(3, exact=False)
    circuit = builder.finish([(value.as_real() >= 100).astype(np.int64)])
    assert len(roundings(round_steps(circuit))) == 1


def test_labels_stay() -> None:
    builder = Builder()
    value = builder.input("x", (1, 2), 0, 255)
    with builder.scope("layer"):
        circuit = builder.finish([(value.as_real() >= 100).astype(np.int64)], ["y"])
    narrowed = round_steps(circuit)
    assert {node.label for node in narrowed.nodes if isinstance(node.primitive, ir.Round)} == {
        "layer"
    }
    assert narrowed.output_names == ("y",)


@settings(max_examples=100)
@given(circuits(), seeds, st.sampled_from([1, 2, 6]))
def test_results_of_any_circuit_stay(circuit: Circuit, seed: int, least: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "LEAST_WIDTH", least)
        narrowed = round_steps(circuit)
    inputs = inputs_of(circuit, seed, rows=12)
    before, after = evaluate(circuit, *inputs), evaluate(narrowed, *inputs)
    for found, expected in zip(after.outputs, before.outputs, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert after.overflow_count == before.overflow_count
    assert count_lookups(narrowed).total >= count_lookups(circuit).total
    widest = [max(count_lookups(one).by_width, default=0) for one in (narrowed, circuit)]
    assert widest[0] <= widest[1]
