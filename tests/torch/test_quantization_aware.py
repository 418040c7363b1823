from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.networks import digits_mlp, train
from cipherlearn.errors import (
    CalibrationWarning,
    InvalidParameterError,
    InvalidTypeError,
    ModelError,
)
from cipherlearn.quantization import accumulators
from cipherlearn.torch import build_quantized_module, compile_brevitas_qat_model, to_qat
from cipherlearn.torch._quantizers import exportable, trained_rounding
from cipherlearn.torch._rounded_sums import RoundedSums

pytest.importorskip("brevitas")

ROUNDED = {"n_bits": 4, "method": "approximate"}


class Residual(nn.Module):
    """A branch that is added, a pool, and what is different in training."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3, stride=2, padding=1)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.1)
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(x + self.norm(self.second(x)))
        result: torch.Tensor = self.last(self.drop(torch.flatten(self.pool(x), 1)))
        return result


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3))


def residual() -> nn.Module:
    torch.manual_seed(0)
    return Residual()


NETS = {"mlp": (mlp, (6,)), "residual": (residual, (1, 8, 8))}


def rows(shape: tuple[int, ...], count: int = 40) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)


def quantizers(net: nn.Module) -> list[str]:
    return [name for name, _ in net.named_children() if name.startswith("quantizer")]


@pytest.mark.parametrize("name", NETS)
def test_many_bits_compute_what_the_float_network_does(name: str) -> None:
    made, shape = NETS[name]
    net, x = made().eval(), rows(shape)
    before = copy.deepcopy(net.state_dict())
    found = to_qat(net, x, 8)
    assert found.training
    with torch.no_grad():
        wanted, given = net(torch.tensor(x)), found.eval()(torch.tensor(x))
    assert float((wanted - given).abs().mean()) < 0.02 * float(wanted.abs().max())
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])
    assert not quantizers(net)


@pytest.mark.parametrize("name", NETS)
def test_integers_arrive_as_trained(name: str) -> None:
    made, shape = NETS[name]
    x = rows(shape)
    net = to_qat(made(), x, 4)
    net(torch.tensor(x)).square().mean().backward()
    torch.optim.Adam(net.parameters(), lr=1e-2).step()
    net.eval()
    module = build_quantized_module(net, x, import_qat=True)
    with torch.no_grad():
        np.testing.assert_allclose(module.forward(x), net(torch.tensor(x)).numpy(), atol=1e-5)


def test_what_is_added_has_one_quantizer() -> None:
    net = to_qat(residual(), rows((1, 8, 8)), 4)
    # The input; the two that are added; what is pooled, which the last layer reads as it is.
    assert len(quantizers(net)) == 3
    (adds,) = [n for n in net.graph.nodes if "add" in str(n.target)]
    assert len({each.target for each in adds.all_input_nodes}) == 1


def test_layers_keep_their_weights_and_have_the_bits() -> None:
    net = mlp()
    found = to_qat(net, rows((6,)), {"model_inputs": 6, "op_inputs": 3, "op_weights": 2})
    layers = [(name, part) for name, part in found.named_modules() if hasattr(part, "quant_weight")]
    assert [name for name, _ in layers] == ["0", "2", "4"]
    for name, part in layers:
        assert torch.equal(part.weight, net.get_submodule(name).weight)
        assert float(part.quant_weight().bit_width) == 2
    widths = [float(getattr(found, q).act_quant.bit_width()) for q in quantizers(found)]
    assert widths == [6, 3, 3]


def test_rounding_is_trained_for_and_left_to_the_compiler() -> None:
    x = rows((6,))
    net = to_qat(mlp(), x, 4, ROUNDED)
    assert trained_rounding(net) == ROUNDED
    rounds = [part for part in net.modules() if isinstance(part, RoundedSums)]
    assert len(rounds) == 2  # results are read by the client
    given = torch.tensor(x)
    assert not torch.equal(net(given), net(given))  # approximate rounding is noisy
    net.eval()
    with torch.no_grad():
        rounded = net(given)
        assert torch.equal(net(given), rounded)
        with exportable(net, (given,), traced=False):
            assert not torch.equal(net(given), rounded)
    module = compile_brevitas_qat_model(net, x)
    assert set(_kept(module)) == {4}
    exact = compile_brevitas_qat_model(net, x, rounding_threshold_bits={"n_bits": 3})
    assert set(_kept(exact)) == {3}


class TwoResults(nn.Module):
    """A sum that is a result, and is read on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.first(x)
        return y, self.last(torch.relu(y))


class Gated(nn.Module):
    """A product of what is encrypted."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first(x)) * torch.sigmoid(self.gate(x))
        result: torch.Tensor = self.last(torch.tanh(y))
        return result


def _pooled(pool: nn.Module, size: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), pool, nn.Tanh(), nn.Flatten(), nn.Linear(size, 4)
    )


ROUNDING: dict[str, tuple[Any, tuple[int, ...]]] = {
    **NETS,
    "pool": (lambda: _pooled(nn.AvgPool2d(3), 12), (1, 8, 8)),
    "overlapping pool": (lambda: _pooled(nn.AvgPool2d(3, 1, 1), 108), (1, 8, 8)),
    "sequences": (
        lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), *mlp()[2:]),
        (4, 6),
    ),
    "function at the end": (lambda: nn.Sequential(*mlp(), nn.Sigmoid()), (6,)),
    "two results": (TwoResults, (6,)),
    "gated": (Gated, (6,)),
    "normalized": (lambda: nn.Sequential(nn.BatchNorm1d(6), *mlp()), (6,)),
}


@pytest.mark.parametrize("name", ROUNDING)
def test_sums_are_rounded_as_in_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, shape = ROUNDING[name]
    torch.manual_seed(0)
    x = rows(shape, 200)
    net = to_qat(made(), x, 3, {"n_bits": 4, "method": "exact"}).eval()

    def all_of(results: Any) -> np.ndarray:
        parts = results if isinstance(results, tuple) else (results,)
        return np.concatenate([np.asarray(part).reshape(len(x), -1) for part in parts], axis=1)

    with torch.no_grad():
        wanted = all_of(net(torch.tensor(x)))

    def away() -> np.ndarray:
        module = build_quantized_module(
            net, x, import_qat=True, rounding_threshold_bits={"n_bits": 4, "method": "exact"}
        )
        return np.abs(all_of(module.forward(x)) - wanted) / wanted.std()

    assert away().mean() < 0.2
    # What differs is how finely steps can be set, at the price of wider sums.
    monkeypatch.setattr(accumulators, "FILL_BITS", 12)
    monkeypatch.setattr(accumulators, "NOISE_CAP", 1e9)
    assert (away() > 0.01).mean() < 0.02


def rounded(net: nn.Module) -> list[RoundedSums]:
    return [part for part in net.modules() if isinstance(part, RoundedSums)]


class Sums(nn.Module):
    """All that sums: products, what is added, pools, means, and products of what is encrypted."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, padding=1)
        self.second = nn.Conv2d(2, 2, 3, padding=1)
        self.last = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first(x))
        y = torch.relu(y + self.second(y))
        y = nn.functional.avg_pool2d(y, 2)
        y = torch.matmul(y, y.transpose(2, 3))
        result: torch.Tensor = self.last(torch.relu(y.mean(dim=(2, 3))))
        return result


@pytest.mark.parametrize(("bits", "ranges"), [(3, [2, 2, 2, 4, 2]), (4, [2, 2, 1, 2, 4, 2])])
def test_sums_that_look_ups_could_not_read_are_rounded(bits: int, ranges: list[int]) -> None:
    x = rows((1, 8, 8))
    net = to_qat(Sums(), x, bits, {"n_bits": 4, "method": "exact"})
    # Two integers of 3 bits have a sum of 4.
    assert [part.range.lowest.numel() for part in rounded(net)] == ranges
    module = build_quantized_module(
        net.eval(), x, import_qat=True, rounding_threshold_bits={"n_bits": 4, "method": "exact"}
    )
    trained = [
        op
        for _, op in module.quant_layers_dict.values()
        if getattr(op, "trained_range", None) is not None
    ]
    assert len(trained) == len(ranges)
    with torch.no_grad():
        found, wanted = module.forward(x), net(torch.tensor(x)).numpy()
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.9


def test_ranges_are_those_of_sums_with_a_bias_of_their_own() -> None:
    """Of rows that are matrices, the bias is added after the product."""
    torch.manual_seed(0)
    x = rows((4, 6))
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Flatten(), nn.Linear(20, 2))
    with torch.no_grad():
        net[0].bias.copy_(torch.linspace(-2, 2, 5))
    found = to_qat(net, x, 4, ROUNDED).eval()
    module = compile_brevitas_qat_model(found, x)
    (part,) = rounded(found)
    op = next(o for _, o in module.quant_layers_dict.values() if o.op_type() == "MatMul")
    assert op.trained_range is not None
    lowest, highest = map(np.ravel, op.trained_range)
    bias = found.get_submodule("0").bias.detach().numpy()
    middle = part.range.middle.numpy()
    np.testing.assert_allclose((lowest + highest) / 2, middle - bias, rtol=1e-4, atol=1e-4)


def test_other_ranges_than_those_of_training_are_told() -> None:
    x = rows((6,))
    net = to_qat(mlp(), x, 4, ROUNDED).eval()
    with pytest.warns(CalibrationWarning, match="training rounded other sums.*node_linear"):
        build_quantized_module(
            net, x, import_qat=True, rounding_threshold_bits=ROUNDED, bounds="proved"
        )


@pytest.mark.parametrize("bits", [(8, 2), (2, 8)])
def test_layers_that_share_weights_have_integers_of_their_own(bits: tuple[int, int]) -> None:
    import brevitas.nn as qnn

    torch.manual_seed(0)
    x = rows((5,))
    net = nn.Sequential(
        qnn.QuantIdentity(bit_width=6, return_quant_tensor=True),
        qnn.QuantLinear(5, 5, bias=True, weight_bit_width=bits[0]),
        qnn.QuantReLU(bit_width=4, return_quant_tensor=True),
        qnn.QuantLinear(5, 5, bias=True, weight_bit_width=bits[1]),
    )
    net[3].weight = net[1].weight
    net(torch.tensor(x))
    module = build_quantized_module(net.eval(), x, import_qat=True)
    assert net[3].weight is net[1].weight
    with torch.no_grad():
        np.testing.assert_allclose(module.forward(x), net(torch.tensor(x)).numpy(), atol=1e-5)


def test_sums_with_factors_are_not_known() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 5), nn.Linear(6, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.add(torch.relu(self.first(x)), torch.relu(self.second(x)), alpha=2)

    with pytest.raises(ModelError, match="- add: add"):
        to_qat(Weighted(), rows((6,)), 4)
    with pytest.raises(ModelError, match="AvgPool2d"):
        to_qat(_pooled(nn.AvgPool2d(3, divisor_override=2), 12), rows((1, 8, 8)), 4)


def test_weights_that_are_shared_stay_shared() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    net[2].weight = net[0].weight
    found = to_qat(net, rows((6,)), 4)
    first, second = found.get_submodule("0"), found.get_submodule("2")
    assert first.weight is second.weight
    assert first.bias is not second.bias
    assert sum(1 for _ in found.parameters()) < 2 * 3 + 10
    found(torch.tensor(rows((6,)))).sum().backward()
    torch.optim.SGD(found.parameters(), lr=0.1).step()
    assert torch.equal(first.weight, second.weight)


def test_layers_with_hooks_are_refused() -> None:
    net = mlp()
    hook = net[0].register_forward_hook(lambda layer, given, result: 2 * result)
    with pytest.raises(ModelError, match=r"Linear with hooks(?s:.*)remove_weight_norm"):
        to_qat(net, rows((6,)), 4)
    hook.remove()
    to_qat(net, rows((6,)), 4)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_norms_of_weights_are_refused() -> None:
    net = nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 3)), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(ModelError, match=r"cannot be copied.*remove_weight_norm"):
        to_qat(net, rows((6,)), 4)
    nn.utils.remove_weight_norm(net[0])
    to_qat(net, rows((6,)), 4)


def _kept(module: Any) -> list[int]:
    from cipherlearn.circuit import ir

    nodes = module.circuit.nodes
    rounds = [n for n in nodes if isinstance(n.primitive, ir.Round)]
    return [n.interval.width - n.primitive.lsbs for n in rounds]


def test_sums_are_rounded_to_as_many_steps() -> None:
    part = RoundedSums(2, -1, 3, exact=True).train()
    x = torch.tensor(np.random.default_rng(0).normal(size=(500, 2)), dtype=torch.float32)
    found = part(x)
    for channel in range(2):
        levels = found[:, channel].unique()
        assert 5 <= len(levels) <= 8
    step = (part.range.reach / 7).max()
    assert float((found - x).abs().max()) <= 0.51 * float(step)


@pytest.mark.filterwarnings("ignore::cipherlearn.errors.OverflowWarning")  # of rows never seen
def test_training_makes_up_for_few_bits() -> None:
    case = digits_mlp()
    net = to_qat(case.net, case.calibration, 3, ROUNDED)

    def accuracy() -> float:
        with torch.no_grad():
            return case.accuracy(net.eval()(torch.tensor(case.x_test)).numpy())

    before = accuracy()
    train(net.train(), case.x_train, case.y_train, 0, epochs=10, rate=1e-3, weight_decay=0.0)
    assert accuracy() > before + 0.01
    module = compile_brevitas_qat_model(net, case.x_train)
    simulated = case.accuracy(module.forward(case.x_test, fhe="simulate"))
    assert simulated > before
    assert simulated > case.float_accuracy - 0.04


@pytest.mark.slow
def test_bits_are_found() -> None:
    case = digits_mlp()
    net = to_qat(case.net, case.calibration, labels=case.calibration_labels, max_drop=0.03)
    assert set(trained_rounding(net) or {}) == {"n_bits", "method"}
    widths = [float(getattr(net, q).act_quant.bit_width()) for q in quantizers(net)]
    assert all(2 <= width <= 8 for width in widths)
    with torch.no_grad():
        accuracy = case.accuracy(net.eval()(torch.tensor(case.x_test)).numpy())
    assert accuracy > case.float_accuracy - 0.1


class Chooses(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if float(x.sum()) > 0 else -x


def test_what_cannot_be_traced() -> None:
    with pytest.raises(ModelError, match=r"torch\.fx cannot trace"):
        to_qat(Chooses(), rows((3,)), 4)


def test_operations_that_are_not_known_are_listed() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Softmax(1))
    with pytest.raises(ModelError, match=r"(?s)LayerNorm.*Softmax"):
        to_qat(net, rows((6,)), 4)
    with pytest.raises(ModelError, match="nothing to train"):
        to_qat(nn.ReLU(), rows((6,)), 4)


def test_wrong_calls() -> None:
    with pytest.raises(InvalidTypeError, match=r"takes a torch\.nn\.Module, not str"):
        to_qat("net", rows((6,)))  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="can be trained as it is"):
        to_qat(to_qat(mlp(), rows((6,)), 4), rows((6,)), 4)
    with pytest.raises(InvalidParameterError, match="needs n_bits='auto'"):
        to_qat(mlp(), rows((6,)), 4, "auto", labels=np.zeros(40))
    with pytest.raises(InvalidParameterError, match="n_bits"):
        to_qat(mlp(), rows((6,)), "many")


class InPlace(nn.Module):
    """Sizes that are computed, a sum in place, and a parameter."""

    def __init__(self, held: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 2, 3, padding=1)
        self.last = nn.Linear(50, 3)
        self.held = nn.Parameter(torch.ones(3, 3)) if held else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x += torch.relu(self.first(x))
        y: torch.Tensor = self.last(x.reshape(-1, x.shape[1] * x.shape[2] * x.shape[3]))
        return y if self.held is None else y @ self.held


def test_sizes_and_sums_in_place() -> None:
    x = rows((2, 5, 5)).astype(np.float64)
    net = InPlace()
    net.first.weight.requires_grad_(False)
    found = to_qat(net, x, 5)
    assert not found.get_submodule("first").weight.requires_grad
    assert found.get_submodule("last").weight.requires_grad
    found(torch.tensor(x).float()).sum().backward()
    module = build_quantized_module(found.eval(), x.astype(np.float32), import_qat=True)
    assert module.forward(x[:3]).shape == (3, 3)
    with pytest.raises(ModelError, match="matmul"):
        to_qat(InPlace(held=True), x, 5)


def test_transposed_convolutions() -> None:
    net = nn.Sequential(
        nn.ConvTranspose2d(2, 2, 2, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2)
    )
    x = rows((2, 3, 3))
    found = to_qat(net, x, 3, ROUNDED).eval()
    assert compile_brevitas_qat_model(found, x).forward(x[:2]).shape == (2, 2)


def test_a_single_layer() -> None:
    x = rows((6,))
    net = nn.Linear(6, 2)
    found = to_qat(net, x, 8).eval()
    with torch.no_grad():
        given = torch.tensor(x)
        assert float((found(given) - net(given)).abs().max()) < 0.1


def test_rows_that_do_not_fit() -> None:
    with pytest.raises(InvalidParameterError, match="not numbers"):
        to_qat(mlp(), np.where(rows((6,)) > 1, np.nan, rows((6,))), 4)
    with pytest.raises(InvalidParameterError, match=r"does not take the inputset, of shape \(40"):
        to_qat(mlp(), rows((5,)), 4)
    with pytest.raises(InvalidParameterError, match="of weights"):
        to_qat(mlp(), rows((6,)), 1)
    with pytest.raises(InvalidParameterError, match=r"net\.float"):
        to_qat(mlp().half(), rows((6,)), 4)


def test_rounding_is_found_in_networks_around() -> None:
    net = nn.Sequential(to_qat(mlp(), rows((6,)), 4, ROUNDED))
    assert trained_rounding(net) == ROUNDED
    assert trained_rounding(mlp()) is None
