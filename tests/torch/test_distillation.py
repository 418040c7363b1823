from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cipherlearn.circuit import count_lookups, simulate
from cipherlearn.engines import CompileOptions, get_engine
from cipherlearn.errors import InvalidParameterError, InvalidTypeError
from cipherlearn.quantization import (
    PostTrainingAffineQuantization,
    PostTrainingLookupQuantization,
    QuantizedModule,
)
from cipherlearn.quantization.mixing import QuantizedMixingOp
from cipherlearn.quantization.replay import Replay
from cipherlearn.torch import NumpyModule, distill
from cipherlearn.torch.distillation import Student, Teacher, Training, one_thread
from tests.quantization.quantize import normal

pytestmark = pytest.mark.filterwarnings(
    "ignore::cipherlearn.errors.OverflowWarning", "ignore::cipherlearn.errors.CalibrationWarning"
)


def training(steps: int, seed: int = 0) -> Training:
    return Training(steps, seed, CompileOptions.of())


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.last = nn.Linear(4 * 16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(x) + x)
        return self.last(x.flatten(1))  # type: ignore[no-any-return]


def mlp(outputs: int = 4) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, outputs)
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)
    return net.eval()


def converter(net: nn.Module, x: np.ndarray, kept: int, **options: Any) -> Any:
    rounding = {"n_bits": kept, "method": "approximate"}
    model = NumpyModule(net, torch.tensor(x[:1]))
    return PostTrainingLookupQuantization(3, model, rounding, **options)


def weights_of(module: QuantizedModule) -> list[np.ndarray]:
    return [
        np.asarray(op.constant_inputs[1].qvalues)
        for _, op in module.quant_layers_dict.values()
        if isinstance(op, QuantizedMixingOp) and op.fitted is not None
    ]


def same_weights(one: QuantizedModule, other: QuantizedModule) -> bool:
    pairs = zip(weights_of(one), weights_of(other), strict=True)
    return all(np.array_equal(left, right) for left, right in pairs)


def agreement(module: QuantizedModule, net: nn.Module, x: np.ndarray) -> float:
    with torch.no_grad():
        wanted = net(torch.tensor(x)).numpy().argmax(1)
    found = simulate(module.circuit, *module.samples(x), p_error=2.0**-40)
    (outputs,) = module.real_outputs(found.outputs)
    return float((outputs.argmax(1) == wanted).mean())


def error(module: QuantizedModule, net: nn.Module, x: np.ndarray) -> float:
    with torch.no_grad():
        wanted = net(torch.tensor(x)).numpy()
    found = simulate(module.circuit, *module.samples(x), p_error=2.0**-40)
    (outputs,) = module.real_outputs(found.outputs)
    return float(np.square(outputs - wanted).mean() / wanted.var())


def test_few_bits_are_closer_to_the_float_network() -> None:
    net, x = mlp(), normal(2500, 16)
    quantization = converter(net, x, 2, bypass="none")
    analytic = quantization.quantize_module(x[:1500])
    distilled = distill(quantization, x[:1500], steps=800)
    assert not same_weights(analytic, distilled)
    assert agreement(distilled, net, x[1500:]) > agreement(analytic, net, x[1500:]) + 0.02
    complexity = [get_engine().compile(m.circuit).complexity for m in (analytic, distilled)]
    assert complexity[1] <= complexity[0]


def test_outputs_that_the_client_adds_are_trained_as_their_sum() -> None:
    net, x = mlp(), normal(400, 16)
    quantization = converter(net, x, 2, bypass="outputs")
    module = quantization.quantize_module(x)
    student = Student(module, Teacher.of(quantization, [x]), training(40, 0))
    assert [target.shape for target in student.teacher.targets] == [(400, 4)]
    student.train(1e-2, 0.1)
    learned = Replay(quantization, student.learned()).quantize_module(x)
    assert len(learned.circuit.outputs) == 3
    assert not same_weights(module, learned)


def test_the_same_seed_gives_the_same_weights() -> None:
    x = normal(200, 16)
    quantization = converter(mlp(), x, 2)
    analytic = quantization.quantize_module(x)
    modules = []
    for seed in (0, 0, 1):
        student = Student(analytic, Teacher.of(quantization, [x]), training(30, seed))
        student.train(0.01, 0.1)
        modules.append(Replay(quantization, student.learned()).quantize_module(x))
    assert same_weights(modules[0], modules[1])
    assert not same_weights(modules[0], modules[2])


def test_the_analytic_result_stays_where_training_does_not_win() -> None:
    net, x = mlp(), normal(120, 16)
    quantization = converter(net, x, 5)
    assert same_weights(quantization.quantize_module(x), distill(quantization, x, steps=20))


def test_values_are_compared_as_values() -> None:
    net, x = mlp(outputs=1), normal(400, 16)
    quantization = converter(net, x, 2)
    analytic, distilled = quantization.quantize_module(x), distill(quantization, x, steps=200)
    unseen = normal(1000, 16, seed=1)
    assert error(distilled, net, unseen) <= 1.05 * error(analytic, net, unseen)


@pytest.mark.parametrize("bounds", ["observed", "proved"])
def test_accumulators_stay_within_their_ranges(bounds: str) -> None:
    torch.manual_seed(1)
    net, x = Residual().eval(), normal(100, 1, 4, 4)
    quantization = converter(net, x, 4, bounds=bounds)
    analytic = quantization.quantize_module(x)
    student = Student(analytic, Teacher.of(quantization, [x]), training(10))
    assert len(student.layers) == 3
    assert same_weights(analytic, Replay(quantization, student.learned()).quantize_module(x))
    student.train(0.05, 0.1)
    trained = Replay(quantization, student.learned()).quantize_module(x)
    assert not same_weights(analytic, trained)
    trained.forward(x)
    assert trained.overflow_count == 0
    assert trained.circuit.is_proved == analytic.circuit.is_proved
    largest = [[np.abs(w).max() for w in weights_of(m)] for m in (analytic, trained)]
    assert (np.array(largest[1]) <= largest[0]).all()


def test_learned_weights_of_codes_stay_within_proved_ranges() -> None:
    torch.manual_seed(1)
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)]
    net, x = nn.Sequential(*layers).eval(), normal(100, 6)
    quantization = converter(net, x, 4, bounds="proved")
    analytic = quantization.quantize_module(x)
    assert "hidden" in analytic.bypassed.values()
    student = Student(analytic, Teacher.of(quantization, [x]), training(10))
    student.train(0.05, 0.1)
    trained = Replay(quantization, student.learned()).quantize_module(x)
    assert not same_weights(analytic, trained)
    assert trained.circuit.is_proved
    # On other grids than those that weights were learned for, codes would be looked up once more.
    assert count_lookups(trained.circuit).total == count_lookups(analytic.circuit).total
    quantization.quantize_module(x)
    with pytest.raises(InvalidParameterError, match="learned for another module"):
        Replay(quantization, student.learned())


def test_what_cannot_be_distilled() -> None:
    net, x = mlp(), normal(40, 16)
    affine = PostTrainingAffineQuantization(4, NumpyModule(net, torch.tensor(x[:1])))
    with pytest.raises(InvalidTypeError, match="not PostTrainingAffineQuantization"):
        distill(affine, x)  # type: ignore[arg-type]
    quantization = converter(net, x, 4)
    with pytest.raises(InvalidParameterError, match="are too few"):
        distill(quantization, x)
    with pytest.raises(InvalidParameterError, match="held_out must lie between 0 and 1"):
        distill(quantization, x, held_out=1.0)
    with pytest.raises(InvalidParameterError, match="steps must be an integer from 1 on"):
        distill(quantization, x, steps=0)


def test_one_thread_gives_the_others_back() -> None:
    threads = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == threads
