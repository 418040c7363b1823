from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from cipherlearn.errors import MissingDependencyError
from cipherlearn.quantization import LayerBits
from cipherlearn.quantization.search import Candidate, Point, SearchResult


@pytest.fixture
def result() -> SearchResult:
    candidate = Candidate(LayerBits(4, 4, 4))
    pairs = [(3e9, 0.9), (1e9, 0.5), (2e9, 0.4), (4e9, 0.9), (np.inf, 1.0)]
    points = [Point(candidate, complexity, 1.0, score, 0.1) for complexity, score in pairs]
    return SearchResult(points[0], tuple(points), 1.0, 0.01)


def test_the_front_is_drawn(result: SearchResult, tmp_path: Path) -> None:
    axes = result.plot()
    front = axes.lines[0]
    np.testing.assert_array_equal(front.get_xdata(), [1e9, 3e9])
    np.testing.assert_array_equal(front.get_ydata(), [0.5, 0.9])
    assert axes.lines[1].get_xdata() == [3e9]
    axes.figure.savefig(tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 5000
    assert result.plot(axes) is axes


def test_drawing_says_what_to_install(
    result: SearchResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"cipherlearn\[report\]"):
        result.plot()


def test_the_front_holds_what_no_other_beats(result: SearchResult) -> None:
    assert [(p.complexity, p.score) for p in result.front] == [(1e9, 0.5), (3e9, 0.9)]
    assert result.missed_by == pytest.approx(0.09)
    assert str(result).count("\n") == 3
