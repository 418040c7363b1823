"""PyTorch models: export to ONNX, evaluation in NumPy, compilation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cipherlearn.torch.compile import (
        build_quantized_module,
        compile_brevitas_qat_model,
        compile_onnx_model,
        compile_torch_model,
    )
    from cipherlearn.torch.distillation import distill
    from cipherlearn.torch.numpy_module import NumpyModule
    from cipherlearn.torch.quantization_aware import to_qat
    from cipherlearn.torch.sparse_network import SparseQuantNeuralNetwork

__all__ = [
    "NumpyModule",
    "SparseQuantNeuralNetwork",
    "build_quantized_module",
    "compile_brevitas_qat_model",
    "compile_onnx_model",
    "compile_torch_model",
    "distill",
    "to_qat",
]

_MODULES = {
    "NumpyModule": "cipherlearn.torch.numpy_module",
    "SparseQuantNeuralNetwork": "cipherlearn.torch.sparse_network",
    "build_quantized_module": "cipherlearn.torch.compile",
    "compile_brevitas_qat_model": "cipherlearn.torch.compile",
    "compile_onnx_model": "cipherlearn.torch.compile",
    "compile_torch_model": "cipherlearn.torch.compile",
    "distill": "cipherlearn.torch.distillation",
    "to_qat": "cipherlearn.torch.quantization_aware",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
