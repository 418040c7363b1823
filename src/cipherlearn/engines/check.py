"""Real encrypted samples against the exact evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cipherlearn.circuit import allowed_results, evaluate, ir
from cipherlearn.circuit.evaluate import check_inputs
from cipherlearn.engines.base import EXPLAINED_BY_P_ERROR, IntArray, Program
from cipherlearn.errors import CircuitError, EngineError, SelfCheckError


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
        found = find_difference(program, sample)
        if found is None:
            continue
        differing += 1
        if not expected:
            raise SelfCheckError(_message(program, sample, found, locate))
    return SelfCheck(len(usable), rows - len(usable), differing)


@dataclass(frozen=True)
class Difference:
    """A result that is not allowed.

    Parameters
    ----------
    output : int
        Position of the wrong output in the circuit's nodes.
    text : str
        What differs, for messages.
    """

    output: int
    text: str


def find_difference(program: Program, sample: Sequence[IntArray]) -> Difference | None:
    """Run one sample encrypted and compare.

    Parameters
    ----------
    program : Program
        With keys.
    sample : sequence of numpy.ndarray, each of shape (1, *shape)

    Returns
    -------
    Difference or None
        The first output that is wrong.
    """
    circuit = program.circuit
    try:
        results = program.encrypt_run_decrypt(*(array[0] for array in sample))
    except SelfCheckError as error:
        return Difference(circuit.outputs[0], str(error))
    found = results if isinstance(results, tuple) else (results,)
    allowed = allowed_results(circuit, *sample)
    for index, (value, (lowest, highest)) in enumerate(zip(found, allowed, strict=True)):
        wrong = np.argwhere((value < lowest[0]) | (value > highest[0]))
        if len(wrong):
            where = tuple(int(i) for i in wrong[0])
            low, high = int(lowest[0][where]), int(highest[0][where])
            right = f"{low}" if low == high else f"{low} to {high}"
            text = (
                f"{len(wrong)} of {value.size} elements of {circuit.output_names[index]} differ; "
                f"the first, at {list(where)}, is {int(value[where])} and should be {right}"
            )
            return Difference(circuit.outputs[index], text)
    return None


def locate_difference(
    program: Program, sample: Sequence[IntArray], output: int | None = None
) -> int | None:
    """Position of the first node whose encrypted value is wrong, or None if no part is wrong.

    Parts of the circuit are compiled and run one by one: halving first, then along the operands,
    so that the node found differs while everything it reads does not.

    Parameters
    ----------
    program : Program
        A program that gives a wrong result.
    sample : sequence of numpy.ndarray, each of shape (1, *shape)
        The inputs for which it does.
    output : int or None, default=None
        Position of the wrong output; the first one if None.
    """
    circuit = program.circuit
    known: dict[int, bool] = {}

    def differs(position: int) -> bool:
        if position not in known:
            known[position] = _part_differs(program, position, sample)
        return known[position]

    candidates = _computed_before(circuit, circuit.outputs[0] if output is None else output)
    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        if differs(candidates[middle]):
            high = middle
        else:
            low = middle + 1
    wrong = [position for position in candidates if known.get(position)]
    while wrong:
        earlier = [i for i in circuit.nodes[wrong[0]].inputs if i in candidates and differs(i)]
        if not earlier:
            return wrong[0]
        wrong = earlier
    return None


def _computed_before(circuit: ir.Circuit, output: int) -> list[int]:
    """What an engine computes for a node, and the node itself, in order."""
    needed = {output}
    for position in range(output, -1, -1):
        if position in needed:
            needed.update(circuit.nodes[position].inputs)
    return [
        position
        for position in sorted(needed)
        if circuit.nodes[position].encrypted
        and not isinstance(circuit.nodes[position].primitive, ir.Input)
    ]


def _part_differs(program: Program, position: int, sample: Sequence[IntArray]) -> bool:
    part = program.circuit.truncate(position)
    try:
        with program.engine.compile(part, program.options) as partial:
            partial.keygen()
            return find_difference(partial, sample) is not None
    except (CircuitError, EngineError):
        # A value that only a look-up reads may be too wide to be a result: nothing is known of it.
        return False


def _message(program: Program, sample: Sequence[IntArray], found: Difference, locate: bool) -> str:
    message = f"an encrypted result is wrong: {found.text}"
    if not locate:
        return message
    position = locate_difference(program, sample, found.output)
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
