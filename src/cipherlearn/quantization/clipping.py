"""Grids of their own for the entries of an axis, for inputs and for what look-ups write."""

from __future__ import annotations

import numpy as np

from cipherlearn.quantization.accumulators import expected_range
from cipherlearn.quantization.quantizers import (
    MinMaxQuantizationStats,
    QuantizationOptions,
    UniformQuantizationParameters,
    UniformQuantizer,
)

#: Shares of the observed range that are tried, on each side of zero.
SHARES = np.linspace(0.3, 1.0, 29)

#: Share of the range of all features below which one counts as constant.
SPREAD = 1e-6
#: A feature's own grid has to be so much better than the common one on rows it was not found on.
CLEARLY_LESS = 0.9


def feature_quantizer(values: np.ndarray, n_bits: int, axis: int) -> UniformQuantizer | None:
    """A quantizer of model inputs with grids of their own for features that gain from it.

    A feature's own grid reaches as far as values like its own are expected to, within the range of
    all features together. Few rows do not show how far some features reach (a pixel at the border
    is hardly ever lit), so a grid that is found on one half of the rows has to beat the common one
    on the other half; what shows no spread in a half keeps the common grid.

    Parameters
    ----------
    values : numpy.ndarray of float64
        Calibration data, batch axis first.
    n_bits : int
    axis : int
        Of the features; scale and zero-point are arrays along it.

    Returns
    -------
    UniformQuantizer or None
        None if no feature gains.
    """
    steps = 2**n_bits - 1
    columns = _columns(values, axis)
    low, high = float(columns.min()), float(columns.max())
    halves = (columns[::2], columns[1::2])
    varied = np.all([np.ptp(half, axis=(0, 1)) > SPREAD * (high - low) for half in halves], axis=0)
    if not varied.any():
        return None
    count = columns.shape[-1]
    common = _grids(np.full(count, low), np.full(count, high), steps)
    own_error, common_error = np.zeros(count), np.zeros(count)
    for fitted, other in (halves, halves[::-1]):
        own_error += _error(other, *_expected_grids(fitted, low, high, steps), steps)
        common_error += _error(other, *common, steps)
    gains = varied & (own_error < CLEARLY_LESS * common_error)
    if not gains.any():
        return None
    own = _expected_grids(columns, low, high, steps)
    scale, zero = (np.where(gains, o, c) for o, c in zip(own, common, strict=True))
    return _along(axis, values, n_bits, scale, zero)


def _columns(values: np.ndarray, axis: int) -> np.ndarray:
    """The values as (rows, others, entries of the axis)."""
    keep = axis % values.ndim
    return np.moveaxis(values, keep, -1).reshape(len(values), -1, values.shape[keep])


def _expected_grids(
    columns: np.ndarray, least: float, most: float, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Grids over the range that is expected for each feature, within a range."""
    low, high = (side[0, 0] for side in expected_range(columns, (0, 1)))
    low, high = np.maximum(low, least), np.minimum(high, most)
    # A range of nothing would have no step; such features keep the common grid.
    return _grids(low, np.maximum(high, low + SPREAD * (most - least)), steps)


def _grids(low: np.ndarray, high: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero-point for each range."""
    scale = (high - low) / steps
    return scale, np.rint(-low / scale)


def _error(columns: np.ndarray, scale: np.ndarray, zero: np.ndarray, steps: int) -> np.ndarray:
    """Squared error of each feature on its grid."""
    integers = np.clip(np.rint(columns / scale + zero), 0, steps)
    result: np.ndarray = np.square(scale * (integers - zero) - columns).sum(axis=(0, 1))
    return result


def least_error_quantizer(values: np.ndarray, n_bits: int, axis: int) -> UniformQuantizer:
    """A quantizer with a grid of its own for every entry of an axis.

    Zero is on every grid. Where all values are on one side of zero, the grid starts there.

    Parameters
    ----------
    values : numpy.ndarray of float64
        Calibration data, batch axis first.
    n_bits : int
    axis : int
        Scale and zero-point are arrays along this axis.

    Returns
    -------
    UniformQuantizer
        Unsigned; entries that are always 0 get the widest of the other grids.
    """
    columns = _columns(values, axis)
    low = np.minimum(columns.min(axis=(0, 1)), 0.0)
    high = np.maximum(columns.max(axis=(0, 1)), 0.0)
    steps = 2**n_bits - 1
    dead = high - low <= 0.0
    widest = float((high - low).max()) or 1.0
    scale, zero = np.full(dead.shape, widest / steps), np.zeros(dead.shape)
    least = np.where(dead, -1.0, np.inf)
    for share in SHARES:
        tried = np.where(dead, widest, (high - low) * share) / steps
        start = np.rint(np.clip(-low * share / tried, 0, steps))
        error = _error(columns, tried, start, steps)
        better = error < least
        scale, zero = np.where(better, tried, scale), np.where(better, start, zero)
        least = np.where(better, error, least)
    return _along(axis, values, n_bits, scale, zero)


def _along(
    axis: int, values: np.ndarray, n_bits: int, scale: np.ndarray, zero: np.ndarray
) -> UniformQuantizer:
    shape = [1] * values.ndim
    shape[axis] = -1
    params = UniformQuantizationParameters(
        scale.reshape(shape), zero.astype(np.int64).reshape(shape), 0
    )
    stats = MinMaxQuantizationStats(float(values.max()), float(values.min()))
    return UniformQuantizer(QuantizationOptions(n_bits), stats, params)
