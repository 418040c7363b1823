from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from cipherlearn.errors import FormatError, InvalidParameterError, InvalidShapeError
from cipherlearn.onnx import Graph, execute, intermediate_values
from cipherlearn.quantization.client_side import (
    encoded,
    graph_from_dict,
    graph_to_dict,
    run_head,
    run_tail,
    split_head,
    split_tail,
    tail_inputs,
    unused_name,
    with_encodings,
    with_sums,
)
from tests.onnx_models import make_model, node, weights
from tests.quantization.models import W2, B, Nodes, W, X, graph

FIRST = node("Gemm", ["x", "w", "b"], "h")

#: What follows a layer, and how many nodes of it the client computes.
ENDS: dict[str, tuple[Nodes, int]] = {
    "nothing": ([node("Relu", ["h"], "y")], 0),
    "softmax": ([node("Softmax", ["h"], "y", axis=-1)], 1),
    "softmax, clipped": (
        [node("Softmax", ["h"], "s", axis=-1), node("Clip", ["s", "", "half"], "y")],
        2,
    ),
    "softmax, then weights": (
        [node("Softmax", ["h"], "s", axis=-1), node("MatMul", ["s", "w2"], "y")],
        0,
    ),
    "softmax, then its share of the sum": (
        [
            node("Softmax", ["h"], "s", axis=-1),
            node("Abs", ["s"], "a"),
            node("ReduceSum", ["a", "axes"], "t"),
            node("Div", ["s", "t"], "y"),
        ],
        4,
    ),
    "softmax, then a normalizer": (
        [
            node("Softmax", ["h"], "s", axis=-1),
            node("Normalizer", ["s"], "y", domain="ai.onnx.ml", norm="L1"),
        ],
        2,
    ),
    "a norm": ([node("LpNormalization", ["h"], "y", axis=-1)], 1),
    "softmax, then weights in attributes": (
        [
            node("Softmax", ["h"], "s", axis=-1),
            node("LinearRegressor", ["s"], "y", domain="ai.onnx.ml", coefficients=[0.5] * 5),
        ],
        0,
    ),
    "a product and its bias": (
        [node("MatMul", ["h", "w2"], "p"), node("Add", ["p", "c"], "y")],
        1,
    ),
    "a bias, moved, and a softmax": (
        [
            node("MatMul", ["h", "w2"], "p"),
            node("Add", ["c", "p"], "s"),
            node("Transpose", ["s"], "t", perm=[0, 1]),
            node("Softmax", ["t"], "y", axis=-1),
        ],
        3,
    ),
    "a bias and a function": (
        [
            node("MatMul", ["h", "w2"], "p"),
            node("Add", ["p", "c"], "s"),
            node("Relu", ["s"], "y"),
        ],
        0,
    ),
    "what is no bias of a product": (
        [node("Relu", ["h"], "r"), node("Add", ["r", "b"], "y")],
        0,
    ),
    "the largest of the functions": (
        [node("Relu", ["h"], "r"), node("ArgMax", ["r"], "y", axis=1, keepdims=0)],
        1,
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_body_and_tail_together_are_the_model(name: str) -> None:
    nodes, count = ENDS[name]
    constants = {"half": np.float32(0.5), "axes": np.array([1]), "c": weights(3, seed=4)}
    model = graph([FIRST, *nodes], w=W, b=B, w2=W2, **constants)
    whole = Graph.from_model(model)
    body, tail = split_tail(whole)
    assert (0 if tail is None else len(tail.nodes)) == count
    assert len(body.nodes) + count == len(whole.nodes)
    results = execute(body, X)
    found = results if tail is None else run_tail(tail, results)
    for left, right in zip(found, execute(whole, X), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6)
    if tail is not None:
        assert not {"w", "b", "w2"} & set(tail.constants), "weights stay on the server"


def test_the_tail_gets_the_integers_that_it_takes() -> None:
    nodes = [
        FIRST,
        node("Greater", ["h", "half"], "g"),
        node("Cast", ["g"], "i", to=TensorProto.INT64),
        node("ArgMax", ["i"], "y", axis=1, keepdims=0),
    ]
    _, tail = split_tail(Graph.from_model(graph(nodes, w=W, b=B, half=np.float32(0.5))))
    assert tail is not None
    (given,) = tail_inputs(tail, [np.array([[0.1, 0.9]])])
    assert given.dtype.kind in "iu"
    assert given.tolist() == [[0, 1]]


def tokens() -> tuple[onnx.ModelProto, np.ndarray]:
    nodes = [node("Gather", ["table", "t"], "e"), node("ReduceMean", ["e", "axis"], "y")]
    constants = {"table": weights(7, 3), "axis": np.array([1])}
    data = np.random.default_rng(0).integers(0, 7, (20, 4))
    return make_model(nodes, {"t": (TensorProto.INT64, ["N", 4])}, ["y"], constants), data


def test_head_and_body_together_are_the_model() -> None:
    model, data = tokens()
    whole = Graph.from_model(model)
    samples = dict(intermediate_values(whole, data[:1]))
    head, body = split_head(with_encodings(whole, samples))
    assert head is not None
    (hot,) = encoded(head, (data,))
    assert hot.shape == (20, 4, 7)
    assert set(np.unique(hot)) == {0, 1}
    np.testing.assert_allclose(execute(body, hot)[0], execute(whole, data)[0], rtol=1e-6)
    assert run_head(head, (None,)) == (None,), "another party gives it"
    with pytest.raises(InvalidParameterError, match="table of 7 entries"):
        encoded(head, (data + 1,))
    with pytest.raises(InvalidShapeError, match="0 arrays were given"):
        encoded(head, ())


def test_parts_are_read_back_as_they_were_written() -> None:
    model, data = tokens()
    part = Graph.from_model(model)
    saved = json.loads(json.dumps(graph_to_dict(part)))
    np.testing.assert_array_equal(execute(graph_from_dict(saved), data), execute(part, data))
    saved["nodes"][0]["op"] = "Unheard"
    with pytest.raises(FormatError, match="client's part of the saved model is damaged"):
        graph_from_dict(saved)
    with pytest.raises(FormatError, match="damaged"):
        graph_from_dict({"nodes": []})


def test_names_that_are_taken_are_not_used_again() -> None:
    taken = {"a", "a_2"}
    assert [unused_name(name, taken) for name in ("a", "b", "b")] == ["a_3", "b", "b_2"]
    assert taken == {"a", "a_2", "a_3", "b", "b_2"}


@pytest.mark.parametrize("has_tail", [False, True])
def test_sums_of_some_outputs_come_before_the_tail(has_tail: bool) -> None:
    nodes = [node("Softmax", ["u"], "p", name="u/sum", axis=-1), node("Add", ["u", "v"], "t")]
    tail = None
    outputs = ("v", "u")
    if has_tail:
        model = make_model(nodes, {"v": ["N", 2], "u": ["N", 2]}, ["p", "t", "u"])
        tail = Graph.from_model(model)
    body = Graph.from_model(
        make_model(
            [node("Identity", ["x"], name) for name in ("v", "u/rest", "u/around")],
            {"x": ["N", 2]},
            ["v", "u/rest", "u/around"],
        )
    )
    found = with_sums(body, tail, outputs, {"u": ("u/rest", "u/around")})
    assert found is not None
    assert len({one.name for one in found.nodes}) == len(found.nodes)
    v, rest, around = (weights(3, 2, seed=seed) for seed in range(3))
    results = execute(graph_from_dict(graph_to_dict(found)), v, rest, around)
    u = rest + around
    wanted = [v, u]
    if has_tail:
        powers = np.exp(u)
        wanted = [powers / powers.sum(-1, keepdims=True), u + v, u]
    for result, known in zip(results, wanted, strict=True):
        np.testing.assert_allclose(result, known, rtol=1e-5)
    assert with_sums(body, tail, outputs, {}) is tail
