from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherlearn.circuit import Builder, Circuit, evaluate
from cipherlearn.circuit.simulate import allowed_results, simulate
from cipherlearn.sklearn.linear.module import Box
from cipherlearn.sklearn.neighbors.distances import Grid, Metric, References
from cipherlearn.sklearn.neighbors.selection import (
    Nearest,
    Ranked,
    Selection,
    Within,
    saturated_count,
)

P_ERROR = 2.0**-40


def circuit_of(selection: Selection, grid: Grid) -> Circuit:
    builder = Builder()
    mask = selection.mask(builder.input("bits", (1, grid.n_bits), 0, 1))
    return builder.finish([mask], ["mask"])


def masks(selection: Selection, grid: Grid, rows: np.ndarray) -> np.ndarray:
    (found,) = evaluate(circuit_of(selection, grid), grid.code(rows)[:, None]).outputs
    assert set(np.unique(found)) <= {0, 1}
    return np.asarray(found[:, 0] == 1)


def integer_case(seed: int, n: int, features: int) -> tuple[References, Grid, np.ndarray]:
    """Rows and references at the points of a grid of 3 bits, the corners among them."""
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 8, (n, features)).astype(np.float64)
    rows = rng.integers(0, 8, (30, features)).astype(np.float64)
    box = Box(np.zeros(features), np.full(features, 7.0))
    return References(points, Metric(2.0)), Grid(box, 3), rows


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(2, 9),
    k=st.integers(1, 4),
    power=st.sampled_from([1.0, 2.0]),
)
def test_ranked_are_the_first_k_in_order(seed: int, n: int, k: int, power: float) -> None:
    references, grid, rows = integer_case(seed, n, 3)
    references = References(references.points, Metric(power))
    selection = Ranked.fitted(references, grid, k, 4)
    found = masks(selection, grid, rows)
    sums = references.sums(grid, rows)
    order = np.argsort(sums, axis=1, kind="stable")[:, :k]
    expected = np.zeros_like(found)
    np.put_along_axis(expected, order, True, axis=1)
    ordered = np.sort(sums, axis=1)
    clear = ordered[:, min(k, n - 1)] > ordered[:, k - 1] if k < n else np.ones(len(rows), bool)
    np.testing.assert_array_equal(found[clear], expected[clear])


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), n=st.integers(11, 60), k=st.integers(1, 9))
def test_nearest_are_the_k_and_what_is_about_as_near(seed: int, n: int, k: int) -> None:
    references, grid, rows = integer_case(seed, n, 4)
    selection = Nearest.fitted(references, grid, k, 4)
    found = masks(selection, grid, rows)
    sums = selection.sums.of_bits(grid.code(rows).astype(np.int64))
    kth = np.sort(sums, axis=1)[:, k - 1]
    place = np.searchsorted(selection.thresholds, kth)  # the least threshold that k reach
    threshold = selection.thresholds[np.minimum(place, len(selection.thresholds) - 1)]
    np.testing.assert_array_equal(found, sums <= threshold[:, None] + selection.margin)
    reached = place < len(selection.thresholds)
    assert (found.sum(axis=1)[reached] >= k).all()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 20), radius=st.integers(0, 12))
def test_within_a_radius(seed: int, n: int, radius: int) -> None:
    references, grid, rows = integer_case(seed, n, 2)
    selection = Within.fitted(references, grid, float(radius**2), 4)
    sums = references.sums(grid, rows)
    found = masks(selection, grid, rows)
    np.testing.assert_array_equal(found, sums <= radius**2)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 30), k=st.integers(1, 5))
@pytest.mark.parametrize("kind", ["nearest", "ranked", "within"])
def test_rows_without_one_reference(kind: str, seed: int, n: int, k: int) -> None:
    """As if that reference lay far away; as they are, without none."""
    references, grid, rows = integer_case(seed, n, 2)
    bits, places = grid.code(rows), np.arange(len(rows)) % (n + 1) - 1
    if kind == "within":
        selection: Selection = Within.fitted(references, grid, 9.0, 4)
    elif kind == "nearest" and not references.are_equal:
        selection = Nearest.fitted(references, grid, k, 4)
    else:  # all of them are not selected by comparisons
        selection = Ranked.fitted(references, grid, min(k, n - 1), 4)
    found = selection.mask_without(bits, places)
    whole = masks(selection, grid, rows)
    np.testing.assert_array_equal(found[places < 0], whole[places < 0])
    lacking = np.flatnonzero(places >= 0)
    assert not found[lacking, places[lacking]].any()
    if kind == "within":
        whole[lacking, places[lacking]] = False
        np.testing.assert_array_equal(found, whole)
    else:  # another one comes in its place
        assert (found | ~whole | (np.arange(n) == places[:, None])).all()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), copies=st.integers(1, 9), k=st.integers(1, 5))
def test_rows_between_repeated_references_reach_some(seed: int, copies: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    points = np.repeat(rng.integers(0, 4, (40, 2)).astype(np.float64), copies, axis=0)
    references, grid = References(points, Metric(2.0)), Grid(Box.around(points), 5)
    selection = Nearest.fitted(references, grid, k, 4)
    rows = points[::copies] + rng.uniform(-0.5, 0.5, (40, 2))
    assert masks(selection, grid, rows).any(axis=1).all()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 300), most=st.integers(1, 40))
def test_counts_are_right_up_to_what_is_asked(seed: int, n: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    shares = rng.uniform(0, 1, (20, 1, 1)) * rng.choice([0.01, 0.1, 1.0], (20, 1, 1))
    ones = (rng.uniform(size=(20, 1, n)) < shares).astype(np.int64)
    builder = Builder()
    count = saturated_count(builder.input("ones", (1, n), 0, 1), most)
    (found,) = evaluate(builder.finish([count], ["count"]), ones).outputs
    total = ones.sum(axis=2)
    np.testing.assert_array_equal(np.minimum(found[:, :, 0], most), np.minimum(total, most))


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_approximate_comparisons_are_about_right(bits: int) -> None:
    """Simulated masks are allowed ones, and select what is near."""
    rng = np.random.default_rng(1)
    points, rows = rng.normal(size=(40, 3)), rng.normal(size=(20, 3))
    references = References(points, Metric(2.0))
    grid = Grid(Box.around(points), 4)
    selection = Nearest.fitted(references, grid, 3, bits)
    circuit, code = circuit_of(selection, grid), grid.code(rows)[:, None]
    (found,) = simulate(circuit, code, p_error=P_ERROR).outputs
    (lowest, highest) = allowed_results(circuit, code)[0]
    assert (found >= lowest).all()
    assert (found <= highest).all()
    sums = references.sums(grid, rows)
    chosen = np.where(found[:, 0] == 1, sums, np.nan)
    near = np.sort(sums, axis=1)[:, 2]
    typical = np.nanmedian(np.nanmax(chosen, axis=1) / near)
    assert typical < (4.0 if bits < 4 else 2.0)


def test_rounded_differences_have_the_bits_that_were_asked_for() -> None:
    references, grid, _ = integer_case(3, 30, 4)
    for bits in (2, 3, 4, 5):
        chosen: list[Selection] = [
            Nearest.fitted(references, grid, 3, bits),
            Within.fitted(references, grid, 9.0, bits),
            Ranked.fitted(References(references.points[:6], Metric(2.0)), grid, 1, bits),
        ]
        for selection in chosen:
            rounded = [n for n in circuit_of(selection, grid) if n.primitive.name == "Round"]
            spans = [(n.interval.max - n.interval.min) >> n.primitive.lsbs for n in rounded]
            assert max(spans) < 2**bits
