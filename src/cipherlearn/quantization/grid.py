"""Finding the uniform grid that quantized real values lie on."""

from __future__ import annotations

import numpy as np

#: How far a value may lie from its grid point, in steps: float32 arithmetic in training.
TOLERANCE = 1e-3


def uniform_grid_scale(values: np.ndarray, n_bits: int) -> float | None:
    """Step of the grid through 0 that all values lie on, None if there is none.

    Parameters
    ----------
    values : numpy.ndarray of float
    n_bits : int
        The multiples must fit signed integers of this width, or unsigned ones of the same width if
        no value is negative.
    """
    levels = np.unique(np.abs(np.asarray(values, dtype=np.float64)))
    levels = levels[levels > 0]
    if not levels.size:
        return 1.0
    largest_multiple = 2 ** (n_bits - 1)
    # The step divides the smallest magnitude and every gap; start from the smaller of the two.
    gaps = np.diff(levels)
    gaps = gaps[gaps > levels[-1] * TOLERANCE / largest_multiple]
    smallest = min([float(levels[0]), *gaps.tolist()])
    for divisor in range(1, largest_multiple + 1):
        scale = smallest / divisor
        multiples = levels / scale
        if multiples[-1] > largest_multiple + TOLERANCE:
            return None
        if np.abs(multiples - np.rint(multiples)).max() < TOLERANCE * max(1.0, multiples[-1] / 16):
            # The mean over all levels is a finer estimate of the step than one gap.
            return float((levels @ np.rint(multiples)) / (np.rint(multiples) @ np.rint(multiples)))
    return None
