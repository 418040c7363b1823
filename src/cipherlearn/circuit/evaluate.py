"""Exact evaluation of a circuit on batches: the meaning of the program.

It is what ``fhe="disable"`` computes, and the reference that engines are tested against.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from cipherlearn.circuit import ir, kernels
from cipherlearn.errors import InvalidParameterError, InvalidShapeError, InvalidTypeError

#: Elements of the largest node that are evaluated at once; larger batches are cut into pieces.
CHUNK_ELEMENTS = 2**22


@dataclass(frozen=True)
class Evaluation:
    """Results of a circuit on a batch.

    Parameters
    ----------
    outputs : tuple of numpy.ndarray of int64, each of shape (batch, *shape)
    overflows : mapping of int to int
        For every node with a declared range, how many values of the batch lay outside.
    values : mapping of int to numpy.ndarray
        Values of the nodes that were asked for, by position.
    """

    outputs: tuple[np.ndarray, ...]
    overflows: Mapping[int, int] = field(default_factory=dict)
    values: Mapping[int, np.ndarray] = field(default_factory=dict)

    @property
    def overflow_count(self) -> int:
        """Values outside of declared ranges, over all nodes and rows."""
        return sum(self.overflows.values())


class Semantics:
    """What the nodes compute in which encrypted execution may err; this one is exact.

    `cipherlearn.circuit.simulate` has an error model. It is asked for encrypted look-ups,
    roundings, maxima and products of two encrypted values only (`Circuit.is_noisy`).
    """

    def compute(self, primitive: ir.Primitive, *operands: np.ndarray) -> np.ndarray:
        """Result of one primitive on batched operands."""
        return kernels.apply(primitive, *operands)


EXACT = Semantics()


def evaluate(
    circuit: ir.Circuit,
    *inputs: np.ndarray,
    keep: Iterable[int] = (),
    semantics: Semantics = EXACT,
) -> Evaluation:
    """Run a circuit in the clear.

    Parameters
    ----------
    circuit : Circuit
    *inputs : numpy.ndarray of integers, each of shape (batch, *shape)
        One array an input of the circuit; all with as many rows.
    keep : iterable of int, default=()
        Positions of the nodes whose values are returned as well.
    semantics : Semantics, default=EXACT
        How look-ups, roundings, maxima and products of encrypted values behave.

    Returns
    -------
    Evaluation

    Raises
    ------
    InvalidShapeError, InvalidTypeError, InvalidParameterError
        If the arrays do not fit the inputs (number, shape, dtype, range).
    """
    # Each piece becomes int64 by itself: inputs of many bits take a byte each until then.
    arrays = _checked(circuit, inputs)
    rows = arrays[0].shape[0]
    wanted = frozenset(keep)
    # Constants do not grow with the batch, however large they are.
    largest = max(node.size for node in circuit.nodes if not node.is_constant)
    step = max(1, CHUNK_ELEMENTS // max(1, largest))
    pieces = [
        _evaluate_piece(circuit, [a[start : start + step] for a in arrays], wanted, semantics)
        for start in range(0, max(rows, 1), step)
    ]
    if len(pieces) == 1:
        return pieces[0]
    return Evaluation(
        tuple(np.concatenate(parts) for parts in zip(*(p.outputs for p in pieces), strict=True)),
        {k: sum(p.overflows[k] for p in pieces) for k in pieces[0].overflows},
        {k: np.concatenate([p.values[k] for p in pieces]) for k in pieces[0].values},
    )


def check_inputs(circuit: ir.Circuit, inputs: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """The inputs as int64 arrays, once they are known to fit the circuit."""
    return [array.astype(np.int64, copy=False) for array in _checked(circuit, inputs)]


def _checked(circuit: ir.Circuit, inputs: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """As `check_inputs`, in the dtype that they were given in."""
    expected = circuit.inputs
    if len(inputs) != len(expected):
        names = ", ".join(repr(i.label) for i in expected)
        raise InvalidShapeError(
            f"{len(inputs)} arrays were given; the circuit takes {len(expected)} ({names})"
        )
    arrays = [np.asarray(array) for array in inputs]
    for array, known in zip(arrays, expected, strict=True):
        if array.dtype.kind not in "iu":
            raise InvalidTypeError(
                f"the input {known.label!r} has dtype {array.dtype}; a circuit reads integers "
                "(quantize_input makes them from floats)"
            )
        if not array.ndim or array.shape[1:] != known.shape:
            raise InvalidShapeError(
                f"the input {known.label!r} has shape {array.shape}; it must be "
                f"({', '.join(map(str, ('rows', *known.shape)))})"
            )
        if array.shape[0] != arrays[0].shape[0]:
            raise InvalidShapeError(
                f"the input {known.label!r} has {array.shape[0]} rows, {expected[0].label!r} has "
                f"{arrays[0].shape[0]}: all inputs need as many"
            )
        if array.size and (array.min() < known.lo or array.max() > known.hi):
            raise InvalidParameterError(
                f"the input {known.label!r} holds integers from {array.min()} to {array.max()}; "
                f"it takes {known.lo} to {known.hi}"
            )
    return arrays


def _evaluate_piece(
    circuit: ir.Circuit, inputs: list[np.ndarray], keep: frozenset[int], semantics: Semantics
) -> Evaluation:
    rows = inputs[0].shape[0]
    last_use = {index: place for place, node in enumerate(circuit.nodes) for index in node.inputs}
    held = keep | set(circuit.outputs)
    given = iter(inputs)
    values: dict[int, np.ndarray] = {}
    overflows: dict[int, int] = {}
    for position, node in enumerate(circuit.nodes):
        if isinstance(node.primitive, ir.Input):
            values[position] = next(given).astype(np.int64, copy=False)
            continue
        operands = [values[index] for index in node.inputs]
        if isinstance(node.primitive, ir.Assume):
            outside = (operands[0] < node.primitive.lo) | (operands[0] > node.primitive.hi)
            overflows[position] = int(np.count_nonzero(outside))
        rule = semantics if circuit.is_noisy(position) else EXACT
        values[position] = rule.compute(node.primitive, *operands)
        for index in set(node.inputs) - held:
            if last_use[index] == position:
                del values[index]

    def result(position: int) -> np.ndarray:
        # A copy: movements of an input share the caller's memory.
        value = values[position]
        return np.broadcast_to(value, (rows, *value.shape[1:])).copy()

    return Evaluation(
        tuple(result(position) for position in circuit.outputs),
        overflows,
        {position: result(position) for position in sorted(keep)},
    )
