"""Networks that Brevitas trains: whether their integers arrive, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.networks import Case, digits_data, train
from benchmarks.report import Figure, Note
from cipherlearn.circuit import count_lookups
from cipherlearn.ops import qonnx
from cipherlearn.quantization import QuantizedModule
from cipherlearn.torch import build_quantized_module
from cipherlearn.torch.distillation import one_thread

#: What look-ups read where accumulators are rounded.
KEPT = {"n_bits": 4, "method": "approximate"}

#: Bits of what is encrypted, of weights, and of activations.
INPUT_BITS, WEIGHT_BITS, ACTIVATION_BITS = 4, 3, 3


class Residual(nn.Module):
    """Two branches of convolutions that are added: the sum is exact on the grid of both."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        from brevitas import nn as qnn  # type: ignore[import-untyped]
        from brevitas import quant

        self.conv = qnn.QuantConv2d(
            channels, channels, 3, padding=1, bias=False, weight_bit_width=WEIGHT_BITS
        )
        self.norm = nn.BatchNorm2d(channels)
        self.add = qnn.QuantEltwiseAdd(
            input_quant=quant.Int8ActPerTensorFloat,
            input_bit_width=ACTIVATION_BITS,
            output_quant=None,
            return_quant_tensor=False,
        )
        self.act = qnn.QuantReLU(bit_width=ACTIVATION_BITS, return_quant_tensor=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A block."""
        result: torch.Tensor = self.act(self.add(self.norm(self.conv(x)), x))
        return result


class Tanh(nn.Module):
    """A real function between quantized layers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Element by element."""
        return torch.tanh(x)


def _layers() -> Any:
    from brevitas import nn as qnn

    return qnn


def mlp() -> nn.Module:
    """64-32-32-10: one scale a channel, ReLU in one layer and a real function in the other."""
    from brevitas import quant

    qnn = _layers()
    weights = {
        "weight_quant": quant.Int8WeightPerChannelFloat,
        "weight_bit_width": WEIGHT_BITS,
    }
    return nn.Sequential(
        qnn.QuantIdentity(bit_width=INPUT_BITS, return_quant_tensor=True),
        qnn.QuantLinear(64, 32, bias=True, **weights),
        qnn.QuantReLU(bit_width=ACTIVATION_BITS, return_quant_tensor=True),
        qnn.QuantLinear(32, 32, bias=True, **weights),
        Tanh(),
        qnn.QuantIdentity(bit_width=ACTIVATION_BITS, return_quant_tensor=True),
        qnn.QuantLinear(32, 10, bias=True, **weights),
    )


def mlp_power_of_two() -> nn.Module:
    """64-32-32-10, all scales powers of two; the layer without a bias has halves to round."""
    from brevitas import quant

    qnn = _layers()
    weights = {
        "weight_quant": quant.Int8WeightPerTensorFixedPoint,
        "weight_bit_width": WEIGHT_BITS,
    }
    active = {"act_quant": quant.Uint8ActPerTensorFixedPoint, "bit_width": ACTIVATION_BITS}
    layers = [
        qnn.QuantIdentity(
            act_quant=quant.Int8ActPerTensorFixedPoint,
            bit_width=INPUT_BITS,
            return_quant_tensor=True,
        )
    ]
    for width in (64, 32):
        layers += [
            qnn.QuantLinear(width, 32, bias=width == 64, **weights),
            qnn.QuantReLU(return_quant_tensor=True, **active),
        ]
    return nn.Sequential(*layers, qnn.QuantLinear(32, 10, bias=True, **weights))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    qnn = _layers()
    return [
        qnn.QuantConv2d(
            inputs,
            outputs,
            3,
            stride=stride,
            padding=1,
            bias=False,
            weight_bit_width=WEIGHT_BITS,
        ),
        nn.BatchNorm2d(outputs),
        qnn.QuantReLU(bit_width=ACTIVATION_BITS, return_quant_tensor=True),
    ]


def cnn() -> nn.Module:
    """Two convolutions with normalization, an average pool that Brevitas truncates, one product."""
    qnn = _layers()
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        qnn.QuantIdentity(bit_width=INPUT_BITS, return_quant_tensor=True),
        *_convolution(1, 6, 2),
        *_convolution(6, 8),
        qnn.TruncAvgPool2d(2, return_quant_tensor=True),
        nn.Flatten(),
        qnn.QuantLinear(32, 10, bias=True, weight_bit_width=WEIGHT_BITS),
    )


def residual_cnn() -> nn.Module:
    """A convolution, a residual block, and one product."""
    qnn = _layers()
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        qnn.QuantIdentity(bit_width=INPUT_BITS, return_quant_tensor=True),
        *_convolution(1, 4, 2),
        Residual(4),
        nn.Flatten(),
        qnn.QuantLinear(64, 10, bias=True, weight_bit_width=WEIGHT_BITS),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "MLP": mlp,
    "MLP, powers of two": mlp_power_of_two,
    "CNN": cnn,
    "residual CNN": residual_cnn,
}


def trained(make: Callable[[], nn.Module], epochs: int = 40, seed: int = 0) -> Case:
    """A network of this file, trained on digits for seconds."""
    x_train, x_test, y_train, y_test = digits_data()
    torch.manual_seed(seed)
    net = make()
    with one_thread():
        # Scales are trained as well, and are small numbers: they take small steps.
        train(net, x_train, y_train, seed, epochs=epochs, rate=3e-3, weight_decay=0.0)
    return Case(net.eval(), x_train, x_test, y_train, y_test)


def integers_of_brevitas(net: nn.Module, x: np.ndarray) -> list[np.ndarray]:
    """What every quantizer of activations gives, in the order in which they are called."""
    found: list[np.ndarray] = []

    def note(part: Any, _inputs: Any, output: Any) -> None:
        value = getattr(output, "value", output)
        value = value[0] if isinstance(value, tuple) else value
        integers = torch.round(value / part.scale() + part.zero_point())
        found.append(integers.detach().numpy().astype(np.int64))

    kinds = ("ActQuantProxyFromInjector", "TruncQuantProxyFromInjector")
    parts = [p for p in net.modules() if type(p).__name__ in kinds and p.is_quant_enabled]
    hooks = [part.register_forward_hook(note) for part in parts]
    try:
        with torch.no_grad():
            net(torch.tensor(x))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def integers_of_module(module: QuantizedModule, x: np.ndarray) -> list[np.ndarray]:
    """What every quantizer of the imported network gives, in the order of its graph."""
    _, layers = module.forward(x, debug=True)
    kinds = {op.op_instance_name: op.op_type() for _, op in module.quant_layers_dict.values()}
    return [
        values["output"].qvalues
        for name, values in layers.items()
        if kinds[name] in qonnx.GRID_OPERATORS
    ]


def equal_share(net: nn.Module, module: QuantizedModule, x: np.ndarray) -> float:
    """Share of integers that are those of Brevitas, outputs of the network included."""
    ours, theirs = integers_of_module(module, x), integers_of_brevitas(net, x)
    same = [a == b.reshape(a.shape) for a, b in zip(ours, theirs, strict=True)]
    with torch.no_grad():
        result = net(torch.tensor(x))
    outputs = getattr(result, "value", result).numpy()
    # Accumulators, as the circuit computes them: their steps, and not what float32 makes of them.
    (quantizer,) = module.output_quantizers
    wanted = np.rint(outputs / quantizer.scale + quantizer.zero_point)
    same.append(np.rint(module.forward(x) / quantizer.scale + quantizer.zero_point) == wanted)
    return float(np.concatenate([part.reshape(-1) for part in same]).mean())


def run() -> Iterator[Figure | Note]:
    """All figures."""
    for name, make in NETWORKS.items():
        case = trained(make)
        yield Figure(f"{name}: accuracy of Brevitas", case.float_accuracy)
        for bounds in ("proved", "observed"):
            module = _imported(case, bounds=bounds)
            least = 1.0 if bounds == "proved" else None
            share = equal_share(case.net, module, case.x_test)
            told = f"{name}, ranges {bounds}"
            yield Figure(f"{told}: share of equal integers", share, at_least=least)
            yield from _prices(told, case, module)
        rounded = _imported(case, rounding_threshold_bits=KEPT)
        yield from _prices(f"{name}, {KEPT['n_bits']} bits kept", case, rounded)


def _imported(case: Case, **options: Any) -> QuantizedModule:
    return build_quantized_module(case.net, case.calibration, import_qat=True, **options)


def _prices(told: str, case: Case, module: QuantizedModule) -> Iterator[Figure | Note]:
    complexity = module.compile().complexity
    yield Figure(f"{told}: accuracy", case.accuracy(module.forward(case.x_test, fhe="simulate")))
    yield Figure(f"{told}: complexity", complexity)
    lookups = count_lookups(module.circuit)
    widest = max(lookups.by_width)
    yield Note(
        f"{told}: {lookups.total} look-ups of up to {widest} bits; "
        f"{lookups.rounded_bits} bits rounded off"
    )
