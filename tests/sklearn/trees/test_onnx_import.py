from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeRegressor

from cipherlearn.errors import InvalidParameterError, ModelError, UnsupportedAttributeError
from cipherlearn.sklearn import from_onnx

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 4)).astype(np.float32)
SIGNAL = X[:, 0] + X[:, 1] * X[:, 2]
BINARY = (SIGNAL > 0).astype(np.int64)
NAMES = np.array(["low", "middle", "high"])[np.digitize(SIGNAL, [-0.5, 0.5])]
EXACT: dict[str, Any] = {
    "inputs": "used-thresholds",
    "n_bits": {"op_inputs": 8, "op_leaves": 16},
}
STUMP: dict[str, Any] = {
    "nodes_treeids": [0, 0, 0],
    "nodes_nodeids": [0, 1, 2],
    "nodes_featureids": [1, 0, 0],
    "nodes_values": [0.5, 0.0, 0.0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_truenodeids": [1, 0, 0],
    "nodes_falsenodeids": [2, 0, 0],
}
VALUES: dict[str, Any] = {
    **STUMP,
    "target_treeids": [0, 0],
    "target_nodeids": [1, 2],
    "target_ids": [0, 0],
    "target_weights": [-1.0, 2.5],
    "n_targets": 1,
}


def model_of(op: str, **attributes: Any) -> onnx.ModelProto:
    """A model of one node that reads four features."""
    given = {k: v for k, v in attributes.items() if v is not None}
    outputs = ["label", "scores"] if op == "TreeEnsembleClassifier" else ["scores"]
    node = helper.make_node(op, ["x"], outputs, domain="ai.onnx.ml", **given)
    label = TensorProto.STRING if "classlabels_strings" in given else TensorProto.INT64
    shapes = [helper.make_tensor_value_info("label", label, [None])] * (len(outputs) - 1)
    shapes.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, None]))
    rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])
    version = 5 if op == "TreeEnsemble" else 3
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", version)]
    graph = helper.make_graph([node], "trees", [rows], shapes)
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def run(model: onnx.ModelProto, rows: np.ndarray) -> list[Any]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, {"x": rows}))


def rows_around(*values: float) -> np.ndarray:
    """Rows with missing values, the given ones, and their neighbours."""
    exact = np.array(values, dtype=np.float32)
    near = [np.nextafter(exact, np.float32(side)) for side in (-np.inf, np.inf)]
    column = np.concatenate([[np.nan], exact, *near, exact - 1, exact + 1]).astype(np.float32)
    return np.tile(column[:, None], 4)


def assert_gives_the_same(model: onnx.ModelProto, rows: np.ndarray) -> Any:
    found = from_onnx(model, **EXACT)
    wanted = run(model, rows)[-1].reshape(len(rows), -1)
    values = found.predict(rows).reshape(len(rows), -1)
    np.testing.assert_allclose(values, wanted, atol=1e-3)
    return found


@pytest.mark.parametrize("mode", ["LEQ", "LT", "GTE", "GT", "EQ", "NEQ"])
@pytest.mark.parametrize("missing_is_true", [0, 1])
def test_comparisons_with_a_number(mode: str, missing_is_true: int) -> None:
    if mode == "EQ" and missing_is_true:
        missing_is_true = 0
    attributes = {
        **VALUES,
        "nodes_modes": [f"BRANCH_{mode}", "LEAF", "LEAF"],
        "nodes_missing_value_tracks_true": [missing_is_true, 0, 0],
    }
    assert_gives_the_same(model_of("TreeEnsembleRegressor", **attributes), rows_around(0.5))


def newest(**changes: Any) -> dict[str, Any]:
    """Two trees: a set and a threshold; a threshold alone."""

    def tensor(values: Any, dtype: Any) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, dtype=dtype))

    return {
        "n_targets": 2,
        "tree_roots": [0, 2],
        "nodes_featureids": [3, 1, 0],
        "nodes_modes": tensor([6, 0, 3], np.uint8),
        "nodes_splits": tensor([0, 0.5, 0.25], np.float32),
        "nodes_truenodeids": [1, 0, 3],
        "nodes_trueleafs": [0, 1, 1],
        "nodes_falsenodeids": [2, 1, 0],
        "nodes_falseleafs": [1, 1, 1],
        "leaf_targetids": [0, 1, 0, 1],
        "leaf_weights": tensor([1.5, -2, 3, 0.75], np.float32),
        "membership_values": tensor([1, 4, np.nan], np.float32),
        **changes,
    }


@pytest.mark.parametrize("aggregate", [0, 1])
def test_the_newest_operator(aggregate: int) -> None:
    model = model_of("TreeEnsemble", **newest(aggregate_function=aggregate))
    found = assert_gives_the_same(model, rows_around(0.25, 0.5, 1, 2, 4)[1:])
    assert found.ensemble_.trees[0].categories == {0: frozenset({1.0, 4.0})}


@pytest.mark.parametrize("transform", [1, 2])
def test_what_onnxruntime_reads_otherwise_is_refused(transform: int) -> None:
    with pytest.raises(ModelError, match="onnxruntime gives other values for the TreeEnsemble"):
        from_onnx(model_of("TreeEnsemble", **newest(post_transform=transform)))


def test_values_have_a_base_and_may_be_averaged() -> None:
    model = model_of("TreeEnsembleRegressor", **VALUES, base_values=[0.5])
    assert_gives_the_same(model, rows_around(0.5))
    model = model_of("TreeEnsembleRegressor", **VALUES, aggregate_function="AVERAGE")
    assert_gives_the_same(model, rows_around(0.5))


CLASS: dict[str, Any] = {
    **STUMP,
    "class_treeids": [0, 0],
    "class_nodeids": [1, 2],
    "classlabels_int64s": [7, 3],
}


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("base", [None, [0.125]])
@pytest.mark.parametrize(
    ("weights", "transform"),
    [([0.25, 0.75], "NONE"), ([-1.0, 2.0], "LOGISTIC"), ([-1.0, 2.0], "NONE")],
)
def test_one_score_of_two_classes(
    number: int, base: list[float] | None, weights: list[float], transform: str
) -> None:
    ids = [number, number]
    model = model_of(
        "TreeEnsembleClassifier",
        **CLASS,
        class_ids=ids,
        class_weights=weights,
        post_transform=transform,
        base_values=base,
    )
    if number and base:
        with pytest.raises(ModelError, match="onnxruntime gives other values"):
            from_onnx(model)
        return
    rows = np.array([[0, 0, 0, 0], [0, 1, 0, 0]], dtype=np.float32)
    labels, scores = run(model, rows)
    found = from_onnx(model, **EXACT)
    assert found.ensemble_.n_outputs == 1
    np.testing.assert_allclose(found.predict_proba(rows)[:, 1], scores[:, 1], atol=1e-3)
    if not number:
        assert found.predict(rows).tolist() == labels.tolist() == [7, 3]


@pytest.mark.parametrize(
    ("weights", "transform", "outputs"),
    [
        ([0.25, 0.75, 0.5, 0.5], "NONE", 1),
        ([-1.0, 1.0, 2.0, -2.0], "LOGISTIC", 1),
        ([-1.0, 1.5, 2.0, -2.0], "LOGISTIC", 2),
        ([-1.0, 1.5, 2.0, -2.0], "SOFTMAX", 1),
        ([-1.0, 1.5, 2.0, -2.0], "SOFTMAX_ZERO", 2),
    ],
)
def test_two_scores_are_one_where_the_other_follows(
    weights: list[float], transform: str, outputs: int
) -> None:
    attributes = {
        **CLASS,
        "class_treeids": [0] * 4,
        "class_nodeids": [1, 1, 2, 2],
        "class_ids": [0, 1, 0, 1],
    }
    model = model_of(
        "TreeEnsembleClassifier", **attributes, class_weights=weights, post_transform=transform
    )
    rows = rows_around(0.5)
    found = from_onnx(model, **EXACT)
    assert found.ensemble_.n_outputs == outputs
    np.testing.assert_allclose(found.predict_proba(rows), run(model, rows)[1], atol=1e-3)


@pytest.mark.parametrize("target", [BINARY, NAMES], ids=["numbers", "names"])
@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize(
    "float_model",
    [
        RandomForestClassifier(5, max_depth=4, random_state=0),
        GradientBoostingClassifier(n_estimators=5, random_state=0),
    ],
    ids=["forest", "boosting"],
)
@pytest.mark.filterwarnings("ignore::cipherlearn.errors.AgreementWarning")
def test_models_of_scikit_learn(float_model: Any, target: np.ndarray, zipmap: bool) -> None:
    exporter = pytest.importorskip("skl2onnx")
    float_model.fit(X, target)
    model = exporter.to_onnx(float_model, X[:1], options={"zipmap": zipmap})
    found = from_onnx(model, **EXACT)
    np.testing.assert_allclose(found.predict_proba(X), float_model.predict_proba(X), atol=1e-3)
    np.testing.assert_array_equal(found.predict(X), float_model.predict(X))
    rounded = from_onnx(model, X, n_bits=6)
    assert rounded.score(X, target) > float_model.score(X, target) - 0.05
    assert rounded.n_features_in_ == 4


def test_many_values_from_a_file(tmp_path: Path) -> None:
    exporter = pytest.importorskip("skl2onnx")
    float_model = DecisionTreeRegressor(max_depth=4, random_state=0)
    float_model.fit(X, np.stack([SIGNAL, X[:, 3]], axis=1))
    path = tmp_path / "model.onnx"
    onnx.save(exporter.to_onnx(float_model, X[:1]), path)
    found = from_onnx(path, **EXACT)
    np.testing.assert_allclose(found.predict(X), float_model.predict(X), atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"post_transform": "PROBIT"}, "post_transform=PROBIT; supported are NONE"),
        ({"aggregate_function": "MAX"}, "aggregate_function=MAX; supported are SUM and AVERAGE"),
    ],
)
def test_attributes_that_are_not_supported(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedAttributeError, match=message):
        from_onnx(model_of("TreeEnsembleRegressor", **{**VALUES, **changes}))


def test_scores_that_may_be_zero_are_refused_where_that_counts() -> None:
    with pytest.raises(UnsupportedAttributeError, match="SOFTMAX_ZERO and scores that may be"):
        from_onnx(model_of("TreeEnsemble", **newest(post_transform=3)))


def test_numbers_and_categories_are_told_apart() -> None:
    tracks = {"nodes_missing_value_tracks_true": [1, 0, 0]}
    modes = {"nodes_modes": ["BRANCH_EQ", "LEAF", "LEAF"]}
    with pytest.raises(ModelError, match="where feature 1 is missing, or one of the values"):
        from_onnx(model_of("TreeEnsembleRegressor", **{**VALUES, **tracks, **modes}))
    with pytest.raises(ModelError, match=r"features \[1\] are compared by order and for equality"):
        from_onnx(model_of("TreeEnsemble", **newest(nodes_featureids=[1, 1, 0])))


def test_incomplete_and_damaged_trees() -> None:
    with pytest.raises(ModelError, match="incomplete: KeyError"):
        from_onnx(model_of("TreeEnsembleRegressor", **{**VALUES, "target_ids": None}))
    modes = ["BRANCH_NEAR", "LEAF", "LEAF"]
    with pytest.raises(ModelError, match=r"mode 'BRANCH_NEAR'; ONNX has"):
        from_onnx(model_of("TreeEnsembleRegressor", **{**VALUES, "nodes_modes": modes}))
    with pytest.raises(ModelError, match="a node is below itself"):
        from_onnx(model_of("TreeEnsemble", **newest(nodes_truenodeids=[0, 0, 3])))


def test_what_may_change_the_rows_is_refused() -> None:
    model = model_of("TreeEnsembleRegressor", **VALUES)
    model.graph.node[0].input[0] = "whole"
    cast = helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT64)
    model.graph.node.insert(0, cast)
    with pytest.raises(ModelError, match="Cast stands before the trees"):
        from_onnx(model)
    cast.attribute[0].i = TensorProto.FLOAT
    model.graph.node[0].CopyFrom(cast)
    assert from_onnx(model).n_features_in_


def test_other_graphs_are_refused() -> None:
    model = model_of("TreeEnsembleRegressor", **VALUES)
    model.graph.node[0].input[0] = "scaled"
    model.graph.node.insert(0, helper.make_node("Neg", ["x"], ["scaled"]))
    with pytest.raises(ModelError, match="1 tree ensembles beside Neg; one is supported"):
        from_onnx(model)


def test_an_imported_model_is_trained_already() -> None:
    model = from_onnx(model_of("TreeEnsembleRegressor", **VALUES))
    with pytest.raises(InvalidParameterError, match="cannot be trained"):
        model.fit(X, SIGNAL)
    with pytest.raises(ValueError, match="expecting 4 features"):
        model.predict(X[:, :2])


def test_encrypted_rows() -> None:
    model = from_onnx(model_of("TreeEnsemble", **newest()), n_bits=4)
    rows = np.array([[0.1, 0.2, 0, 4], [1, 1, 0, 1], [0, 0, 0, 2]], dtype=np.float32)
    model.compile()
    np.testing.assert_array_equal(model.predict(rows, fhe="execute"), model.predict(rows))
