from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cipherlearn.errors import (
    CipherlearnError,
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
    NotCompiledError,
)
from cipherlearn.quantization import QuantizedModule
from tests.onnx_models import make_model, node, perceptron, weights
from tests.quantization.quantize import normal, quantize

X = normal(60, 4)
LABELS = np.random.default_rng(3).integers(0, 2, 60)


@pytest.fixture(scope="module")
def module() -> QuantizedModule:
    made = quantize(perceptron(), X, n_bits=5, rounding={"n_bits": 5, "method": "approximate"})
    made.compile(engine="clear")
    return made


def test_every_way_of_computing_has_a_row(module: QuantizedModule) -> None:
    table = module.agreement(X, LABELS, n_fhe=5)
    assert [row.name for row in table.rows] == ["float", "quantized", "simulated", "FHE"]
    assert [row.rows for row in table.rows] == [60, 60, 60, 5]
    assert table.measure == "accuracy"
    assert (table.overflows, table.outside_calibration) == (0, 0)


def test_the_numbers_are_what_they_say(module: QuantizedModule) -> None:
    table = module.agreement(X, LABELS, n_fhe=5)
    classes = module.forward(X).argmax(1)
    truth = module.numpy_model.forward(X).argmax(1)
    assert table["float"].score == np.mean(truth == LABELS)
    assert table["float"].as_float == 1.0
    assert table["float"].mismatches is None
    assert table["quantized"].score == np.mean(classes == LABELS)
    assert table["quantized"].as_float == np.mean(classes == truth)
    assert table["quantized"].mismatches == 0
    assert table["simulated"].mismatches is not None
    assert table["simulated"].mismatches > 0, "approximate rounding lands one step away"
    assert table["FHE"].mismatches == 0
    assert table["FHE"].wrong == 0
    assert table["FHE"].score == np.mean(classes[:5] == LABELS[:5])


def test_engines_that_err_are_told_apart_from_rounding(
    module: QuantizedModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cipherlearn.engines.clear import ClearProgram

    right = ClearProgram.decrypt
    monkeypatch.setattr(
        ClearProgram, "decrypt", lambda self, *v: np.asarray(right(self, *v)) + 10**6
    )
    row = module.agreement(X, n_fhe=3)["FHE"]
    assert (row.mismatches, row.wrong) == (3, 3)


def test_the_seed_decides_the_simulated_errors(module: QuantizedModule) -> None:
    assert module.agreement(X, random_state=1) == module.agreement(X, random_state=1)
    differ = {module.agreement(X, random_state=seed)["simulated"].mismatches for seed in range(5)}
    assert len(differ) > 1


def test_inputs_outside_of_calibration_and_overflows_are_counted(module: QuantizedModule) -> None:
    counted = module.overflow_count
    wild = 5 * X
    limits = module.input_quantizers[0]
    table = module.agreement(wild)
    low, high = (limits.dequant(end) for end in limits.integer_limits)
    half = float(limits.scale) / 2
    outside = np.count_nonzero((wild < low - half) | (wild > high + half))
    assert table.outside_calibration == outside > 0
    assert module.overflow_count == counted, "only forward counts on the module"
    assert module.clipped_count == 0


def test_single_outputs_are_measured_by_r2() -> None:
    model = make_model(
        [node("Gemm", ["x", "w"], "y")], {"x": ["N", 4]}, ["y"], {"w": weights(4, 1)}
    )
    module = quantize(model, X, n_bits=6)
    target = (X @ weights(4, 1))[:, 0]
    table = module.agreement(X, target)
    assert table.measure == "R2"
    assert table["float"].score == pytest.approx(1.0)
    assert table["quantized"].score is not None
    assert 0.99 < table["quantized"].score < 1.0


def test_without_labels_and_float_model_there_are_no_scores(module: QuantizedModule) -> None:
    table = QuantizedModule.loads(module.dumps()).agreement(X)
    assert [row.name for row in table.rows] == ["quantized", "simulated"]
    assert table["quantized"].score is None
    assert table["quantized"].as_float is None
    with pytest.raises(InvalidParameterError, match="no row 'FHE'; there are quantized, simulated"):
        _ = table["FHE"]


def test_several_inputs_and_outputs() -> None:
    model = make_model(
        [node("Add", ["x", "z"], "s"), node("Relu", ["s"], "r")],
        {"x": ["N", 4], "z": ["N", 4]},
        ["s", "r"],
    )
    module = quantize(model, X, X[::-1])
    module.compile(engine="clear")
    table = module.agreement((X, X), n_fhe=2)
    assert table["FHE"].mismatches == 0


def test_the_table_is_printed_with_columns_and_notes(module: QuantizedModule) -> None:
    lines = str(module.agreement(X, LABELS, n_fhe=2)).splitlines()
    assert lines[0].split() == ["rows", "accuracy", "as", "float", "differ", "wrong"]
    assert lines[1].split()[:2] == ["float", "60"]
    assert lines[4].split()[0] == "FHE"
    assert lines[5] == "accumulator overflows: 0, input values outside of calibration: 0"
    assert len({len(line) for line in lines[:5]}) == 1


@pytest.mark.parametrize(
    ("data", "options", "kind", "message"),
    [
        (X[:0], {}, InvalidShapeError, "at least one row"),
        (X, {"y": LABELS[:3]}, InvalidShapeError, "60 rows were given with labels"),
        (X, {"n_fhe": -1}, InvalidParameterError, "from 0 to 60"),
        (X, {"n_fhe": "2"}, InvalidParameterError, "from 0 to 60"),
        (X, {"y": np.array(["a"] * 60)}, InvalidTypeError, "give numbers"),
        (X, {"y": np.zeros((60, 5))}, InvalidShapeError, "do not fit outputs"),
        (X, {"n_fhe": 61}, InvalidParameterError, "from 0 to 60"),
        ((X, X), {}, InvalidShapeError, "2 arrays were given"),
    ],
)
def test_bad_requests_are_refused(
    module: QuantizedModule,
    data: Any,
    options: Any,
    kind: type[CipherlearnError],
    message: str,
) -> None:
    with pytest.raises(kind, match=message):
        module.agreement(data, **options)


def test_encrypted_rows_need_compiling() -> None:
    module = quantize(perceptron(), X, n_bits=3)
    assert module.agreement(X)["simulated"].rows == 60
    with pytest.raises(NotCompiledError, match=r"call compile\(\)"):
        module.agreement(X, n_fhe=1)
