from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.errors import InvalidParameterError
from cipherlearn.sklearn.linear.module import Box
from cipherlearn.sklearn.neighbors.distances import Grid, Metric, References, Sums

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(40, 3)) * [0.01, 1.0, 100.0]
GRID = Grid(Box.around(ROWS), 4)


def on_grid(grid: Grid, rows: np.ndarray) -> np.ndarray:
    points = [grid.points(feature) for feature in range(rows.shape[1])]
    places = grid.places(rows)
    return np.stack([each[places[:, f]] for f, each in enumerate(points)], axis=1)


@pytest.mark.parametrize(
    ("metric", "params", "power"),
    [
        ("minkowski", {}, 2.0),
        ("minkowski", {"p": 1}, 1.0),
        ("minkowski", {"p": 3.5}, 3.5),
        ("minkowski", {"metric_params": {"w": [1.0, 0.0, 2.0]}}, 2.0),
        ("euclidean", {}, 2.0),
        ("sqeuclidean", {}, 2.0),
        ("l1", {}, 1.0),
        ("manhattan", {}, 1.0),
    ],
)
def test_metrics_are_those_of_numpy(metric: str, params: dict[str, Any], power: float) -> None:
    found = Metric.of(
        SimpleNamespace(**{"p": 2, "metric_params": None, "metric": metric, **params})
    )
    assert found.power == power
    references = References(ROWS[:5], found)
    difference = np.abs(on_grid(GRID, ROWS)[:, None] - ROWS[None, :5]) ** power
    weights = (params.get("metric_params") or {}).get("w", np.ones(3))
    expected = (difference * weights).sum(axis=2)
    sums = references.sums(GRID, ROWS)
    np.testing.assert_allclose(sums, expected)
    root = 1.0 if metric == "sqeuclidean" else power
    np.testing.assert_allclose(found.distances(sums), expected ** (1 / root))
    np.testing.assert_allclose(found.sum_of(3.0), 3.0**root)


@pytest.mark.parametrize(
    ("metric", "params"),
    [
        ("chebyshev", {}),
        ("precomputed", {}),
        ("cosine", {}),
        ("minkowski", {"p": np.inf}),
        ("minkowski", {"p": 0}),
        ("euclidean", {"metric_params": {"V": 3}}),
        (np.linalg.norm, {}),
    ],
)
def test_other_metrics_are_refused(metric: Any, params: dict[str, Any]) -> None:
    model = SimpleNamespace(**{"p": 2, "metric_params": None, "metric": metric, **params})
    with pytest.raises(InvalidParameterError, match=r"metric: .*sum over features.*'euclidean'"):
        Metric.of(model)


def test_unary_code() -> None:
    code = GRID.code(ROWS)
    assert code.shape == (40, GRID.n_bits)
    bits = code.reshape(40, 3, GRID.top)
    np.testing.assert_array_equal(bits.sum(axis=2), GRID.places(ROWS))
    assert (np.diff(bits, axis=2) <= 0).all()
    step = GRID.box.span / GRID.top
    assert (np.abs(on_grid(GRID, ROWS) - ROWS) <= step / 2 * (1 + 1e-9)).all()
    np.testing.assert_array_equal(GRID.places(ROWS.max(axis=0)[None] * 1e3 + 1e3), GRID.top)


@given(
    seed=st.integers(0, 2**31), scale=st.floats(0.1, 1e4), power=st.sampled_from([1.0, 2.0, 3.0])
)
def test_integer_sums_are_the_real_ones_rounded(seed: int, scale: float, power: float) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(20, 3))
    grid = Grid(Box.around(rows), 3)
    references = References(rng.normal(size=(6, 3)), Metric(power))
    sums = Sums.of_terms((scale * table for table in references.terms(grid)), np.zeros(6))
    found = sums.of_bits(grid.code(rows).astype(np.int64))
    assert (np.abs(found - scale * references.sums(grid, rows)) <= 1.5 + 1e-6).all()
    assert (found >= sums.low).all()
    assert (found <= sums.high).all()


@given(seed=st.integers(0, 2**31), limit=st.floats(0.01, 20.0))
def test_limited_terms_keep_what_is_nearer(seed: int, limit: float) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(20, 3))
    grid = Grid(Box.around(rows), 3)
    references = References(rng.normal(size=(6, 3)), Metric(2.0))
    whole, limited = references.sums(grid, rows), references.sums(grid, rows, limit)
    near = whole <= limit
    np.testing.assert_allclose(limited[near], whole[near])
    assert (limited[~near] >= limit * (1 - 1e-9)).all()
    assert (limited <= whole * (1 + 1e-9)).all()
