"""Real encrypted samples against the exact evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cipherlearn.circuit import allowed_results, evaluate, ir
from cipherlearn.circuit.evaluate import check_inputs
from cipherlearn.engines.base import IntArray, Program
from cipherlearn.errors import EngineError, SelfCheckError

#: Where ``p_error`` alone explains a difference with more than this probability, it is counted.
EXPLAINED_BY_P_ERROR = 1e-6


@dataclass(frozen=True)
class SelfCheck:
    """What a self-check saw.

    Parameters
    ----------
    rows : int
        Samples that were encrypted, run, decrypted and compared.
    skipped : int
        Samples left out because they leave a range that was only observed (overflows): no engine
        can be right on them.
    differing : int
        Samples with another result than allowed. Not 0 only where ``p_error`` makes that likely;
        otherwise `SelfCheckError` is raised.
    """

    rows: int
    skipped: int
    differing: int = 0


def self_check(program: Program, *inputs: npt.ArrayLike, locate: bool = True) -> SelfCheck:
    """Compare encrypted results with those that the exact evaluator allows.

    Parameters
    ----------
    program : Program
        Keys are made if it has none.
    *inputs : array-like of int, each of shape (rows, *shape)
        One array an input of the circuit.
    locate : bool, default=True
        On a difference, find the first node that differs, by compiling and running parts of the
        circuit. Takes a key generation for each part.

    Returns
    -------
    SelfCheck

    Raises
    ------
    SelfCheckError
        If a result is not allowed and ``p_error`` does not explain it.
    """
    arrays = check_inputs(program.circuit, tuple(np.asarray(array) for array in inputs))
    rows = arrays[0].shape[0] if arrays else 0
    samples = [[array[row : row + 1] for array in arrays] for row in range(rows)]
    usable = [s for s in samples if not evaluate(program.circuit, *s).overflow_count]
    program.keygen()
    expected = program.global_p_error * max(1, len(usable)) > EXPLAINED_BY_P_ERROR
    differing = 0
    for sample in usable:
        if first_difference(program, sample) is None:
            continue
        differing += 1
        if not expected:
            raise SelfCheckError(_describe(program, sample, locate))
    return SelfCheck(len(usable), rows - len(usable), differing)


def first_difference(program: Program, sample: Sequence[IntArray]) -> str | None:
    """Run one sample (with a batch axis of one) encrypted; what differs first, or None."""
    results = program.encrypt_run_decrypt(*(array[0] for array in sample))
    found = results if isinstance(results, tuple) else (results,)
    allowed = allowed_results(program.circuit, *sample)
    names = program.circuit.output_names
    for name, value, (lowest, highest) in zip(names, found, allowed, strict=True):
        wrong = np.argwhere((value < lowest[0]) | (value > highest[0]))
        if len(wrong):
            where = tuple(int(i) for i in wrong[0])
            low, high = int(lowest[0][where]), int(highest[0][where])
            right = f"{low}" if low == high else f"{low} to {high}"
            return (
                f"{len(wrong)} of {value.size} elements of {name} differ; the first, at "
                f"{list(where)}, is {int(value[where])} and should be {right}"
            )
    return None


def locate_difference(program: Program, sample: Sequence[IntArray]) -> int | None:
    """Position of the first node whose encrypted value is wrong, or None if no part is wrong.

    Parts of the circuit are compiled and run one by one: halving first, then along the operands,
    so that the node found differs while everything it reads does not.

    Parameters
    ----------
    program : Program
        A program that gives a wrong result.
    sample : sequence of numpy.ndarray, each of shape (1, *shape)
        The inputs for which it does.
    """
    circuit = program.circuit
    known: dict[int, bool] = {}

    def differs(position: int) -> bool:
        if position not in known:
            known[position] = _part_differs(program, position, sample)
        return known[position]

    candidates = _computed_nodes(circuit)
    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        if differs(candidates[middle]):
            high = middle
        else:
            low = middle + 1
    wrong = [position for position in candidates if known.get(position)]
    if not wrong:
        return next((position for position in circuit.outputs if differs(position)), None)
    position = wrong[0]
    computed = set(candidates)
    while True:
        earlier = [i for i in circuit.nodes[position].inputs if i in computed and differs(i)]
        if not earlier:
            return position
        position = earlier[0]


def _computed_nodes(circuit: ir.Circuit) -> list[int]:
    """Nodes that an engine computes, in order."""
    return [
        position
        for position, node in enumerate(circuit.nodes)
        if node.encrypted and not isinstance(node.primitive, ir.Input)
    ]


def _part_differs(program: Program, position: int, sample: Sequence[IntArray]) -> bool:
    part = program.circuit.truncate(position)
    try:
        with program.engine.compile(part, program.options) as partial:
            partial.keygen()
            return first_difference(partial, sample) is not None
    except EngineError:
        # A value that only a look-up reads may be too wide to be a result: nothing is known of it.
        return False


def _describe(program: Program, sample: Sequence[IntArray], locate: bool) -> str:
    message = f"an encrypted result is wrong: {first_difference(program, sample)}"
    if not locate:
        return message
    position = locate_difference(program, sample)
    if position is None:
        return (
            f"{message}. Every part of the circuit is right on its own: report this circuit, and "
            "do not rely on its encrypted results"
        )
    node = program.circuit.nodes[position]
    return (
        f"{message}. The first node that differs is %{position} = {node}. Report this circuit; "
        "other bits (n_bits), rounding, or splitting that layer may avoid the fault"
    )
