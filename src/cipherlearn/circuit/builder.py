"""Writing a circuit as one writes NumPy.

`IntValue` stands for encrypted (or clear) integers, `RealValue` for a real function of one of them.
Both take part in NumPy's operators, ufuncs and a few functions, so the same code computes on arrays
and builds a circuit::

    builder = Builder()
    x = builder.input("x", (1, 4), lo=0, hi=15)
    accumulator = x @ weights                          # an IntValue
    activation = np.maximum(0.1 * accumulator, 0.0)    # a RealValue: a table over the accumulator
    circuit = builder.finish([np.rint(activation).astype(np.int64)])

A `RealValue` is tabulated at once over the domain of its integer source, so any chain of
real-valued operations, with constants that may differ from channel to channel, ends up as ONE table
look-up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from cipherlearn.circuit import bounds, ir
from cipherlearn.circuit.functions import concatenate, convolve
from cipherlearn.circuit.interval import MAXIMUM_MAGNITUDE
from cipherlearn.circuit.ir import prune
from cipherlearn.circuit.shapes import result_shape
from cipherlearn.circuit.values import IntValue, RealValue, check_lookup_width, tabulate
from cipherlearn.errors import AccumulatorOverflowError, CircuitError


class Builder:
    """Collects the nodes of one circuit; equal operations on equal operands become one node."""

    def __init__(self) -> None:
        self._nodes: list[ir.Node] = []
        self._known: dict[tuple[Any, ...], int] = {}
        self._labels: list[str] = [""]

    @contextmanager
    def scope(self, label: str) -> Iterator[None]:
        """Give ``label`` to the nodes made inside (the innermost scope counts)."""
        self._labels.append(label)
        try:
            yield
        finally:
            self._labels.pop()

    @property
    def label(self) -> str:
        """Label of the current scope."""
        return self._labels[-1]

    def input(
        self, label: str, shape: tuple[int, ...], lo: int, hi: int, *, encrypted: bool = True
    ) -> IntValue:
        """A value that the client gives: integers in ``[lo, hi]``.

        Parameters
        ----------
        label : str
            Name of the input, unique in the circuit.
        shape : tuple of int
            Shape of one sample.
        lo, hi : int
            Smallest and largest integer.
        encrypted : bool, default=True
            False for a value that the server may see.
        """
        extents = tuple(int(extent) for extent in shape)
        return self.add(ir.Input(label, extents, int(lo), int(hi), bool(encrypted)))

    def constant(self, values: npt.ArrayLike) -> IntValue:
        """Integers known now."""
        array = np.asarray(values)
        if array.dtype.kind not in "iub":
            raise CircuitError(f"a circuit holds integers, not {array.dtype}")
        if array.size and int(array.max()) >= MAXIMUM_MAGNITUDE:
            # Before the conversion: the largest uint64 is not an int64.
            raise AccumulatorOverflowError(f"the constant {array.max()} does not fit 62 bits")
        return self.add(ir.Constant(array.astype(np.int64)))

    def add(self, primitive: ir.Primitive, *operands: IntValue) -> IntValue:
        """Append a primitive applied to earlier values.

        Parameters
        ----------
        primitive : Primitive
        *operands : IntValue

        Returns
        -------
        IntValue
            An earlier one, if the same was asked for before. A constant, if all operands are.

        Raises
        ------
        CircuitError
            If the primitive does not fit the operands, or they belong to another builder.
        AccumulatorOverflowError
            If the result may leave 62 bits.
        LookupWidthError
            If a look-up reads too wide a value.
        """
        if any(operand.builder is not self for operand in operands):
            raise CircuitError(f"{primitive.name} mixes values of two builders")
        positions = tuple(operand.position for operand in operands)
        key = (type(primitive), _content(primitive), positions)
        if isinstance(primitive, ir.Input) or key not in self._known:
            self._known[key] = self._append(primitive, operands)
        return IntValue(self, self._known[key])

    def _append(self, primitive: ir.Primitive, operands: tuple[IntValue, ...]) -> int:
        """Position of a new node, or of the constant that it amounts to."""
        arguments = [self.node(operand) for operand in operands]
        result_shape(primitive, *(argument.shape for argument in arguments))
        self._check(primitive, operands)
        interval = bounds.infer(primitive, *(argument.interval for argument in arguments))
        # A declared range stays: what lies outside of it is counted.
        folds = bool(arguments) and not isinstance(primitive, ir.Assume)
        if folds and all(argument.is_constant for argument in arguments):
            return self.constant(interval.lo).position
        encrypted = any(argument.encrypted for argument in arguments)
        if isinstance(primitive, ir.Input):
            encrypted = primitive.encrypted
        positions = tuple(operand.position for operand in operands)
        self._nodes.append(ir.Node(primitive, positions, interval, encrypted, self.label))
        return len(self._nodes) - 1

    def _check(self, primitive: ir.Primitive, operands: tuple[IntValue, ...]) -> None:
        """What depends on more than shapes."""
        if isinstance(primitive, ir.Input):
            inputs = (node.primitive for node in self if isinstance(node.primitive, ir.Input))
            if any(known.label == primitive.label for known in inputs):
                raise CircuitError(f"two inputs are named {primitive.label!r}")
        elif isinstance(primitive, ir.Lookup):
            check_lookup_width(operands[0])
        elif isinstance(primitive, ir.Convolve) and not self.node(operands[1]).is_constant:
            raise CircuitError("the kernel of a convolution must be a constant")

    def node(self, value: IntValue) -> ir.Node:
        """The node behind a value."""
        return self._nodes[value.position]

    def finish(self, outputs: Sequence[IntValue], names: Sequence[str] = ()) -> ir.Circuit:
        """The circuit that computes ``outputs``, without the nodes that nothing reads.

        Parameters
        ----------
        outputs : sequence of IntValue
        names : sequence of str, default=()
            One an output; ``output_0``, ``output_1`` ... if there are none.

        Raises
        ------
        CircuitError
            If an output is not an integer value of this builder, or does not depend on any
            encrypted input.
        """
        for position, output in enumerate(outputs):
            name = repr(names[position]) if position < len(names) else f"number {position}"
            foreign = getattr(output, "builder", None) is not self
            if foreign:
                raise CircuitError(
                    f"the output {name} is not an integer value of this builder (a RealValue "
                    "becomes one by astype(np.int64))"
                )
            if not output.encrypted:
                raise CircuitError(
                    f"the output {name} does not depend on an encrypted input: compute it in the "
                    "clear and leave it out of the circuit"
                )
        positions = tuple(output.position for output in outputs)
        return prune(ir.Circuit(tuple(self._nodes), positions, tuple(names)))

    def __iter__(self) -> Iterator[ir.Node]:
        return iter(self._nodes)


def _content(primitive: ir.Primitive) -> tuple[Any, ...]:
    """What distinguishes a primitive from another of its type (arrays by digest)."""
    return tuple(_hashable(getattr(primitive, part.name)) for part in fields(primitive))


def _hashable(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_hashable(part) for part in value)
    if isinstance(value, np.ndarray):
        digest = hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=16).digest()
        return (value.dtype.str, value.shape, digest)
    if isinstance(value, slice):
        return ("slice", value.start, value.stop, value.step)
    # True and 1 are equal, and not the same parameter.
    return (type(value).__name__, value)


__all__ = ["Builder", "IntValue", "RealValue", "concatenate", "convolve", "prune", "tabulate"]
