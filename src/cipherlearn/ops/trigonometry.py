"""Circular and hyperbolic functions, and their inverses."""

from cipherlearn.ops._registry import register

register(
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Cos",
    "Cosh",
    "Sin",
    "Sinh",
    "Tan",
    "Tanh",
)
