from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.networks import digits_cnn, digits_mlp
from cipherlearn.engines import get_engine
from cipherlearn.errors import CalibrationWarning, InvalidParameterError
from cipherlearn.quantization import PostTrainingLookupQuantization, QuantizedModule
from cipherlearn.quantization.mixing import QuantizedMixingOp
from cipherlearn.torch import NumpyModule
from tests.onnx_models import make_model, node, weights
from tests.quantization.quantize import check, normal

APPROXIMATE = {"n_bits": 4, "method": "approximate"}


def quantized(
    net: Any, *data: np.ndarray, n_bits: Any = 4, rounding: Any = None, **options: Any
) -> QuantizedModule:
    if isinstance(net, nn.Module):
        net = NumpyModule(net.eval(), tuple(torch.tensor(array[:1]) for array in data))
    else:
        net = NumpyModule(net)
    return PostTrainingLookupQuantization(n_bits, net, rounding, **options).quantize_module(*data)


def r2(module: QuantizedModule, *data: np.ndarray, **options: Any) -> float:
    (wanted,) = module.numpy_model.numpy_forward(*data)
    found = module.forward(*data, **options)
    return float(1 - np.square(found - wanted).sum() / np.square(wanted - wanted.mean()).sum())


@pytest.fixture(scope="module")
def digits() -> Any:
    return digits_mlp()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::cipherlearn.errors.OverflowWarning")
def test_four_bits_are_nearly_as_good_as_the_float_network() -> None:
    scores, floats = [], []
    for seed in range(4):
        case = digits_mlp(seed)
        module = quantized(case.net, case.calibration, rounding=APPROXIMATE)
        scores.append(case.accuracy(module.forward(case.x_test)))
        floats.append(case.float_accuracy)
        assert get_engine().compile(module.circuit).complexity <= 1.0e10
        assert module.overflow_count / (450 * 64) < 2e-4
    assert np.mean(scores) > np.mean(floats) - 0.008


@pytest.mark.filterwarnings("ignore::cipherlearn.errors.OverflowWarning")
def test_a_convolutional_network() -> None:
    case = digits_cnn()
    calibration = case.calibration[:200]
    module = quantized(case.net, calibration, rounding={"n_bits": 5, "method": "approximate"})
    assert case.accuracy(module.forward(case.x_test)) > case.float_accuracy - 0.015


NETWORKS = {
    "wide convolution": nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=1, groups=2), nn.ReLU(), nn.Flatten()
    ),
    "two layers": nn.Sequential(nn.Linear(8, 12), nn.Sigmoid(), nn.Linear(12, 3)),
    "signed activations": nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 3)),
    "sequence": nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 4)),
}
SHAPES = {"wide convolution": (4, 6, 6), "sequence": (3, 8)}


@pytest.mark.parametrize("rounding", [None, {"n_bits": 7, "method": "approximate"}, 7])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_that_multiplies_constants_is_fitted(name: str, rounding: Any) -> None:
    torch.manual_seed(0)
    x = normal(300, *SHAPES.get(name, (8,)))
    module = quantized(NETWORKS[name], x[:200], n_bits=6, rounding=rounding)
    layers = [op for _, op in module.quant_layers_dict.values()]
    mixing = [op for op in layers if isinstance(op, QuantizedMixingOp) and not op.can_fuse()]
    fitted = [op.fitted for op in mixing if op.form is not None and op.form.layout is not None]
    assert fitted
    assert all(known is not None for known in fitted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an overflow among new rows is told, and may occur
        assert r2(module, x[200:]) > 0.98
    check(module, x[:20])


def test_a_residual_network() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
            self.last = nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.relu(self.first(x))
            return self.last(torch.relu(h + self.second(h)))

    torch.manual_seed(0)
    x = normal(200, 6)
    module = quantized(Residual(), x, n_bits=6, rounding={"n_bits": 7, "method": "approximate"})
    assert r2(module, x) > 0.98


def test_a_kernel_without_padding_to_zero_keeps_borders_right() -> None:
    x = np.random.default_rng(0).uniform(-2, 1, (200, 2, 5, 5)).astype(np.float32)
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 2, 3, padding=1))
    torch.manual_seed(1)
    module = quantized(net, x, n_bits=8, rounding={"n_bits": 8, "method": "approximate"})
    assert r2(module, x) > 0.995


def test_the_mean_of_every_channel_is_exact() -> None:
    torch.manual_seed(0)
    x = normal(200, 8)
    module = quantized(nn.Linear(8, 3), x, n_bits=2)
    (wanted,) = module.numpy_model.numpy_forward(x)
    np.testing.assert_allclose(module.forward(x).mean(axis=0), wanted.mean(axis=0), atol=1e-6)


def test_products_of_other_kinds_are_quantized_as_before() -> None:
    model = make_model(
        [node("MatMul", ["w", "x"], "h"), node("Relu", ["h"], "y")],
        {"x": ["N", 4, 3]},
        ["y"],
        {"w": weights(2, 4)},
    )
    assert r2(quantized(model, normal(60, 4, 3), n_bits=8), normal(60, 4, 3)) > 0.99


def test_proved_bounds_cannot_be_left(digits: Any) -> None:
    module = quantized(
        digits.net, digits.calibration, n_bits=6, rounding={"n_bits": 6}, bounds="proved"
    )
    rng, (quantizer,) = np.random.default_rng(0), module.input_quantizers
    highest = 2**quantizer.n_bits - 1
    module.forward(quantizer.dequant(rng.integers(0, highest, (200, 64), endpoint=True)))
    module.forward(quantizer.dequant(rng.choice([0, highest], (200, 64))))
    assert module.overflow_count == 0
    plans = [getattr(op, "plan", None) for _, op in module.quant_layers_dict.values()]
    plans = [plan for plan in plans if plan is not None]
    assert all(plan.is_proved for plan in plans)
    assert digits.accuracy(module.forward(digits.x_test)) > 0.9


def test_bounds_are_one_of_two() -> None:
    with pytest.raises(InvalidParameterError, match=r"one of \['observed', 'proved'\]"):
        quantized(nn.Linear(4, 2), normal(20, 4), bounds="sure")


def test_few_rows_are_told_and_still_give_a_result() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(30, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.warns(CalibrationWarning, match="20 calibration rows for 30 inputs"):
        module = quantized(net, normal(20, 30), n_bits=6, rounding=6)
    assert np.isfinite(module.forward(normal(5, 30))).all()


def test_constant_features_and_zero_weights() -> None:
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    with torch.no_grad():
        net[0].weight[1] = 0.0
        net[2].weight[2] = 0.0
        net[0].bias[3], net[0].weight[3] = -100.0, 0.0
    x = normal(100, 6)
    x[:, 2] = 3.0
    module = quantized(net, x, n_bits=6, rounding={"n_bits": 6, "method": "approximate"})
    assert r2(module, x) > 0.97


@pytest.mark.parametrize("rounding", [APPROXIMATE, None])
def test_encrypted_results_are_those_of_the_clear(rounding: Any) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    x = normal(100, 6)
    bits = {"op_inputs": 2, "op_weights": 2, "model_inputs": 2} if rounding is None else 3
    module = quantized(net, x, n_bits=bits, rounding=rounding)
    module.compile()
    agreement = module.agreement(x[:8], n_fhe=8)
    assert agreement["FHE"].wrong == 0
    if rounding is None:
        assert agreement["FHE"].mismatches == 0


def test_same_data_same_integers(digits: Any) -> None:
    first, second = (
        quantized(digits.net, digits.calibration, rounding=APPROXIMATE) for _ in range(2)
    )
    x = digits.x_test[:50]
    np.testing.assert_array_equal(first.forward(x), second.forward(x))


@pytest.mark.filterwarnings("ignore::cipherlearn.errors.OverflowWarning")
@pytest.mark.filterwarnings("ignore:inputs lie far outside")
def test_features_of_any_unit_are_quantized_as_finely(digits: Any) -> None:
    """A network that standardizes its inputs, and one that gets them standardized."""
    rng = np.random.default_rng(0)
    unit, shift = np.exp(rng.uniform(-4, 4, 64)), rng.uniform(-3, 3, 64)
    first = nn.Linear(64, 32)
    known = digits.net[0]
    with torch.no_grad():
        first.weight.copy_(known.weight / torch.tensor(unit))
        first.bias.copy_(known.bias - known.weight @ torch.tensor(shift, dtype=torch.float32))
    net = nn.Sequential(first, *digits.net[1:])
    calibration = ((digits.calibration + shift) * unit).astype(np.float32)
    module = quantized(net, calibration, n_bits=4, rounding=4)
    (quantizer,) = module.input_quantizers
    assert np.ptp(quantizer.scale) > 0
    scores = module.forward((digits.x_test + shift) * unit)
    assert digits.accuracy(scores) > digits.float_accuracy - 0.03


def test_inputs_that_others_read_keep_one_grid() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x) + x  # type: ignore[no-any-return]

    units = np.array([1, 10, 100, 1000], np.float32)
    module = quantized(Net(), normal(100, 4) * units, n_bits=6, rounding=None)
    (quantizer,) = module.input_quantizers
    assert np.size(quantizer.scale) == 1


def test_counts_and_selections_stay_exact() -> None:
    """Trees as matrix products: whether a path is taken is an equality of counts."""
    paths = torch.tensor([[1.0, 1, 0], [1, -1, 0], [0, 1, 1], [0, 0, -1]])

    class Tree(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            answers = (x > 7).float()
            return (answers @ paths.T == torch.tensor([2.0, 1, 1, -1])).float()

    x = np.random.default_rng(0).integers(0, 16, (200, 3)).astype(np.float32)
    module = quantized(Tree(), x, n_bits=8, rounding=None)
    np.testing.assert_array_equal(module.forward(x), Tree()(torch.tensor(x)).numpy())
