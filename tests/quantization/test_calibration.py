from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from cipherlearn.errors import (
    CalibrationWarning,
    CipherlearnError,
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
    ModelError,
)
from cipherlearn.onnx import Graph
from cipherlearn.quantization import QuantizedArray
from cipherlearn.quantization.calibration import (
    check_calibration_data,
    check_real_arrays,
    clipped_by,
    report_clipped,
)
from tests.onnx_models import make_model, node

GOOD = np.ones((3, 4), dtype=np.float32)
GRAPH = Graph.from_model(
    make_model([node("Add", ["x", "z"], "y")], {"x": ["N", 4], "z": ["N", 4]}, ["y"])
)


def with_value(value: float) -> np.ndarray:
    array = GOOD.copy()
    array[1, 2] = value
    return array


def test_data_that_fits_comes_back_in_doubles() -> None:
    found = check_calibration_data(GRAPH, [GOOD, GOOD.astype(np.float16)])
    assert [array.dtype for array in found] == [np.float64, np.float64]
    np.testing.assert_array_equal(found[1], GOOD)


@pytest.mark.parametrize(
    ("arrays", "kind", "message"),
    [
        ([], InvalidShapeError, "0 arrays were given; the model takes 2 \\(x, z\\)"),
        ([GOOD], InvalidShapeError, "1 arrays were given; the model takes 2"),
        ([GOOD] * 3, InvalidShapeError, "3 arrays were given"),
        ([GOOD[:0]] * 2, InvalidParameterError, "0 rows; ranges need at least two"),
        ([GOOD[:1]] * 2, InvalidParameterError, "1 row; ranges need at least two"),
        ([GOOD, GOOD[:2]], InvalidShapeError, "same number of rows, not {'x': 3, 'z': 2}"),
        ([GOOD, GOOD[:, :3]], InvalidShapeError, "'z' takes arrays of shape"),
        ([GOOD, GOOD[:, None]], InvalidShapeError, "'z' takes arrays of shape"),
        ([GOOD, np.float32(1)], InvalidShapeError, "'z' is a single number"),
        ([with_value(np.nan), GOOD], InvalidParameterError, "'x' holds 1 values that are NaN"),
        ([GOOD, with_value(np.inf)], InvalidParameterError, "'z' holds 1 values that are NaN or"),
        ([GOOD.astype(int), GOOD], InvalidTypeError, "'x' has dtype int64; floating-point"),
        ([GOOD > 0, GOOD], InvalidTypeError, "'x' has dtype bool"),
        ([GOOD.astype("U4"), GOOD], InvalidTypeError, "'x' has dtype <U4"),
        ([GOOD + 1j, GOOD], InvalidTypeError, "'x' has dtype complex"),
        ([[["a"]], GOOD], InvalidTypeError, "'x' has dtype <U1"),
    ],
)
def test_data_that_does_not_fit_is_refused(
    arrays: Sequence[Any], kind: type[CipherlearnError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        check_calibration_data(GRAPH, arrays)


def test_integers_are_kept_where_the_model_takes_them() -> None:
    model = make_model(
        [node("Cast", ["x"], "y", to=TensorProto.FLOAT)],
        {"x": (TensorProto.INT64, ["N", 4])},
        ["y"],
    )
    (found,) = check_calibration_data(Graph.from_model(model), [np.array([[1, 2, 3, 4]] * 2)])
    assert found.dtype == np.int64
    with pytest.raises(InvalidTypeError, match="'x' takes rows of integers"):
        check_calibration_data(Graph.from_model(model), [GOOD + 0.5])


def test_models_of_a_fixed_batch_are_refused() -> None:
    model = make_model([node("Relu", ["x"], "y")], {"x": [3, 4]}, ["y"])
    with pytest.raises(ModelError, match="batches of 3 rows"):
        check_calibration_data(Graph.from_model(model), [GOOD])


def test_arrays_of_one_row_and_of_none_can_be_evaluated() -> None:
    for rows in (0, 1):
        (found,) = check_real_arrays(["x"], [GOOD[:rows]])
        assert found.shape == (rows, 4)


def test_values_outside_of_a_quantizer_are_counted_in_ranges() -> None:
    quantizer = QuantizedArray(2, np.array([0.0, 3.0])).quantizer
    values = np.array([-3.0, -0.6, -0.4, 1.0, 3.4, 3.6, 9.0])
    expected = [1.0, 0.2, 0.0, 0.0, 0.0, 0.2, 2.0]
    np.testing.assert_allclose(clipped_by(values, quantizer), expected)


@pytest.mark.parametrize(
    ("far", "count", "told"), [(0.0, 0, False), (3.2, 2, False), (3.7, 2, True), (40.0, 1, True)]
)
def test_a_warning_is_given_where_more_than_a_trace_is_clipped(
    far: float, count: int, told: bool
) -> None:
    quantizer = QuantizedArray(6, np.linspace(0.0, 3.0, 64)).quantizer
    values = np.linspace(0.0, 3.0, 150)
    values[:count] = far
    if told:
        with pytest.warns(CalibrationWarning, match=r"of 150 values of 'x'.* 0 to 3"):
            found = report_clipped(["x"], [values], [quantizer])
    else:
        found = report_clipped(["x"], [values], [quantizer])
    assert found == count
