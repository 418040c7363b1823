"""Operators that are written with simpler operators (an expansion), in place of an integer form.

An expansion keeps the float meaning: a layer normalization becomes means, products and a root. It
is given what its operands are for one row of calibration data, so that all shapes are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cipherlearn.ops._operands import Array

#: ``(operator, inputs, opset, attributes) -> outputs``: evaluates one operator on arrays.
Evaluate = Callable[[str, Sequence[Array | None], int, Mapping[str, Any]], tuple[Array, ...]]


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of a graph that is being rewritten.

    Parameters
    ----------
    name : str
    sample : numpy.ndarray
        Its value for one row: axis 0, the batch, has extent 1 unless the tensor is constant.
    constant : bool
        Whether it is part of the model.
    """

    name: str
    sample: Array
    constant: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape for one row."""
        return self.sample.shape

    @property
    def ndim(self) -> int:
        """Number of axes, that of the batch included."""
        return self.sample.ndim


@dataclass(frozen=True)
class Step:
    """One node of an expansion: the names of its operands ("" for none) and of its result."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]


@dataclass
class Composer:
    """Collects the nodes of an expansion.

    Parameters
    ----------
    prefix : str
        Begins the names of all new tensors.
    opset : int
        Operator set of the graph.
    evaluate : callable
        Computes an operator on arrays.

    Attributes
    ----------
    steps : list of Step
        In topological order.
    constants : dict of str to numpy.ndarray
        New constants that the steps read.
    samples : dict of str to numpy.ndarray
        What the steps compute for one row.
    """

    prefix: str
    opset: int
    evaluate: Evaluate
    steps: list[Step] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    samples: dict[str, Array] = field(default_factory=dict)

    def constant(self, value: Any) -> Tensor:
        """A new constant."""
        array = np.asarray(value)
        name = f"{self.prefix}/constant_{len(self.constants)}"
        self.constants[name] = array
        return Tensor(name, array, constant=True)

    def add(self, op: str, *operands: Any, **attributes: Any) -> Tensor:
        """The first result of an operator.

        Parameters
        ----------
        op : str
            Name of a registered operator.
        *operands : Tensor, array_like or None
            Plain numbers take the dtype of the first tensor that is given; None is left out.
        **attributes
            Attributes of the node.

        Returns
        -------
        Tensor
            A constant if all operands are.
        """
        given = [one for one in operands if isinstance(one, Tensor)]
        tensors = [self._tensor(one, given[0].sample.dtype if given else None) for one in operands]
        samples = [None if one is None else one.sample for one in tensors]
        result = self.evaluate(op, samples, self.opset, attributes)[0]
        if all(one is None or one.constant for one in tensors):
            return self.constant(result)
        name = f"{self.prefix}/{op}_{len(self.steps)}"
        names = tuple("" if one is None else one.name for one in tensors)
        self.steps.append(Step(op, names, name, dict(attributes)))
        self.samples[name] = result
        return Tensor(name, result)

    def reshape(self, value: Tensor, *shape: int) -> Tensor:
        """The value of each row in another shape (the batch axis, which stays, is left out)."""
        target = np.array([-1 if value.constant else 0, *shape], dtype=np.int64)
        return self.add("Reshape", value, self.constant(target))

    def _tensor(self, operand: Any, dtype: np.dtype[Any] | None) -> Tensor | None:
        if operand is None or isinstance(operand, Tensor):
            return operand
        array = np.asarray(operand)
        plain = not isinstance(operand, (np.ndarray, np.generic))
        if plain and dtype is not None and array.dtype.kind in "if":
            array = array.astype(dtype)
        return self.constant(array)


#: ``(composer, operands, attributes) -> results``: the same function, with other operators.
Expand = Callable[
    [Composer, Sequence[Tensor | None], Mapping[str, Any]], "Tensor | Sequence[Tensor]"
]
