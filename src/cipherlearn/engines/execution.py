"""Running a circuit in one of the three modes: the switch that all models share."""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np

from cipherlearn.circuit import Circuit, Evaluation, evaluate, simulate
from cipherlearn.circuit.evaluate import check_inputs
from cipherlearn.engines.base import Program
from cipherlearn.engines.progress import bar
from cipherlearn.errors import InvalidParameterError, NotCompiledError


class FheMode(str, Enum):
    """How a model computes.

    ``disable``: the exact integers, in the clear. ``simulate``: in the clear, with the errors that
    encryption may cause. ``execute``: on encrypted data.
    """

    DISABLE = "disable"
    SIMULATE = "simulate"
    EXECUTE = "execute"

    @classmethod
    def of(cls, mode: str | FheMode) -> FheMode:
        """The mode of that name.

        Raises
        ------
        InvalidParameterError
            If there is none; the message lists those that exist.
        """
        try:
            return cls(mode)
        except ValueError:
            accepted = ", ".join(repr(known.value) for known in cls)
            raise InvalidParameterError(f"fhe must be one of {accepted}, not {mode!r}") from None

    @classmethod
    def is_valid(cls, mode: Any) -> bool:
        """Whether there is a mode of that name."""
        return isinstance(mode, str) and mode in {known.value for known in cls}


def run_circuit(
    circuit: Circuit,
    program: Program | None,
    *integers: np.ndarray,
    fhe: str | FheMode = FheMode.DISABLE,
    random_state: int = 0,
) -> Evaluation:
    """Run a circuit on a batch.

    Parameters
    ----------
    circuit : Circuit
    program : Program or None
        The compiled circuit; needed to simulate and to execute.
    *integers : numpy.ndarray of integers, each of shape (batch, *shape)
        One array an input.
    fhe : {"disable", "simulate", "execute"}, default="disable"
        Executing makes keys if there are none, and encrypts one row at a time.
    random_state : int, default=0
        Seed of simulated errors.

    Returns
    -------
    Evaluation
        Encrypted values cannot be looked at: overflows of ``"execute"`` are those of the exact
        evaluation.

    Raises
    ------
    NotCompiledError
        If the circuit was not compiled and the mode needs it.
    """
    mode = FheMode.of(fhe)
    if mode is FheMode.DISABLE:
        return evaluate(circuit, *integers)
    if program is None:
        raise NotCompiledError(
            f"the model is not compiled: call compile() before fhe={mode.value!r}, or use "
            "fhe='disable'"
        )
    if mode is FheMode.SIMULATE:
        return simulate(circuit, *integers, p_error=program.p_error, random_state=random_state)
    return _execute(circuit, program, check_inputs(circuit, integers))


def _execute(circuit: Circuit, program: Program, arrays: list[np.ndarray]) -> Evaluation:
    expected = evaluate(circuit, *arrays)
    rows = arrays[0].shape[0]
    if not rows:
        return expected
    if not program.has_keys:
        program.keygen()
    results: list[tuple[np.ndarray, ...]] = []
    for row in bar(range(rows), "encrypted rows"):
        result = program.encrypt_run_decrypt(*(array[row] for array in arrays))
        results.append(result if isinstance(result, tuple) else (result,))
    outputs = tuple(np.stack(parts).astype(np.int64) for parts in zip(*results, strict=True))
    return Evaluation(outputs, expected.overflows)
