"""What running a program costs on this machine, estimated before any key is made."""

from __future__ import annotations

import functools
import os
import time
from dataclasses import dataclass

import numpy as np

from cipherlearn.circuit import Circuit, count_lookups
from cipherlearn.circuit.ir import Input
from cipherlearn.engines.base import Program
from cipherlearn.errors import CostWarning, warn

#: Complexity that one core works off per second, for every transform of `_transforms_per_second`.
#: Measured once with Concrete 2.11 on look-ups of 4 to 6 bits, two cores busy: 6.0e9 a core and
#: second where NumPy made 1.84e5 transforms. Bootstrapping is made of such transforms, so that the
#: ratio carries over from one machine to another better than seconds do.
COMPLEXITY_PER_TRANSFORM = 3.3e4

#: What a byte of an encrypted input takes on one core, as complexity: the client encrypts it, the
#: server expands it from its seed. Measured with Concrete 2.11: 17 ns where a core works off 6.0e9.
COMPLEXITY_PER_BYTE = 1.0e2

#: Memory that a running program takes, in multiples of the evaluation keys: as they are stored, and
#: as they are used. Measured between 2.07 (1.3 GB of keys) and 2.12 (0.6 GB).
MEMORY_PER_KEY_BYTE = 2.1

#: Look-ups from which on users are warned of the cost.
MANY_LOOKUPS = 5_000

_TRANSFORM_SIZE = 2048


@dataclass(frozen=True)
class CostReport:
    """Cost of one prediction; prints as a table.

    Parameters
    ----------
    lookups_by_width : dict of int to int
        Table look-ups by the bits that they read.
    programmable_bootstrap_count : int
        All look-ups as the engine counts them, those of exact rounding included.
    complexity : float
        The engine's own figure; deterministic.
    estimated_seconds : float
        Complexity over the speed of this machine, all cores used, and what its inputs take on one
        core. Within a factor of two.
    p_error, global_p_error : float
        Probability that one look-up, or any look-up of one prediction, is wrong.
    size_of_inputs, size_of_outputs : int
        Bytes of one encrypted sample, and of one encrypted result.
    size_of_secret_keys, size_of_evaluation_keys : int
        Bytes of the client's keys, and of the keys that the server needs.
    peak_memory : int
        Bytes that making keys and running take on top of the program itself.
    ranges : str
        Whether accumulator ranges are ``proved``, or ``observed`` on calibration data.
    """

    lookups_by_width: dict[int, int]
    programmable_bootstrap_count: int
    complexity: float
    estimated_seconds: float
    p_error: float
    global_p_error: float
    size_of_inputs: int
    size_of_outputs: int
    size_of_secret_keys: int
    size_of_evaluation_keys: int
    peak_memory: int
    ranges: str

    def __str__(self) -> str:
        counts = [f"{count} of {bits} bits" for bits, count in self.lookups_by_width.items()]
        extra = self.programmable_bootstrap_count - sum(self.lookups_by_width.values())
        if extra > 0:
            counts.append(f"{extra} for exact rounding")
        rows = {
            "table look-ups": ", ".join(counts) or "none",
            "complexity": f"{self.complexity:.3g}",
            "estimated time": f"{self.estimated_seconds:.2g} s on {_cores()} cores of this machine",
            "error probability": f"{self.p_error:.1e} a look-up, {self.global_p_error:.1e} in all",
            "encrypted input": readable_size(self.size_of_inputs),
            "encrypted output": readable_size(self.size_of_outputs),
            "secret keys": readable_size(self.size_of_secret_keys),
            "evaluation keys": readable_size(self.size_of_evaluation_keys),
            "peak memory": readable_size(self.peak_memory),
            "accumulator ranges": self.ranges,
        }
        width = max(map(len, rows))
        return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows.items())


def estimate_cost(circuit: Circuit, program: Program) -> CostReport:
    """Cost of one execution of a program.

    Parameters
    ----------
    circuit : Circuit
    program : Program
        The compiled circuit; needs no keys.
    """
    keys = program.size_of_evaluation_keys
    held = MEMORY_PER_KEY_BYTE * keys + program.size_of_inputs + program.size_of_outputs
    return CostReport(
        lookups_by_width=count_lookups(circuit).by_width,
        programmable_bootstrap_count=program.programmable_bootstrap_count,
        complexity=program.complexity,
        estimated_seconds=(program.complexity + _cores() * _of_inputs(circuit, program))
        / machine_speed(),
        p_error=program.p_error,
        global_p_error=program.global_p_error,
        size_of_inputs=program.size_of_inputs,
        size_of_outputs=program.size_of_outputs,
        size_of_secret_keys=program.size_of_secret_keys,
        size_of_evaluation_keys=keys,
        peak_memory=int(held),
        ranges="proved" if circuit.is_proved else "observed on calibration data, with a margin",
    )


def _of_inputs(circuit: Circuit, program: Program) -> float:
    """What encrypting and expanding the inputs takes, as complexity on one core."""
    elements = sum(n.size for n in circuit if isinstance(n.primitive, Input) and n.encrypted)
    results = sum(node.size for node in circuit.output_nodes if node.encrypted)
    # Inputs are small as they are sent; expanded, they have the size of results.
    return COMPLEXITY_PER_BYTE * elements * program.size_of_outputs / max(1, results)


def warn_of_cost(what: str, lookups: int, complexity: float, advice: str) -> None:
    """Give a `CostWarning` for so many look-ups that a prediction takes very long.

    Parameters
    ----------
    what : str
        What needs them, in the plural.
    lookups : int
        For each row.
    complexity : float
        No less than that.
    advice : str
        What needs fewer.
    """
    if lookups > MANY_LOOKUPS:
        warn(
            f"{what} need {lookups} table look-ups for each row, at least "
            f"{complexity / machine_speed():.2g} s on this machine. {advice}",
            CostWarning,
        )


def machine_speed() -> float:
    """Complexity that this machine works off per second, on all cores."""
    return COMPLEXITY_PER_TRANSFORM * _transforms_per_second() * _cores()


def readable_size(size: float) -> str:
    """Bytes with a unit.

    >>> readable_size(1536), readable_size(2.5e9)
    ('1.5 kB', '2.5 GB')
    """
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


@functools.cache
def _transforms_per_second() -> float:
    """Real Fourier transforms that one core makes per second; takes about 40 ms, once."""
    rows = np.linspace(0.0, 1.0, 32 * _TRANSFORM_SIZE).reshape(32, _TRANSFORM_SIZE)
    best = float("inf")
    for _ in range(40):
        start = time.perf_counter()
        np.fft.rfft(rows, axis=1)
        best = min(best, time.perf_counter() - start)
    return len(rows) / best


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
