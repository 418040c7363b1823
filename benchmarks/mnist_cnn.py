"""A convolutional network on MNIST: accuracy against complexity, and encrypted images."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from benchmarks.mnist import mnist_cnn
from benchmarks.networks import Case
from benchmarks.quantized import Setting, encrypted_classes, overflow_share, peak_memory
from benchmarks.report import Figure, Note
from cipherlearn.circuit import count_lookups
from cipherlearn.engines import Program
from cipherlearn.quantization import QuantizedModule

#: Images that are really encrypted.
ENCRYPTED_ROWS = 20

#: Target: accuracy in simulation over all test images.
LEAST_ACCURACY = 0.985

#: Bits of what is encrypted: they are free, as are those of the weights that meet it (6 at least).
INPUT_BITS = 6


def setting(kept: int, weights: int, activations: int = 4) -> Setting:
    """Bits that rounding keeps, of the last layer's weights, and of activations."""
    bits = {"op_weights": weights, "op_inputs": activations, "model_inputs": INPUT_BITS}
    return Setting(bits, kept)


#: Chosen, as the network was, on 5,000 training images that were set apart. The last weights are
#: few, so that 4 bits of them cost what 3 do.
CHOSEN = setting(4, 4)

#: The curve, from cheap to dear.
SETTINGS = (setting(3, 4), CHOSEN, setting(5, 4), setting(6, 6, 6))

#: Width of the curve's bars, and the accuracy that they start from.
BAR, BAR_FROM = 40, 0.95


def run() -> Iterator[Figure | Note]:
    """All figures; a note if the data is missing."""
    start = time.perf_counter()
    try:
        case = mnist_cnn()
    except FileNotFoundError as error:
        yield Note(f"MNIST is skipped: {error}")
        return
    yield Figure("training (s)", time.perf_counter() - start)
    yield Figure("float accuracy", case.float_accuracy)
    points = []
    for bits in SETTINGS:
        start = time.perf_counter()
        module = bits.quantized(case)
        seconds = time.perf_counter() - start
        program = module.compile()
        complexity, accuracy = program.complexity, _simulated(module, case)
        points.append((bits, complexity, accuracy))
        least = LEAST_ACCURACY if bits == CHOSEN else None
        yield Figure(f"{bits}: simulated accuracy", accuracy, at_least=least)
        yield Figure(f"{bits}: complexity", complexity)
        if bits == CHOSEN:
            yield Figure(f"{bits}: quantization (s)", seconds)
            yield from _chosen(case, module, program)
    yield Note(_curve(points))


def _simulated(module: QuantizedModule, case: Case) -> float:
    return case.accuracy(module.forward(case.x_test, fhe="simulate"))


def _chosen(case: Case, module: QuantizedModule, program: Program) -> Iterator[Figure]:
    """What else is told of the setting that was chosen; makes keys and encrypts images."""
    yield Figure("look-ups", count_lookups(module.circuit).total)
    module.overflow_count = 0
    start = time.perf_counter()
    _simulated(module, case)
    yield Figure(f"simulating {len(case.x_test)} images (s)", time.perf_counter() - start)
    yield Figure("peak memory up to here (GB)", peak_memory())
    share = overflow_share(module, len(case.x_test))
    yield Figure("share of accumulators that overflow on test images", share)
    start = time.perf_counter()
    program.keygen()
    yield Figure("key generation (s)", time.perf_counter() - start)
    yield Figure("evaluation keys (MB)", program.size_of_evaluation_keys / 1e6)
    images, labels = case.x_test[:ENCRYPTED_ROWS], case.y_test[:ENCRYPTED_ROWS]
    classes, seconds = encrypted_classes(module, images)
    clear = module.forward(images).argmax(axis=1)
    name = f"of {len(images)} encrypted images"
    right, same = (int(np.sum(classes == wanted)) for wanted in (labels, clear))
    yield Figure(f"{name}: right", right, at_least=LEAST_ACCURACY * len(images))
    yield Figure(f"{name}: the class found in the clear", same)
    yield Figure("one encrypted image (s)", seconds)


def _curve(points: list[tuple[Setting, float, float]]) -> str:
    """Accuracy against complexity, drawn as bars; * marks the setting that was chosen."""
    lines = [f"complexity  accuracy  (bars start at {BAR_FROM})"]
    for bits, complexity, accuracy in sorted(points, key=lambda point: point[1]):
        bar = "#" * round(BAR * max(0.0, accuracy - BAR_FROM) / (1.0 - BAR_FROM))
        mark = " *" if bits == CHOSEN else ""
        lines.append(f"{complexity:10.2e}  {accuracy:8.4f}  {bar:{BAR}}  {bits}{mark}")
    return "\n".join(lines)
