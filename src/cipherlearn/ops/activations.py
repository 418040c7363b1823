"""Activation functions of neural networks."""

from cipherlearn.ops._registry import register

register(
    "Celu",
    "Elu",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Mish",
    "PRelu",
    "Relu",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "SwiGLU",
    "Swish",
    "ThresholdedRelu",
)
