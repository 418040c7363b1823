"""How torch's own quantization is written in ONNX, where its exporter refuses or forgets widths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cipherlearn.errors import ModelError


def translations() -> dict[Any, Callable[..., Any]]:
    """What replaces torch's translations, by the operator that is translated."""
    import torch

    aten = torch.ops.aten
    table: dict[Any, Callable[..., Any]] = {
        aten.fake_quantize_per_tensor_affine.default: _fake_per_tensor,
        aten.fake_quantize_per_channel_affine.default: _fake_per_channel,
    }
    decomposed = torch.ops.quantized_decomposed
    if hasattr(decomposed, "quantize_per_tensor"):  # registered by those who use it
        table[decomposed.quantize_per_tensor.default] = _quantize_per_tensor
        table[decomposed.quantize_per_channel.default] = _quantize_per_channel
    return table


def _fake_per_tensor(x: Any, scale: float, zero: int, quant_min: int, quant_max: int) -> Any:
    return _there_and_back(x, _constant(scale, np.float32), zero, (quant_min, quant_max))


def _fake_per_channel(
    x: Any, scale: Any, zero_point: Any, axis: int, quant_min: int, quant_max: int
) -> Any:
    return _there_and_back(x, scale, zero_point, (quant_min, quant_max), axis=axis)


def _there_and_back(
    x: Any, scale: Any, zero: Any, limits: tuple[int, int], **attributes: Any
) -> Any:
    op = _operators()

    dtype = _type_of(*limits)
    typed = _typed(zero, dtype)
    integers = _clipped(op.QuantizeLinear(x, scale, typed, **attributes), limits, dtype)
    return op.DequantizeLinear(integers, scale, typed, **attributes)


def _quantize_per_tensor(
    x: Any, scale: float, zero_point: int, quant_min: int, quant_max: int, dtype: Any
) -> Any:
    op = _operators()

    known = np.dtype(dtype.numpy())
    quantized = op.QuantizeLinear(x, _constant(scale, np.float32), _typed(zero_point, known))
    return _clipped(quantized, (quant_min, quant_max), known)


def _quantize_per_channel(
    x: Any, scales: Any, zero_points: Any, axis: int, quant_min: int, quant_max: int, dtype: Any
) -> Any:
    op = _operators()

    known = np.dtype(dtype.numpy())
    scale = op.Cast(scales, to=_number(np.dtype(np.float32)))
    quantized = op.QuantizeLinear(x, scale, _typed(zero_points, known), axis=axis)
    return _clipped(quantized, (quant_min, quant_max), known)


def _type_of(lo: int, hi: int) -> np.dtype[Any]:
    """The type of ``QuantizeLinear`` that has room for a range."""
    for kind in (np.uint8, np.int8):
        limits = np.iinfo(kind)
        if limits.min <= lo and hi <= limits.max:
            return np.dtype(kind)
    raise ModelError(
        f"fake quantization to integers from {lo} to {hi} cannot be exported: at most 8 bits"
    )


def _typed(zero: Any, dtype: np.dtype[Any]) -> Any:
    if isinstance(zero, int):
        return _constant(zero, dtype)
    return _operators().Cast(zero, to=_number(dtype))


def _number(dtype: np.dtype[Any]) -> int:
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(dtype))


def _clipped(integers: Any, limits: tuple[int, int], dtype: np.dtype[Any]) -> Any:
    op = _operators()

    known = np.iinfo(dtype)
    if limits == (known.min, known.max):
        return integers
    return op.Clip(integers, *(_constant(limit, dtype) for limit in limits))


def _constant(value: Any, dtype: Any) -> Any:
    from onnx import numpy_helper

    return _operators().Constant(value=numpy_helper.from_array(np.array(value, dtype)))


def _operators() -> Any:
    """The functions that add nodes while torch translates."""
    from onnxscript import opset18

    return opset18
