"""What layers, functions and operators of PyTorch do to tensors, as quantization sees it."""

from __future__ import annotations

import operator
from typing import Any

from torch import nn

#: Layers with weights, and what takes their place.
PRODUCTS: dict[type[nn.Module], str] = {
    nn.Linear: "QuantLinear",
    nn.Conv1d: "QuantConv1d",
    nn.Conv2d: "QuantConv2d",
    nn.Conv3d: "QuantConv3d",
    nn.ConvTranspose1d: "QuantConvTranspose1d",
    nn.ConvTranspose2d: "QuantConvTranspose2d",
}

#: Operators that change a value, and those that give another.
NOT_IN_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}

#: Parameters of layers, which are also those of what takes their place.
GEOMETRY = (
    "in_features",
    "out_features",
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "output_padding",
    "dilation",
    "groups",
    "padding_mode",
)

#: Modules by what they do, by the beginning of their name.
_ELEMENTWISE_MODULES = (
    *("BatchNorm", "CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh"),
    *("LeakyReLU", "LogSigmoid", "Mish", "PReLU", "ReLU", "SELU", "SiLU", "Sigmoid", "Softplus"),
    *("Softshrink", "Softsign", "Tanh", "Tanhshrink", "Threshold"),
)
_MOVING_MODULES = ("Dropout", "Flatten", "Identity", "MaxPool", "Unflatten")
_POOLING_MODULES = ("AvgPool", "AdaptiveAvgPool")

#: Functions and methods by what they do, by their name.
ELEMENTWISE = frozenset(
    (
        *("abs", "celu", "clamp", "clip", "div", "elu", "erf", "exp", "gelu", "hardsigmoid"),
        *("hardswish", "hardtanh", "leaky_relu", "log", "logsigmoid", "mish", "neg", "pow"),
        *("prelu", "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "softsign", "sqrt"),
        *("square", "tanh", "truediv"),
    )
)
MOVING = frozenset(
    (
        *("chunk", "contiguous", "dropout", "flatten", "getattr", "getitem", "max_pool1d"),
        *("max_pool2d", "permute", "reshape", "size", "split", "squeeze", "swapaxes"),
        *("transpose", "unsqueeze", "view"),
    )
)
JOINING = frozenset(("add", "cat", "concat", "maximum", "minimum", "stack", "sub"))
MIXING = frozenset(
    (
        *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "bmm"),
        *("matmul", "mean", "mul", "sum"),
    )
)


def kind_of_module(module: nn.Module) -> str:
    """What a module does to tensors; empty if that is not known."""
    if type(module) in PRODUCTS:
        return "product"
    name = type(module).__name__
    for kind, known in (
        ("moving", _MOVING_MODULES),
        ("mixing", _POOLING_MODULES),
        ("elementwise", _ELEMENTWISE_MODULES),
    ):
        if name.startswith(known):
            return kind
    return ""
