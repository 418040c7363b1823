"""Float networks that `to_qat` prepares for a few epochs: what training brings, what arrives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import fx, nn

from benchmarks.networks import Case, digits_cnn, digits_data, digits_mlp, train
from benchmarks.report import Figure, Note
from cipherlearn.torch import compile_brevitas_qat_model, to_qat

SEEDS, EPOCHS, RATE = range(3), 10, 1e-3


class Residual(nn.Module):
    """A convolution, a branch that is added, a pool and one product, in float."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.pool = nn.AvgPool2d(2)
        self.last = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of images."""
        x = torch.relu(self.first(x))
        x = torch.relu(x + self.norm(self.second(x)))
        scores: torch.Tensor = self.last(torch.flatten(self.pool(x), 1))
        return scores


def residual() -> Case:
    """The residual network, trained on digits."""
    x_train, x_test, y_train, y_test = digits_data()
    images = x_train.reshape(-1, 1, 8, 8), x_test.reshape(-1, 1, 8, 8)
    torch.manual_seed(0)
    net = train(Residual(), images[0], y_train, 0).eval()
    return Case(net, *images, y_train, y_test)


#: Networks, bits of weights and activations, and bits that look-ups read.
NETWORKS = {
    "MLP, 3 bits, 4 read": (digits_mlp, 3, 4),
    "CNN, 3 bits, 4 read": (digits_cnn, 3, 4),
    "residual CNN, 4 bits, 5 read": (residual, 4, 5),
}


def accuracy(case: Case, net: fx.GraphModule) -> float:
    """Of a network in evaluation, on test rows."""
    with torch.no_grad():
        return case.accuracy(net.eval()(torch.tensor(case.x_test)).numpy())


def run() -> Iterator[Figure | Note]:
    """All figures."""
    for name, (make, bits, kept) in NETWORKS.items():
        case = make()
        rounding = {"n_bits": kept, "method": "approximate"}
        figures = []
        for seed in SEEDS:
            net = to_qat(case.net, case.calibration, bits, rounding)
            before = accuracy(case, net)
            train(
                net.train(),
                case.x_train,
                case.y_train,
                seed,
                epochs=EPOCHS,
                rate=RATE,
                weight_decay=0.0,
            )
            after = accuracy(case, net)
            module = compile_brevitas_qat_model(net, case.calibration)
            simulated = case.accuracy(module.forward(case.x_test, fhe="simulate"))
            figures.append((before, after, simulated, module.fhe_circuit.complexity))
        before, after, simulated, complexity = np.mean(figures, axis=0)
        yield Figure(f"{name}: accuracy in float", case.float_accuracy)
        yield Figure(f"{name}: of to_qat, before training", before)
        yield Figure(f"{name}: trained", after)
        yield Figure(f"{name}: compiled, simulated", simulated)
        yield Figure(f"{name}: complexity", complexity)
    yield Note(f"means of {len(SEEDS)} seeds, {EPOCHS} epochs at {RATE:g}")
