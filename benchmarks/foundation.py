"""Figures of the path from a float network to an encrypted prediction, on a digits network."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.networks import NETWORKS, Case, digits_mlp, digits_mlps
from benchmarks.quantized import overflow_share
from benchmarks.report import Figure
from cipherlearn.circuit import Builder, Circuit, evaluate
from cipherlearn.engines import get_engine
from cipherlearn.quantization import QuantizedModule
from cipherlearn.torch import build_quantized_module

#: Kept bits -> accuracy and complexity of Concrete ML 1.9 on this network (64-32-32-10, float
#: 0.969) with n_bits 6, calibrated on 500 rows: the targets.
PEER = {6: (0.967, 7.9e10), 4: (0.958, 1.2e10)}
#: Kept bits -> least accuracy, and the n_bits that it is reached with.
LEAST, BITS = {6: 0.966, 4: 0.958}, {6: 6, 4: 4}

#: Small random networks, and encrypted rows of each, for the bit-for-bit comparison.
RANDOM_NETWORKS, ROWS_EACH = 10, 20


def run() -> Iterator[Figure]:
    """All figures, in the order of the README's table."""
    case = digits_mlp()
    yield Figure("float accuracy, digits 64-32-32-10", case.float_accuracy)
    for kept in (6, 4):
        module = _quantized(case, kept)
        program = get_engine().compile(module.circuit)
        accuracy, complexity = PEER[kept]
        name = f"n_bits {BITS[kept]}, approximate {kept}"
        measured = case.accuracy(module.forward(case.x_test))
        yield Figure(f"{name}: accuracy", measured, at_least=LEAST[kept], peer=accuracy)
        yield Figure(f"{name}: complexity", program.complexity, at_most=complexity, peer=complexity)
        share = overflow_share(module, len(case.x_test))
        yield Figure(f"{name}: share of accumulators that overflow on test rows", share)
    yield from _over_networks()
    yield from _speed(case)
    yield Figure("import cipherlearn (s)", _import_seconds(), at_most=0.3)
    yield from _bit_for_bit()


def _quantized(case: Case, kept: int) -> QuantizedModule:
    rounding = {"n_bits": kept, "method": "approximate"}
    return build_quantized_module(
        case.net, case.calibration, n_bits=BITS[kept], rounding_threshold_bits=rounding
    )


def _over_networks() -> Iterator[Figure]:
    """The same over several networks."""
    cases = digits_mlps()
    yield Figure(
        f"float accuracy, mean of {NETWORKS} networks",
        statistics.mean(case.float_accuracy for case in cases),
    )
    for kept in (6, 4):
        scores = [case.accuracy(_quantized(case, kept).forward(case.x_test)) for case in cases]
        name = f"n_bits {BITS[kept]}, approximate {kept}: accuracy, mean of {NETWORKS} networks"
        yield Figure(name, statistics.mean(scores))


def _speed(case: Case) -> Iterator[Figure]:
    """Times of the steps that need no key, on the 450 test rows."""
    module = _quantized(case, 4)
    module.compile()
    clear = _median_seconds(lambda: module.forward(case.x_test))
    yield Figure("fhe='disable', 450 rows (s)", clear, at_most=0.020)
    simulated = _median_seconds(lambda: module.forward(case.x_test, fhe="simulate"))
    yield Figure("fhe='simulate', 450 rows (s)", simulated, at_most=0.5, peer=9.0)
    compiled = _median_seconds(lambda: get_engine().compile(module.circuit), runs=3)
    yield Figure("compiling, without keys (s)", compiled, at_most=1.5)
    seconds = _encrypted_seconds(module, case)
    yield Figure("one encrypted prediction (s)", seconds)
    yield Figure("its estimate before any key (s)", module.cost().estimated_seconds)


def _encrypted_seconds(module: QuantizedModule, case: Case, rows: int = 5) -> float:
    program = module.fhe_circuit
    program.keygen()
    samples = module.quantize_input(case.x_test[: rows + 1])
    times = []
    for sample in samples:
        start = time.perf_counter()
        program.encrypt_run_decrypt(sample[None])
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])  # the first run unpacks the keys


def _import_seconds() -> float:
    """Median time that the import takes in a fresh interpreter, without the interpreter's own."""
    code = "from time import perf_counter as t; s = t(); import cipherlearn; print(t() - s)"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(5)
    ]
    return statistics.median(float(run.stdout) for run in runs)


def _bit_for_bit() -> Iterator[Figure]:
    """Encrypted results against the exact evaluator, over random networks with exact tables."""
    rng = np.random.default_rng(0)
    mismatches = 0
    for _ in range(RANDOM_NETWORKS):
        circuit = _random_network(rng)
        (source,) = circuit.inputs
        rows = rng.integers(source.lo, source.hi + 1, (ROWS_EACH, *source.shape))
        exact = evaluate(circuit, rows).outputs[0]
        with get_engine().compile(circuit) as program:
            program.keygen()
            for row, expected in zip(rows, exact, strict=True):
                mismatches += not np.array_equal(program.encrypt_run_decrypt(row), expected)
    yield Figure("encrypted rows compared bit for bit", RANDOM_NETWORKS * ROWS_EACH, at_least=200)
    yield Figure("rows that differ", mismatches, at_most=0)


def _random_network(rng: np.random.Generator) -> Circuit:
    """Two linear layers with a random table a channel between them; look-ups of 5 bits at most."""
    inputs, hidden, outputs = rng.integers(2, 6, 3)
    builder = Builder()
    x = builder.input("x", (1, int(inputs)), 0, 3)
    first = rng.integers(-1, 2, (inputs, hidden))
    accumulator = x @ first + rng.integers(-4, 5, (1, hidden))
    interval = accumulator.interval
    table = rng.integers(-4, 8, (interval.max - interval.min + 1, 1, hidden))
    activation = accumulator.lookup(table, interval.min)
    second = rng.integers(-2, 3, (hidden, outputs))
    second[0] = np.maximum(second[0], 1)  # no output is constant
    return builder.finish([activation @ second])


def _median_seconds(function: Callable[[], Any], runs: int = 7) -> float:
    function()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
