from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.circuit import Builder, IntValue, evaluate
from cipherlearn.errors import FormatError, InvalidParameterError, InvalidTypeError
from cipherlearn.quantization import (
    MinMaxQuantizationStats,
    QuantizationOptions,
    QuantizedArray,
    UniformQuantizationParameters,
)
from cipherlearn.quantization.quantized_array import Accumulator

VALUES = np.linspace(-1.0, 2.0, 31)


def test_real_values_are_quantized_over_their_range() -> None:
    array = QuantizedArray(4, VALUES)
    assert array.n_bits == 4
    assert (array.quantizer.rmin, array.quantizer.rmax) == (-1.0, 2.0)
    assert array.qvalues.min() == 0
    assert array.qvalues.max() == 15
    np.testing.assert_array_equal(array(), array.qvalues)
    assert not array.holds_integers


def test_dequantized_values_are_doubles_near_the_given_ones() -> None:
    array = QuantizedArray(7, VALUES.astype(np.float32), is_signed=True)
    result = array.dequant()
    assert result.dtype == np.float64
    assert result is array.values
    np.testing.assert_allclose(result, VALUES, atol=array.quantizer.scale / 1.99)


def test_integers_are_what_their_parameters_say() -> None:
    array = QuantizedArray(
        4, np.array([0, 3, 15]), value_is_float=False, scale=0.5, zero_point=3, is_signed=False
    )
    assert array.holds_integers
    np.testing.assert_array_equal(array.values, [-1.5, 0.0, 6.0])
    assert array.holds_integers


def test_keywords_and_objects_mean_the_same() -> None:
    options = QuantizationOptions(3, is_signed=True, is_symmetric=True)
    stats = MinMaxQuantizationStats(rmax=4.0, rmin=-4.0)
    by_object = QuantizedArray(5, VALUES, options=options, stats=stats)
    by_name = QuantizedArray(5, VALUES, is_signed=True, is_symmetric=True, rmin=-4.0, rmax=4.0)
    assert by_object == by_name
    assert options.n_bits == 3, "the given options are not changed"
    assert by_object.quantizer.n_bits == 5


def test_no_values_make_a_quantizer_only() -> None:
    array = QuantizedArray(4, None, rmin=0.0, rmax=15.0)
    assert array.quantizer.scale == 1.0
    assert array.values is None
    assert array.qvalues is None
    assert array.dequant() is None
    assert not array.holds_integers
    np.testing.assert_array_equal(array.update_values(np.array([3.2])), [3])


def test_updates_replace_both_sides() -> None:
    array = QuantizedArray(4, None, rmin=0.0, rmax=15.0)
    np.testing.assert_array_equal(array.update_values(np.array([7.4])), [7])
    np.testing.assert_array_equal(array.values, [7.4])
    np.testing.assert_array_equal(array.update_quantized_values(np.array([9])), [9.0])
    np.testing.assert_array_equal(array.qvalues, [9])
    assert array.holds_integers
    array.values = np.array([2.6])
    np.testing.assert_array_equal(array.quant(), [3])


def test_scalars_become_arrays() -> None:
    array = QuantizedArray(4, 1.5)
    assert array.values.shape == ()
    assert float(array.dequant()) == 1.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": np.arange(3)}, "real values are floating point, not int64"),
        ({"values": VALUES, "value_is_float": False}, "give params"),
        (
            {"values": VALUES, "value_is_float": False, "scale": 1.0, "zero_point": 0},
            "needs integers, not float64",
        ),
        ({"values": VALUES, "rmax": 1.0}, "also needs \\['rmin'\\]"),
        ({"values": VALUES, "scale": 1.0}, "also needs \\['zero_point'\\]"),
        ({"values": VALUES, "colour": 1}, "does not take the keywords \\['colour'\\]"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidTypeError, match=message):
        QuantizedArray(4, **arguments)


def test_bad_widths_and_nan_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match="between 1 and 32"):
        QuantizedArray(64, VALUES)
    with pytest.raises(InvalidParameterError, match="between 1 and 32"):
        QuantizedArray(0, VALUES, options=QuantizationOptions(4))
    with pytest.raises(InvalidParameterError, match="NaN"):
        _ = QuantizedArray(4, np.array([1.0, np.nan])).qvalues


def test_values_of_a_circuit_are_quantized_by_a_look_up_when_read() -> None:
    builder = Builder()
    x = builder.input("x", (1, 3), 0, 15)
    real = QuantizedArray(3, x.as_real() * -0.5, rmin=-7.5, rmax=0.0)
    assert isinstance(real.qvalues, IntValue)
    circuit = builder.finish([real.qvalues])
    batch = np.arange(15).reshape(5, 1, 3)
    expected = QuantizedArray(3, batch * -0.5, rmin=-7.5, rmax=0.0).qvalues
    np.testing.assert_array_equal(evaluate(circuit, batch).outputs[0], expected)
    with pytest.raises(InvalidTypeError, match="no data to observe"):
        QuantizedArray(3, x.as_real())


@given(st.integers(2, 8), st.booleans(), st.booleans())
def test_moving_keeps_integers_and_what_they_stand_for(
    n_bits: int, integers: bool, by_channel: bool
) -> None:
    random = np.random.default_rng(n_bits)
    values = random.normal(size=(6, 2, 3))
    if integers:
        scale = random.uniform(0.5, 1, size=(1, 2, 3)) if by_channel else 0.5
        zero = random.integers(0, 4, size=(1, 2, 3)) if by_channel else 1
        array = QuantizedArray(
            n_bits,
            random.integers(0, 2**n_bits, size=(6, 2, 3)),
            value_is_float=False,
            scale=scale,
            zero_point=zero,
        )
    else:
        array = QuantizedArray(n_bits, values)
    moved = array.move(lambda part: part.transpose(0, 2, 1).reshape(part.shape[0], -1))
    np.testing.assert_array_equal(moved.values, array.values.transpose(0, 2, 1).reshape(6, -1))
    np.testing.assert_array_equal(moved.qvalues, array.qvalues.transpose(0, 2, 1).reshape(6, -1))
    assert moved.holds_integers == array.holds_integers
    if integers and by_channel:
        assert moved.quantizer.scale.shape == (1, 6)
        assert array.quantizer.scale.shape == (1, 2, 3)


def test_parameters_move_with_a_batch_on_another_axis() -> None:
    scale = np.array([[1.0], [2.0]])
    array = QuantizedArray(
        4, np.arange(10).reshape(2, 5), value_is_float=False, scale=scale, zero_point=0
    )
    moved = array.move(np.transpose)
    np.testing.assert_array_equal(moved.values, array.values.T)
    assert moved.quantizer.scale.shape == (1, 2)


def test_look_ups_read_the_rounded_accumulator_and_outputs_the_exact_one() -> None:
    options = QuantizationOptions(8)
    params = UniformQuantizationParameters(0.5, 0, 0)
    array = Accumulator(
        8,
        np.array([[5, 1000]]),
        lambda integers: integers // 4 * 4,
        options=options,
        stats=None,
        params=params,
    )
    np.testing.assert_array_equal(array.qvalues, [[5, 1000]])
    np.testing.assert_array_equal(array.values, [[2.0, 500.0]])
    moved = array.move(np.ravel)
    np.testing.assert_array_equal(moved.qvalues, [5, 1000])
    np.testing.assert_array_equal(moved.values, [2.0, 500.0])


@pytest.mark.parametrize(
    "array",
    [
        QuantizedArray(5, VALUES, is_signed=True),
        QuantizedArray(5, np.arange(3), value_is_float=False, scale=0.5, zero_point=1),
        QuantizedArray(5, None, rmin=0.0, rmax=1.0),
    ],
)
def test_what_is_saved_is_loaded_again(array: QuantizedArray) -> None:
    file = io.StringIO()
    array.dump(file)
    loaded = QuantizedArray.loads(file.getvalue())
    assert loaded.quantizer == array.quantizer
    assert loaded.n_bits == array.n_bits
    assert loaded.holds_integers == array.holds_integers
    for name in ("values", "qvalues"):
        found, expected = getattr(loaded, name), getattr(array, name)
        assert (found is None) == (expected is None)
        assert found is None or np.array_equal(found, expected)


def test_damaged_data_is_refused() -> None:
    data = json.loads(QuantizedArray(5, VALUES).dumps())
    for change in ({"quantizer": {}}, {"n_bits": 0}, {"values": {"array": ""}}, {"qvalues": "x"}):
        with pytest.raises(FormatError):
            QuantizedArray.loads(json.dumps({**data, **change}))
    del data["qvalues"]
    with pytest.raises(FormatError, match="damaged"):
        QuantizedArray.loads(json.dumps(data))
    with pytest.raises(FormatError, match="not a saved QuantizedArray"):
        QuantizedArray.loads("{}")


def test_arrays_are_equal_by_integers_and_quantizer() -> None:
    assert QuantizedArray(4, VALUES) == QuantizedArray(4, VALUES)
    assert QuantizedArray(4, VALUES) != QuantizedArray(5, VALUES)
    assert QuantizedArray(4, VALUES) != VALUES.tolist()
