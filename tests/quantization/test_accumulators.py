from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.circuit import Builder, Interval, evaluate
from cipherlearn.ops._integer import Affine
from cipherlearn.quantization import Rounding
from cipherlearn.quantization.accumulators import (
    NOISE_CAP,
    AccumulatorPlan,
    Observed,
    plan_accumulator,
    plan_as_trained,
)


def interval(lo: list[int], hi: list[int]) -> Interval:
    return Interval(np.array([lo]), np.array([hi]))


@st.composite
def situations(draw: st.DrawFn) -> tuple[Interval, np.ndarray]:
    """Proved ranges of three channels, and a batch of accumulators inside them."""
    lo = draw(st.lists(st.integers(-5000, 5000), min_size=3, max_size=3))
    span = draw(st.lists(st.integers(0, 20000), min_size=3, max_size=3))
    proved = interval(lo, [a + b for a, b in zip(lo, span, strict=True)])
    shares = draw(st.lists(st.floats(0, 1), min_size=6, max_size=30))
    rows = len(shares) // 3
    places = np.array(shares[: 3 * rows]).reshape(rows, 3)
    return proved, (proved.lo + places * (proved.hi - proved.lo)).astype(np.int64)


@given(situations(), st.sampled_from([None, 2, 5, 8]), st.booleans())
def test_what_was_observed_fits_the_plan(
    situation: tuple[Interval, np.ndarray], bits: int | None, exact: bool
) -> None:
    proved, values = situation
    rounding = None if bits is None else Rounding(bits, exact)
    plan = plan_accumulator(proved, Observed.of(values, -1), rounding)
    placed = plan.place(values)
    np.testing.assert_array_equal(placed, plan.factor * values + plan.offset)
    read = plan.round(placed)
    assert placed.min() >= 0
    if bits is not None and plan.lsbs:
        assert np.all(read % 2**plan.lsbs == 0)
        assert read.max() >> plan.lsbs < 2**bits
        assert np.abs(read - placed).max() <= 2 ** (plan.lsbs - 1)
    else:
        np.testing.assert_array_equal(read, placed)


@given(situations(), st.sampled_from([None, 2, 5, 8]))
def test_a_proved_plan_holds_for_all_that_is_possible(
    situation: tuple[Interval, np.ndarray], bits: int | None
) -> None:
    proved, values = situation
    plan = plan_accumulator(
        proved, Observed.of(values, -1), None if bits is None else Rounding(bits)
    )
    ends = np.stack([proved.lo, proved.hi]).reshape(2, 3)
    raw = plan.factor * ends + plan.offset
    if plan.is_proved:
        assert raw.min() >= 0
    else:
        assert plan.lo is not None
        assert plan.hi is not None
        assert plan.hi.max() < proved.max - proved.min or plan.lsbs
        np.testing.assert_array_equal(plan.place(ends), np.clip(raw, plan.lo, plan.hi))


@given(situations(), st.sampled_from([None, 3, 6]))
def test_circuits_and_arrays_follow_the_same_plan(
    situation: tuple[Interval, np.ndarray], bits: int | None
) -> None:
    proved, values = situation
    plan = plan_accumulator(
        proved, Observed.of(values, -1), None if bits is None else Rounding(bits)
    )
    builder = Builder()
    source = builder.input("x", (1, 3), proved.min, proved.max)
    circuit = builder.finish([plan.round(plan.place(source))])
    expected = plan.round(plan.place(values))
    np.testing.assert_array_equal(evaluate(circuit, values[:, None]).outputs[0][:, 0], expected)


def test_ranges_are_widened_by_a_margin() -> None:
    values = np.array([[0, 100], [1000, 100], [500, 100]])
    observed = Observed.of(values, -1)
    assert observed.lo.shape == (1, 2)
    assert observed.lo[0, 0] <= -50
    assert observed.hi[0, 0] >= 1050
    np.testing.assert_array_equal([observed.lo[0, 1], observed.hi[0, 1]], [100, 100])
    together = Observed.of(values, None)
    assert together.lo.shape == (1, 1)
    assert together.lo.item() <= -50


def test_the_proved_range_is_kept_where_the_observed_one_saves_no_bit() -> None:
    proved = interval([-8, -8], [7, 7])
    plan = plan_accumulator(proved, Observed(np.array([[-7, -7]]), np.array([[6, 6]])), None)
    assert plan.is_proved
    np.testing.assert_array_equal(plan.offset, [[8, 8]])
    narrow = plan_accumulator(proved, Observed(np.array([[-3, -2]]), np.array([[3, 3]])), None)
    assert not narrow.is_proved
    assert narrow.hi is not None
    assert narrow.hi.max() == 7


def test_narrow_accumulators_are_not_rounded() -> None:
    proved = interval([0, 0], [15, 15])
    plan = plan_accumulator(proved, Observed(proved.lo, proved.hi), Rounding(4))
    assert plan.lsbs == 0


def test_channels_of_different_ranges_fill_the_same_steps() -> None:
    lo, hi = np.array([[-1000, -100]]), np.array([[1000, 100]])
    proved = interval([-4000, -400], [4000, 400])
    plan = plan_accumulator(proved, Observed(lo, hi), Rounding(4))
    assert plan.factor[0, 1] > 8 * plan.factor[0, 0]
    placed = plan.factor * np.stack([lo[0], hi[0]]) + plan.offset
    steps = (placed >> plan.lsbs).max(axis=0) - (placed >> plan.lsbs).min(axis=0)
    assert steps.min() >= 12


def test_channels_of_little_range_are_not_stretched_over_their_noise() -> None:
    """A narrow range of large weights: a factor would amplify what the weights add of noise."""
    lo, hi = np.array([[-1000, -1000, -2]]), np.array([[1000, 1000, 2]])
    proved = interval([-4000] * 3, [4000] * 3)
    plan = plan_accumulator(proved, Observed(lo, hi), Rounding(4))
    assert plan.factor[0, 2] <= 2 * plan.factor[0, 0]


def test_channels_of_no_range_do_no_harm() -> None:
    proved = interval([0, -900], [0, 900])
    plan = plan_accumulator(
        proved, Observed(np.array([[0, -500]]), np.array([[0, 500]])), Rounding(3)
    )
    assert np.isfinite(plan.factor).all()
    assert plan.place(np.array([[0, 500]])).max() < 2 ** (3 + plan.lsbs)


@pytest.mark.parametrize("exact", [True, False])
def test_an_empty_plan_changes_nothing(exact: bool) -> None:
    one = np.ones((1, 1), dtype=np.int64)
    plan = AccumulatorPlan(one, 0 * one, None, None, exact=exact)
    values = np.array([[3, -4]])
    assert plan.round(plan.place(values)) is values


@given(
    situations(),
    st.lists(st.tuples(st.floats(-500, 500), st.floats(2, 900)), min_size=3, max_size=3),
    st.sampled_from([2, 4, 8]),
    st.floats(0.001, 3.0),
    st.floats(-40.5, 40.5),
)
def test_steps_are_those_of_training(
    situation: tuple[Interval, np.ndarray],
    ranges: list[tuple[float, float]],
    bits: int,
    scale: float,
    zero: float,
) -> None:
    proved, values = situation
    observed = Observed.of(values, -1)
    start, span = np.array(ranges).T
    reals = (start - zero) * scale, (start + span - zero) * scale
    inside = np.rint(start + span / 2).astype(np.int64)[None]
    plan = plan_as_trained(proved, observed, reals, Affine(inside, scale, zero), Rounding(bits))
    assert plan.lo is None or (plan.lo == 0).all()
    top = (2**bits - 1) << plan.lsbs
    # Of whole numbers, the nearest.
    middle = (top / 2 - plan.offset) / plan.factor
    assert np.all(np.abs(middle - (start + span / 2)) <= 1.001 / plan.factor)
    asked = top / span
    weight = np.maximum(proved.hi - proved.lo, 1)
    typical = np.median(np.floor(asked) * weight)
    free = (asked * weight < NOISE_CAP * typical - weight).reshape(-1)
    assert np.all(np.abs(plan.factor.reshape(-1) - asked)[free] <= 0.5001)
    assert asked.min() >= 2**3 * 0.99


def test_ranges_of_training_are_joined_where_channels_share_one() -> None:
    proved = interval([0, 0], [100, 100])
    together = Observed(np.array([[0]]), np.array([[100]]))
    reals = np.array([[1.0, 3.0]]), np.array([[5.0, 4.0]])
    affine = Affine(np.array([[20, 40]]), np.array([[0.1, 0.1]]), 0)
    plan = plan_as_trained(proved, together, reals, affine, Rounding(4))
    assert plan.factor.shape == (1, 1)
    half = ((15 << plan.lsbs) / 2 - plan.offset) / plan.factor
    np.testing.assert_allclose(half, 30, atol=0.2)  # of 1.0 to 5.0, in steps of 0.1


def test_what_is_observed_counts_where_rows_leave_the_range_of_training() -> None:
    proved = interval([-100, -100], [100, 100])
    observed = Observed(np.array([[-50, -60]]), np.array([[50, 60]]))
    reals = np.array([[-20.0, -20.0]]), np.array([[20.0, 20.0]])
    rows = np.array([[-10, -21], [10, 20]])
    plan = plan_as_trained(proved, observed, reals, Affine(rows, 1.0, 0), Rounding(4))
    top = 15 << plan.lsbs
    np.testing.assert_allclose(-plan.offset / plan.factor, [[-20, -60]], atol=4)
    np.testing.assert_allclose((top - plan.offset) / plan.factor, [[20, 20]], atol=4)
