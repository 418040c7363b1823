"""The integer program: primitives, nodes, and the circuit that they make.

A circuit describes ONE sample: shapes carry no batch axis. It knows neither where it comes from
(ONNX, a tree, a linear model) nor what runs it. All values are integers; everything real-valued has
become a table look-up before it arrives here (see `cipherlearn.circuit.builder`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from cipherlearn.circuit.interval import Interval
from cipherlearn.errors import CircuitError

#: One part of an index: an integer, a slice, or a 1-D array of integers.
IndexPart = int | slice | np.ndarray


def _frozen(value: Any) -> Any:
    """Arrays, and arrays inside of tuples, as read-only copies; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(_frozen(part) for part in value)
    if not isinstance(value, np.ndarray):
        return value
    own = value.copy()
    own.flags.writeable = False
    return own


@dataclass(frozen=True, eq=False)
class Primitive:
    """Base of the operations of a circuit.

    Arrays are kept as read-only copies: a circuit does not change when its maker's arrays do.
    """

    def __post_init__(self) -> None:
        for part in fields(self):
            object.__setattr__(self, part.name, _frozen(getattr(self, part.name)))

    @property
    def name(self) -> str:
        """Name used in reports, messages and files."""
        return type(self).__name__


@dataclass(frozen=True, eq=False)
class Input(Primitive):
    """A value given by the client: integers within ``[lo, hi]``, encrypted or clear."""

    label: str
    shape: tuple[int, ...]
    lo: int
    hi: int
    encrypted: bool = True


@dataclass(frozen=True, eq=False)
class Constant(Primitive):
    """Integers known when the circuit is built."""

    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Add(Primitive):
    """Element-wise sum of two values."""


@dataclass(frozen=True, eq=False)
class Subtract(Primitive):
    """Element-wise difference of two values."""


@dataclass(frozen=True, eq=False)
class Multiply(Primitive):
    """Element-wise product; two encrypted operands cost two look-ups an element."""


@dataclass(frozen=True, eq=False)
class MatMul(Primitive):
    """Matrix product over the last two axes, the others broadcast as in NumPy."""


@dataclass(frozen=True, eq=False)
class Convolve(Primitive):
    """Cross-correlation of (batch, channels, *space) with constant (out, channels/groups, *kernel).

    Padding is with zeros: shift the input first if its zero-point is another integer.
    """

    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int = 1


@dataclass(frozen=True, eq=False)
class Sum(Primitive):
    """Sum over axes."""

    axes: tuple[int, ...]
    keepdims: bool = False


@dataclass(frozen=True, eq=False)
class Index(Primitive):
    """Selection with constant indices, as ``value[key]`` in NumPy.

    Parts are integers and slices, or slices and ONE array: with more arrays, or integers beside an
    array, NumPy may move axes to the front, which means something else on a batch. The builder
    writes such keys as a selection from the flattened value.
    """

    key: tuple[IndexPart, ...]


@dataclass(frozen=True, eq=False)
class Reshape(Primitive):
    """The same elements in another shape."""

    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Transpose(Primitive):
    """Axes in another order."""

    axes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Concatenate(Primitive):
    """Values joined along an axis."""

    axis: int


@dataclass(frozen=True, eq=False)
class Broadcast(Primitive):
    """Elements repeated up to a shape."""

    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Lookup(Primitive):
    """A table look-up: one programmable bootstrapping an element.

    Parameters
    ----------
    table : numpy.ndarray of int64, shape (n, *broadcast)
        Row ``i`` holds the results for the input ``start + i * step``; the other axes (as many as
        the value has, or none) broadcast to the value's shape, so that a table an element, or a
        channel, is allowed. Inputs outside the domain read the nearest row.
    start, step : int
        The domain.
    """

    table: np.ndarray
    start: int
    step: int = 1


@dataclass(frozen=True, eq=False)
class Round(Primitive):
    """Rounding to the nearest multiple of ``2**lsbs`` (halves upwards), keeping the scale.

    Exact rounding costs look-ups for every bit removed. Approximate rounding costs none, but a
    value near a boundary may land on the neighbouring multiple.
    """

    lsbs: int
    exact: bool = True


@dataclass(frozen=True, eq=False)
class Assume(Primitive):
    """A declared range: values are taken to lie within ``[lo, hi]``.

    The exact evaluator counts the values outside and moves them to the border; an engine that
    meets one returns a wrong result.

    Parameters
    ----------
    lo, hi : numpy.ndarray of int64
        They broadcast to the value's shape.
    encoded : bool, default=False
        Whether the range follows from how the client encodes its inputs (of one-hot bits one is
        set), which intervals of single bits do not tell. Otherwise it was observed on data.
    """

    lo: np.ndarray
    hi: np.ndarray
    encoded: bool = False


@dataclass(frozen=True, eq=False)
class Maximum(Primitive):
    """Element-wise maximum of two values: one look-up an element."""


PRIMITIVES: dict[str, type[Primitive]] = {
    kind.__name__: kind
    for kind in (
        Input,
        Constant,
        Add,
        Subtract,
        Multiply,
        MatMul,
        Convolve,
        Sum,
        Index,
        Reshape,
        Transpose,
        Concatenate,
        Broadcast,
        Lookup,
        Round,
        Assume,
        Maximum,
    )
}

#: Operations that only move elements: they cost nothing and keep every integer as it is.
MOVEMENTS = (Index, Reshape, Transpose, Concatenate, Broadcast)

#: Operations that are linear in their encrypted operands: arithmetic modulo the width, no look-up.
LINEAR = (Add, Subtract, Multiply, MatMul, Convolve, Sum, *MOVEMENTS)


@dataclass(frozen=True, eq=False)
class Node:
    """A primitive applied to earlier nodes of the circuit.

    Parameters
    ----------
    primitive : Primitive
    inputs : tuple of int
        Positions of the operands in `Circuit.nodes`; all smaller than the node's own.
    interval : Interval
        Range of every element; its shape is the node's shape.
    encrypted : bool
        Whether the value depends on an encrypted input.
    label : str
        Where the node comes from (the model's layer), for messages and reports.
    """

    primitive: Primitive
    inputs: tuple[int, ...]
    interval: Interval
    encrypted: bool
    label: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value, without the batch axis."""
        return self.interval.shape

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.interval.lo.size

    @property
    def is_constant(self) -> bool:
        """Whether the node is a constant of the program."""
        return isinstance(self.primitive, Constant)

    def __str__(self) -> str:
        operands = ", ".join(f"%{index}" for index in self.inputs)
        where = f"  # {self.label}" if self.label else ""
        kind = "encrypted" if self.encrypted else "clear"
        return (
            f"{self.primitive.name}({operands}) -> {kind} {list(self.shape)} "
            f"in [{self.interval.min}, {self.interval.max}], {self.interval.width} bits{where}"
        )


@dataclass(frozen=True, eq=False)
class Circuit:
    """A small integer program on one sample.

    Parameters
    ----------
    nodes : tuple of Node
        In topological order.
    outputs : tuple of int
        Positions of the results in `nodes`.
    output_names : tuple of str
        One name a result.

    Raises
    ------
    CircuitError
        If there is no result, a position points nowhere, or names do not match the results.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    output_names: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.outputs:
            raise CircuitError("a circuit needs at least one output")
        if not self.output_names:
            names = tuple(f"output_{i}" for i in range(len(self.outputs)))
            object.__setattr__(self, "output_names", names)
        if len(self.output_names) != len(self.outputs):
            raise CircuitError(
                f"{len(self.outputs)} outputs need as many names, not {len(self.output_names)}"
            )
        if len(set(self.output_names)) < len(self.output_names):
            raise CircuitError(f"output names must differ, not {list(self.output_names)}")
        for position, node in enumerate(self.nodes):
            if any(not 0 <= index < position for index in node.inputs):
                raise CircuitError(f"node {position} ({node.primitive.name}) reads a later node")
        if any(not 0 <= index < len(self.nodes) for index in self.outputs):
            raise CircuitError("an output points outside of the circuit")

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The inputs, in the order in which they are given."""
        return tuple(n.primitive for n in self.nodes if isinstance(n.primitive, Input))

    @property
    def input_positions(self) -> tuple[int, ...]:
        """Positions of the inputs in `nodes`."""
        return tuple(i for i, n in enumerate(self.nodes) if isinstance(n.primitive, Input))

    @property
    def output_nodes(self) -> tuple[Node, ...]:
        """The nodes that are results."""
        return tuple(self.nodes[index] for index in self.outputs)

    @property
    def assumptions(self) -> tuple[int, ...]:
        """Positions of the nodes whose range was observed, not proved."""
        return tuple(
            position
            for position, node in enumerate(self.nodes)
            if isinstance(node.primitive, Assume) and not node.primitive.encoded
        )

    @property
    def is_proved(self) -> bool:
        """Whether every range follows from the ranges of the inputs alone."""
        return not self.assumptions

    @property
    def is_deterministic(self) -> bool:
        """Whether an engine must give exactly one result (no approximate rounding)."""
        return all(
            node.primitive.exact
            for node in self.nodes
            if isinstance(node.primitive, Round) and node.encrypted
        )

    def is_noisy(self, position: int) -> bool:
        """Whether encrypted execution may err in a node itself: look-ups, roundings, products."""
        node = self.nodes[position]
        if not node.encrypted:
            return False
        if isinstance(node.primitive, (Multiply, MatMul)):
            return all(self.nodes[index].encrypted for index in node.inputs)
        return isinstance(node.primitive, (Lookup, Round, Maximum))

    def consumers(self) -> list[list[int]]:
        """For every node, the positions of the nodes that read it."""
        readers: list[list[int]] = [[] for _ in self.nodes]
        for position, node in enumerate(self.nodes):
            for index in dict.fromkeys(node.inputs):
                readers[index].append(position)
        return readers

    def truncate(self, position: int) -> Circuit:
        """The part of the circuit that computes one node, with that node as its result.

        All inputs are kept, so that the same samples can be given; nodes that the result does not
        depend on are left out, so positions may differ.
        """
        return prune(Circuit(self.nodes, (position,)))

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __str__(self) -> str:
        lines = [f"%{position} = {node}" for position, node in enumerate(self.nodes)]
        results = ", ".join(
            f"{name}=%{index}" for name, index in zip(self.output_names, self.outputs, strict=True)
        )
        return "\n".join([*lines, f"return {results}"])


def prune(circuit: Circuit) -> Circuit:
    """The same circuit without nodes that no result reads (inputs are kept)."""
    needed = set(circuit.outputs) | set(circuit.input_positions)
    for position in range(len(circuit.nodes) - 1, -1, -1):
        if position in needed:
            needed.update(circuit.nodes[position].inputs)
    kept = sorted(needed)
    place = {old: new for new, old in enumerate(kept)}
    nodes = tuple(
        replace(node, inputs=tuple(place[index] for index in node.inputs))
        for node in (circuit.nodes[old] for old in kept)
    )
    outputs = tuple(place[index] for index in circuit.outputs)
    return Circuit(nodes, outputs, circuit.output_names)
