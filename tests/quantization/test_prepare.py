from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from cipherlearn.errors import ModelError
from cipherlearn.onnx import Graph, execute
from cipherlearn.quantization.client_side import run_tail
from cipherlearn.quantization.prepare import prepare
from tests.onnx_models import make_model, node, weights
from tests.quantization.models import B, V, W, X, graph


def test_a_plain_network_is_all_body() -> None:
    whole = Graph.from_model(graph([node("Gemm", ["x", "w", "b"], "y")], w=W, b=B))
    parts = prepare(whole, [X])
    assert parts.head is parts.tail is None
    assert parts.body.nodes == whole.nodes
    assert [array.dtype for array in parts.data] == [np.float64]
    assert not parts.encodings


def test_the_parts_together_are_the_model() -> None:
    nodes = [
        node("Gather", ["table", "t"], "e"),
        node("ReduceSum", ["e", "axis"], "s", keepdims=0),
        node("MatMul", ["s", "w"], "a"),
        node("MatMul", ["s", "v"], "b"),
        node("Max", ["a", "b"], "m"),
        node("Softmax", ["m"], "y", axis=-1),
    ]
    constants = {"table": weights(7, 4), "axis": np.array([1]), "w": W, "v": V}
    model = make_model(nodes, {"t": (TensorProto.INT64, ["N", 3])}, ["y"], constants)
    data = np.random.default_rng(0).integers(0, 7, (20, 3))
    parts = prepare(Graph.from_model(model), [data])
    assert parts.tail is not None
    assert parts.encodings == set(parts.body.input_names)
    assert all(set(np.unique(array)) == {0, 1} for array in parts.data)
    found = run_tail(parts.tail, execute(parts.body, *parts.data))
    np.testing.assert_allclose(found, execute(model, data), rtol=1e-5)
    made = {name for item in parts.body.nodes for name in item.outputs}
    assert made <= set(parts.samples), "every tensor is known for one row"


def test_integers_that_nothing_encodes_are_refused() -> None:
    nodes = [node("Cast", ["t"], "f", to=TensorProto.FLOAT), node("MatMul", ["f", "w"], "y")]
    model = make_model(nodes, {"t": (TensorProto.INT64, ["N", 4])}, ["y"], {"w": W})
    with pytest.raises(
        ModelError, match=r"declares its input 't' as int64; .* cast it in the model"
    ):
        prepare(Graph.from_model(model), [np.ones((3, 4), dtype=np.int64)])
