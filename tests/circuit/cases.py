"""Examples of every primitive, with shapes of operands that fit."""

from __future__ import annotations

import numpy as np

from cipherlearn.circuit import Builder, Circuit, IntValue, ir

Shape = tuple[int, ...]

#: Per case: the primitive and the shapes of its operands; the last one is constant if it must be.
CASES: dict[str, tuple[ir.Primitive, tuple[Shape, ...]]] = {
    "input": (ir.Input("a value", (2, 3), -5, 6), ()),
    "clear input": (ir.Input("ö", (), 0, 1, encrypted=False), ()),
    "constant": (ir.Constant(np.array([[1, -2], [3, 4]])), ()),
    "constant without axes": (ir.Constant(np.array(-7)), ()),
    "add": (ir.Add(), ((2, 3), (1, 3))),
    "subtract": (ir.Subtract(), ((1, 3), (2, 1))),
    "multiply": (ir.Multiply(), ((2, 3), (2, 3))),
    "maximum": (ir.Maximum(), ((2, 1), (2, 3))),
    "matmul": (ir.MatMul(), ((2, 3), (3, 4))),
    "matmul of stacks": (ir.MatMul(), ((2, 1, 2, 3), (1, 3, 3, 2))),
    "convolve": (ir.Convolve((1,), (0, 0), (1,)), ((2, 1, 5), (3, 1, 2))),
    "convolve in groups": (
        ir.Convolve((2, 1), (1, 0, 2, 1), (1, 2), groups=2),
        ((1, 4, 5, 4), (6, 2, 3, 2)),
    ),
    "convolve volumes": (
        ir.Convolve((1, 1, 1), (0,) * 6, (1, 1, 1)),
        ((1, 1, 2, 3, 2), (1, 1, 2, 2, 1)),
    ),
    "sum": (ir.Sum((0, 2)), ((2, 3, 2),)),
    "sum that keeps axes": (ir.Sum((1,), keepdims=True), ((2, 3),)),
    "sum over nothing": (ir.Sum(()), ((2,),)),
    "index": (ir.Index((1, slice(None, None, -1))), ((2, 3, 2),)),
    "index by an array": (ir.Index((slice(None), np.array([2, 0, 2]))), ((2, 3, 2),)),
    "index of nothing": (ir.Index((slice(1, 1), slice(None))), ((2, 3),)),
    "reshape": (ir.Reshape((3, 1, 2)), ((2, 3),)),
    "reshape to no axes": (ir.Reshape(()), ((1, 1),)),
    "transpose": (ir.Transpose((2, 0, 1)), ((2, 3, 4),)),
    "concatenate": (ir.Concatenate(1), ((2, 3), (2, 1), (2, 2))),
    "broadcast": (ir.Broadcast((4, 2, 3)), ((1, 2, 1),)),
    "lookup": (ir.Lookup(np.array([3, 1, 4, 1, 5]), -2), ((2, 3),)),
    "lookup of steps": (ir.Lookup(np.arange(6).reshape(3, 2, 1), -8, 4), ((2, 3),)),
    "lookup by element": (ir.Lookup(np.arange(24).reshape(4, 2, 3) % 7, 0), ((2, 3),)),
    "round": (ir.Round(2), ((2, 3),)),
    "round approximately": (ir.Round(3, exact=False), ((2, 3),)),
    "round nothing": (ir.Round(0), ((2, 3),)),
    "assume": (ir.Assume(np.full((2, 3), -4), np.arange(6).reshape(2, 3)), ((2, 3),)),
}


def build(name: str) -> tuple[Builder, IntValue]:
    """The case on inputs in [-9, 10], kernels being constants."""
    builder = Builder()
    primitive, shapes = CASES[name]
    operands = []
    for number, shape in enumerate(shapes):
        if isinstance(primitive, ir.Convolve) and number == 1:
            kernel = np.random.default_rng(0).integers(-9, 10, shape)
            operands.append(builder.constant(kernel))
        else:
            operands.append(builder.input(f"operand_{number}", shape, -9, 10))
    return builder, builder.add(primitive, *operands)


def circuit_of(name: str) -> Circuit:
    """The case as a circuit; constants and clear inputs are added to an encrypted zero."""
    builder, value = build(name)
    if not value.encrypted:
        value = value + builder.input("zero", value.shape, 0, 0)
    return builder.finish([value])
