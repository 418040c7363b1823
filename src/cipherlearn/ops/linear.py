"""Matrix products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cipherlearn.errors import UnsupportedAttributeError
from cipherlearn.ops._expand import Composer, Tensor
from cipherlearn.ops._integer import Affine, IntegerForm, add_bias, matrix_product
from cipherlearn.ops._registry import Kind, register


def _transposed(operand: Affine) -> Affine:
    return replace(operand, integers=np.transpose(operand.integers))


def _gemm(operands: Sequence[Any], attributes: Mapping[str, Any]) -> Affine:
    left, right, *rest = operands
    left = _transposed(left) if attributes["transA"] else left
    right = _transposed(right) if attributes["transB"] else right
    product = matrix_product(left, right, _nonzero(attributes["alpha"]))
    bias = rest[0] if rest else None
    return product if bias is None else add_bias(product, attributes["beta"] * np.asarray(bias))


def _nonzero(alpha: float) -> float:
    if alpha == 0.0:
        raise UnsupportedAttributeError(
            "alpha=0 leaves nothing of the product of matrices: remove the layer from the model"
        )
    return alpha


def _with_encrypted_bias(
    c: Composer, operands: Sequence[Tensor | None], attributes: Mapping[str, Any]
) -> Tensor:
    left, right, bias = operands
    product = {key: attributes[key] for key in ("alpha", "transA", "transB")}
    scaled = c.add("Mul", bias, float(attributes["beta"]))
    return c.add("Add", c.add("Gemm", left, right, **product), scaled)


def _matmul(operands: Sequence[Any], attributes: Mapping[str, Any]) -> Affine:
    del attributes
    return matrix_product(*operands)


register(
    "Gemm",
    kind=Kind.MIXING,
    integer=IntegerForm(_gemm, real_inputs=frozenset({2}), channel_axis=-1),
    expand=_with_encrypted_bias,
)
register("MatMul", kind=Kind.MIXING, integer=IntegerForm(_matmul, channel_axis=-1))
