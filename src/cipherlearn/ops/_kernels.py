"""Replacements for the few reference kernels that are not exact enough.

The float meaning of operators is taken from ``onnx.reference``. The kernels below stand in for
those that lose precision, overflow or refuse legal inputs; each says which.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from cipherlearn.ops import _window_kernels


class Erf(OpRun):
    """Error function; the reference one rounds float64 to float32 and loops in Python."""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        from scipy.special import erf

        return (np.asarray(erf(x)).astype(x.dtype),)


class Softplus(OpRun):
    """``log(1 + exp(x))``; the one of older versions overflows for large inputs."""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (np.logaddexp(x, x.dtype.type(0)).astype(x.dtype),)


class Mean(OpRun):
    """Mean of several tensors; the reference one cannot broadcast its first input."""

    def _run(self, *arrays: np.ndarray) -> tuple[np.ndarray]:
        total = sum(arrays[1:], start=arrays[0])
        return ((total / len(arrays)).astype(arrays[0].dtype),)


class BitCast(OpRun):
    """Reinterpretation of bits; the reference one refuses float32 values held in float64."""

    def _run(self, x: np.ndarray, to: int) -> tuple[np.ndarray]:
        from onnx.helper import tensor_dtype_to_np_dtype

        target = np.dtype(tensor_dtype_to_np_dtype(to))
        narrower = {2: np.float16, 4: np.float32}.get(target.itemsize)
        if x.dtype == np.float64 and narrower is not None:
            x = x.astype(narrower)
        if x.dtype.itemsize != target.itemsize:
            raise ValueError(f"{x.dtype} and {target} do not have the same number of bits")
        return (np.ascontiguousarray(x).view(target).reshape(x.shape),)


class Concat(OpRun):
    """Joining; constants of one row (borders) stand beside each row, which the reference refuses."""

    def _run(self, *arrays: np.ndarray, axis: int) -> tuple[np.ndarray]:
        rows = max(array.shape[0] for array in arrays)
        if axis % arrays[0].ndim:
            arrays = tuple(
                np.broadcast_to(a, (rows, *a.shape[1:])) if len(a) == 1 else a for a in arrays
            )
        return (np.concatenate(arrays, axis=axis),)


class LpNormalization(OpRun):
    """Value by norm; the reference norm of order 1 adds signed values, and warns of zeros."""

    def _run(self, x: np.ndarray, axis: int, p: int) -> tuple[np.ndarray]:
        norm = np.linalg.norm(x, ord=p, axis=axis, keepdims=True)
        return (np.divide(x, norm, out=np.zeros_like(x), where=norm != 0),)


class GatherElements(OpRun):
    """Elements along an axis; the reference one fails beyond 32 elements along it."""

    def _run(self, data: np.ndarray, indices: np.ndarray, axis: int) -> tuple[np.ndarray]:
        corner = tuple(
            slice(None) if i == axis % data.ndim else slice(extent)
            for i, extent in enumerate(indices.shape)
        )
        return (np.take_along_axis(data[corner], indices, axis=axis),)


KERNELS: tuple[type[OpRun], ...] = (
    Erf,
    Softplus,
    Mean,
    BitCast,
    Concat,
    LpNormalization,
    GatherElements,
    *_window_kernels.KERNELS,
)


class Evaluator(ReferenceEvaluator):
    """Reference evaluator that uses the kernels of this file, in function bodies too."""

    def __init__(self, proto: Any, **options: Any) -> None:
        # The evaluator builds one of its own class for the body of each function operator
        # (Gelu, Mish ...), without handing its replaced kernels on: they are added here.
        options["new_ops"] = [*(options.get("new_ops") or ()), *KERNELS]
        super().__init__(proto, **options)
