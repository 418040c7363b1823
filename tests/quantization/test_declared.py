"""Ranges of sums that a model tells."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from cipherlearn.onnx import Graph
from cipherlearn.ops.seen_range import DOMAIN
from cipherlearn.quantization.declared import without_seen_ranges
from cipherlearn.torch import NumpyModule
from tests.onnx_models import make_model, node, weights
from tests.quantization.quantize import check_integers_agree, normal, quantize

X = normal(40, 4)


def ranged(output: str, *, biased: bool = False) -> onnx.ModelProto:
    """A product, a bias of its own or none, and the range of the sum."""
    constants = {
        "w": weights(4, 3),
        "lowest": np.float32([[-4, -5, -6]]),
        "highest": np.float32([[4, 5, 7]]),
        "bias": np.float32([10, 20, 30]),
    }
    nodes = [node("MatMul", ["x", "w"], "product", name="sums")]
    if biased:
        nodes.append(node("Add", ["bias", "product"], "sum"))
    reads = [nodes[-1].output[0], "lowest", "highest"]
    nodes.append(helper.make_node("SeenRange", reads, ["ranged"], domain=DOMAIN))
    nodes.append(node("Relu", ["ranged"], "y"))
    return make_model(nodes, {"x": ["N", 4]}, [output], constants, domains=[DOMAIN])


@pytest.mark.parametrize("biased", [False, True])
def test_ranges_belong_to_what_sums(biased: bool) -> None:
    graph = Graph.from_model(ranged("y", biased=biased))
    plain, ranges = without_seen_ranges(graph)
    assert [each.op for each in plain.nodes] == ["MatMul", *["Add"] * biased, "Relu"]
    assert plain.nodes[-1].inputs == plain.nodes[-2].outputs
    bias = np.array([10, 20, 30]) * biased
    ((name, (lowest, highest)),) = ranges.items()
    assert name == "sums"
    np.testing.assert_array_equal(lowest, [[-4, -5, -6] - bias])
    np.testing.assert_array_equal(highest, [[4, 5, 7] - bias])


def test_results_of_the_model_keep_their_names() -> None:
    graph = Graph.from_model(ranged("ranged"))
    plain, ranges = without_seen_ranges(graph)
    assert list(ranges) == ["sums"]
    assert plain.output_names == graph.output_names
    assert [each.op for each in plain.nodes] == ["MatMul", f"{DOMAIN}.SeenRange", "Relu"]
    assert plain.nodes[2].inputs == plain.nodes[0].outputs


def test_inputs_are_no_sums() -> None:
    constants = {"lowest": np.float32([-4]), "highest": np.float32([4])}
    nodes = [
        helper.make_node("SeenRange", ["x", "lowest", "highest"], ["ranged"], domain=DOMAIN),
        node("Relu", ["ranged"], "y"),
    ]
    model = make_model(nodes, {"x": ["N", 4]}, ["y"], constants, domains=[DOMAIN])
    plain, ranges = without_seen_ranges(Graph.from_model(model))
    assert [each.op for each in plain.nodes] == ["Relu"]
    assert plain.nodes[0].inputs == ("x",)
    assert not ranges


def test_values_pass_where_a_model_is_quantized_anew() -> None:
    model = ranged("y")
    expected = np.maximum(X @ weights(4, 3), 0)
    np.testing.assert_allclose(NumpyModule(model).forward(X), expected, rtol=1e-5, atol=1e-6)
    module = quantize(model, X, n_bits=6)
    check_integers_agree(module, X)
    np.testing.assert_allclose(module.forward(X), expected, atol=0.4)
