from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cipherlearn.circuit.simulate import allowed_results
from cipherlearn.engines import estimate
from cipherlearn.errors import (
    CalibrationWarning,
    CostWarning,
    InvalidShapeError,
    NotCompiledError,
)
from cipherlearn.sklearn.linear.module import Box
from cipherlearn.sklearn.neighbors import module as modules
from cipherlearn.sklearn.neighbors.distances import Grid, Metric, References
from cipherlearn.sklearn.neighbors.module import SelectionModule
from cipherlearn.sklearn.neighbors.selection import Nearest, Ranked, Selection

RNG = np.random.default_rng(0)
POINTS = np.concatenate([RNG.normal(size=(8, 2)) - 2.0, RNG.normal(size=(8, 2)) + 2.0])
KINDS = (np.arange(16)[:, None] // 8 == np.arange(2)).astype(np.int64)


def case(kind: str = "nearest", bits: int = 4) -> SelectionModule:
    grid = Grid(Box.around(POINTS), bits)
    references = References(POINTS, Metric(2.0))
    if kind == "nearest":
        selection: Selection = Nearest.fitted(references, grid, 3, 4)
        return SelectionModule(grid, selection, KINDS)
    few = References(POINTS[[0, 1, 12]], Metric(2.0))
    return SelectionModule(grid, Ranked.fitted(few, grid, 1, 4), np.eye(3, dtype=np.int64))


def test_counts_of_far_apart_groups() -> None:
    found = case().forward(POINTS)
    assert found.shape == (16, 2)
    np.testing.assert_array_equal(found.argmax(axis=1), np.arange(16) // 8)
    assert (found.min(axis=1) == 0).all()


@pytest.mark.parametrize("kind", ["nearest", "ranked"])
def test_encrypted_rows_are_those_of_the_exact_evaluator(kind: str) -> None:
    module = case(kind)
    module.compile(engine="clear")
    np.testing.assert_array_equal(
        module.forward(POINTS[:5], fhe="execute"), module.forward(POINTS[:5])
    )


def test_many_rows_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    module = case()
    expected = module.forward(POINTS)
    monkeypatch.setattr(modules, "CHUNK_ROWS", 5)
    np.testing.assert_array_equal(module.forward(POINTS), expected)
    with pytest.raises(NotCompiledError):
        module.forward(POINTS, fhe="execute")
    assert module.forward(POINTS[:0]).shape == (0, 2)


def test_rows_beyond_the_ranges_are_counted() -> None:
    module = case()
    with pytest.warns(CalibrationWarning, match="far outside"):
        module.forward(POINTS * 10)
    assert module.clipped_count > 0


def test_many_references_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "MANY_LOOKUPS", 10)
    with pytest.warns(CostWarning, match=r"16 references need \d+ table look-ups"):
        case().compile(engine="clear")


def test_one_array_of_rows() -> None:
    with pytest.raises(InvalidShapeError):
        case().quantize_input(POINTS, POINTS)
    bits = case().quantize_input(POINTS)
    assert bits.dtype == np.int64
    assert bits.shape == (16, 30)


def test_counts_without_one_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    module = case()
    places = np.arange(16)
    expected = module.without(POINTS, places)
    np.testing.assert_array_equal(module.without(POINTS, np.full(16, -1)), module.forward(POINTS))
    monkeypatch.setattr(modules, "CHUNK_ROWS", 5)
    np.testing.assert_array_equal(module.without(POINTS, places), expected)
    assert (expected.sum(axis=1) >= 3).all()


@pytest.mark.parametrize("kind", ["nearest", "ranked"])
def test_really_encrypted(kind: str, capsys: Any) -> None:
    module = case(kind, 3)
    rows = POINTS[[0, 12]]
    module.compile(rows, check=True)
    found = module.forward(rows[:1], fhe="execute")
    (lowest, highest) = allowed_results(module.circuit, *module.samples(rows[:1]))[0]
    assert (found >= lowest[:, 0]).all()
    assert (found <= highest[:, 0]).all()
    # Far from any border: whatever rounding does, the group is the same one.
    assert found.argmax(axis=1).tolist() == module.forward(rows[:1]).argmax(axis=1).tolist()
    capsys.readouterr()
