"""A quantized operator class for every operator of the registry.

The classes are made from the registry, so that an operator is written in one place
(`cipherlearn.ops`): ``QuantizedRelu``, ``QuantizedGemm``, ... Classes written by hand, here or by
users, take their place.
"""

from __future__ import annotations

from typing import Any

from cipherlearn import ops
from cipherlearn.errors import InvalidParameterError, UnsupportedOperatorError
from cipherlearn.quantization import declared
from cipherlearn.quantization.base_quantized_op import (
    ONNX_OPS_TO_QUANTIZED_IMPL,
    QuantizedOp,
)
from cipherlearn.quantization.mixing import QuantizedMixingOp


def quantized_class(op_type: str) -> type[QuantizedOp]:
    """The quantized class of an operator: the one written for it, or one made from the registry.

    Parameters
    ----------
    op_type : str
        Qualified name: ``"Relu"``, ``"my.domain.Op"``.

    Raises
    ------
    UnsupportedOperatorError
        If the operator is not registered, or its values are never encrypted.
    """
    if op_type in ONNX_OPS_TO_QUANTIZED_IMPL:
        return ONNX_OPS_TO_QUANTIZED_IMPL[op_type]
    op = ops.get(op_type)
    if op.kind is ops.Kind.CONSTANT:
        raise UnsupportedOperatorError(
            f"{op_type} on an encrypted value is not supported: its result must be known when the "
            "model is compiled"
        )
    mixes = op.integer is not None or op.kind is ops.Kind.MIXING
    base = QuantizedMixingOp if mixes else QuantizedOp
    name = class_name(op_type)
    summary = f"Quantized {op_type}: see `{base.__name__}`."
    body = {"_impl_for_op_named": op_type, "__module__": __name__, "__doc__": summary}
    # A user may register a function of that name anew, of another kind: its class is not kept.
    return type(name, (base,), body, is_utility=op.is_own)


def class_name(op_type: str) -> str:
    """Name of the class that is made for an operator: ``"QuantizedRelu"``."""
    return "Quantized" + ops.split_name(op_type)[1]


def _make_standard_classes() -> dict[str, Any]:
    made: dict[str, Any] = {written.__name__: written for written in declared.WRITTEN}
    for name in ops.names():
        op = ops.get(name)
        expanded = op.kind is ops.Kind.MIXING and op.integer is None
        if op.kind is not ops.Kind.CONSTANT and not op.is_own and not expanded:
            kind = quantized_class(name)
            found = made.setdefault(kind.__name__, kind)
            if found.op_type() != name:
                raise InvalidParameterError(
                    f"the operators {found.op_type()} and {name} would both be "
                    f"{class_name(name)}: register one of them under another type"
                )
    return made


globals().update(_make_standard_classes())
