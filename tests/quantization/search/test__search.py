from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from torch import nn

from cipherlearn.engines import get_engine
from cipherlearn.errors import (
    CalibrationWarning,
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
)
from cipherlearn.quantization import LayerBits, SearchSpace, search_bits
from cipherlearn.quantization.mixing import QuantizedMixingOp
from cipherlearn.quantization.search import Candidate, _search
from cipherlearn.torch import NumpyModule

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
    rungs = ((3, 3, 3), (5, 4, 4), (6, 6, 6))
    monkeypatch.setattr(_search._Cheapest, "rungs", rungs)
    monkeypatch.setattr(_search._Best, "rungs", rungs)
    monkeypatch.setattr(_search, "MOST_QUANTIZATIONS", 18)


@pytest.mark.usefixtures("short")
def test_the_result_is_good_enough_and_nothing_cheaper_was(iris: Any) -> None:
    model, x, y = iris
    module = search_bits(model, x, labels=y, max_drop=0.02)
    found = module.search
    assert found is not None
    assert found.missed_by == 0
    assert found.reference - found.chosen.score <= 0.02
    cheaper = [p for p in found.points if p.complexity < 0.99 * found.chosen.complexity]
    assert cheaper
    drops = [found.reference - p.score + _search.CAUTION * p.uncertainty for p in cheaper]
    assert min(drops) > 0.02
    accuracy = np.mean(module.forward(x).argmax(1) == y)
    assert accuracy > 0.93
    complexity = get_engine().compile(module.circuit).complexity
    assert complexity == pytest.approx(found.chosen.complexity, rel=0.3)


@pytest.mark.filterwarnings("ignore:no candidate loses at most 0")
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
    monkeypatch.setattr(_search._Cheapest, "rungs", ((3, 2, 2), (3, 3, 3)))
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


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_drop": -0.1}, InvalidParameterError, "max_drop is a share from 0 to 1"),
        ({"max_drop": "a"}, InvalidParameterError, "max_drop is a share from 0 to 1, not 'a'"),
        ({"max_seconds": "2"}, InvalidParameterError, "max_seconds must be positive, not '2'"),
        ({"labels": ["a"] * 150}, InvalidTypeError, "labels have dtype"),
        ({"labels": range(1, 151)}, InvalidParameterError, "for the classes 0 to 2"),
        ({"import_qat": True}, InvalidParameterError, r"SearchSpace\(weights="),
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


def quantized(model: NumpyModule, candidate: Candidate, x: np.ndarray) -> Any:
    converter = _search._converter(model, SearchSpace(), "observed", False, "hidden", candidate)
    return converter.quantize_module(x)


def test_layers_have_bits_of_their_own(iris: Any) -> None:
    model, x, _ = iris
    plain = quantized(model, Candidate(BITS), x)
    first, second, last = plain.weight_layers()
    assert plain.weight_layers() == {
        first: (False, True),
        second: (True, True),
        last: (True, False),
    }
    candidate = Candidate(BITS).with_layer(second, LayerBits(2, 3, 5))
    module = quantized(model, candidate, x)
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
