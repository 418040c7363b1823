from __future__ import annotations

import pytest

from benchmarks import neighbors
from benchmarks.peer import neighbors as beside
from benchmarks.report import Figure


@pytest.mark.parametrize("name", ["iris", "hard", "wine", "digits", "diabetes"])
def test_splits_are_the_same_each_time(name: str) -> None:
    first, again = neighbors.data_of(name, 3), neighbors.data_of(name, 3)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert len(first[0]) > 2 * len(first[1]) > 0


def test_figures_of_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "SPLITS", 1)
    monkeypatch.setattr(neighbors, "CASES", (neighbors.Case("NearestCentroid", "iris", {}, 0.5),))
    found = {figure.name.rpartition(": ")[2]: figure for figure in neighbors.run()}
    assert found["look-ups"] == Figure("NearestCentroid () on iris: look-ups", 6)
    assert 0.8 < found["agreement"].value <= 1.0
    assert found["agreement"].is_reached
    assert found["complexity"].value > 0


@pytest.mark.parametrize("case", beside.CASES, ids=str)
def test_cases_of_the_peer(case: beside.Case) -> None:
    splits = case.splits()
    assert splits["x_train"].shape[:2] == (beside.SPLITS, case.references)
    assert splits["x_test"].shape[1] == 150 - case.references
    assert splits["y_test"].shape == splits["x_test"].shape[:2]
