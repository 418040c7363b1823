"""Replacements for the few reference kernels that are not exact enough.

The float meaning of operators is taken from ``onnx.reference``. The kernels below stand in for
those that lose precision, overflow or refuse legal inputs; each says which.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_dequantize_linear import _CommonDequantizeLinear
from onnx.reference.ops.op_resize import Resize as ReferenceResize

from cipherlearn.ops import _ml_kernels, _window_kernels

# Modes of Resize in which the corners of a region stay in place.
_BETWEEN_CORNERS: Final = ("align_corners", "tf_crop_and_resize")


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
    """Joining; the reference one refuses constants of one row that stand beside each row."""

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


class Pad(OpRun):
    """Borders; the reference one cannot take elements away, which negative numbers mean."""

    def _run(
        self,
        x: np.ndarray,
        pads: np.ndarray,
        value: np.ndarray | None = None,
        axes: np.ndarray | None = None,
        mode: str = "constant",
    ) -> tuple[np.ndarray]:
        width = [(0, 0)] * x.ndim
        given = pads.reshape(2, -1).T.tolist()
        listed = range(x.ndim) if axes is None else axes.tolist()
        for axis, both in zip(listed, given, strict=True):
            width[axis] = tuple(both)
        limits = zip(width, x.shape, strict=True)
        x = x[tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in limits)]
        width = [(max(a, 0), max(b, 0)) for a, b in width]
        fill = {"constant_values": 0 if value is None else value} if mode == "constant" else {}
        return (np.pad(x, width, mode=mode, **fill),)  # type: ignore[call-overload]


class OneHot(OpRun):
    """Encoding of numbers; the reference one is about to refuse a depth in a tensor of one axis."""

    def _run(
        self, index: np.ndarray, depth: np.ndarray, values: np.ndarray, axis: int
    ) -> tuple[np.ndarray]:
        number = int(np.asarray(depth).item())
        axis %= index.ndim + 1
        places = np.arange(number).reshape([-1 if i == axis else 1 for i in range(index.ndim + 1)])
        wrapped = np.where(index < 0, index.astype(np.float64) + number, index)
        return (np.where(places == np.expand_dims(wrapped, axis), values[1], values[0]),)


class MeanVarianceNormalization(OpRun):
    """Standardization; the function that defines it mixes float32 constants into float64."""

    def _run(self, x: np.ndarray, axes: list[int] | None = None) -> tuple[np.ndarray]:
        along = (0, 2, 3) if axes is None else tuple(axes)
        mean = x.mean(axis=along, keepdims=True)
        variance = (x * x).mean(axis=along, keepdims=True) - mean**2
        return (((x - mean) / (np.sqrt(variance) + 1e-9)).astype(x.dtype),)


class Resize(ReferenceResize):
    """Images of another size; the reference one mistakes sizes that are not whole for the result's.

    The result has whole sizes: those, not the products of extents and scales, tell how far its
    elements are apart where corners stay in place. And scales are float32 numbers, the product of
    which with an extent may be a whole number that it is not in double precision.
    """

    def _run(  # type: ignore[override]
        self,
        x: np.ndarray,
        roi: np.ndarray | None = None,
        scales: np.ndarray | None = None,
        sizes: np.ndarray | None = None,
        *,
        axes: list[int] | None = None,
        **attributes: Any,
    ) -> tuple[np.ndarray]:
        if scales is not None and scales.size:
            extents = np.array([x.shape[axis] for axis in (axes or range(x.ndim))])
            given = scales.astype(np.float64)
            target = (scales.astype(np.float32) * extents.astype(np.float32)).astype(np.int64)
            whole = target / np.maximum(extents, 1)
            whole = np.where(whole * extents < target, np.nextafter(whole, np.inf), whole)
            aligned = attributes["coordinate_transformation_mode"] in _BETWEEN_CORNERS
            fits = (given * extents).astype(np.int64) == target
            scales = whole if aligned else np.where(fits, given, whole)
        (result,) = super()._run(x, roi, scales, sizes, axes=axes, **attributes)
        return (result,)


class DequantizeLinear(_CommonDequantizeLinear):
    """Numbers of quantized ones; there is a reference one from operator set 19 on only."""


KERNELS: tuple[type[OpRun], ...] = (
    Erf,
    Softplus,
    Mean,
    BitCast,
    Concat,
    LpNormalization,
    GatherElements,
    Pad,
    OneHot,
    MeanVarianceNormalization,
    Resize,
    DequantizeLinear,
    *_ml_kernels.KERNELS,
    *_window_kernels.KERNELS,
)


class Evaluator(ReferenceEvaluator):
    """Reference evaluator that uses the kernels of this file, in function bodies too."""

    def __init__(self, proto: Any, **options: Any) -> None:
        # The evaluator builds one of its own class for the body of each function operator
        # (Gelu, Mish ...), without handing its replaced kernels on: they are added here.
        options["new_ops"] = [*(options.get("new_ops") or ()), *KERNELS]
        super().__init__(proto, **options)
