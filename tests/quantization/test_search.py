from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from torch import nn

from cipherlearn.engines import get_engine
from cipherlearn.errors import CalibrationWarning, InvalidParameterError, InvalidShapeError
from cipherlearn.quantization import LayerBits, search, search_bits
from cipherlearn.quantization.mixing import QuantizedMixingOp
from cipherlearn.quantization.search import Candidate, Point, SearchResult
from cipherlearn.torch import NumpyModule, build_quantized_module

BITS = LayerBits(4, 4, 4)


@pytest.fixture(scope="module")
def iris() -> tuple[NumpyModule, np.ndarray, np.ndarray]:
    """A trained network of 6 hidden neurons."""
    x, y = load_iris(return_X_y=True)
    x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(torch.tensor(x)), torch.tensor(y)).backward()
        optimizer.step()
    return NumpyModule(net.eval(), torch.tensor(x[:2])), x, y


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "LADDER", ((3, 3, 3), (5, 4, 4), (6, 6, 6)))
    monkeypatch.setattr(search, "MOST_CANDIDATES", 8)


@pytest.mark.usefixtures("short")
def test_the_result_is_good_enough_and_nothing_cheaper_was(iris: Any) -> None:
    model, x, y = iris
    module = search_bits(model, x, labels=y, max_drop=0.02)
    found = module.search
    assert found is not None
    assert found.missed_by == 0
    assert found.reference - found.chosen.score <= 0.02
    cheaper = [p for p in found.points if p.complexity < found.chosen.complexity]
    # Descent is greedy: at most what it did not try to combine is cheaper.
    assert all(found.reference - p.score > 0.02 for p in cheaper)
    accuracy = np.mean(module.forward(x).argmax(1) == y)
    assert accuracy > 0.93
    complexity = get_engine().compile(module.circuit).complexity
    assert complexity == pytest.approx(found.chosen.complexity, rel=0.3)


@pytest.mark.usefixtures("short")
def test_a_budget_takes_the_best_within_it(iris: Any) -> None:
    model, x, y = iris
    everything = search_bits(model, x, labels=y, max_drop=0.0).search
    assert everything is not None
    cheapest = min(point.seconds for point in everything.points)
    module = search_bits(model, x, labels=y, max_seconds=2 * cheapest)
    assert module.search is not None
    chosen = module.search.chosen
    assert chosen.seconds <= 2 * cheapest
    affordable = [p for p in module.search.points if p.seconds <= 2 * cheapest]
    assert chosen.score == max(point.score for point in affordable)


@pytest.mark.usefixtures("short")
def test_a_budget_that_nothing_fits_is_told(iris: Any) -> None:
    model, x, _ = iris
    with pytest.warns(CalibrationWarning, match=r"no candidate takes at most 1e-09 s"):
        module = search_bits(model, x, max_seconds=1e-9)
    assert module.search.chosen.complexity == min(p.complexity for p in module.search.points)


def test_a_tolerance_that_nobody_meets_returns_the_best(
    iris: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "LADDER", ((3, 2, 2), (3, 3, 3)))
    model, x, _ = iris
    with pytest.warns(CalibrationWarning, match=r"which misses it by 0\.\d+. Allow a larger"):
        module = search_bits(model, x, max_drop=0.0)
    assert module.search.missed_by > 0
    assert module.search.chosen.score == max(p.score for p in module.search.points)


@pytest.mark.usefixtures("short")
def test_the_same_seed_gives_the_same_module(iris: Any) -> None:
    model, x, _ = iris
    first, second = (search_bits(model, x, max_drop=0.05, random_state=3) for _ in range(2))
    assert first.search.chosen.candidate == second.search.chosen.candidate
    np.testing.assert_array_equal(first.forward(x), second.forward(x))


@pytest.mark.usefixtures("short")
def test_compile_functions_take_auto(iris: Any) -> None:
    model, x, y = iris
    module = build_quantized_module(model.onnx_model, x, n_bits="auto", labels=y, max_drop=0.05)
    assert module.search is not None
    assert "*" in str(module.search)
    with pytest.raises(InvalidParameterError, match="n_bits is a number of bits, a dictionary or"):
        build_quantized_module(model.onnx_model, x, n_bits="best")
    with pytest.raises(InvalidParameterError, match="leave rounding_threshold_bits out"):
        build_quantized_module(model.onnx_model, x, n_bits="auto", rounding_threshold_bits=4)
    with pytest.raises(InvalidParameterError, match="import_qat=True takes those"):
        build_quantized_module(model.onnx_model, x, n_bits="auto", import_qat=True)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_drop": -0.1}, InvalidParameterError, "max_drop is a share from 0 to 1"),
        ({"max_seconds": 0}, InvalidParameterError, "max_seconds must be positive"),
        ({"labels": [0, 1]}, InvalidShapeError, "150 rows were given with labels of shape"),
    ],
)
def test_wrong_options(iris: Any, options: Any, error: Any, message: str) -> None:
    model, x, _ = iris
    with pytest.raises(error, match=message):
        search_bits(model, x, **options)


def test_few_rows_cannot_be_cut_into_parts(iris: Any) -> None:
    model, x, _ = iris
    with pytest.raises(InvalidParameterError, match="needs 6 calibration rows at least"):
        search_bits(model, x[:5])


def test_layers_have_bits_of_their_own(iris: Any) -> None:
    model, x, _ = iris
    plain = search._quantize(model, Candidate(BITS), [x], True)
    first, second, last = plain.chosen_layers()
    assert plain.chosen_layers() == {
        first: (False, True),
        second: (True, True),
        last: (True, False),
    }
    candidate = Candidate(BITS).with_layer(second, LayerBits(2, 3, 5))
    module = search._quantize(model, candidate, [x], True)
    layers: dict[str, Any] = {
        op.op_instance_name: op
        for _, op in module.quant_layers_dict.values()
        if isinstance(op, QuantizedMixingOp)
    }
    assert layers[second].rounding.n_bits == 5
    assert layers[second].input_quant_opts.n_bits == 3
    assert layers[first].rounding.n_bits == 4
    assert layers[last].input_quant_opts.n_bits == 4
    assert np.abs(layers[last].constant_inputs[1].qvalues).max() <= 7


def test_the_front_holds_what_no_other_beats() -> None:
    candidate = Candidate(BITS)
    points = [
        Point(candidate, complexity, 1.0, score, 0.1)
        for complexity, score in [(3.0, 0.9), (1.0, 0.5), (2.0, 0.4), (4.0, 0.9), (np.inf, 1.0)]
    ]
    result = SearchResult(points[0], tuple(points), 1.0, 0.01)
    assert [(p.complexity, p.score) for p in result.front] == [(1.0, 0.5), (3.0, 0.9)]
    assert result.missed_by == pytest.approx(0.09)
    assert str(result).count("\n") == 3


def test_candidates_print_what_they_are() -> None:
    candidate = Candidate(BITS).with_layer("head", replace(BITS, kept=None, weights=3))
    assert str(candidate) == ("weights 4, inputs 4, kept 4; head: weights 3, inputs 4, kept all")
    assert candidate.of("head").rounding is None
    assert candidate.of("other").rounding is not None
