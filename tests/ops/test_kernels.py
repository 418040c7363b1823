"""Kernels that stand in for reference ones: what those get wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from cipherlearn import ops
from cipherlearn.errors import InvalidShapeError
from cipherlearn.onnx import OnnxRuntimeModel
from tests.onnx_models import make_model, node, weights

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


def runtime(name: str, *arrays: np.ndarray, **attributes: Any) -> np.ndarray:
    """What onnxruntime computes; only the first operand varies."""
    names = [f"x{position}" for position in range(len(arrays))]
    model = make_model(
        [node(name, names, "y", **attributes)],
        {"x0": arrays[0].shape},
        ["y"],
        dict(zip(names[1:], arrays[1:], strict=True)),
    )
    runner = OnnxRuntimeModel(model)
    assert runner.uses_onnxruntime
    return runner(arrays[0])[0]


@pytest.mark.parametrize("scale", [1.5, 2.3, 0.7, 0.2])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["align_corners", "tf_crop_and_resize", "asymmetric"])
def test_images_of_sizes_that_are_not_whole(coordinates: str, mode: str, scale: float) -> None:
    x = weights(1, 1, 4, 7)
    roi = np.array([0, 0, 0, 0.1, 1, 1, 1, 0.8], np.float32)
    scales = np.array([1, 1, 1, scale], np.float32)
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    (found,) = IMPL["Resize"](x, roi, scales, opset=18, **attributes)
    wanted = runtime("Resize", x, roi, scales, **attributes)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_scales_are_float32_numbers() -> None:
    # 10 times the float32 number next to 2.3 is 23 in float32, and less in float64.
    x, scales = weights(1, 1, 2, 10), np.array([1, 1, 1, 2.3], np.float32)
    (found,) = IMPL["Resize"](x, None, scales, mode="linear")
    assert found.shape == (1, 1, 2, 23)
    chosen, empty = np.array([2.3], np.float32), np.zeros(0, np.float32)
    (along,) = IMPL["Resize"](x, empty, chosen, mode="linear", axes=[3])
    np.testing.assert_array_equal(along, found)


@pytest.mark.parametrize("shape", [None, [15], [4]])
@pytest.mark.parametrize("kernel", [1, 2, 4])
@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_transposed_kernels_shorter_than_strides(
    mode: str, kernel: int, shape: list[int] | None
) -> None:
    x, w = weights(2, 2, 5), weights(2, 3, kernel)
    attributes: dict[str, Any] = {"auto_pad": mode, "strides": [3]}
    if shape:
        attributes["output_shape"] = shape
    (found,) = IMPL["ConvTranspose"](x, w, **attributes)
    np.testing.assert_allclose(found, runtime("ConvTranspose", x, w, **attributes), atol=1e-5)


@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("mode", ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
def test_norms_over_windows_with_automatic_padding(mode: str, ceil: int) -> None:
    x = weights(2, 2, 8)
    attributes = {"kernel_shape": [3], "strides": [2], "auto_pad": mode, "ceil_mode": ceil, "p": 3}
    (found,) = IMPL["LpPool"](x, opset=18, **attributes)
    np.testing.assert_allclose(found, runtime("LpPool", x, **attributes), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "kernel", "attributes", "message"),
    [
        ("Conv", (3, 2, 3), {"group": 3}, r"group=3 .*2 channels.*\(3, 2, 3\); accepted: 1$"),
        ("Conv", (3, 3, 3), {}, "group=1 .*2 channels.*accepted: none.* other channels"),
        ("Conv", (3, 1, 3), {"group": 2}, "group=2 .*2 channels.*accepted: none"),
        ("ConvTranspose", (2, 1, 3), {"group": 3}, "group=3 .*2 channels.*accepted: 1, 2$"),
        ("ConvTranspose", (4, 1, 3), {}, "group=1 .*2 channels.*accepted: none"),
        (
            "Conv",
            (3, 2, 3),
            {"kernel_shape": [2]},
            r"kernel_shape=\[2\] is not.*accepted: \[3\], or leave it out",
        ),
    ],
)
def test_attributes_that_do_not_fit_a_kernel(
    name: str, kernel: tuple[int, ...], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidShapeError, match=message):
        IMPL[name](weights(1, 2, 5), weights(*kernel), **attributes)


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
    item = helper.make_node(name, ["x"], outputs, domain="ai.onnx.ml", **attributes)
    kinds = [TensorProto.INT64, TensorProto.FLOAT][-n_outputs:]
    infos = [helper.make_tensor_value_info(o, k, None) for o, k in zip(outputs, kinds, strict=True)]
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])
    graph = helper.make_graph([item], "model", [source], infos)
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
