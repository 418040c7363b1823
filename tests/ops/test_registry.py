"""The registry: what is in it, and operators of one's own."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from cipherlearn import ops
from cipherlearn.errors import (
    InvalidParameterError,
    InvalidShapeError,
    InvalidTypeError,
    UnknownKeyError,
    UnsupportedOperatorError,
)
from cipherlearn.ops import REQUIRED, Kind, _registry


@pytest.fixture
def own() -> Iterator[Callable[..., ops.Op]]:
    """Register operators that are forgotten after the test."""
    added = []

    def add(name: str, function: Callable[..., Any], **options: Any) -> ops.Op:
        op = ops.register_numpy(name, function, **options)
        added.append(name)
        return op

    yield add
    for name in set(added):
        ops.unregister(name)


def test_every_family_file_registers_operators() -> None:
    families = [m.name for m in pkgutil.iter_modules(ops.__path__) if not m.name.startswith("_")]
    assert {"activations", "trigonometry", "comparison", "arithmetic", "linear"} <= set(families)
    source = {ops.split_name(name)[1] for name in ops.names()}
    for family in families:
        spec = pkgutil.resolve_name(f"cipherlearn.ops.{family}")
        with open(spec.__file__, encoding="utf-8") as file:  # noqa: PTH123
            words = set(re.findall(r'(\w+)"', file.read()))
        assert words & source, family


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Kind.MIXING, {"Gemm", "MatMul", "Pad", "Softmax", "ai.onnx.ml.LinearClassifier"}),
        (
            Kind.MOVEMENT,
            {
                "DepthToSpace",
                "Dropout",
                "Expand",
                "Flatten",
                "Gather",
                "Identity",
                "Reshape",
                "Slice",
                "Squeeze",
                "Transpose",
                "Unsqueeze",
            },
        ),
        (Kind.CONSTANT, {"Constant", "ConstantOfShape", "EyeLike", "Range", "Shape", "Size"}),
        (Kind.ELEMENTWISE, {"Add", "Clip", "PRelu", "Relu", "Where"}),
    ],
)
def test_kinds(kind: Kind, expected: set[str]) -> None:
    assert expected <= {name for name in ops.names() if ops.get(name).kind is kind}


# Operands that say where, how large or on which grid, by operator.
RAW = """
    Shapes: Expand.shape Reshape.shape Tile.repeats ConstantOfShape.input
        CenterCropPad.shape Range.start Range.limit Range.delta
        Resize.roi Resize.scales Resize.sizes Split.split
    Axes: Squeeze.axes Unsqueeze.axes CumSum.axis ReduceL1.axes ReduceL2.axes ReduceLogSum.axes
        ReduceLogSumExp.axes ReduceMax.axes ReduceMean.axes ReduceMin.axes ReduceProd.axes
        ReduceSum.axes ReduceSumSquare.axes
    Places: Compress.condition Gather.indices GatherElements.indices GatherND.indices
        ReverseSequence.sequence_lens Slice.starts Slice.ends Slice.axes Slice.steps
        ai.onnx.ml.ArrayFeatureExtractor.Y
    Borders: Pad.pads Pad.constant_value Pad.axes Trilu.k
    Grids: QuantizeLinear.y_scale QuantizeLinear.y_zero_point DequantizeLinear.x_scale
        DequantizeLinear.x_zero_point MatMulInteger.a_zero_point MatMulInteger.b_zero_point
    Declared: qonnx.custom_op.general.Quant.scale qonnx.custom_op.general.Quant.zero_point
        qonnx.custom_op.general.Quant.bit_width qonnx.custom_op.general.BipolarQuant.scale
        qonnx.custom_op.general.Trunc.scale qonnx.custom_op.general.Trunc.zero_point
        qonnx.custom_op.general.Trunc.in_bit_width qonnx.custom_op.general.Trunc.out_scale
        qonnx.custom_op.general.Trunc.out_bit_width
        cipherlearn.SeenRange.lowest cipherlearn.SeenRange.highest
    Others: CastLike.target_type Dropout.ratio Dropout.training_mode OneHot.depth OneHot.values
"""


def test_raw_inputs_are_shapes_axes_and_the_like() -> None:
    raw = {
        f"{name}.{ops.get(name).signature().operand(position).name}"
        for name in ops.names()
        for position in ops.get(name).raw_inputs
    }
    assert raw == {word for word in RAW.split() if not word.endswith(":")}


def test_names_are_sorted_and_known() -> None:
    assert list(ops.names()) == sorted(ops.names())
    assert all(ops.get(name).name == name for name in ops.names())


def test_an_unknown_operator_is_told_with_those_that_exist() -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"'Nope'.*Abs, .*Xor.*register_numpy"):
        ops.get("Nope")


def test_the_map_of_functions_follows_the_registry(own: Callable[..., ops.Op]) -> None:
    view = ops.ONNX_OPS_TO_NUMPY_IMPL
    assert set(view) == set(ops.names())
    assert len(view) == len(ops.names())
    assert "my.Twice" not in view
    own("my.Twice", lambda x, /: 2 * x)
    assert view["my.Twice"](np.array([3.0]))[0].tolist() == [6]
    assert "my.Twice" in repr(view)
    with pytest.raises(TypeError):
        view["Relu"] = abs  # type: ignore[index]
    with pytest.raises(KeyError):
        view["Nope"]


def test_functions_are_named_and_described() -> None:
    function = ops.ONNX_OPS_TO_NUMPY_IMPL["LeakyRelu"]
    assert function.__name__ == "numpy_leakyrelu"
    assert "LeakyRelu" in (function.__doc__ or "")


def test_own_operator_follows_the_signature_of_its_function(own: Callable[..., ops.Op]) -> None:
    def scaled(x: Any, /, shift: Any = None, *, factor: float, power: int = 1) -> Any:
        """Scale and shift."""
        result = factor * x**power
        return result if shift is None else result + shift

    op = own("my.domain.Scaled", scaled, raw_inputs={1})
    signature = op.signature()
    assert [(i.name, i.required) for i in signature.inputs] == [("x", True), ("shift", False)]
    assert signature.attributes["factor"].default is REQUIRED
    assert signature.attributes["power"].default == 1
    assert op.raw_inputs == {1}
    assert op.kind is Kind.ELEMENTWISE
    assert op.numpy.__name__ == "scaled"
    x = np.array([1.0, 2.0])
    assert op.numpy(x, factor=2.0)[0].tolist() == [2, 4]
    assert op.numpy(x, np.array(1.0), factor=2.0, power=2, opset=13)[0].tolist() == [3, 9]
    with pytest.raises(UnknownKeyError, match="no attribute scale"):
        op.numpy(x, scale=2.0)
    with pytest.raises(InvalidParameterError, match="needs the attribute 'factor'"):
        op.numpy(x)
    with pytest.raises(InvalidShapeError, match="at most 2"):
        op.numpy(x, x, x, factor=1.0)


def test_own_operator_may_have_several_outputs_and_infinities(own: Callable[..., ops.Op]) -> None:
    op = own("my.Both", lambda x, /: (1 / x, [1, 2]))
    inverse, listed = op.numpy(np.array([0.0, 2.0]))
    assert inverse.tolist() == [np.inf, 0.5]
    assert isinstance(listed, np.ndarray)


def test_own_operator_can_be_replaced_and_forgotten(own: Callable[..., ops.Op]) -> None:
    own("my.Same", lambda x, /: x)
    own("my.Same", lambda x, /: -x)
    assert ops.get("my.Same").numpy(np.array(1.0))[0] == -1
    ops.register_numpy("my.Other", lambda x, /: x)
    ops.unregister("my.Other")
    with pytest.raises(UnsupportedOperatorError):
        ops.get("my.Other")
    with pytest.raises(InvalidParameterError, match=r"my\.Other"):
        ops.unregister("my.Other")
    with pytest.raises(InvalidParameterError, match="Relu"):
        ops.unregister("Relu")


@pytest.mark.parametrize(
    ("name", "function", "error", "message"),
    [
        ("Mine", abs, InvalidParameterError, "a domain and a type"),
        ("ai.onnx.Relu", abs, InvalidParameterError, "a domain and a type"),
        ("my.", abs, InvalidParameterError, "a domain and a type"),
        ("my.Op", 3, InvalidTypeError, "must be a function"),
        ("my.Op", lambda x: x, InvalidParameterError, "the input 'x' after the `/`"),
        ("my.Op", lambda *x: x, InvalidParameterError, r"\*x.*name every input"),
        ("my.Op", lambda x, /, **a: x + len(a), InvalidParameterError, r"\*\*a.*every attribute"),
    ],
)
def test_what_cannot_be_an_own_operator(
    name: str, function: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ops.register_numpy(name, function)
    assert name not in ops.names()


def test_a_shipped_operator_is_registered_once() -> None:
    with pytest.raises(InvalidParameterError, match="'Relu' is registered already"):
        ops.register("Relu")


def test_an_operator_of_a_newer_onnx_is_skipped() -> None:
    ops.register("OperatorOfTheFuture")
    try:
        assert "OperatorOfTheFuture" not in ops.names()
        assert "OperatorOfTheFuture" in ops.unavailable()
    finally:
        _registry._UNAVAILABLE.discard("OperatorOfTheFuture")
