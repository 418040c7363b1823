"""Machine learning on encrypted data.

``import cipherlearn`` loads nothing heavy: each subpackage is loaded when it is first used, either
as an attribute (``cipherlearn.quantization``) or by its own import.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import circuit, engines, errors, onnx, ops, quantization, torch

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "circuit",
    "engines",
    "errors",
    "onnx",
    "ops",
    "quantization",
    "torch",
]

_SUBMODULES = frozenset(__all__) - {"__version__"}


def __getattr__(name: str) -> ModuleType:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES})
