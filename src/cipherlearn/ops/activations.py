"""Activation functions of neural networks."""

from __future__ import annotations

from cipherlearn.ops._composition import Attributes, Operands, attribute, required
from cipherlearn.ops._expand import Composer, Tensor
from cipherlearn.ops._registry import register


def _prelu(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    """With an encrypted slope: what is positive, less the slope times the rest."""
    del attributes
    x, slope = (required(operands, i) for i in range(2))
    rest = composer.add("Relu", composer.add("Neg", x))
    return composer.add("Sub", composer.add("Relu", x), composer.add("Mul", slope, rest))


def _swiglu(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    gate, value = (required(operands, i) for i in range(2))
    scaled = composer.add("Mul", gate, float(attribute(attributes, "alpha", 1.0)))
    swish = composer.add("Mul", gate, composer.add("Sigmoid", scaled))
    return composer.add("Mul", swish, value)


register(
    "Celu",
    "Elu",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Mish",
    "Relu",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Swish",
    "ThresholdedRelu",
)
register("PRelu", expand=_prelu)
register("SwiGLU", expand=_swiglu)
