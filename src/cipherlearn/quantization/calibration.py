"""Checks of the data that a model is calibrated, or evaluated, on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from cipherlearn.errors import (
    CalibrationWarning,
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
    ModelError,
    warn,
)
from cipherlearn.onnx import Graph, check_inputs
from cipherlearn.quantization.quantizers import UniformQuantizer

#: Values that lie this part of the range outside of it are not expected any more ...
FAR_OUTSIDE = 0.1
#: ... and neither are more of them than this share of all values.
MOST_FAR_OUTSIDE = 0.01


def check_calibration_data(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Calibration data in float64 (int64 where the model takes integers), if it fits the model.

    Raises
    ------
    InvalidShapeError
        If the number of arrays or of rows is wrong.
    InvalidParameterError
        If there are fewer than two rows, or values that are not finite.
    InvalidTypeError
        If an array does not hold what the model takes: floating-point numbers, or integers.
    ModelError
        If the model cannot be computed row by row.
    """
    whole = {i.name for i in graph.inputs if i.dtype is not None and i.dtype.kind != "f"}
    checked = check_real_arrays(graph.input_names, arrays, whole)
    rows = checked[0].shape[0]
    if rows < 2:
        raise InvalidParameterError(
            f"calibration data has {rows} row{'' if rows == 1 else 's'}; ranges need at least two, "
            "and a few hundred rows like those that the model will see"
        )
    for info in graph.inputs:
        if info.shape is not None and info.shape and isinstance(info.shape[0], int):
            raise ModelError(
                f"the model takes batches of {info.shape[0]} rows only, and cannot be opened for "
                "other sizes: its rows are not treated alike. Encrypted rows are computed one by "
                "one; export the model with an open batch size"
            )
    check_inputs(graph, checked)
    return checked


def check_real_arrays(
    names: Sequence[str], arrays: Sequence[Any], whole: Collection[str] = ()
) -> list[np.ndarray]:
    """Arrays of one batch, one an input: in float64, or in int64 for the names in ``whole``."""
    if len(arrays) != len(names):
        raise InvalidShapeError(
            f"{len(arrays)} arrays were given; the model takes {len(names)} ({', '.join(names)})"
        )
    result = []
    for name, given in zip(names, arrays, strict=True):
        array = as_array(given)
        if name in whole:
            result.append(_whole(name, array))
            continue
        if array.dtype.kind != "f":
            raise InvalidTypeError(
                f"the input {name!r} has dtype {array.dtype}; floating-point values are needed "
                "(use x.astype('float32'))"
            )
        if array.ndim < 1:
            raise InvalidShapeError(f"the input {name!r} is a single number: it needs a batch axis")
        bad = int(np.count_nonzero(~np.isfinite(array)))
        if bad:
            raise InvalidParameterError(
                f"the input {name!r} holds {bad} values that are NaN or infinite: remove or impute "
                "them"
            )
        result.append(array.astype(np.float64))
    if len({array.shape[0] for array in result}) > 1:
        rows = {name: array.shape[0] for name, array in zip(names, result, strict=True)}
        raise InvalidShapeError(f"all inputs need the same number of rows, not {rows}")
    return result


def clipped_by(values: np.ndarray, quantizer: UniformQuantizer) -> np.ndarray:
    """How far outside of the range of a quantizer values lie, in ranges; 0 up to half a step.

    Parameters
    ----------
    values : numpy.ndarray of float
    quantizer : UniformQuantizer
    """
    low, high = quantizer.integer_limits
    steps = values / quantizer.scale + quantizer.zero_point
    beyond = np.maximum(low - steps, steps - high)
    return np.where(beyond > 0.5, beyond / (high - low), 0.0)


def report_clipped(
    names: Sequence[str], arrays: Sequence[np.ndarray], quantizers: Sequence[UniformQuantizer]
) -> int:
    """Count the values that quantization clips, and warn if they are more than a trace.

    Some values a little outside of the calibration data are usual. There is a warning where more
    than `MOST_FAR_OUTSIDE` of the values of an input lie more than `FAR_OUTSIDE` of its range
    outside, or any of them by more than a whole range; but not where the model itself clips them.

    Parameters
    ----------
    names : sequence of str
    arrays : sequence of numpy.ndarray
        Real inputs.
    quantizers : sequence of UniformQuantizer

    Returns
    -------
    int
        Values that are clipped.
    """
    count, told = 0, []
    for name, array, quantizer in zip(names, arrays, quantizers, strict=True):
        beyond = clipped_by(array, quantizer)
        clipped = int(np.count_nonzero(beyond))
        count += clipped
        if _is_declared(quantizer):
            continue
        far = np.count_nonzero(beyond > FAR_OUTSIDE)
        if far > MOST_FAR_OUTSIDE * beyond.size or beyond.max(initial=0.0) > 1.0:
            low, high = (np.asarray(quantizer.dequant(end)) for end in quantizer.integer_limits)
            told.append(
                f"{clipped} of {array.size} values of {name!r}, which reach from "
                f"{array.min():.4g} to {array.max():.4g}, are moved to the border of "
                f"{low.min():.4g} to {high.max():.4g}"
            )
    if told:
        warn(
            f"inputs lie far outside of the calibration data: {'; '.join(told)}. Results of "
            "these rows may be wrong. Calibrate on rows like these, or scale the inputs as the "
            "calibration data was scaled",
            CalibrationWarning,
        )
    return count


def _is_declared(quantizer: UniformQuantizer) -> bool:
    """Whether a grid comes from the model: its range is that of its integers, not that of data."""
    ends = np.array([quantizer.dequant(end) for end in quantizer.integer_limits])
    known = (quantizer.rmin, quantizer.rmax) == (float(ends.min()), float(ends.max()))
    return quantizer.is_precomputed_qat and known


def _whole(name: str, array: np.ndarray) -> np.ndarray:
    whole = array.dtype.kind in "iub" or bool((np.rint(array) == array).all())
    if not whole or array.ndim < 1:
        raise InvalidTypeError(
            f"the input {name!r} takes rows of integers; an array of dtype {array.dtype} and shape "
            f"{array.shape} with other numbers was given"
        )
    return array.astype(np.int64)


def as_tuple(value: Any) -> tuple[Any, ...]:
    """One value as a tuple of one."""
    return value if isinstance(value, tuple) else (value,)


def as_array(value: Any) -> np.ndarray:
    """A tensor (of any device, with or without gradients) as an array; arrays as they are."""
    if hasattr(value, "detach"):  # a tensor, without importing torch to ask
        value = value.detach().cpu().numpy()
    return np.asarray(value)
