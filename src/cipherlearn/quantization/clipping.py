"""Grids of least squared error: what lies far out is clipped if that makes the steps finer."""

from __future__ import annotations

import numpy as np

from cipherlearn.quantization.quantizers import (
    MinMaxQuantizationStats,
    QuantizationOptions,
    UniformQuantizationParameters,
    UniformQuantizer,
)

#: Shares of the observed range that are tried, on each side of zero.
SHARES = np.linspace(0.3, 1.0, 29)


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
    keep = axis % values.ndim
    columns = np.moveaxis(values, keep, -1).reshape(-1, values.shape[keep])
    low = np.minimum(columns.min(axis=0), 0.0)
    high = np.maximum(columns.max(axis=0), 0.0)
    steps = 2**n_bits - 1
    dead = high - low <= 0.0
    widest = float((high - low).max()) or 1.0
    scale, zero = np.full(dead.shape, widest / steps), np.zeros(dead.shape)
    least = np.where(dead, -1.0, np.inf)
    for share in SHARES:
        tried = np.where(dead, widest, (high - low) * share) / steps
        start = np.rint(np.clip(-low * share / tried, 0, steps))
        integers = np.clip(np.rint(columns / tried + start), 0, steps)
        error = np.square(tried * (integers - start) - columns).mean(axis=0)
        better = error < least
        scale, zero = np.where(better, tried, scale), np.where(better, start, zero)
        least = np.where(better, error, least)
    shape = [-1 if position == keep else 1 for position in range(values.ndim)]
    params = UniformQuantizationParameters(
        scale.reshape(shape), zero.astype(np.int64).reshape(shape), 0
    )
    stats = MinMaxQuantizationStats(float(columns.max()), float(columns.min()))
    return UniformQuantizer(QuantizationOptions(n_bits), stats, params)
