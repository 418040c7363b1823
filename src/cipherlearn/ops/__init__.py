"""Operators: their NumPy meaning, their kind and their restrictions, one place for each.

Public names: :class:`Op`, :class:`Kind`, :func:`get`, :func:`names`, :func:`register_numpy`,
:func:`unregister`, :data:`ONNX_OPS_TO_NUMPY_IMPL`. A family of operators is one file beside this
one; files are found by name.
"""

from cipherlearn.ops._reference import evaluate
from cipherlearn.ops._registry import (
    ONNX_OPS_TO_NUMPY_IMPL,
    Kind,
    Op,
    get,
    names,
    register,
    register_function,
    register_numpy,
    supported_sentence,
    unavailable,
    unregister,
)
from cipherlearn.ops._signature import (
    NEWEST_OPSET,
    OLDEST_OPSET,
    REQUIRED,
    Attribute,
    Operand,
    Signature,
    qualified_name,
    split_name,
)

__all__ = [
    "NEWEST_OPSET",
    "OLDEST_OPSET",
    "ONNX_OPS_TO_NUMPY_IMPL",
    "REQUIRED",
    "Attribute",
    "Kind",
    "Op",
    "Operand",
    "Signature",
    "evaluate",
    "get",
    "names",
    "qualified_name",
    "register",
    "register_function",
    "register_numpy",
    "split_name",
    "supported_sentence",
    "unavailable",
    "unregister",
]
