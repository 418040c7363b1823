"""Operators whose output never depends on encrypted values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cipherlearn.ops._registry import Kind, register


def _check_numbers(values: Mapping[str, Any]) -> str | None:
    refused = sorted({"sparse_value", "value_string", "value_strings"} & set(values))
    if not refused:
        return None
    return f"{refused[0]} is not supported: constants must be dense tensors of numbers."


register("Constant", kind=Kind.CONSTANT, check=_check_numbers)
register("ConstantOfShape", kind=Kind.CONSTANT, raw_inputs={0})
register("Range", kind=Kind.CONSTANT, raw_inputs={0, 1, 2})
# Only the shape of the operand counts, never its values.
register("EyeLike", "Shape", "Size", kind=Kind.CONSTANT)
