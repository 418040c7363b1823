"""Networks that train on the integers that they are encrypted with: accuracy, price, guarantee."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.data import mnist_data
from benchmarks.networks import digits_data
from benchmarks.report import Figure, Note
from cipherlearn.circuit import Circuit, evaluate, ir
from cipherlearn.errors import CostWarning
from cipherlearn.sklearn import NeuralNetClassifier

#: 64-48-10 with 3 bits of everything; look-ups read one more.
DIGITS = {
    "module__n_hidden_neurons_multiplier": 0.75,
    "module__n_w_bits": 3,
    "module__n_a_bits": 3,
}

#: 784-64-10. Weights of the first layer meet fresh encryptions, and their bits are free; the
#: absolute value makes one look-up do the work of two with ReLU; 12 bits of results keep the noise
#: that look-ups may have.
MNIST = {
    "module__n_hidden_neurons_multiplier": 64 / 784,
    "module__n_w_bits": 5,
    "module__n_a_bits": 3,
    "module__n_output_bits": 12,
    "module__activation_function": torch.abs,
    "module__input_ranges": "tensor",
    "lr": 3e-3,
    "max_epochs": 20,
    "batch_size": 128,
    "optimizer__weight_decay": 1e-3,
}

#: Networks on digits that mean accuracies are taken over.
SEEDS = range(8)

#: Bits of sums that are guaranteed, and random inputs that are tried.
GUARANTEES, TRIALS = (8, 9, 10), 1000


def accuracy(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    """Share of right answers, with the errors of approximate rounding."""
    return float((model.predict(x, fhe="simulate") == y).mean())


def digits(seeds: Sequence[int] = SEEDS, **options: Any) -> tuple[list[float], list[float], float]:
    """Accuracies of quantized and of float networks on digits, and the largest complexity."""
    x_train, x_test, y_train, y_test = digits_data()
    ours, floats, prices = [], [], []
    for seed in seeds:
        model = NeuralNetClassifier(random_state=seed, **{**DIGITS, **options})
        model, dense = model.fit_benchmark(x_train, y_train)
        prices.append(model.compile().complexity)
        ours.append(accuracy(model, x_test, y_test))
        floats.append(dense.score(x_test, y_test))
    return ours, floats, max(prices)


def mnist(folder: Path | None = None, **options: Any) -> tuple[Any, float]:
    """A compiled network on MNIST, and its accuracy."""
    x_train, x_test, y_train, y_test = mnist_data(folder)
    model = NeuralNetClassifier(random_state=0, **{**MNIST, **options}).fit(x_train, y_train)
    model.compile()
    return model, accuracy(model, x_test, y_test)


def widest_sum(circuit: Circuit, trials: int = TRIALS, seed: int = 0) -> int:
    """Bits of the widest sum that random and worst inputs lead to, also as look-ups read it.

    The worst inputs of a product are those with every operand at one end, by the sign of its
    weight: no other leads further. Of later layers these operands are what look-ups may give.

    Parameters
    ----------
    circuit : Circuit
    trials : int
        Random inputs, all over the box that inputs are in.
    seed : int
    """
    (known,) = circuit.inputs
    inputs = np.random.default_rng(seed).integers(
        known.lo, known.hi, (trials, *known.shape), endpoint=True
    )
    ends: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for position, node in enumerate(circuit.nodes):
        if isinstance(node.primitive, ir.MatMul):
            values, weights = (circuit.nodes[i] for i in node.inputs)
            low, high = values.interval.min, values.interval.max
            one, other = (weights.interval.lo * end for end in (low, high))
            ends[position] = np.minimum(one, other).sum(axis=0), np.maximum(one, other).sum(axis=0)
        elif isinstance(node.primitive, ir.Add) and node.inputs[0] in ends:
            shift = circuit.nodes[node.inputs[1]].interval.lo.reshape(-1)
            ends[position] = tuple(end + shift for end in ends[node.inputs[0]])
    kept = evaluate(circuit, inputs, keep=ends).values
    found = [
        *(kept[position] for position in ends),
        *(end for pair in ends.values() for end in pair),
    ]
    return max(_signed_bits(int(values.min()), int(values.max())) for values in found)


def _signed_bits(low: int, high: int) -> int:
    return 1 + max((-low - 1).bit_length() if low < 0 else 0, high.bit_length() if high > 0 else 0)


def run() -> Iterator[Figure | Note]:
    """All figures."""
    ours, floats, price = digits()
    gap = 100 * (np.mean(floats) - np.mean(ours))
    told = f"digits 64-48-10, 3 bits, {len(ours)} networks"
    yield Figure(f"{told}: accuracy of float networks", float(np.mean(floats)))
    yield Figure(f"{told}: accuracy", float(np.mean(ours)))
    yield Figure(f"{told}: points behind", float(gap), at_most=1.0)
    yield Figure(f"{told}: complexity", price, at_most=8e9)
    for bits in GUARANTEES:
        options = {"module__n_accum_bits": bits}
        model, score = _digits_model(**options)
        told = f"digits, sums of {bits} bits"
        yield Figure(f"{told}: accuracy", score)
        yield Figure(f"{told}: bits of the widest", widest_sum(model.circuit), at_most=bits)
    model, score = _digits_model(module__n_accum_bits=9, module__bounds="proved")
    yield Figure("digits, sums of 9 bits, all look-ups proved: accuracy", score)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CostWarning)
        model, score = mnist()
    yield Figure("MNIST 784-64-10: accuracy", score, at_least=0.970)
    yield Figure("MNIST 784-64-10: complexity", model.fhe_circuit.complexity, at_most=1.0e10)
    yield Note(
        f"MNIST: {model.module_.overflow_count} sums of 640,000 (64 of each test row) left the "
        f"range of training; results of {model.circuit.output_nodes[0].interval.width} bits"
    )


def _digits_model(**options: Any) -> tuple[Any, float]:
    x_train, x_test, y_train, y_test = digits_data()
    model = NeuralNetClassifier(random_state=0, **{**DIGITS, **options}).fit(x_train, y_train)
    model.compile()
    return model, accuracy(model, x_test, y_test)
