"""Reading models: what is accepted, and what is said about the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from cipherlearn.errors import (
    InvalidTypeError,
    ModelError,
    ModelFormatError,
    UnsupportedOperatorError,
)
from cipherlearn.onnx import (
    Graph,
    OnnxRuntimeModel,
    execute,
    get_onnx_opset_version,
    load_model,
    read,
    simplify,
)
from cipherlearn.ops import NEWEST_OPSET
from tests.onnx_models import make_model, node, perceptron, weights

CONTENT = perceptron().SerializeToString()


def test_all_sources_give_the_same_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(CONTENT)
    model = perceptron()
    assert load_model(model) is model
    assert load_model(CONTENT) == load_model(path) == load_model(str(path)) == model


@pytest.mark.parametrize("source", [None, 3, bytearray(CONTENT), perceptron().graph])
def test_other_sources_are_refused(source: object) -> None:
    with pytest.raises(InvalidTypeError, match=r"an onnx.ModelProto, the bytes .* or the path"):
        load_model(source)  # type: ignore[arg-type]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"no file '.*nowhere\.onnx'"):
        load_model(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelFormatError, match="cannot be read"):
        load_model(tmp_path)


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.touch()
    with pytest.raises(ModelFormatError, match=r"empty\.onnx' is empty"):
        load_model(path)
    with pytest.raises(ModelFormatError, match="bytes is empty"):
        load_model(b"")


@settings(max_examples=200)
@given(st.integers(1, len(CONTENT) - 1))
def test_truncated_models_are_told(length: int) -> None:
    with pytest.raises(ModelFormatError, match=r"truncated|not an ONNX model"):
        load_model(CONTENT[:length])


def test_a_truncated_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    path.write_bytes(CONTENT[: len(CONTENT) // 2])
    with pytest.raises(ModelFormatError, match=r"half\.onnx'.* truncated or damaged"):
        load_model(path)


@settings(max_examples=200)
@given(st.binary(min_size=1, max_size=60))
def test_random_bytes_are_not_a_model(content: bytes) -> None:
    with pytest.raises(ModelError):
        load_model(content)


@pytest.mark.parametrize("content", [b"PK\x03\x04rest", b"<html>", b"{'a': 1}", b"\x00" * 9])
def test_other_formats_are_not_a_model(content: bytes) -> None:
    with pytest.raises(ModelFormatError, match="not an ONNX model"):
        load_model(content)


def test_incomplete_models_are_told() -> None:
    without_graph = onnx.ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 18)])
    with pytest.raises(ModelFormatError, match="holds no graph"):
        load_model(without_graph)
    with pytest.raises(ModelFormatError, match="not an ONNX model"):
        load_model(onnx.ModelProto())
    without_opset = perceptron()
    del without_opset.opset_import[:]
    with pytest.raises(ModelFormatError, match="does not name its operator set"):
        load_model(without_opset)
    without_outputs = perceptron()
    del without_outputs.graph.output[:]
    with pytest.raises(ModelFormatError, match="has no outputs"):
        load_model(without_outputs)


@pytest.mark.parametrize("opset", [13, 17, NEWEST_OPSET])
def test_operator_sets_that_are_accepted(opset: int) -> None:
    model = make_model([node("Relu", ["x"], "y")], {"x": ["N"]}, ["y"], opset=opset)
    assert load_model(model) is model


@pytest.mark.parametrize("opset", range(7, 13))
def test_older_operator_sets_are_converted(opset: int) -> None:
    model = make_model(
        [node("Relu", ["x"], "r"), node("Gemm", ["r", "w", "b"], "y")],
        {"x": [None, 4]},
        {"y": [None, 2]},
        {"w": weights(4, 2), "b": weights(2)},
        opset=opset,
    )
    before = model.SerializeToString()
    converted = load_model(model)
    assert get_onnx_opset_version(converted) == 13
    assert model.SerializeToString() == before
    x = weights(3, 4)
    wanted = np.maximum(x, 0) @ weights(4, 2) + weights(2)
    np.testing.assert_allclose(execute(converted, x)[0], wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("op_type", "attributes", "operands", "opsets"),
    [
        ("Clip", {"min": -0.5, "max": 0.5}, {}, range(7, 11)),
        ("Clip", {}, {"low": np.float32(-0.5), "high": np.float32(0.5)}, range(11, 13)),
        ("Dropout", {}, {}, range(7, 13)),
        ("Dropout", {"ratio": 0.3}, {}, range(7, 12)),
        ("Flatten", {"axis": 0}, {}, range(7, 13)),
        ("Squeeze", {"axes": [1]}, {}, range(7, 13)),
        ("Unsqueeze", {"axes": [0]}, {}, range(7, 13)),
        ("Pow", {}, {"exponent": np.float32(2)}, range(7, 13)),
        ("Max", {}, {"floor": weights(2, 1, 3, seed=5)}, range(7, 13)),
        ("Mod", {"fmod": 1}, {"divisor": np.float32(0.3)}, range(10, 13)),
        ("Where", {}, {"yes": np.float32(1), "no": np.float32(-1)}, range(9, 13)),
        ("Greater", {}, {"limit": np.float32(0)}, range(7, 13)),
        ("Cast", {"to": TensorProto.INT32}, {}, range(7, 13)),
        ("PRelu", {}, {"slope": np.float32([[[0.1]]])}, range(7, 13)),
        ("Reshape", {}, {"shape": np.array([0, -1])}, range(7, 13)),
        ("Gemm", {"alpha": 0.5, "transB": 1}, {"w": weights(4, 3), "b": weights(4)}, range(7, 13)),
    ],
)
def test_conversion_keeps_the_meaning(
    op_type: str, attributes: dict[str, object], operands: dict[str, np.ndarray], opsets: range
) -> None:
    shape = [2, 3] if op_type == "Gemm" else [2, 1, 3]
    x = weights(*shape) > 0 if op_type == "Where" else weights(*shape)
    result = {"Greater": TensorProto.BOOL, "Cast": TensorProto.INT32}.get(
        op_type, TensorProto.FLOAT
    )
    for opset in opsets:
        model = make_model(
            [node(op_type, ["x", *operands], "y", **attributes)],
            {"x": (helper.np_dtype_to_tensor_dtype(x.dtype), shape)},
            ["y"],
            operands,
            opset=opset,
        )
        model.graph.output[0].type.tensor_type.elem_type = result
        old = OnnxRuntimeModel(model)
        assert old.uses_onnxruntime
        (wanted,) = old(x)
        (found,) = execute(load_model(model), x)
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", [1, 6, NEWEST_OPSET + 1, 999])
def test_operator_sets_that_are_refused(opset: int) -> None:
    model = make_model([node("Relu", ["x"], "y")], {"x": ["N"]}, ["y"], opset=opset)
    with pytest.raises(ModelError, match=rf"operator set {opset}\. Accepted: 13 to {NEWEST_OPSET}"):
        load_model(model)


def test_an_old_model_that_cannot_be_converted_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: onnx.ModelProto, target: int) -> None:
        raise RuntimeError(f"no adapter to {target} for {model.graph.node[0].op_type}")

    monkeypatch.setattr(read.version_converter, "convert_version", fail)
    model = make_model([node("Relu", ["x"], "y")], {"x": ["N"]}, {"y": ["N"]}, opset=9)
    with pytest.raises(ModelError, match=r"operator set 9.*no adapter to 13 for Relu.*Export it"):
        load_model(model)


def test_outputs_without_a_shape_are_accepted() -> None:
    model = make_model([node("Relu", ["x"], "y")], {"x": ["N"]}, ["y"])
    assert not model.graph.output[0].type.tensor_type.HasField("shape")
    assert load_model(model) is model
    assert not model.graph.output[0].type.tensor_type.HasField("shape")


def test_invalid_models_are_told() -> None:
    model = make_model([node("Relu", ["nowhere"], "y")], {"x": ["N"]}, ["y"])
    with pytest.raises(ModelError, match="The model is not a valid ONNX model"):
        load_model(model)


def test_operators_that_onnx_does_not_know_are_all_listed() -> None:
    model = make_model(
        [node("Foo", ["x"], "a", name="n1"), node("Bar", ["a"], "b"), node("Foo", ["b"], "y")],
        {"x": ["N"]},
        ["y"],
    )
    with pytest.raises(UnsupportedOperatorError) as caught:
        load_model(model)
    assert "- Foo: node 'n1', 'Foo_2'" in str(caught.value)
    assert "- Bar: node 'Bar_1'" in str(caught.value)
    assert "Supported operators: Abs" in str(caught.value)


def test_sparse_constants_are_refused() -> None:
    model = perceptron()
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("indices", TensorProto.INT64, [1], [0])
    sparse = helper.make_sparse_tensor(values, indices, [3])
    model.graph.sparse_initializer.append(sparse)
    with pytest.raises(ModelError, match=r"sparse constants .'sparse'"):
        load_model(model)


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A model file with its tensors beside it."""
    path = tmp_path / "model.onnx"
    onnx.save_model(
        perceptron(), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    return path


def test_external_data_is_read(external: Path) -> None:
    model = load_model(external)
    (found,) = execute(model, weights(2, 4))
    (wanted,) = execute(perceptron(), weights(2, 4))
    np.testing.assert_array_equal(found, wanted)
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_missing_external_data_is_named(external: Path) -> None:
    (external.parent / "weights.bin").unlink()
    with pytest.raises(ModelFormatError, match=r"'weights\.bin' of the tensor 'w1' is missing in"):
        load_model(external)


def test_truncated_external_data_is_named(external: Path) -> None:
    data = external.parent / "weights.bin"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ModelFormatError, match=r"'weights\.bin' of the tensor '\w+' is truncated"):
        load_model(external)


def test_external_data_without_a_folder_is_told(external: Path) -> None:
    for source in (external.read_bytes(), onnx.load_model(external, load_external_data=False)):
        with pytest.raises(ModelFormatError, match=r"'w1' is stored outside .*weights\.bin.*path"):
            load_model(source)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "a/../../secret.bin"])
def test_external_data_stays_in_its_folder(external: Path, location: str) -> None:
    (external.parent.parent / "secret.bin").write_bytes(b"0" * 1000)
    model = onnx.load_model(external, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    external.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFormatError, match="outside the folder of the model"):
        load_model(external)


def test_damaged_references_to_external_data_are_told(external: Path) -> None:
    model = onnx.load_model(external, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "offset":
            entry.value = "here"
    external.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFormatError, match="'w1' is said to start or end nowhere"):
        load_model(external)


def test_models_beyond_the_size_of_a_message_are_checked_by_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(read, "MAX_MESSAGE_BYTES", 10)
    model = perceptron()
    assert load_model(model) is model
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    broken = make_model([node("Relu", ["nowhere"], "y")], {"x": ["N"]}, ["y"])
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        load_model(broken)


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_a_split_into_equal_parts_has_as_many_as_outputs(opset: int) -> None:
    options = {"num_outputs": 3} if opset >= 18 else {}
    model = load_model(
        make_model(
            [node("Split", ["x"], ["a", "b", "c"], axis=1, **options)],
            {"x": ["N", 6]},
            ["a", "b", "c"],
            opset=opset,
        )
    )
    (split,) = Graph.from_model(model).nodes
    assert split.attributes["num_outputs"] == 3
    x = weights(2, 6)
    for found, wanted in zip(execute(model, x), np.split(x, 3, axis=1), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("opset", [9, 12])
@pytest.mark.parametrize("axis", [None, 1, 2])
def test_the_old_hardmax_takes_the_last_axes_as_one(axis: int | None, opset: int) -> None:
    options = {} if axis is None else {"axis": axis}
    old = make_model(
        [node("Hardmax", ["x"], "y", name="best", **options)],
        {"x": ["N", 2, 3]},
        ["y"],
        opset=opset,
    )
    x = weights(5, 2, 3)
    rows = x.reshape(-1, 3) if axis == 2 else x.reshape(-1, 6)
    wanted = (rows == rows.max(axis=1, keepdims=True)).reshape(x.shape)
    model = load_model(old)
    assert "best" in [item.name for item in model.graph.node]
    np.testing.assert_array_equal(execute(model, x)[0], wanted)
    np.testing.assert_array_equal(execute(simplify(model), x)[0], wanted)


def test_an_old_hardmax_in_a_branch() -> None:
    best = helper.make_graph(
        [node("Hardmax", ["x"], "b")], "best", [], [helper.make_tensor_value_info("b", 1, None)]
    )
    other = helper.make_graph(
        [node("Neg", ["x"], "n")], "other", [], [helper.make_tensor_value_info("n", 1, None)]
    )
    old = make_model(
        [node("If", ["c"], "y", then_branch=best, else_branch=other)],
        {"x": ["N", 2, 2]},
        ["y"],
        {"c": np.array(True)},
        opset=11,
    )
    x = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    (found,) = execute(simplify(load_model(old)), x)
    np.testing.assert_array_equal(found, x % 4 == 3)
