from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.circuit import Builder
from cipherlearn.errors import (
    FormatError,
    InvalidParameterError,
    InvalidTypeError,
    NotCalibratedError,
)
from cipherlearn.quantization import (
    MinMaxQuantizationStats,
    QuantizationOptions,
    TorchUniformQuantizer,
    UniformQuantizationParameters,
    UniformQuantizer,
)

#: (is_signed, is_symmetric, is_narrow)
FLAGS = [
    (False, False, False),
    (False, False, True),
    (True, False, False),
    (True, False, True),
    (True, True, False),
    (True, True, True),
]
SAVED = [
    QuantizationOptions(4, is_signed=True),
    MinMaxQuantizationStats(2.5, -1.0),
    UniformQuantizationParameters(0.25, 3, 0),
    UniformQuantizationParameters(np.array([0.25, 0.5]), np.array([1, 2]), 8),
    UniformQuantizer(
        QuantizationOptions(4),
        MinMaxQuantizationStats(2.5, -1.0),
        UniformQuantizationParameters(0.25, 3, 0),
        no_clipping=True,
    ),
]


def fitted(
    rmin: float,
    rmax: float,
    n_bits: int,
    signed: bool = False,
    symmetric: bool = False,
    narrow: bool = False,
) -> UniformQuantizer:
    options = QuantizationOptions(n_bits, signed, symmetric)
    options.is_narrow = narrow
    quantizer = UniformQuantizer(options, MinMaxQuantizationStats(rmax, rmin))
    quantizer.compute_quantization_parameters(quantizer, quantizer)
    return quantizer


@pytest.mark.parametrize("flags", FLAGS)
@given(
    ends=st.tuples(st.floats(-1e4, 1e4), st.floats(1e-4, 1e4)),
    n_bits=st.integers(2, 16),
    places=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8),
)
def test_inside_the_range_the_error_is_at_most_half_a_step(
    flags: tuple[bool, bool, bool], ends: tuple[float, float], n_bits: int, places: list[float]
) -> None:
    signed, symmetric, narrow = flags
    rmin, rmax = ends[0], ends[0] + ends[1]
    quantizer = fitted(rmin, rmax, n_bits, signed, symmetric, narrow)
    values = np.array([rmin, rmax, *(rmin + place * (rmax - rmin) for place in places)])
    integers = quantizer.quant(values)
    lowest, highest = quantizer.integer_limits
    assert integers.dtype == np.int64
    assert lowest <= integers.min() <= integers.max() <= highest
    errors = np.abs(quantizer.dequant(integers) - values)
    assert errors.max() <= abs(quantizer.scale) * (0.5 + 1e-6)


@given(st.floats(-1e6, 1e6), st.integers(1, 16), st.sampled_from(FLAGS))
def test_a_range_of_one_value_keeps_it(
    value: float, n_bits: int, flags: tuple[bool, bool, bool]
) -> None:
    quantizer = fitted(value, value, n_bits, *flags)
    result = float(quantizer.dequant(quantizer.quant(np.array([value])))[0])
    assert result == (value if abs(value) >= 1e-6 else 0.0)


def test_a_range_of_small_values_has_steps() -> None:
    quantizer = fitted(0.0, 1e-7, 8)
    values = np.linspace(0.0, 1e-7, 50)
    np.testing.assert_allclose(
        quantizer.dequant(quantizer.quant(values)), values, atol=1e-7 / 255 / 1.9
    )


def test_ranges_at_the_end_of_doubles_do_no_harm() -> None:
    quantizer = fitted(0.0, 5e-324, 8)
    assert quantizer.scale > 0
    assert quantizer.quant([0.0, 5e-324]).tolist() == [0, 0]


@pytest.mark.parametrize("n_bits", [2, 5, 8])
def test_symmetric_integers_have_a_zero_point_of_0_and_mirror_each_other(n_bits: int) -> None:
    quantizer = fitted(-3.0, 2.0, n_bits, signed=True, symmetric=True)
    largest = 2 ** (n_bits - 1) - 1
    assert quantizer.zero_point == 0
    assert quantizer.scale == 3.0 / largest
    np.testing.assert_array_equal(quantizer.quant([-3.0, 0.0, 3.0]), [-largest, 0, largest])


def test_the_parameters_of_known_ranges() -> None:
    unsigned = fitted(0.0, 255.0, 8)
    assert (unsigned.scale, unsigned.zero_point, unsigned.offset) == (1.0, 0, 0)
    signed = fitted(-1.0, 1.0, 4, signed=True)
    assert (signed.offset, signed.integer_limits) == (8, (-8, 7))
    assert signed.scale == pytest.approx(2 / 15)
    negative = fitted(-15.0, 0.0, 4)
    np.testing.assert_array_equal(negative.quant([-15.0, -4.0, 0.0]), [0, 11, 15])


def test_ties_are_rounded_to_even_and_what_is_outside_is_clipped() -> None:
    quantizer = fitted(0.0, 15.0, 4)
    np.testing.assert_array_equal(quantizer.quant([0.5, 1.5, 2.5, -3.0, 99.0]), [0, 2, 2, 0, 15])
    unclipped = UniformQuantizer(quantizer, quantizer, quantizer, no_clipping=True)
    np.testing.assert_array_equal(unclipped.quant([-3.0, 99.0]), [-3, 99])
    np.testing.assert_array_equal(quantizer.quant([np.inf, -np.inf]), [15, 0])


def test_narrow_leaves_out_the_most_negative_integer_only_if_there_is_one() -> None:
    assert fitted(-1.0, 1.0, 3, signed=True, narrow=True).integer_limits == (-3, 3)
    assert fitted(0.0, 1.0, 3, narrow=True).integer_limits == (0, 7)


def test_a_scale_that_is_known_already_stays() -> None:
    options = QuantizationOptions(4, is_signed=True, is_qat=True)
    params = UniformQuantizationParameters(scale=0.5)
    params.compute_quantization_parameters(options, MinMaxQuantizationStats(3.0, -4.0))
    assert (params.scale, params.zero_point, params.offset) == (0.5, 0, 8)


def test_single_precision_gives_the_integers_of_double_precision() -> None:
    quantizer = fitted(-1.0, 2.0, 12)
    values = np.random.default_rng(0).uniform(-1, 2, 20000).astype(np.float32)
    np.testing.assert_array_equal(quantizer.quant(values), quantizer.quant(values.astype(float)))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float32, np.float64])
def test_integers_come_in_the_dtype_asked_for(dtype: Any) -> None:
    assert fitted(0.0, 1.0, 4).quant([0.2], dtype).dtype == dtype


def test_other_dtypes_nan_and_missing_parameters_are_refused() -> None:
    quantizer = fitted(0.0, 1.0, 4)
    with pytest.raises(InvalidTypeError, match="int64, int32, float32 or float64"):
        quantizer.quant([0.2], np.uint8)
    with pytest.raises(InvalidParameterError, match="1 of 2 values are NaN"):
        quantizer.quant([0.2, np.nan])
    with pytest.raises(NotCalibratedError, match="no scale and zero-point"):
        UniformQuantizer().quant([0.2])
    with pytest.raises(NotCalibratedError, match="no scale and zero-point"):
        UniformQuantizer().dequant([1])
    with pytest.raises(NotCalibratedError, match="observe values first"):
        UniformQuantizationParameters().compute_quantization_parameters(
            QuantizationOptions(4), MinMaxQuantizationStats()
        )


@pytest.mark.parametrize("bits", [0, 33, -1, 2.0, True, "8", None])
def test_widths_out_of_range_are_refused(bits: Any) -> None:
    with pytest.raises(InvalidParameterError, match=r"n_bits must.* 1 (to|and) 32"):
        QuantizationOptions(bits)


def test_flags_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match="exclude each other"):
        QuantizationOptions(4, is_signed=True, is_symmetric=True, is_qat=True)
    with pytest.raises(InvalidParameterError, match="needs is_signed"):
        QuantizationOptions(4, is_symmetric=True)


def test_options_are_compared_by_what_changes_the_integers() -> None:
    unsigned, signed = QuantizationOptions(4), QuantizationOptions(4, is_signed=True)
    trained = QuantizationOptions(4, is_signed=True, is_qat=True)
    assert not unsigned.is_equal(signed)
    assert not unsigned.is_equal(QuantizationOptions(5))
    assert unsigned.is_equal(QuantizationOptions(4))
    assert not signed.is_equal(trained)
    unsigned_trained = QuantizationOptions(4, is_qat=True)
    assert not unsigned_trained.is_equal(trained)
    assert unsigned_trained.is_equal(trained, ignore_sign_qat=True)


def test_a_quantizer_gives_copies_of_its_parts() -> None:
    quantizer = fitted(0.0, 1.0, 4)
    for part, expected in [
        (quantizer.quant_options, QuantizationOptions(4)),
        (quantizer.quant_stats, MinMaxQuantizationStats(1.0, 0.0)),
        (quantizer.quant_params, UniformQuantizationParameters(1 / 15, 0, 0)),
    ]:
        assert part == expected
        assert type(part) is type(expected)
    quantizer.quant_stats.rmax = 9.0
    assert quantizer.rmax == 1.0


def test_statistics_leave_out_what_is_not_finite() -> None:
    stats = MinMaxQuantizationStats()
    stats.compute_quantization_stats(np.array([1.0, np.nan, -2.0, np.inf]))
    assert (stats.rmax, stats.rmin) == (1.0, -2.0)
    with pytest.raises(InvalidParameterError, match="none of them finite"):
        stats.compute_quantization_stats(np.array([np.nan, np.inf]))


@given(
    ends=st.tuples(st.floats(-100, 100), st.floats(0.01, 100)),
    n_bits=st.integers(2, 12),
    flags=st.sampled_from(FLAGS),
    double=st.booleans(),
)
def test_torch_quantizes_as_numpy_does(
    ends: tuple[float, float], n_bits: int, flags: tuple[bool, bool, bool], double: bool
) -> None:
    quantizer = fitted(ends[0], ends[0] + ends[1], n_bits, *flags)
    dtype = torch.float64 if double else torch.float32
    values = torch.linspace(ends[0] - 1, ends[0] + ends[1] + 1, 97, dtype=dtype)
    result = TorchUniformQuantizer(quantizer).quant(values)
    expected = quantizer.quant(values.numpy())
    assert result.dtype == dtype
    np.testing.assert_array_equal(result.numpy(), expected)
    integers = TorchUniformQuantizer(quantizer).quant(values, torch.int64)
    assert integers.dtype == torch.int64
    real = TorchUniformQuantizer(quantizer).dequant(integers)
    assert real.dtype == torch.float64
    np.testing.assert_array_equal(real.numpy(), quantizer.dequant(expected))


def test_torch_takes_parameters_by_channel_and_no_clipping() -> None:
    params = UniformQuantizationParameters(np.array([0.5, 2.0]), np.array([0, 3]), 0)
    quantizer = UniformQuantizer(QuantizationOptions(4), None, params, no_clipping=True)
    values = torch.tensor([[100.0, -100.0]])
    result = TorchUniformQuantizer(quantizer).quant(values)
    assert result.tolist() == [[200.0, -47.0]]
    assert TorchUniformQuantizer(quantizer).dequant(result).tolist() == [[100.0, -100.0]]
    with pytest.raises(NotCalibratedError, match="no scale"):
        TorchUniformQuantizer(UniformQuantizer()).quant(values)


def test_a_value_of_a_circuit_is_quantized_by_a_table() -> None:
    builder = Builder()
    x = builder.input("x", (1, 2), 0, 15)
    quantizer = fitted(0.0, 1.5, 4)
    integers = quantizer.quant(x.as_real() * 0.1)
    assert integers.position == x.position
    assert quantizer.dequant(x).shape == (1, 2)


@pytest.mark.parametrize("saved", SAVED, ids=lambda value: type(value).__name__)
def test_what_is_saved_is_loaded_again(saved: Any) -> None:
    assert type(saved).load_dict(saved.dump_dict()) == saved
    loaded = type(saved).loads(saved.dumps())
    assert loaded == saved
    assert loaded.dumps() == saved.dumps()
    file = io.StringIO()
    saved.dump(file)
    assert file.getvalue() == saved.dumps()


@given(st.floats(-10, 10), st.floats(0.1, 10), st.integers(2, 16), st.sampled_from(FLAGS))
def test_a_loaded_quantizer_quantizes_alike(
    rmin: float, span: float, n_bits: int, flags: tuple[bool, bool, bool]
) -> None:
    quantizer = fitted(rmin, rmin + span, n_bits, *flags)
    loaded = UniformQuantizer.loads(quantizer.dumps())
    values = np.linspace(rmin - 1, rmin + span + 1, 50)
    np.testing.assert_array_equal(loaded.quant(values), quantizer.quant(values))
    assert loaded.scale == quantizer.scale


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_bits", 99),
        ("n_bits", "8"),
        ("is_signed", 1),
        ("no_clipping", "yes"),
        ("scale", "0.5"),
        ("scale", 0.0),
        ("scale", float("nan")),
        ("zero_point", {"array": "AAAA", "dtype": "int64", "shape": [5]}),
        ("zero_point", {"array": "!", "dtype": "int64", "shape": [1]}),
        ("rmax", [1, 2, "x"]),
        ("offset", {"pickle": 1}),
    ],
)
def test_damaged_fields_are_refused(field: str, value: Any) -> None:
    data = {**SAVED[-1].dump_dict(), field: value}
    with pytest.raises(FormatError, match=field):
        UniformQuantizer.load_dict(data)


def test_damaged_text_is_refused() -> None:
    text = SAVED[-1].dumps()
    for damaged in (text[:-4], "", "[]", "3", b"\xff\xfe", text.replace("UniformQuantizer", "X")):
        with pytest.raises(FormatError, match="not a saved"):
            UniformQuantizer.loads(damaged)
    data = json.loads(text)
    del data["scale"]
    with pytest.raises(FormatError, match="has the fields"):
        UniformQuantizer.loads(json.dumps(data))
    with pytest.raises(FormatError, match="named fields"):
        UniformQuantizer.load_dict([1])  # type: ignore[arg-type]


def test_objects_of_another_class_are_not_equal() -> None:
    assert QuantizationOptions(4) != MinMaxQuantizationStats()
    assert UniformQuantizationParameters(0.5, 0, 0) != UniformQuantizationParameters(0.5, 1, 0)
