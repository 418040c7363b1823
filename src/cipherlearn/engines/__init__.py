"""What runs a circuit on encrypted data. Each engine is one file of this package."""

from cipherlearn.engines.base import (
    DEFAULT_P_ERROR,
    CompileOptions,
    Engine,
    Program,
    engine_names,
    get_engine,
)
from cipherlearn.engines.check import self_check

__all__ = [
    "DEFAULT_P_ERROR",
    "CompileOptions",
    "Engine",
    "Program",
    "engine_names",
    "get_engine",
    "self_check",
]
