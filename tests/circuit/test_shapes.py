from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cipherlearn.circuit import Circuit, ir, kernels
from cipherlearn.circuit.shapes import MAXIMUM_ELEMENTS, result_shape
from cipherlearn.errors import CircuitError
from tests.circuit.cases import CASES
from tests.circuit.programs import circuits

Shape = tuple[int, ...]


@pytest.mark.parametrize("name", CASES)
def test_is_the_shape_of_the_result(name: str) -> None:
    primitive, shapes = CASES[name]
    operands = [np.zeros((1, *shape), dtype=np.int64) for shape in shapes]
    if isinstance(primitive, ir.Input):
        assert result_shape(primitive) == primitive.shape
    else:
        assert result_shape(primitive, *shapes) == kernels.apply(primitive, *operands).shape[1:]


@given(circuits())
def test_is_the_shape_of_every_node(circuit: Circuit) -> None:
    for node in circuit:
        operands = [circuit.nodes[index].shape for index in node.inputs]
        assert result_shape(node.primitive, *operands) == node.shape


@given(st.data())
def test_convolutions_of_any_geometry(data: st.DataObject) -> None:
    space = data.draw(st.integers(1, 2))

    def draw(lo: int, hi: int, count: int = space) -> Shape:
        return tuple(data.draw(st.integers(lo, hi)) for _ in range(count))

    primitive = ir.Convolve(draw(1, 3), draw(0, 2, 2 * space), draw(1, 2))
    shapes = (1, 2, *draw(1, 5)), (3, 2, *draw(1, 3))
    operands = [np.ones((1, *shape), dtype=np.int64) for shape in shapes]
    try:
        expected = result_shape(primitive, *shapes)
    except CircuitError:
        with pytest.raises(ValueError, match="window"):
            kernels.apply(primitive, *operands)
    else:
        assert kernels.apply(primitive, *operands).shape == (1, *expected)


def convolve(**changes: Any) -> ir.Convolve:
    return ir.Convolve(**{"strides": (1,), "pads": (0, 0), "dilations": (1,), **changes})


IMAGE, KERNEL = (1, 2, 5), (4, 2, 3)
TABLE = np.arange(4)
FLOATS = np.zeros(2)
TOO_MANY = MAXIMUM_ELEMENTS + 1


@pytest.mark.parametrize(
    ("primitive", "operands"),
    [
        (ir.Input("x", (-1,), 0, 1), ()),
        (ir.Input("x", (2.0,), 0, 1), ()),  # type: ignore[arg-type]
        (ir.Input("x", [2], 0, 1), ()),  # type: ignore[arg-type]
        (ir.Input("x", (2,), 0.5, 1), ()),  # type: ignore[arg-type]
        (ir.Input("x", (2,), False, True), ()),
        (ir.Input("x", (2,), 1, 0), ()),
        (ir.Input("x", (2,), 0, 2**70), ()),
        (ir.Input("x", (2,), 0, 1, 1), ()),  # type: ignore[arg-type]
        (ir.Input(3, (2,), 0, 1), ()),  # type: ignore[arg-type]
        (ir.Input("x", (TOO_MANY,), 0, 1), ()),
        (ir.Input("x", (2**40, 2**40), 0, 1), ()),
        (ir.Constant(FLOATS), ()),
        (ir.Constant(np.zeros(2, dtype=np.int32)), ()),
        (ir.Constant([1, 2]), ()),  # type: ignore[arg-type]
        (ir.Add(), ((2,), (3,))),
        (ir.Add(), ((3,), (2, 3))),  # a batch axis would meet the 2
        (ir.Add(), ((TOO_MANY, 1), (1, 2))),
        (ir.MatMul(), ((3,), (3,))),
        (ir.MatMul(), ((2, 3), (2, 3))),
        (ir.MatMul(), ((2, 2, 3), (3, 2))),
        (ir.MatMul(), ((TOO_MANY, 1), (1, 2))),
        (convolve(), ((1, 2), (4, 2))),
        (convolve(), (IMAGE, (4, 2))),
        (convolve(), (IMAGE, (4, 3, 3))),
        (convolve(), (IMAGE, (4, 2, 6))),
        (convolve(), (IMAGE, (4, 2, 0))),
        (convolve(groups=3), (IMAGE, KERNEL)),
        (convolve(groups=2), (IMAGE, (3, 1, 3))),
        (convolve(groups=0), (IMAGE, KERNEL)),
        (convolve(strides=(0,)), (IMAGE, KERNEL)),
        (convolve(strides=(1, 1)), (IMAGE, KERNEL)),
        (convolve(dilations=(3,)), (IMAGE, KERNEL)),
        (convolve(pads=(0,)), (IMAGE, KERNEL)),
        (convolve(pads=(-1, 0)), (IMAGE, KERNEL)),
        (convolve(pads=(2**40, 0), strides=(2**39,)), (IMAGE, KERNEL)),
        (ir.Sum((2,)), ((2, 3),)),
        (ir.Sum((-1,)), ((2, 3),)),
        (ir.Sum((0, 0)), ((2, 3),)),
        (ir.Sum((0,), keepdims=1), ((2, 3),)),  # type: ignore[arg-type]
        (ir.Index((0, 0)), ((2,),)),
        (ir.Index((2,)), ((2,),)),
        (ir.Index((-3,)), ((2,),)),
        (ir.Index((True,)), ((2,),)),
        (ir.Index((None,)), ((2,),)),  # type: ignore[arg-type]
        (ir.Index((slice(None, None, 0),)), ((2,),)),
        (ir.Index((slice("a", None),)), ((2,),)),
        (ir.Index((np.array([2]),)), ((2,),)),
        (ir.Index((np.array([-1]),)), ((2,),)),
        (ir.Index((np.array([True, False]),)), ((2,),)),
        (ir.Index((np.array([[0]]),)), ((2,),)),
        (ir.Index((np.array([0]), np.array([0]))), ((2, 2),)),
        (ir.Index((0, slice(None), np.array([0]))), ((2, 2, 2),)),
        (ir.Reshape((4,)), ((2, 3),)),
        (ir.Reshape((-1,)), ((2, 3),)),
        (ir.Transpose((0,)), ((2, 3),)),
        (ir.Transpose((0, 0)), ((2, 3),)),
        (ir.Transpose((0, 2)), ((2, 3),)),
        (ir.Concatenate(0), ()),
        (ir.Concatenate(1), ((2,), (2,))),
        (ir.Concatenate(0), ((2, 3), (2, 4))),
        (ir.Concatenate(0), ((2, 3), (2,))),
        (ir.Broadcast((3, 2)), ((2,),)),
        (ir.Broadcast((1,)), ((2,),)),
        (ir.Broadcast((TOO_MANY,)), ((1,),)),
        (ir.Lookup(np.zeros((0,), dtype=np.int64), 0), ((2,),)),
        (ir.Lookup(np.array(3), 0), ((2,),)),
        (ir.Lookup(FLOATS, 0), ((2,),)),
        (ir.Lookup(TABLE, 0, 0), ((2,),)),
        (ir.Lookup(TABLE, 0.5), ((2,),)),  # type: ignore[arg-type]
        (ir.Lookup(TABLE.reshape(2, 2), 0), ((3,),)),
        (ir.Lookup(TABLE.reshape(2, 2), 0), ((1,),)),
        (ir.Lookup(TABLE.reshape(2, 2), 0), ((1, 2),)),
        (ir.Round(-1), ((2,),)),
        (ir.Round(62), ((2,),)),
        (ir.Round(1, exact=1), ((2,),)),  # type: ignore[arg-type]
        (ir.Assume(np.array([0]), np.array([1])), ((2,),)),
        (ir.Assume(np.array([0, 2]), np.array([1, 1])), ((2,),)),
        (ir.Assume(FLOATS, FLOATS), ((2,),)),
    ],
)
def test_malformed_primitives_are_refused(
    primitive: ir.Primitive, operands: tuple[Shape, ...]
) -> None:
    with pytest.raises(CircuitError, match=primitive.name):
        result_shape(primitive, *operands)


def test_constants_may_be_larger_than_computed_values() -> None:
    holder = ir.Constant(np.zeros(1, dtype=np.int64))
    object.__setattr__(holder, "values", np.broadcast_to(np.int64(0), (TOO_MANY,)))
    assert result_shape(holder) == (TOO_MANY,)


def test_an_unknown_primitive_is_refused() -> None:
    with pytest.raises(CircuitError, match="no shape rule for Primitive"):
        result_shape(ir.Primitive(), (1,))
