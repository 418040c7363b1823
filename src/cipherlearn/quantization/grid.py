"""Finding the uniform grid that values lie on: whole numbers, or what training quantized."""

from __future__ import annotations

import numpy as np

from cipherlearn.quantization.quantizers import (
    MAXIMUM_BITS,
    MinMaxQuantizationStats,
    QuantizationOptions,
    UniformQuantizationParameters,
    UniformQuantizer,
)

#: How far a value may lie from its grid point, in steps: float32 arithmetic in training.
TOLERANCE = 1e-3

#: Calibration data shows that values are whole numbers if it has so many of them ...
LEAST_OBSERVED = 50
#: ... and so many for each step of their range: what was never seen is rare then.
OBSERVED_PER_LEVEL = 4
#: Larger numbers are not looked at: no width has room for their steps.
LARGEST_WHOLE = 2.0**MAXIMUM_BITS


def observed_range(values: np.ndarray, is_complete: bool = False) -> MinMaxQuantizationStats:
    """The range of values, and the step between them where they are whole numbers.

    Whole numbers (pixels, counts, the results of comparisons) are then quantized to themselves, in
    as few bits as they need. That is only done where nothing else is to be expected: for constants,
    or with enough calibration data.

    Parameters
    ----------
    values : numpy.ndarray
    is_complete : bool, default=False
        Whether no other values will occur. True and false are complete anyway.

    Returns
    -------
    MinMaxQuantizationStats
    """
    array = np.asarray(values)
    stats = MinMaxQuantizationStats()
    stats.compute_quantization_stats(array)
    if array.dtype.kind == "b":
        stats.step = 1
    elif array.size >= LEAST_OBSERVED or is_complete:
        step = _whole_step(array)
        levels = (float(stats.rmax or 0) - float(stats.rmin or 0)) / (step or 1) + 1
        known = is_complete or array.size >= OBSERVED_PER_LEVEL * levels
        stats.step = step if known else None
    return stats


def _whole_step(array: np.ndarray) -> int | None:
    """The largest whole number that divides all values; None if they are not whole, or all 0."""
    if not bool((np.abs(array) <= LARGEST_WHOLE).all()) or bool((np.rint(array) != array).any()):
        return None
    # Zero is a multiple as well, so that it has an integer of its own.
    return int(np.gcd.reduce(np.unique(array.astype(np.int64)))) or None


def grid_quantizer(values: np.ndarray, n_bits: int) -> UniformQuantizer | None:
    """The quantizer that all values pass unchanged.

    Its zero-point is 0 where the integers have room for that, and else leaves as much room above
    the values as below: which one training had cannot be seen, and does not matter.

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
    options = _grid_options(array, n_bits)
    lowest, highest = options.integer_range
    for reach in (max(-lowest, highest), highest - lowest):
        scale = _step(array, reach)
        if scale is None:
            continue
        multiples = np.rint(array / scale)
        low, high = multiples.min(initial=0.0), multiples.max(initial=0.0)
        if high - low <= highest - lowest:
            fits = lowest <= low and high <= highest
            zero = 0 if fits else int(lowest - low + highest - high) // 2
            return _on_grid(array, options, scale, zero)
    return None


def channel_grids(channels: np.ndarray, n_bits: int) -> np.ndarray | None:
    """The steps of uniform grids, one a channel, that all weights lie on.

    Parameters
    ----------
    channels : numpy.ndarray of float, shape (channels, weights)
    n_bits : int
        Width of the integers.

    Returns
    -------
    numpy.ndarray of shape (channels,), or None
        None if a channel does not lie on a grid through 0 of that width.
    """
    lowest, highest = _grid_options(channels, n_bits).integer_range
    steps = []
    for weights in np.asarray(channels, dtype=np.float64):
        step = _step(weights, max(-lowest, highest))
        multiples = np.zeros(1) if step is None else np.rint(weights / step)
        if step is None or multiples.min() < lowest or multiples.max() > highest:
            return None
        steps.append(step)
    return np.array(steps)


def on_grids(values: np.ndarray, n_bits: int, scale: np.ndarray) -> UniformQuantizer:
    """The quantizer of values that lie on grids through 0 of these steps."""
    return _on_grid(values, _grid_options(values, n_bits), scale, 0)


def _grid_options(values: np.ndarray, n_bits: int) -> QuantizationOptions:
    options = QuantizationOptions(n_bits, is_signed=bool((values < 0).any()), is_qat=True)
    options.is_precomputed_qat = True
    return options


def _on_grid(
    values: np.ndarray, options: QuantizationOptions, scale: float | np.ndarray, zero_point: int
) -> UniformQuantizer:
    stats = MinMaxQuantizationStats()
    stats.compute_quantization_stats(values)
    offset = 2 ** (options.n_bits - 1) if options.is_signed else 0
    return UniformQuantizer(
        options, stats, UniformQuantizationParameters(scale, zero_point, offset)
    )


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
