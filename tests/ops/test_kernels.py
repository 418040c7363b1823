"""Kernels that stand in for reference ones: what those get wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from cipherlearn import ops

IMPL = ops.ONNX_OPS_TO_NUMPY_IMPL
ML = "ai.onnx.ml."


def signed(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape)


def test_the_norm_of_order_1_adds_absolute_values() -> None:
    (found,) = IMPL["LpNormalization"](np.array([[3.0, -1.0], [0.0, 0.0]]), p=1, axis=1)
    np.testing.assert_allclose(found, [[0.75, -0.25], [0.0, 0.0]])


@pytest.mark.parametrize(("shape", "axis"), [((2, 70), 1), ((70, 2), 0), ((2, 3, 40), -1)])
def test_elements_are_gathered_along_long_axes(shape: tuple[int, ...], axis: int) -> None:
    data = signed(*shape)
    index = np.random.default_rng(0).integers(-shape[axis], shape[axis], size=shape)
    (found,) = IMPL["GatherElements"](data, index, axis=axis)
    np.testing.assert_array_equal(found, np.take_along_axis(data, index, axis=axis))


def test_indices_may_be_fewer_than_the_elements() -> None:
    (found,) = IMPL["GatherElements"](signed(3, 4, 5), np.array([[[4], [0]]]), axis=2)
    data = signed(3, 4, 5)
    np.testing.assert_array_equal(found, [[[data[0, 0, 4]], [data[0, 1, 0]]]])


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
def test_negative_borders_take_elements_away(mode: str) -> None:
    x = np.arange(10.0).reshape(2, 5)
    (found,) = IMPL["Pad"](x, np.array([0, -1, 0, 2]), mode=mode)
    np.testing.assert_array_equal(found, np.pad(x[:, 1:], ((0, 0), (0, 2)), mode=mode))  # type: ignore[call-overload]


def test_a_border_keeps_the_dtype() -> None:
    for dtype in (np.float64, np.float32, np.int64, np.bool_):
        (found,) = IMPL["Pad"](np.ones((1, 2), dtype), np.array([0, 1, 0, 0]))
        assert found.dtype == dtype
        assert found.tolist() == [[0, 1, 1]]


def test_constants_of_one_row_stand_beside_every_row() -> None:
    (found,) = IMPL["Concat"](signed(3, 2), np.array([[7.0]]), axis=1)
    np.testing.assert_array_equal(found, np.hstack([signed(3, 2), np.full((3, 1), 7.0)]))
    (rows,) = IMPL["Concat"](signed(3, 2), np.array([[7.0, 8.0]]), axis=0)
    assert rows.shape == (4, 2)


@pytest.mark.parametrize("depth", [np.array(3), np.array([3]), np.array(3.0)])
def test_a_depth_may_be_a_tensor_of_one_element(depth: np.ndarray) -> None:
    (found,) = IMPL["OneHot"](np.array([0, -1, 3, -4]), depth, np.array([0.0, 2.0]))
    np.testing.assert_array_equal(found, [[2, 0, 0], [0, 0, 2], [0, 0, 0], [0, 0, 0]])


def test_standardization_in_double_precision() -> None:
    x = signed(2, 3, 4, 5)
    (found,) = IMPL["MeanVarianceNormalization"](x)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.mean(axis=(0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(found.std(axis=(0, 2, 3)), 1, atol=1e-6)


KERNEL = {"kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 3.0]}
SVC = {
    **KERNEL,
    "vectors_per_class": [2, 1, 2],
    "classlabels_ints": [3, 5, 9],
    "coefficients": signed(10).tolist(),
    "support_vectors": signed(20).tolist(),
    "rho": [0.1, -0.2, 0.3],
}
LINEAR1 = {"coefficients": signed(4).tolist(), "intercepts": [0.2]}
LINEAR = {"coefficients": signed(12).tolist(), "intercepts": [0.3, -0.1, 0.2]}
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("Scaler", {"offset": [1.0, 2.0, 3.0, 4.0], "scale": [2.0, 3.0, 4.0, 5.0]}),
    ("Normalizer", {"norm": "L1"}),
    ("Normalizer", {"norm": "L2"}),
    ("Imputer", {"imputed_value_floats": [1.0, 2.0, 3.0, 4.0], "replaced_value_float": 0.0}),
    ("Binarizer", {"threshold": 0.5}),
    ("FeatureVectorizer", {"inputdimensions": [4]}),
    (
        "LabelEncoder",
        {"keys_floats": [0.0, 1.0], "values_floats": [4.0, 5.0], "default_float": 9.0},
    ),
    ("LinearRegressor", {**LINEAR, "targets": 3}),
    ("LinearRegressor", {"coefficients": [1.0, 2.0, 3.0, 4.0], "targets": 1}),
    ("LinearClassifier", {**LINEAR, "classlabels_ints": [4, 2, 7], "post_transform": "SOFTMAX"}),
    ("LinearClassifier", {**LINEAR, "classlabels_ints": [0, 1, 2], "post_transform": "LOGISTIC"}),
    (
        "SVMRegressor",
        {"coefficients": [1.0, -2.0, 0.5, 3.0], "rho": [0.5], **KERNEL},
    ),
    (
        "SVMRegressor",
        {
            "coefficients": [1.0, -2.0],
            "n_supports": 2,
            "support_vectors": signed(8).tolist(),
            "rho": [0.5],
            **KERNEL,
        },
    ),
    ("SVMClassifier", SVC),
    (
        "SVMClassifier",
        {
            **SVC,
            "vectors_per_class": [2, 2],
            "classlabels_ints": [4, 7],
            "coefficients": [0.5, -0.3, 0.4, -0.6],
            "support_vectors": signed(16).tolist(),
            "rho": [0.1],
        },
    ),
    ("LinearClassifier", {**LINEAR1, "classlabels_ints": [4, 7], "post_transform": "LOGISTIC"}),
]


@pytest.mark.parametrize(("name", "attributes"), MODELS)
def test_models_of_machine_learning_agree_with_onnxruntime(
    name: str, attributes: dict[str, Any]
) -> None:
    x = np.round(signed(6, 4) * 2).astype(np.float32)
    n_outputs = ops.get(ML + name).signature().n_outputs
    outputs = [f"y{i}" for i in range(n_outputs)]
    node = helper.make_node(name, ["x"], outputs, domain="ai.onnx.ml", **attributes)
    kinds = [TensorProto.INT64, TensorProto.FLOAT][-n_outputs:]
    infos = [helper.make_tensor_value_info(o, k, None) for o, k in zip(outputs, kinds, strict=True)]
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])
    graph = helper.make_graph([node], "model", [source], infos)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    expected = session.run(None, {"x": x})
    found = IMPL[ML + name](x, **attributes)
    for got, want in zip(found, expected, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want.reshape(got.shape), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["Scaler", "Normalizer", "FeatureVectorizer"])
def test_integer_features_are_read_as_floats(name: str) -> None:
    x = np.array([[1, 2], [3, 4]])
    attributes = {"inputdimensions": [2]} if name == "FeatureVectorizer" else {}
    (found,) = IMPL[ML + name](x, **attributes)
    assert found.dtype == np.float32


def test_integer_features_of_linear_models() -> None:
    x = np.array([[1, 2], [3, 4]])
    (found,) = IMPL[f"{ML}LinearRegressor"](x, coefficients=[0.5, 0.25])
    np.testing.assert_allclose(found, [[1.0], [2.5]])
    labels, scores = IMPL[f"{ML}LinearClassifier"](
        x, coefficients=[0.5, -0.4], classlabels_ints=[3, 4]
    )
    assert labels.tolist() == [3, 3]
    np.testing.assert_allclose(scores, [[0.3, -0.3], [0.1, -0.1]], atol=1e-6)
