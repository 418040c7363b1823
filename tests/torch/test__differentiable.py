from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherlearn.circuit import Builder, Circuit, evaluate, ir, simulate
from cipherlearn.errors import CircuitError
from cipherlearn.torch._differentiable import DifferentiableCircuit, apply, rounded

P_ERROR = 2.0**-40


def weights(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3, 4, shape)


def table(*columns: int) -> np.ndarray:
    return np.random.default_rng(2).integers(-9, 10, (16, *columns))


CASES: dict[str, tuple[tuple[int, ...], Callable[[Any], Any]]] = {
    "add": ((1, 6), lambda x: x + weights(1, 6)),
    "subtract": ((1, 6), lambda x: weights(1, 6) - x),
    "multiply": ((1, 6), lambda x: x * x),
    "matmul": ((1, 6), lambda x: x @ weights(6, 3)),
    "encrypted matmul": ((2, 3), lambda x: x @ x.transpose(1, 0)),
    "sum": ((2, 3, 4), lambda x: x.sum((0, 2), keepdims=True)),
    "sum of one axis": ((2, 3), lambda x: x.sum(1)),
    "integer index": ((3, 4), lambda x: x[1]),
    "backward slice": ((3, 4), lambda x: x[:, ::-1]),
    "index of an array": ((3, 4), lambda x: x[:, np.array([3, 0, 0])]),
    "reshape": ((3, 4), lambda x: x.reshape(2, 6)),
    "transpose": ((2, 3, 4), lambda x: x.transpose(2, 0, 1)),
    "concatenate": ((2, 3), lambda x: np.concatenate([x, x + 1], axis=1)),
    "broadcast": ((1, 3), lambda x: x.broadcast_to((4, 3))),
    "look-up": ((1, 6), lambda x: x.lookup(table(), 0)),
    "look-up a channel": ((1, 6), lambda x: x.lookup(table(1, 6), 0)),
    "look-up in steps": ((1, 6), lambda x: (x * 4).lookup(table(), 0, 4)),
    "exact rounding": ((1, 6), lambda x: (x * 3 - 7).round(2, exact=True)),
    "approximate rounding": ((1, 6), lambda x: (x * 3 - 7).round(2, exact=False)),
    "declared range": ((1, 6), lambda x: x.assume(np.full((1, 6), 3), np.full((1, 6), 9))),
    "maximum": ((1, 6), lambda x: np.maximum(x, x * 2 - 5)),
}


def circuit_of(shape: tuple[int, ...], function: Callable[[Any], Any]) -> Circuit:
    builder = Builder()
    return builder.finish([function(builder.input("x", shape, 0, 15))])


def convolution(dims: int) -> Circuit:
    builder = Builder()
    x = builder.input("x", (1, 4, *(6,) * dims), 0, 15)
    pads = (*range(dims), *(1,) * dims)
    convolve = ir.Convolve((2,) * dims, pads, (1,) * dims, groups=2)
    kernel = builder.constant(weights(6, 2, *(3,) * dims))
    return builder.finish([builder.add(convolve, x, kernel)])


def check(circuit: Circuit, seed: int) -> None:
    shape = circuit.inputs[0].shape
    rows = np.random.default_rng(seed).integers(0, 16, (5, *shape))
    function = DifferentiableCircuit(circuit, P_ERROR, 0)
    inputs = [torch.tensor(rows, dtype=function.dtype, requires_grad=True)]
    values = function(inputs, {}, {}, noisy=False)
    expected = evaluate(circuit, rows).outputs
    for position, wanted in zip(circuit.outputs, expected, strict=True):
        np.testing.assert_array_equal(values[position].detach().numpy(), wanted)
    torch.autograd.backward(values[circuit.outputs[0]].sum())
    gradient = inputs[0].grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_forwards_every_primitive_is_exact(name: str, seed: int) -> None:
    check(circuit_of(*CASES[name]), seed)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_forwards_convolutions_are_exact(dims: int) -> None:
    check(convolution(dims), 0)


def test_all_primitives_are_tried() -> None:
    circuits = [circuit_of(*case) for case in CASES.values()] + [convolution(2)]
    tried = {node.primitive.name for circuit in circuits for node in circuit.nodes}
    assert tried == set(ir.PRIMITIVES)


def test_wide_integers_are_exact() -> None:
    check(circuit_of((1, 6), lambda x: x * 1_000_003 + x * 15), 0)


def test_a_primitive_without_a_rule() -> None:
    with pytest.raises(CircuitError, match="Primitive with 0 operands"):
        apply(ir.Primitive())


def test_rounding_passes_gradients_on() -> None:
    value = torch.tensor([0.2, 0.7], requires_grad=True)
    result = rounded(value)
    torch.autograd.backward(result.sum())
    assert result.tolist() == [0.0, 1.0]
    assert value.grad is not None
    assert value.grad.tolist() == [1.0, 1.0]


def test_a_look_up_has_the_slope_of_its_table() -> None:
    circuit = circuit_of((1, 3), lambda x: x.lookup(np.maximum(np.arange(16) - 8, 0) * 2, 0))
    function = DifferentiableCircuit(circuit, P_ERROR, 0)
    x = torch.tensor([[[2.0, 8.0, 12.0]]], requires_grad=True)
    torch.autograd.backward(function([x], {}, {}, noisy=False)[-1].sum())
    assert x.grad is not None
    assert x.grad.tolist() == [[[0.0, 1.0, 2.0]]]


def test_noise_is_that_of_simulation() -> None:
    circuit = circuit_of((1, 1), lambda x: (x * 16 + 8).round(5, exact=False))
    rows = np.random.default_rng(0).integers(0, 16, (20_000, 1, 1))
    exact = evaluate(circuit, rows).outputs[0]
    function = DifferentiableCircuit(circuit, P_ERROR, 0)
    inputs = [torch.tensor(rows, dtype=function.dtype)]
    noisy = function(inputs, {}, {}, noisy=True)[circuit.outputs[0]].numpy()
    simulated = simulate(circuit, rows, p_error=P_ERROR).outputs[0]
    assert (simulated != exact).mean() == pytest.approx((noisy != exact).mean(), abs=0.01)
    assert set(np.unique(noisy)) <= set(np.unique(simulated))
