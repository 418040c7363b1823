"""Figures of convolutional networks: accuracy, cost, and what compiling takes."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.networks import deep_cnn, digits_cnn
from benchmarks.quantized import Setting, encrypted_classes, peak_memory
from benchmarks.report import Figure
from cipherlearn.circuit import count_lookups
from cipherlearn.torch import build_quantized_module

#: Encrypted rows of the digits network.
ROWS = 5


def run() -> Iterator[Figure]:
    """All figures, in the order of the README's table."""
    yield from _digits()
    yield from _deep()


def _digits() -> Iterator[Figure]:
    """Two convolutions, a pool and a linear layer on 8x8 images."""
    case = digits_cnn()
    yield Figure("CNN on digits: float accuracy", case.float_accuracy)
    clear = build_quantized_module(case.net, case.calibration, n_bits=6)
    six_bits = case.accuracy(clear.forward(case.x_test))
    yield Figure("n_bits 6, not rounded, in the clear: accuracy", six_bits)
    module = Setting(6, kept=4).quantized(case)
    program = module.compile()
    yield Figure("look-ups", count_lookups(module.circuit).total, at_most=400)
    yield Figure("n_bits 6, approximate 4: complexity", program.complexity)
    simulated = case.accuracy(module.forward(case.x_test, fhe="simulate"))
    name = "n_bits 6, approximate 4, simulated: accuracy on 450 rows"
    yield Figure(name, simulated, at_least=six_bits - 0.005)
    program.keygen()
    classes, seconds = encrypted_classes(module, case.x_test[:ROWS])
    wrong = int((classes != case.y_test[:ROWS]).sum())
    yield Figure(f"encrypted rows of {ROWS} whose class is wrong", wrong)
    yield Figure("one encrypted prediction (s)", seconds)


def _deep() -> Iterator[Figure]:
    """Twenty convolutions with normalizations on 28x28 images; no keys are made."""
    net, images = deep_cnn()
    start = time.perf_counter()
    rounding = {"n_bits": 4, "method": "approximate"}
    module = build_quantized_module(net, images, n_bits=4, rounding_threshold_bits=rounding)
    module.compile()
    yield Figure("20-layer CNN on 28x28: quantizing and compiling (s)", _since(start), at_most=60)
    yield Figure("its peak memory (GB)", peak_memory(), at_most=4)
    start = time.perf_counter()
    cost = str(module.cost())
    yield Figure(f"its cost report of {len(cost.splitlines())} lines (s)", _since(start), at_most=2)


def _since(start: float) -> float:
    return time.perf_counter() - start
