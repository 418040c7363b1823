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
from cipherlearn.ops._weights import Attributes, WeightLayout


def _transposed(operand: Affine) -> Affine:
    # One scale a row becomes one a column.
    return replace(
        operand,
        integers=np.transpose(operand.integers),
        scale=np.transpose(operand.scale),
        zero_point=np.transpose(operand.zero_point),
    )


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


class _MatrixLayout(WeightLayout):
    """Rows of features times a matrix on the right."""

    operand_axis = -1

    def inputs(
        self, operand: np.ndarray, shape: tuple[int, ...], attributes: Attributes
    ) -> np.ndarray:
        del shape, attributes
        return operand.reshape(1, -1, operand.shape[-1])

    def targets(self, result: np.ndarray, groups: int) -> np.ndarray:
        return result.reshape(groups, -1, result.shape[-1])

    def matrix(self, weights: np.ndarray, attributes: Attributes) -> np.ndarray:
        return (weights if attributes.get("transB") else weights.T)[None]

    def weights(
        self, matrix: np.ndarray, shape: tuple[int, ...], attributes: Attributes
    ) -> np.ndarray:
        del shape
        return matrix[0] if attributes.get("transB") else matrix[0].T

    def along_inputs(
        self, entries: np.ndarray, shape: tuple[int, ...], attributes: Attributes
    ) -> np.ndarray:
        del shape, attributes
        return entries.reshape(1, 1, -1)

    def along_weights(
        self, channels: np.ndarray, shape: tuple[int, ...], attributes: Attributes
    ) -> np.ndarray:
        del shape
        return channels.reshape((-1, 1) if attributes.get("transB") else (1, -1))

    def along_result(self, channels: np.ndarray, ndim: int) -> np.ndarray:
        return channels.reshape((1,) * (ndim - 1) + (-1,))

    def accepts(self, weights: np.ndarray, attributes: Attributes) -> bool:
        return (
            weights.ndim == 2
            and not attributes.get("transA")
            and attributes.get("alpha", 1.0) == 1.0
        )


register(
    "Gemm",
    kind=Kind.MIXING,
    integer=IntegerForm(_gemm, real_inputs=frozenset({2}), channel_axis=-1, layout=_MatrixLayout()),
    expand=_with_encrypted_bias,
)
register(
    "MatMul",
    kind=Kind.MIXING,
    integer=IntegerForm(_matmul, channel_axis=-1, layout=_MatrixLayout()),
)
