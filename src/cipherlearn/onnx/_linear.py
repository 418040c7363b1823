"""What constants do to each channel of a value, and linear operators that can do it themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import onnx

from cipherlearn.onnx import _edit
from cipherlearn.onnx.graph import Array, node_attributes

RESCALING: Final = frozenset({"Add", "BatchNormalization", "Div", "Mul", "Neg", "Sub"})
LINEAR: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

_MINUS_ONE: Final = np.full((), -1.0)


@dataclass(frozen=True, eq=False)
class Rescaling:
    """A node that computes ``source * scale + offset`` with constants.

    Attributes
    ----------
    source : str
        Tensor that it reads.
    scale, offset : ndarray
        Constants in float64. They broadcast against the source as usual, unless ``axis`` is given.
    offset_name : str
        Initializer that holds the offset as it is; ``""`` where there is none.
    axis : int or None
        Axis of the source that the constants, which have one axis, belong to.
    """

    source: str
    scale: Array = field(default_factory=lambda: np.ones(()))
    offset: Array = field(default_factory=lambda: np.zeros(()))
    offset_name: str = ""
    axis: int | None = None

    def of_channels(self, axis: int, rank: int, count: int) -> tuple[Array, Array] | None:
        """Scale and offset of each channel.

        Parameters
        ----------
        axis : int
            Axis of the channels.
        rank : int
            Number of axes of the source.
        count : int
            Number of channels.

        Returns
        -------
        tuple of ndarray of shape (count,) or None
            ``None`` where the constants vary along other axes as well.
        """
        vectors = []
        for values in (self.scale, self.offset):
            shape = values.shape
            if self.axis is not None and shape:
                shape = (1,) * self.axis + shape + (1,) * (rank - 1 - self.axis)
            shape = (1,) * (rank - len(shape)) + shape
            others = shape[:axis] + shape[axis + 1 :]
            if len(shape) != rank or set(others) - {1} or shape[axis] not in (1, count):
                return None
            vectors.append(np.broadcast_to(values.reshape(-1), (count,)))
        return vectors[0], vectors[1]


def read_rescaling(node: onnx.NodeProto, constants: Mapping[str, Array]) -> Rescaling | None:
    """Read a node as a rescaling.

    Parameters
    ----------
    node : NodeProto
        Any node.
    constants : mapping of str to ndarray
        Values of its operands that are constants.

    Returns
    -------
    Rescaling or None
        ``None`` where it is none.
    """
    if node.domain or node.op_type not in RESCALING or node.input[0] == "":
        return None
    if any(array.dtype.kind != "f" for array in constants.values()):
        return None
    wide = {name: array.astype(np.float64) for name, array in constants.items()}
    if node.op_type == "BatchNormalization":
        return _read_normalization(node, wide)
    if node.op_type == "Neg":
        return None if node.input[0] in wide else Rescaling(node.input[0], _MINUS_ONE)
    first, second = node.input
    if (first in wide) == (second in wide):
        return None
    source, name = (second, first) if first in wide else (first, second)
    value = wide[name]
    if node.op_type == "Mul":
        return Rescaling(source, value)
    if node.op_type == "Add":
        return Rescaling(source, offset=value, offset_name=name)
    if node.op_type == "Sub":
        swapped = source == second
        return Rescaling(source, _MINUS_ONE, value) if swapped else Rescaling(source, offset=-value)
    with np.errstate(all="ignore"):
        return Rescaling(source, np.reciprocal(value)) if source == first else None


def _read_normalization(node: onnx.NodeProto, constants: Mapping[str, Array]) -> Rescaling | None:
    attributes = node_attributes(node)
    asked = [name for name in node.output if name]
    if attributes.get("training_mode") or len(asked) > 1 or set(node.input[1:]) - set(constants):
        return None
    scale, offset, mean, variance = (constants[name] for name in node.input[1:5])
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
    return Rescaling(node.input[0], factor, offset - mean * factor, axis=1)


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear operator with constant weights.

    Attributes
    ----------
    node : NodeProto
    rank : int
        Number of axes of what it reads and of what it gives.
    weight : ndarray of shape (groups, outputs, inputs, window)
        Weights of each group, in float64.
    shape : tuple of int
        Shape of the weights as the node holds them.
    dtype : numpy.dtype
    bias : ndarray of shape (groups * outputs,) or None
    bias_name : str
        Initializer that holds the bias; ``""`` where it is yet to be made.
    """

    node: onnx.NodeProto
    rank: int
    weight: Array
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    bias: Array | None = None
    bias_name: str = ""

    @property
    def axis(self) -> int:
        """Axis of the channels, in what it reads and in what it gives."""
        return self.rank - 1 if self.node.op_type in ("Gemm", "MatMul") else 1

    def then(self, rescaling: Rescaling) -> Linear | None:
        """The operator followed by a rescaling, as one; ``None`` where that is impossible."""
        groups, outputs = self.weight.shape[:2]
        vectors = rescaling.of_channels(self.axis, self.rank, groups * outputs)
        if vectors is None:
            return None
        scale, offset = vectors
        weight = self.weight * scale.reshape(groups, outputs, 1, 1)
        if self.bias is not None:
            return self._with(weight, self.bias * scale + offset)
        # The bias keeps the name that it has in the framework.
        kept = rescaling.offset_name if rescaling.offset.shape == (groups * outputs,) else ""
        return self._with(weight, offset if np.any(offset) or kept else None, kept)

    def after(self, rescaling: Rescaling) -> Linear | None:
        """A rescaling followed by the operator, as one; ``None`` where that is impossible."""
        groups, _, inputs = self.weight.shape[:3]
        vectors = rescaling.of_channels(self.axis, self.rank, groups * inputs)
        if vectors is None or node_attributes(self.node).get("transA"):
            return None
        scale, offset = (vector.reshape(groups, 1, inputs, 1) for vector in vectors)
        weight = self.weight * scale
        if not np.any(offset):
            return self._with(weight, self.bias, self.bias_name)
        # At borders some of the weights meet padding, which gets no offset.
        if not self._is_uniform():
            return None
        added = np.sum(self.weight * offset, axis=(2, 3)).reshape(-1)
        return self._with(weight, added if self.bias is None else self.bias + added)

    def _is_uniform(self) -> bool:
        """Tell whether every output element is a sum of the same weights."""
        if self.node.op_type == "ConvTranspose":
            return False
        attributes = node_attributes(self.node)
        padded = attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        return not padded and not any(attributes.get("pads", ()))

    def _with(self, weight: Array, bias: Array | None, bias_name: str = "") -> Linear | None:
        if self.node.op_type == "MatMul" and bias is not None and self.rank != 2:
            return None
        result = replace(self, weight=weight, bias=bias, bias_name=bias_name)
        with np.errstate(over="ignore"):
            values = [item.astype(self.dtype) for item in (weight, bias) if item is not None]
        return result if all(np.all(np.isfinite(value)) for value in values) else None

    def write(self, graph: onnx.GraphProto, old: Linear) -> None:
        """Change the node so that it computes this.

        Parameters
        ----------
        graph : GraphProto
            Graph of the node, which gets the new weights.
        old : Linear
            What the node computes so far.
        """
        node, names = self.node, list(self.node.input)
        if "alpha" in node_attributes(node) or not np.array_equal(self.weight, old.weight):
            weight = _restored(node, self.weight, self.shape).astype(self.dtype)
            names[1] = _edit.add_constant(graph, names[1], weight)
        if self.bias is not None:
            name = self.bias_name or _edit.add_constant(
                graph, (*names, "")[2] or f"{names[1]}_bias", self.bias.astype(self.dtype)
            )
            names[2:] = [name]
        del node.input[:]
        node.input.extend(names)
        if node.op_type == "Gemm":
            _edit.set_attribute(node, "alpha")
            _edit.set_attribute(node, "beta")
        if node.op_type == "MatMul" and self.bias is not None:
            node.op_type = "Gemm"


def read_linear(
    node: onnx.NodeProto, constants: Mapping[str, Array], rank: int | None
) -> Linear | None:
    """Read a node as a linear operator.

    Parameters
    ----------
    node : NodeProto
        Any node.
    constants : mapping of str to ndarray
        Values of its operands that are constants.
    rank : int or None
        Number of axes of its first operand, where that is known.

    Returns
    -------
    Linear or None
        ``None`` where it is none, or its weights or its bias are not constants of each channel.
    """
    if node.domain or node.op_type not in LINEAR or node.input[1] not in constants:
        return None
    given = constants[node.input[1]]
    dense = node.op_type in ("Gemm", "MatMul")
    known = rank if node.op_type == "MatMul" else given.ndim
    if given.dtype.kind != "f" or known is None or known < 2 or (dense and given.ndim != 2):
        return None
    attributes = node_attributes(node)
    weight = _canonical(node, given.astype(np.float64)) * attributes.get("alpha", 1.0)
    linear = Linear(node, known, weight, given.shape, given.dtype)
    name = node.input[2] if len(node.input) > 2 else ""
    if not name:
        return linear
    count = weight.shape[0] * weight.shape[1]
    value = constants.get(name)
    if value is None:
        return None
    row = (1,) * (2 - value.ndim) + value.shape
    if len(row) > 2 or row[0] != 1 or row[1] not in (1, count):
        return None
    bias = np.broadcast_to(value.reshape(-1), (count,)) * float(attributes.get("beta", 1.0))
    kept = name if attributes.get("beta", 1.0) == 1 else ""
    return replace(linear, bias=bias.astype(np.float64), bias_name=kept)


def _canonical(node: onnx.NodeProto, weight: Array) -> Array:
    """Weights as (groups, outputs, inputs, window)."""
    attributes = node_attributes(node)
    if node.op_type in ("Gemm", "MatMul"):
        matrix = weight if attributes.get("transB") else weight.T
        return matrix[np.newaxis, :, :, np.newaxis]
    groups = int(attributes.get("group", 1))
    first, second = weight.shape[0] // groups, weight.shape[1]
    grouped = weight.reshape(groups, first, second, -1)
    return grouped if node.op_type == "Conv" else grouped.transpose(0, 2, 1, 3)


def _restored(node: onnx.NodeProto, weight: Array, shape: tuple[int, ...]) -> Array:
    """Weights as the node holds them."""
    if node.op_type in ("Gemm", "MatMul"):
        matrix = weight[0, :, :, 0]
        return matrix if node_attributes(node).get("transB") else matrix.T
    grouped = weight if node.op_type == "Conv" else weight.transpose(0, 2, 1, 3)
    return grouped.reshape(shape)
