"""A warning about layers that quantization breaks: seen on calibration data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from cipherlearn.errors import CalibrationWarning, warn
from cipherlearn.quantization.base_quantized_op import QuantizedOp, observed_values
from cipherlearn.quantization.quantized_array import QuantizedArray

#: Rows of the calibration data that are compared.
ROWS = 100
#: A layer breaks if its result has a negative R2 (it is worse than a constant), although its
#: operands have one of at least `NEAR`. Few bits lose their accuracy layer by layer instead. That
#: is told of when an output of the model is not near either.
NEAR = 0.5
#: A spread of this part of the largest value says nothing: its R2 would be that of noise.
LEAST_SPREAD = 1e-4
#: Values further out than this many times the largest float value are taken to be there.
FURTHEST = 1e3


class Breakdown:
    """Compares quantized results with those of the float model, layer by layer.

    Parameters
    ----------
    inputs : mapping of str to numpy.ndarray
        Calibration data: real inputs of the model.
    quantized : mapping of str to QuantizedArray
        The same inputs, quantized.
    """

    def __init__(
        self, inputs: Mapping[str, np.ndarray], quantized: Mapping[str, QuantizedArray]
    ) -> None:
        self._floats = {name: _some_rows(array) for name, array in inputs.items()}
        self._scores = {name: self._score(name, found) for name, found in quantized.items()}
        self._first: tuple[QuantizedOp, float] | None = None

    def compute(self, output: str, variable: tuple[str, ...], op: QuantizedOp) -> None:
        """The layer in float, with the constants that it has now.

        Parameters
        ----------
        output : str
            The tensor that it computes.
        variable : tuple of str
            Its encrypted operands.
        op : QuantizedOp
        """
        self._floats[output] = op.float_result(*(self._floats[name] for name in variable))

    def compare(
        self, output: str, variable: tuple[str, ...], op: QuantizedOp, found: QuantizedArray
    ) -> None:
        """Take note of how far the quantized result is from the float one."""
        score = self._scores[output] = self._score(output, found)
        near = all(self._scores[name] >= NEAR for name in variable)
        if self._first is None and near and score < 0.0:
            self._first = op, score

    def _score(self, name: str, found: QuantizedArray) -> float:
        reals = _some_rows(np.asarray(observed_values(found), dtype=np.float64))
        return _r2(reals, self._floats[name].astype(np.float64))

    def report(self, outputs: Iterable[str]) -> None:
        """Warn if an output of the model is far from the float one."""
        far = {name: self._scores[name] for name in outputs}
        far = {name: score for name, score in far.items() if score < NEAR}
        if not far or self._first is None:
            return
        op, score = self._first
        listed = ", ".join(f"{name!r} (R2 {value:.2g})" for name, value in far.items())
        warn(
            f"quantization breaks this model: on the calibration data, {listed} is far from the "
            f"float model. The first layer that loses its result is "
            f"{op.op_instance_name!r} ({op.op_type()}), with an R2 of {score:.2g}: uniform steps "
            "cannot hold values of magnitudes as different as those that it reads. Use more bits "
            "(n_bits), bring its operands to one scale (normalize the features, add a larger "
            "epsilon), or leave the layer out",
            CalibrationWarning,
        )


def _some_rows(array: np.ndarray) -> np.ndarray:
    """Rows from the whole of the data, which may be sorted."""
    return array[:: max(1, len(array) // ROWS)][:ROWS]


def _r2(values: np.ndarray, truth: np.ndarray) -> float:
    """R2 over all elements that are numbers in float; 1 where they do not vary."""
    known = np.isfinite(truth)
    values, truth = values[known], truth[known]
    largest = float(np.abs(truth).max(initial=0.0))
    if largest <= 0.0:
        return 1.0
    # A value that is lost counts as far off, and squares must not overflow.
    values = np.clip(np.nan_to_num(values / largest, nan=FURTHEST), -FURTHEST, FURTHEST)
    deviation = truth / largest - (truth / largest).mean()
    if np.abs(deviation).max() <= LEAST_SPREAD:
        return 1.0
    return 1.0 - float(np.square(values - truth / largest).mean() / np.square(deviation).mean())
