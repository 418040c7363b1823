"""Several tensors joined into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cipherlearn.ops._integer import Affine, IntegerForm
from cipherlearn.ops._registry import Kind, register


def _concat(operands: Sequence[Any], attributes: Mapping[str, Any]) -> Affine:
    first = next(part for part in operands if not part.constant)
    axis = int(attributes["axis"]) % len(first.integers.shape)
    rows = first.integers.shape[0]
    parts = [_for_rows(part, rows) if axis else part.integers for part in operands]
    return replace(first, integers=np.concatenate(parts, axis=axis))


def _for_rows(part: Affine, rows: int) -> Any:
    """Constants are the same for all rows of the batch."""
    if not part.constant:
        return part.integers
    return np.broadcast_to(part.integers, (rows, *part.integers.shape[1:]))


register("Concat", kind=Kind.MIXING, integer=IntegerForm(_concat, keeps_grid=True))
