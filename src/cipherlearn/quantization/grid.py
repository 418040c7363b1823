"""Finding the uniform grid that quantized real values lie on."""

from __future__ import annotations

import numpy as np

from cipherlearn.quantization.quantizers import (
    MinMaxQuantizationStats,
    QuantizationOptions,
    UniformQuantizationParameters,
    UniformQuantizer,
)

#: How far a value may lie from its grid point, in steps: float32 arithmetic in training.
TOLERANCE = 1e-3


def grid_quantizer(values: np.ndarray, n_bits: int) -> UniformQuantizer | None:
    """The quantizer, with a zero-point of 0, that all values pass unchanged.

    Parameters
    ----------
    values : numpy.ndarray of float
    n_bits : int
        Width of the integers: signed if any value is negative.

    Returns
    -------
    UniformQuantizer or None
        None if the values do not lie on one uniform grid of that width.
    """
    array = np.asarray(values, dtype=np.float64)
    options = QuantizationOptions(n_bits, is_signed=bool((array < 0).any()), is_qat=True)
    options.is_precomputed_qat = True
    lowest, highest = options.integer_range
    scale = _step(array, max(-lowest, highest))
    if scale is None:
        return None
    multiples = np.rint(array / scale)
    if array.size and (multiples.min() < lowest or multiples.max() > highest):
        return None
    stats = MinMaxQuantizationStats()
    stats.compute_quantization_stats(array)
    offset = 2 ** (n_bits - 1) if options.is_signed else 0
    return UniformQuantizer(options, stats, UniformQuantizationParameters(scale, 0, offset))


def _step(array: np.ndarray, largest_multiple: int) -> float | None:
    """Step of the grid through 0, if no value is further out than a number of steps."""
    levels = np.unique(np.abs(array))
    levels = levels[levels > 0]
    if not levels.size:
        return 1.0
    # The step divides the smallest magnitude and every gap; start from the smaller of the two.
    gaps = np.diff(levels)
    gaps = gaps[gaps > levels[-1] * TOLERANCE / largest_multiple]
    smallest = min([float(levels[0]), *gaps.tolist()])
    for divisor in range(1, largest_multiple + 1):
        multiples = levels * (divisor / smallest)
        nearest = np.rint(multiples)
        if nearest[-1] > largest_multiple:
            return None
        if np.abs(multiples - nearest).max() < TOLERANCE * max(1.0, nearest[-1] / 16):
            # All levels together give a finer estimate of the step than one gap.
            return float((levels @ nearest) / (nearest @ nearest))
    return None
