from __future__ import annotations

import numpy as np
import pytest

from cipherlearn.circuit import Builder, Circuit, IntValue
from cipherlearn.circuit.functions import concatenate, convolve
from cipherlearn.engines._diagnose import Demand, explain_no_parameters, hardest
from cipherlearn.engines._legalize import legalize


def demand_of(*outputs: IntValue) -> tuple[Demand, Circuit]:
    circuit = outputs[0].builder.finish(list(outputs))
    return hardest(legalize(circuit)), circuit


def test_the_reader_with_most_bits_and_largest_weights_is_found() -> None:
    builder = Builder()
    x = builder.input("x", (1, 2), 0, 3)
    with builder.scope("light"):
        light = np.rint(np.sqrt((x @ np.array([[1], [1]])) * 1.0)).astype(np.int64)
    with builder.scope("heavy"):
        heavy = np.rint(np.sqrt((x @ np.array([[3], [4]])) * 1.0)).astype(np.int64)
    demand, circuit = demand_of(light, heavy)
    assert circuit.nodes[demand.position].label == "heavy"
    assert demand.bits == 5
    assert demand.norm == 5.0


def test_rounding_counts_with_the_bits_it_keeps() -> None:
    x = Builder().input("x", (1,), 0, 1023)
    y = np.rint(x.round(8, exact=False) * 0.1).astype(np.int64)
    demand, _ = demand_of(y)
    # The result, up to 102, has seven bits; the rounding keeps three.
    assert demand.bits == 7


def test_every_linear_operation_carries_the_norm() -> None:
    builder = Builder()
    x = builder.input("x", (1, 1, 2, 2), 0, 1)
    w = builder.input("w", (1, 1, 1, 1), -2, 1, encrypted=False)
    image = convolve(x, np.full((1, 1, 2, 2), 3), strides=(1, 1), pads=(0,) * 4, dilations=(1, 1))
    assert demand_of(image)[0].norm == 6.0
    flat = (image * w).reshape(1, 1) @ np.array([[2]])
    assert demand_of(flat)[0].norm == 24.0
    joined = concatenate([flat, flat - 7], axis=1).transpose(1, 0).sum(axis=0)
    assert demand_of(joined)[0].norm == pytest.approx(24.0 * np.sqrt(2))


def test_the_message_names_the_node_and_what_to_change() -> None:
    builder = Builder()
    x = builder.input("x", (1, 2), 0, 3)
    with builder.scope("last_layer"):
        circuit = builder.finish([x @ np.array([[300], [400]])])
    message = explain_no_parameters(circuit, legalize(circuit), "p_error=1e-12")
    assert "at p_error=1e-12" in message
    assert "'last_layer', MatMul" in message
    assert "12 bits of sums whose weights have the norm 500" in message
    assert "n_bits" in message
    assert "rounding_threshold_bits" in message
