"""Networks that quantize themselves, exported and taken over."""

from __future__ import annotations

import builtins
import io
import warnings
from collections.abc import Callable
from typing import Any

import brevitas.nn as qnn
import numpy as np
import onnx
import pytest
import torch
from brevitas import quant
from torch import nn
from torch.ao import quantization as fake

from benchmarks.qat import equal_share
from cipherlearn.errors import (
    InvalidParameterError,
    InvalidTypeError,
    MissingDependencyError,
    ModelError,
    UnquantizedTensorError,
)
from cipherlearn.quantization import PostTrainingQATImporter, QuantizedModule
from cipherlearn.torch import (
    NumpyModule,
    build_quantized_module,
    compile_brevitas_qat_model,
    compile_torch_model,
)
from tests.quantization.quantize import normal

X, Y = normal(120, 6), normal(200, 6, seed=1)


def network(*layers: nn.Module, x: np.ndarray = X) -> nn.Module:
    """Layers, with the scales that some data leads to."""
    torch.manual_seed(0)
    net = nn.Sequential(*layers).train()
    with torch.no_grad():
        for _ in range(2):
            net(torch.tensor(x))
    return net.eval()


def first(bits: int = 4, **options: Any) -> nn.Module:
    identity: nn.Module = qnn.QuantIdentity(bit_width=bits, return_quant_tensor=True, **options)
    return identity


def linear(inputs: int = 6, outputs: int = 5, bits: int = 3, **options: Any) -> nn.Module:
    options = {"bias": True, "weight_bit_width": bits, **options}
    layer: nn.Module = qnn.QuantLinear(inputs, outputs, **options)
    return layer


def relu(bits: int = 3) -> nn.Module:
    layer: nn.Module = qnn.QuantReLU(bit_width=bits, return_quant_tensor=True)
    return layer


Layers = Callable[[], list[nn.Module]]

QUICK: dict[str, Layers] = {
    "bias": lambda: [first(), linear(bias_quant=quant.Int32Bias, return_quant_tensor=False)],
    "shifted": lambda: [
        first(act_quant=quant.ShiftedUint8ActPerTensorFloat),
        linear(),
        relu(),
        linear(5, 3),
    ],
    "a2q": lambda: [
        first(),
        linear(weight_quant=quant.Int8AccumulatorAwareWeightQuant),
        relu(),
        linear(5),
    ],
    "mixed": lambda: [first(), linear(), nn.Sigmoid(), nn.Softplus(), first(3), linear(5, 4)],
}
SLOW: dict[str, Layers] = {
    "shifted weights": lambda: [
        first(),
        linear(weight_quant=quant.ShiftedUint8WeightPerTensorFloat),
        relu(),
        linear(5),
    ],
    "binary": lambda: [
        first(),
        linear(weight_quant=quant.SignedBinaryWeightPerTensorConst),
        relu(),
        linear(5),
    ],
    "tanh": lambda: [first(), linear(), qnn.QuantTanh(bit_width=3), linear(5, 4)],
    "output": lambda: [first(2), linear(), qnn.QuantSigmoid(bit_width=2), linear(5, 4), first(3)],
    "sum": lambda: [first(), linear(), Sum(), linear(5, 4)],
    "asserting": lambda: [first(), Asserting(), linear()],
}


class Sum(nn.Module):
    """Two quantized branches, added with an operator, and concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.both = first(3), first(3)
        self.left, self.right = linear(5, 5), linear(5, 5)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.quant(x)
        added = self.quant(self.left(x)) + self.quant(self.right(x))
        return self.both(added)


class Asserting(nn.Module):
    """Takes what Brevitas calls a QuantTensor only; the older exporter can do that."""

    def forward(self, x: Any) -> Any:
        if not torch.jit.is_tracing() and not hasattr(x, "scale"):
            raise TypeError("no QuantTensor")
        return x


def imported(
    net: nn.Module | onnx.ModelProto, x: np.ndarray = X, **options: Any
) -> QuantizedModule:
    return build_quantized_module(net, x, import_qat=True, bounds="proved", **options)


@pytest.mark.filterwarnings("ignore:Computing zero point of output accumulator")
@pytest.mark.parametrize("kind", [*QUICK, *(pytest.param(k, marks=pytest.mark.slow) for k in SLOW)])
def test_all_kinds_of_layers_give_the_integers_of_brevitas(kind: str) -> None:
    net = network(*{**QUICK, **SLOW}[kind]())
    assert equal_share(net, imported(net), Y) == 1.0


def test_convolutions_of_one_axis_and_pools() -> None:
    x, y = normal(60, 2, 8), normal(100, 2, 8, seed=1)
    net = network(
        first(),
        qnn.QuantConv1d(2, 3, 3, bias=True, padding=1, weight_bit_width=3),
        relu(),
        nn.MaxPool1d(2),
        nn.AvgPool1d(2),
        nn.Flatten(),
        linear(6, 4),
        x=x,
    )
    # What the average pool gives are integers of Brevitas as well: nothing quantizes them.
    assert equal_share(net, imported(net, x), y) == 1.0


def test_the_module_is_left_as_it_was() -> None:
    net = network(first(), linear(), relu(), linear(5, 2))
    before = net(torch.tensor(Y)).detach().numpy()
    weights = net[1].weight.detach().numpy().copy()
    NumpyModule(net, X[:2])
    np.testing.assert_array_equal(net(torch.tensor(Y)).detach().numpy(), before)
    np.testing.assert_array_equal(net[1].weight.detach().numpy(), weights)
    # It trains on, and is exported again.
    with torch.no_grad():
        net[1].weight += 0.3
    assert equal_share(net, imported(net), Y) == 1.0


def qcdq(net: nn.Module) -> onnx.ModelProto:
    """What Brevitas exports as ``QuantizeLinear``, ``Clip`` and ``DequantizeLinear``.

    Its own function asks for an optimizer of graphs first, which is not needed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from brevitas.export.manager import ExportContext
        from brevitas.export.onnx.standard.qcdq.manager import StdQCDQONNXManager as Manager

    file, examples = io.BytesIO(), (torch.tensor(X[:2]),)
    with warnings.catch_warnings(), torch.no_grad(), ExportContext(Manager):
        warnings.simplefilter("ignore")
        net.apply(Manager.set_export_handler)
        Manager._cache_inp_out(net, *examples)
        Manager.set_export_mode(net, enabled=True)
        torch.onnx.export(net, examples, file, dynamo=False, opset_version=17)
        Manager.set_export_mode(net, enabled=False)
    return onnx.load_from_string(file.getvalue())


def test_the_other_export_of_brevitas_is_the_same() -> None:
    net = network(
        first(),
        linear(weight_quant=quant.Int8WeightPerChannelFloat),
        relu(),
        linear(5, 4),
        nn.Tanh(),
        first(3),
        linear(4, 3),
    )
    model = qcdq(net)
    kinds = [node.op_type for node in model.graph.node]
    assert "Clip" in kinds
    assert "Quant" not in kinds
    assert equal_share(net, imported(model), Y) == 1.0


def test_a_network_of_brevitas_is_compiled_and_encrypted(tmp_path: Any) -> None:
    net = network(first(2), linear(6, 3, bits=2), relu(2), linear(3, 2, bits=2))
    file = tmp_path / "net.onnx"
    module = compile_brevitas_qat_model(net, X, output_onnx_file=file, p_error=2**-20)
    assert file.stat().st_size
    assert module.fhe_circuit is not None
    with torch.no_grad():
        wanted = net(torch.tensor(Y[:2])).numpy()
    np.testing.assert_allclose(module.forward(Y[:2], fhe="execute"), wanted, atol=1e-5)


def test_bits_may_be_given_where_they_are_those_of_the_network() -> None:
    net = network(first(4), linear(bits=4), relu(4), linear(5, 2, bits=4))
    model = NumpyModule(net, X[:2])
    PostTrainingQATImporter(4, model).quantize_module(X)
    PostTrainingQATImporter({"model_inputs": 4, "model_outputs": 6}, model).quantize_module(X)
    with pytest.raises(
        InvalidParameterError, match=r"'1\.weight_quant' of .* has 4 bits, op_w.*leave"
    ):
        PostTrainingQATImporter(3, model).quantize_module(X)
    with pytest.raises(InvalidParameterError, match=r"has 4 bits, model_inputs is 8"):
        compile_brevitas_qat_model(net, X, {"model_inputs": 8, "model_outputs": 8})


def test_missing_quantizers_are_listed() -> None:
    net = network(linear(), relu(), linear(5, 4), nn.ReLU(), linear(4, 2))
    with pytest.raises(UnquantizedTensorError) as caught:
        imported(net)
    for text in ("does not begin with a quantizer: 'input'", "QuantIdentity", "quantized: relu_1."):
        assert text in str(caught.value)


def test_what_brevitas_has_beyond_integers_is_listed_at_once() -> None:
    net = network(
        qnn.QuantIdentity(act_quant=quant.Fp8e4m3ActPerTensorFloat),
        linear(),
        qnn.QuantIdentity(act_quant=quant.Int8DynamicActPerTensorFloat)
        if hasattr(quant, "Int8DynamicActPerTensorFloat")
        else qnn.QuantIdentity(act_quant=quant.Fp8e4m3ActPerTensorFloat),
    )
    with pytest.raises(ModelError, match=r"(?s)- 0\.act_quant .*few bits.*- 2\.act_quant"):
        imported(net)


def test_networks_go_to_the_function_that_is_made_for_them() -> None:
    net = network(first(), linear())
    with pytest.raises(
        InvalidTypeError, match=r"Brevitas \(QuantIdentity, QuantLinear\).*use comp"
    ):
        compile_torch_model(net, X)
    with pytest.raises(InvalidTypeError, match="no layers of Brevitas: compile_torch_model"):
        compile_brevitas_qat_model(nn.Linear(6, 2), X)
    with pytest.raises(InvalidTypeError, match=r"takes a torch\.nn\.Module, not str"):
        compile_brevitas_qat_model("net", X)  # type: ignore[arg-type]


def test_without_brevitas_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    known = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "brevitas":
            raise ModuleNotFoundError(name)
        return known(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r'pip install "cipherlearn\[nn\]"'):
        compile_brevitas_qat_model(nn.Linear(6, 2), X)


class FakeQuantized(nn.Module):
    """Torch's own fake quantization: of activations, and of weights channel by channel."""

    def __init__(self) -> None:
        super().__init__()
        activations = fake.FakeQuantize.with_args(
            observer=fake.MovingAverageMinMaxObserver, quant_min=0, quant_max=15, dtype=torch.quint8
        )
        weights = fake.FakeQuantize.with_args(
            observer=fake.PerChannelMinMaxObserver,
            quant_min=-7,
            quant_max=7,
            dtype=torch.qint8,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
        )
        self.parts = nn.ModuleList([activations(), activations(), weights(), weights()])
        self.layers = nn.ModuleList([nn.Linear(6, 5), nn.Linear(5, 3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for place, layer in enumerate(self.layers):
            x = nn.functional.linear(
                self.parts[place](torch.sigmoid(x) if place else x),
                self.parts[place + 2](layer.weight),
                layer.bias,
            )
        return x


def test_fake_quantization_of_torch_is_taken_over() -> None:
    torch.manual_seed(0)
    net = FakeQuantized()
    net(torch.tensor(X))
    net.eval()
    with pytest.raises(ModelError, match=r"parts\.0, .* still observes.*disable_observer"):
        imported(net)
    net.apply(fake.disable_observer)
    module = imported(net)
    assert module.input_quantizers[0].scale == pytest.approx(float(net.parts[0].scale))
    assert module.input_quantizers[0].n_bits == 4
    with torch.no_grad():
        wanted = net(torch.tensor(Y)).numpy()
    np.testing.assert_allclose(module.forward(Y), wanted, atol=1e-5)
    assert "forward" not in vars(net.parts[0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torchao, as it is imported
@pytest.mark.parametrize("is_qat", [False, True])
def test_what_torchao_converts_is_taken_over(is_qat: bool) -> None:
    from torchao.quantization.pt2e import quantize_pt2e as pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    dynamic = ({0: torch.export.Dim("rows")},)
    graph = torch.export.export(net, (torch.tensor(X),), dynamic_shapes=dynamic).module()
    config = x86.get_default_x86_inductor_quantization_config(is_qat=is_qat)
    quantizer = x86.X86InductorQuantizer().set_global(config)
    prepared = (pt2e.prepare_qat_pt2e if is_qat else pt2e.prepare_pt2e)(graph, quantizer)
    prepared(torch.tensor(X))
    with pytest.raises(ModelError, match=r"not converted: it holds .*(?s:Observer|Fake).*pt2e"):
        build_quantized_module(prepared, X, import_qat=True)
    converted = pt2e.convert_pt2e(prepared)
    module = build_quantized_module(converted, X, import_qat=True, bounds="proved")
    grids = [n.op_type for n in module.onnx_model.graph.node].count("Quant")
    assert grids >= 4  # of what both layers read, and of their weights
    wanted = converted(torch.tensor(X)).detach().numpy()
    away = np.abs(module.forward(X) - wanted)
    assert (away < 1e-4).mean() > 0.99
    assert away.max() < 0.1
