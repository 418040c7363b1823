from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cipherlearn.errors import InvalidParameterError
from cipherlearn.quantization import LayerBits, SearchSpace
from cipherlearn.quantization.search import Candidate
from cipherlearn.quantization.search.space import LADDER, Move

BITS = LayerBits(4, 4, 4)
LAYERS = {"first": (False, True), "middle": (True, True), "last": (True, False)}


def test_candidates_print_what_they_are() -> None:
    candidate = Candidate(BITS).with_layer("head", replace(BITS, kept=None, weights=3))
    assert str(candidate) == ("weights 4, inputs 4, kept 4; head: weights 3, inputs 4, kept all")
    assert candidate.of("head").rounding is None
    assert candidate.of("other").rounding is not None


def test_everything_is_open_unless_it_is_given() -> None:
    assert len(SearchSpace().ladder()) == len(LADDER)
    assert {c.common.exact for c in SearchSpace().ladder()} == {False}
    fixed = SearchSpace.of(5, exact=True).ladder()
    assert {(c.common.weights, c.common.inputs, c.common.exact) for c in fixed} == {(5, 5, True)}
    assert [c.common.kept for c in fixed] == sorted({kept for kept, *_ in LADDER})
    kept = SearchSpace.of(kept=4, exact=False).ladder()
    assert {c.common.kept for c in kept} == {4}
    assert len(kept) == len({(weights, inputs) for _, weights, inputs in LADDER})
    with pytest.raises(InvalidParameterError, match="between 1 and 16"):
        SearchSpace.of(0)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (
            SearchSpace(),
            {
                ("first", "kept"),
                ("first", "exact"),
                ("middle", "kept"),
                ("middle", "weights"),
                ("middle", "inputs"),
                ("middle", "exact"),
                ("last", "weights"),
                ("last", "inputs"),
                (None, "exact"),
            },
        ),
        (SearchSpace(weights=4, inputs=4, exact=False), {("first", "kept"), ("middle", "kept")}),
        (
            SearchSpace(kept=4, exact=True),
            {(layer, name) for layer in ("middle", "last") for name in ("weights", "inputs")},
        ),
    ],
)
def test_moves_change_what_is_open_and_costs(space: SearchSpace, expected: Any) -> None:
    assert {(move.layer, move.name) for move in space.moves(LAYERS, -1)} == expected


def test_moves_stay_within_limits() -> None:
    candidate = Candidate(replace(BITS, kept=2, weights=8))
    assert Move("first", "kept", -1).of(candidate) is None
    assert Move("first", "weights", 1).of(candidate) is None
    changed = Move("first", "weights", -1).of(candidate)
    assert changed is not None
    assert changed.of("first").weights == 7
    assert changed.of("second").weights == 8
    exact = Move(None, "exact").of(changed)
    assert exact is not None
    assert exact.common.exact
    assert exact.of("first") == replace(changed.of("first"), exact=True)
