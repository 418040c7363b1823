"""Scales that are powers of two: accumulators are rounded, and results are those of training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cipherlearn.circuit import count_lookups, ir
from cipherlearn.quantization import PowerOfTwoScalingRoundPBSAdapter, QuantizedModule
from tests.onnx_models import weights
from tests.quantization.quantize import check_integers_agree, normal
from tests.quantization.test_qat import Graph, check_exact, imported


def module(bias: bool, output: float = 0.25, **options: Any) -> QuantizedModule:
    graph = Graph()
    graph.quant("x", "x_q", 2**-4, 6)
    graph.weight("w", weights(4, 3), 2**-3, 5)
    inputs = ["x_q", "w_q"]
    if bias:
        graph.constants["b"] = weights(3, seed=2)
        inputs.append("b")
    graph.add("Gemm", inputs, "h")
    graph.add("Relu", ["h"], "r")
    graph.quant("r", "r_q", output, 3, signed=0)
    graph.weight("v", weights(3, 2), 0.3, 3)
    return imported(graph.model(graph.add("MatMul", ["r_q", "v_q"], "y")), **options)


@pytest.mark.parametrize("bias", [True, False])
def test_accumulators_are_rounded_and_halves_go_where_training_lets_them(bias: bool) -> None:
    found = module(bias)
    check_exact(found, 2 * normal(500, 4, seed=3))
    check_integers_agree(found, normal(100, 4))
    # Without a bias, values lie halfway between two steps: two roundings tell which way they go.
    roundings = [n.primitive for n in found.circuit.nodes if isinstance(n.primitive, ir.Round)]
    assert [rounding.lsbs for rounding in roundings] == ([5] if bias else [6, 6])
    cost = count_lookups(found.circuit)
    assert cost.rounded_bits == (15 if bias else 36)
    assert max(cost.by_width) <= 6


def test_layers_between_powers_of_two_are_told() -> None:
    adapter = PowerOfTwoScalingRoundPBSAdapter(module(bias=True))
    ((layer, pattern),) = adapter.process().items()
    assert pattern.path[0] == layer
    assert len(pattern.path) == 3
    assert pattern.lsbs == 5
    assert adapter.num_ignored_valid_patterns == 0


def test_layers_that_are_rounded_already_are_counted() -> None:
    adapter = PowerOfTwoScalingRoundPBSAdapter(module(bias=True, rounding_threshold_bits=4))
    assert adapter.process() == {}
    assert adapter.num_ignored_valid_patterns == 1


def test_other_scales_are_no_rounding() -> None:
    found = module(bias=True, output=0.3)
    check_exact(found)
    assert PowerOfTwoScalingRoundPBSAdapter(found).process() == {}
    assert not any(np.any(isinstance(n.primitive, ir.Round)) for n in found.circuit.nodes)
