"""One small model for every operator that moves or mixes elements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from tests.onnx_models import make_model, node, weights

INT64 = np.int64


@dataclass(frozen=True)
class Case:
    """A node on float inputs of the given shapes (``x0``, ``x1``, ... ) and constants.

    Data is normal, moved by ``shift``, or uniform in ``limits``, and rounded to multiples of
    ``step`` where results jump; ``first`` and ``last`` are nodes before and after.
    """

    shapes: Sequence[tuple[int, ...]] = ((3,),)
    constants: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    operands: Sequence[str] | None = None
    first: Sequence[onnx.NodeProto] = ()
    outputs: Sequence[str] = ("y",)
    last: Sequence[onnx.NodeProto] = ()
    shift: float = 0.3
    limits: tuple[float, float] | None = None
    step: float | None = None
    rounding: Any = None
    opset: int = 21

    def data(self, rows: int = 100) -> tuple[np.ndarray, ...]:
        random = np.random.default_rng(5)
        return tuple(self._values(random, (rows, *shape)) for shape in self.shapes)

    def _values(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        if self.limits is None:
            values = random.normal(self.shift, 1.0, shape)
        else:
            values = random.uniform(*self.limits, shape)
        if self.step is not None:
            values = np.rint(values / self.step) * self.step
        return values.astype(np.float32)

    def model(self, op: str) -> onnx.ModelProto:
        names = [f"x{i}" for i in range(len(self.shapes))]
        domain, _, kind = op.rpartition(".")
        operands = list(self.operands or [*names, *self.constants])
        nodes = [
            *self.first,
            node(kind, operands, list(self.outputs), domain=domain, **self.attributes),
            *self.last,
        ]
        inputs = {name: ["N", *shape] for name, shape in zip(names, self.shapes, strict=True)}
        domains = [domain] if domain else []
        constants = {name: np.asarray(value) for name, value in self.constants.items()}
        return make_model(nodes, inputs, ["y"], constants, opset=self.opset, domains=domains)


def integers(*values: int) -> np.ndarray:
    return np.array(values, dtype=INT64)


#: An encrypted integer from 0 to 2.
CODES = (
    node("Add", ["x0", "x1"], "sum"),
    node("Cast", ["sum"], "codes", to=onnx.TensorProto.INT64),
)
_TO_FLOAT = (node("Cast", ["i"], "y", to=onnx.TensorProto.FLOAT),)
_CLASSES = {
    "coefficients": [0.5, -1.0, 2.0, 0.3, -0.2, 0.9],
    "intercepts": [0.1, 0.0, -0.1],
    "classlabels_ints": [0, 1, 2],
}

MOVEMENT: dict[str, Case] = {
    "Compress": Case(((4,),), {"c": np.array([True, False, True, True])}, {"axis": 1}),
    "DepthToSpace": Case(((4, 2, 2),), attributes={"blocksize": 2}),
    "Dropout": Case(),
    "Expand": Case(((3, 1),), {"s": integers(1, 3, 2)}),
    "Flatten": Case(((2, 2),)),
    "Gather": Case(((4,),), {"i": integers(2, -1, 0)}, {"axis": 1}),
    "Identity": Case(),
    "Reshape": Case(((4,),), {"s": integers(0, 2, 2)}),
    "ReverseSequence": Case(((3, 2),), {"s": integers(2, 3)}, {"time_axis": 1, "batch_axis": 2}),
    "Slice": Case(
        ((5,),), {"b": integers(-1), "e": integers(0), "a": integers(1), "s": integers(-2)}
    ),
    "SpaceToDepth": Case(((1, 4, 4),), attributes={"blocksize": 2}),
    "Squeeze": Case(((1, 3),), {"a": integers(1)}),
    "Tile": Case(((2,),), {"r": integers(1, 3)}),
    "Transpose": Case(((2, 3),), attributes={"perm": [0, 2, 1]}),
    "Unsqueeze": Case(((3,),), {"a": integers(1)}),
    "ai.onnx.ml.ArrayFeatureExtractor": Case(((4,),), {"i": integers(3, 1)}),
}

_IMAGE = ((2, 4, 4),)
_SMALL = ((1, 3, 3),)
_POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}
_AXIS = {"a": integers(1)}

MIXING: dict[str, Case] = {
    "ArgMax": Case(((2,),), attributes={"axis": 1}, outputs=["i"], last=_TO_FLOAT, step=0.5),
    "ArgMin": Case(((2,),), attributes={"axis": 1}, outputs=["i"], last=_TO_FLOAT, step=0.5),
    "AveragePool": Case(_IMAGE, attributes=_POOL),
    "BatchNormalization": Case(
        ((2, 3),),
        {
            "s": weights(2),
            "b": weights(2, seed=1),
            "m": weights(2, seed=2),
            "v": np.float32([0.5, 2]),
        },
    ),
    "CenterCropPad": Case(((4,),), {"s": integers(2)}, {"axes": [1]}),
    "Concat": Case(((2,), (3,)), attributes={"axis": 1}),
    "Conv": Case(_SMALL, {"w": weights(2, 1, 2, 2), "b": weights(2)}, {"pads": [1, 0, 0, 1]}),
    "ConvTranspose": Case(((1, 2, 2),), {"w": weights(1, 2, 2, 2)}, {"strides": [2, 2]}),
    "CumSum": Case(((4,),), {"a": np.array(1)}),
    "DequantizeLinear": Case(
        ((3,),),
        {"s": np.float32(0.5), "z": np.int8(1)},
        first=[node("Cast", ["x0"], "q", to=onnx.TensorProto.INT8)],
        operands=["q", "s", "z"],
        limits=(-3, 3),
    ),
    "Einsum": Case(((2, 3),), {"w": weights(3, 2)}, {"equation": "nij,jk->nik"}),
    "Gemm": Case(((3,),), {"w": weights(3, 2), "b": weights(2)}),
    "GlobalAveragePool": Case(_IMAGE),
    "GlobalMaxPool": Case(((1, 2, 2),)),
    "GroupNormalization": Case(
        ((4, 2),), {"s": weights(4), "b": weights(4, seed=1)}, {"num_groups": 2}, shift=0.0
    ),
    "Hardmax": Case(((2,),), attributes={"axis": 1}, step=0.5),
    "InstanceNormalization": Case(((2, 4),), {"s": weights(2), "b": weights(2, seed=1)}),
    "LayerNormalization": Case(((4,),), {"s": weights(4), "b": weights(4, seed=1)}),
    "LogSoftmax": Case(((3,),), attributes={"axis": 1}),
    "LpNormalization": Case(((3,),), attributes={"axis": 1}, limits=(0.5, 2.0)),
    "LpPool": Case(_IMAGE, attributes=_POOL),
    "MatMul": Case(((2, 3),), {"w": weights(3, 2)}),
    "MatMulInteger": Case(
        ((2, 3),),
        {"w": np.int8([[1, -2], [3, 0], [-1, 2]])},
        first=[node("Cast", ["x0"], "q", to=onnx.TensorProto.INT8)],
        operands=["q", "w"],
        outputs=["i"],
        last=_TO_FLOAT,
        limits=(-4, 4),
        step=1.0,
    ),
    "MaxPool": Case(((1, 4, 4),), attributes=_POOL),
    "MeanVarianceNormalization": Case(((4,),), attributes={"axes": [1]}),
    "OneHot": Case(
        ((2,), (2,)),
        {"d": integers(3), "v": np.float32([0, 1])},
        operands=["codes", "d", "v"],
        first=CODES,
        limits=(0.0, 1.0),
        step=1.0,
    ),
    "Pad": Case(((3,),), {"p": integers(0, 1, 0, 2), "c": np.float32(0.5)}),
    "QuantizeLinear": Case(
        ((3,),),
        {"s": np.float32(0.25), "z": np.uint8(8)},
        outputs=["q"],
        last=[node("Cast", ["q"], "y", to=onnx.TensorProto.FLOAT)],
    ),
    "RMSNormalization": Case(((4,),), {"s": weights(4)}, opset=23),
    "ReduceL1": Case(((3,),), _AXIS),
    "ReduceL2": Case(((3,),), _AXIS),
    "ReduceLogSum": Case(((3,),), _AXIS, limits=(0.5, 3.0)),
    "ReduceLogSumExp": Case(((3,),), _AXIS, limits=(-1.0, 1.0)),
    "ReduceMax": Case(((3,),), _AXIS),
    "ReduceMean": Case(((3,),), _AXIS),
    "ReduceMin": Case(((3,),), _AXIS),
    "ReduceProd": Case(((2,),), _AXIS),
    "ReduceSum": Case(((3,),), _AXIS),
    "ReduceSumSquare": Case(((3,),), _AXIS),
    "Resize": Case(((1, 2, 2),), {"r": np.float32([]), "s": np.float32([1, 1, 2, 2])}),
    "Softmax": Case(((3,),), attributes={"axis": 1}),
    "Split": Case(((4,),), {"p": integers(1, 3)}, {"axis": 1}, outputs=["", "y"]),
    "Trilu": Case(((3, 3),)),
    "ai.onnx.ml.FeatureVectorizer": Case(((2,), (1,)), attributes={"inputdimensions": [2, 1]}),
    "ai.onnx.ml.Imputer": Case(
        ((2,),), attributes={"imputed_value_floats": [0.0], "replaced_value_float": -1.0}
    ),
    "ai.onnx.ml.LinearRegressor": Case(
        ((3,),), attributes={"coefficients": [0.5, -1.0, 2.0], "intercepts": [0.1], "targets": 1}
    ),
    "ai.onnx.ml.LinearClassifier": Case(
        ((2,),), attributes={**_CLASSES, "post_transform": "SOFTMAX"}, outputs=["label", "y"]
    ),
    "ai.onnx.ml.Normalizer": Case(((3,),), attributes={"norm": "L2"}, limits=(0.5, 2.0)),
    "ai.onnx.ml.OneHotEncoder": Case(
        ((1,), (1,)),
        attributes={"cats_int64s": [0, 1, 2], "zeros": 1},
        operands=["codes"],
        first=CODES,
        limits=(0.0, 1.0),
        step=1.0,
    ),
    "ai.onnx.ml.SVMClassifier": Case(
        ((2,),),
        attributes={
            "classlabels_ints": [0, 1],
            "coefficients": [1.0, -0.7],
            "support_vectors": [1.0, 0.5, -0.5, 1.5],
            "vectors_per_class": [1, 1],
            "rho": [0.2],
            "kernel_type": "LINEAR",
            "kernel_params": [1.0, 0.0, 3.0],
        },
        outputs=["label", "y"],
    ),
    "ai.onnx.ml.Scaler": Case(((2,),), attributes={"offset": [0.1, 0.5], "scale": [2.0, 0.5]}),
    "ai.onnx.ml.SVMRegressor": Case(
        ((2,),),
        attributes={
            "coefficients": [0.5, -1.0],
            "support_vectors": [1.0, 0.5, -0.5, 1.5],
            "rho": [0.2],
            "n_supports": 2,
            "kernel_type": "LINEAR",
            "kernel_params": [1.0, 0.0, 3.0],
        },
    ),
}

#: Several encrypted operands of operators that are element-wise.
ELEMENTWISE: dict[str, Case] = {
    name: Case(((3,), (3,))) for name in ("Add", "Max", "Mean", "Min", "Mul", "Sub", "Sum")
}
ELEMENTWISE["Div"] = Case(((3,), (3,)), limits=(1.0, 3.0))
ELEMENTWISE["Pow"] = Case(((3,), (3,)), limits=(1.0, 2.0), rounding=8)
ELEMENTWISE["Where"] = Case(
    ((3,), (3,)), {"c": np.array([True, False, True])}, operands=["c", "x0", "x1"]
)
for _name in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
    ELEMENTWISE[_name] = Case(((3,), (3,)), outputs=["i"], last=_TO_FLOAT, step=0.5)
for _name in ("And", "Or", "Xor"):
    ELEMENTWISE[_name] = Case(
        ((3,), (3,)),
        operands=["p", "q"],
        first=[node("Greater", ["x0", "zero"], "p"), node("Greater", ["x1", "zero"], "q")],
        constants={"zero": np.float32(0.1)},
        outputs=["i"],
        last=_TO_FLOAT,
        step=0.5,
    )
ELEMENTWISE["ai.onnx.ml.Binarizer"] = Case(((3,),), attributes={"threshold": 0.2}, step=0.5)
ELEMENTWISE["ai.onnx.ml.LabelEncoder"] = Case(
    ((2,), (2,)),
    attributes={"keys_int64s": [0, 1, 2], "values_floats": [0.5, -1.0, 2.0]},
    operands=["codes"],
    first=CODES,
    limits=(0.0, 1.0),
    step=1.0,
)
