from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.quantization import QuantizationOptions, QuantizedArray
from cipherlearn.quantization.grid import observed_range
from cipherlearn.quantization.quantized_array import Entries
from cipherlearn.quantization.shared_grid import CommonGrid, CommonScale, SideBySide
from tests.quantization.quantize import normal

OPTIONS = QuantizationOptions(6, is_signed=True)


def reals(seed: int, spread: float, offset: float = 0.0) -> QuantizedArray:
    values = offset + spread * np.random.default_rng(seed).normal(size=(40, 3))
    return QuantizedArray(6, values, is_signed=True)


def wholes(seed: int, low: int, high: int) -> QuantizedArray:
    values = np.random.default_rng(seed).integers(low, high, (40, 3)).astype(np.float64)
    stats = observed_range(values)
    assert stats.step == 1
    return QuantizedArray(6, values, options=OPTIONS, stats=stats)


@given(
    seed=st.integers(0, 1000),
    spreads=st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)),
    offset=st.floats(-50, 50),
)
def test_operands_of_a_sum_are_half_a_step_off_at_most(
    seed: int, spreads: tuple[float, float], offset: float
) -> None:
    operands = {0: reals(seed, spreads[0]), 1: reals(seed + 1, spreads[1], offset)}
    common = CommonScale.of(operands, [], OPTIONS, ())
    for position, operand in operands.items():
        result = common.quantize(operand, position)
        assert result.quantizer.scale == common.scale
        assert np.abs(result.dequant() - operand.values).max() <= common.scale * (0.5 + 1e-9)
    widest = max(np.ptp(operand.values) for operand in operands.values())
    assert widest / common.scale < 2**OPTIONS.n_bits


def test_a_sum_keeps_the_grid_of_an_operand_that_is_integers_already() -> None:
    held = reals(0, 1.0)
    held = QuantizedArray(
        6, held.qvalues, False, options=OPTIONS, stats=held.quantizer, params=held.quantizer
    )
    common = CommonScale.of({0: held, 1: reals(1, 0.5)}, [], OPTIONS, ())
    assert common.kept == {0: 1}
    assert common.quantize(held, 0) is held


def on_grid(values: np.ndarray, n_bits: int) -> QuantizedArray:
    made = QuantizedArray(n_bits, values, is_signed=bool((values < 0).any()))
    q = made.quantizer
    return QuantizedArray(n_bits, made.qvalues, False, options=q, stats=q, params=q)


@pytest.mark.parametrize("value", [0.0, 0.3, 5.0, -5.0])
def test_an_operand_that_is_always_the_same_does_not_set_the_scale(value: float) -> None:
    operands = {0: on_grid(np.full((40, 3), value), 6), 1: reals(1, 0.1)}
    common = CommonScale.of(operands, [], OPTIONS, ())
    assert common.scale <= np.ptp(operands[1].values) / 63 * 1.01
    found = common.quantize(operands[0], 0).dequant()
    assert np.abs(found - value).max() <= common.scale / 2


def test_a_coarse_grid_is_divided_for_the_operands_that_it_is_added_to() -> None:
    held = on_grid(normal(40, 3).astype(np.float64), 2)
    fine = reals(1, 0.3)
    common = CommonScale.of({0: held, 1: fine}, [], OPTIONS, ())
    assert common.kept == {0: 21}
    np.testing.assert_allclose(common.quantize(held, 0).dequant(), held.values)
    assert (
        np.abs(common.quantize(fine, 1).dequant() - fine.values).max() <= np.ptp(held.values) / 63
    )
    # On one grid already: exact as it is.
    assert CommonScale.of({0: held, 1: held}, [], OPTIONS, ()).kept == {0: 1, 1: 1}


def test_sums_of_whole_numbers_are_exact() -> None:
    operands = {0: wholes(0, 0, 2), 1: wholes(1, -9, 10)}
    common = CommonScale.of(operands, [np.array([3.0])], OPTIONS, ())
    assert common.scale == 1
    for position, operand in operands.items():
        np.testing.assert_array_equal(common.quantize(operand, position).dequant(), operand.values)
    assert common.quantize(operands[0], 0).n_bits == 1
    assert common.constant(np.array([3.0])).qvalues.tolist() == [3]


def test_whole_numbers_do_not_make_the_other_operands_coarse() -> None:
    operands = {0: wholes(0, 0, 4), 1: reals(1, 0.1)}
    for constants in ([], [np.array([0.5])]):
        common = CommonScale.of(operands, constants, OPTIONS, (0,))
        assert common.scale <= 3 / (2**OPTIONS.n_bits - 1)
    assert CommonScale.of({0: operands[0]}, [np.array([0.5])], OPTIONS, (0,)).scale < 0.1


@given(seed=st.integers(0, 1000), spread=st.floats(0.01, 100), offset=st.floats(-50, 50))
def test_one_grid_covers_all_operands_and_constants(
    seed: int, spread: float, offset: float
) -> None:
    operands = [reals(seed, 1.0), reals(seed + 1, spread, offset)]
    constant = np.array([offset - 1.0])
    common = CommonGrid.of(operands, [constant], OPTIONS)
    step = float(common.quantizer.scale)
    for operand in operands:
        found = common.quantize(operand, 0).dequant()
        assert np.abs(found - operand.values).max() <= step
    assert abs(common.constant(constant).dequant() - constant).max() <= step


def test_one_grid_of_whole_numbers_is_exact_and_narrow() -> None:
    operands = [wholes(0, 0, 2), wholes(1, -4, 4)]
    common = CommonGrid.of(operands, [np.array([2.0]), np.zeros(1)], OPTIONS)
    assert common.quantizer.n_bits == 3
    for operand in operands:
        np.testing.assert_array_equal(common.quantize(operand, 0).dequant(), operand.values)
    assert CommonGrid.of(operands, [np.array([0.5])], OPTIONS).quantizer.n_bits == 6


def test_integers_that_lie_on_the_grid_stay_as_they_are() -> None:
    held = reals(0, 1.0)
    grid = held.quantizer
    held = QuantizedArray(6, held.qvalues, False, options=grid, stats=grid, params=grid)
    common = CommonGrid.of([held, held], [], OPTIONS)
    assert common.quantizer == grid
    assert common.quantize(held, 1) is held
    np.testing.assert_array_equal(common.result(held.qvalues).dequant(), held.values)


def test_side_by_side_operands_keep_their_grids() -> None:
    looked_up, fresh = reals(0, 3.0), on_grid(normal(40, 2).astype(np.float64), 6)
    first = SideBySide.of({0: looked_up}, QuantizationOptions(4))
    codes = first.result(first.quantize(looked_up, 0).qvalues)
    both = SideBySide.of({0: codes, 1: fresh}, QuantizationOptions(4))
    assert both.quantize(codes, 0) is codes
    assert both.quantize(fresh, 1) is fresh
    joined = both.result(np.concatenate([codes.qvalues, fresh.qvalues], axis=-1))
    np.testing.assert_allclose(joined.values, np.concatenate([codes.values, fresh.values], -1))
    assert joined.entries is not None
    assert joined.entries.noisy.tolist() == [True] * 3 + [False] * 2
    assert joined.entries.lo.tolist() == [0, 0, 0, -32, -32]
    assert joined.entries.hi.tolist() == [15, 15, 15, 31, 31]
    assert joined.entries.extents.tolist() == [15.0] * 3 + [63.0] * 2
    assert joined.quantizer.integer_limits == (-32, 31)
    assert joined.move(lambda array: array[:, ::-1]).entries is None


def test_entries_that_do_not_differ() -> None:
    alike = Entries.alike(3, True, (-2, 5))
    assert alike.noisy.all()
    assert alike.extents.tolist() == [7.0] * 3
    assert Entries.joined([alike, alike]).lo.tolist() == [-2] * 6
