"""Operators on three rows, with the operands that are encrypted."""

from __future__ import annotations

from typing import Any

import numpy as np


def signed(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape) + len(shape)).normal(size=shape)


def positive(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).uniform(0.5, 2.0, size=shape)


def digits(*shape: int, below: int = 4) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, below, size=shape)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


ML = "ai.onnx.ml."
ROWS = 3
TRUTH = digits(ROWS, 4, below=2) > 0
SVC = {
    "kernel_type": "LINEAR",
    "vectors_per_class": (2, 1, 2),
    "classlabels_ints": (3, 5, 9),
    "coefficients": tuple(signed(10)),
    "support_vectors": tuple(signed(20)),
    "rho": (0.1, -0.2, 0.3),
}
SVC2 = {
    **SVC,
    "vectors_per_class": (2, 2),
    "classlabels_ints": (4, 7),
    "coefficients": (0.5, -0.3, 0.4, -0.6),
    "support_vectors": tuple(signed(16)),
    "rho": (0.1,),
}
WEIGHTS = {"coefficients": tuple(signed(12)), "intercepts": (0.3, -0.1, 0.2)}
# Operator, operands (encrypted ones have three rows), attributes, places of encrypted operands.
EXAMPLES: list[tuple[str, list[Any], dict[str, Any], tuple[int, ...]]] = [
    ("And", [TRUTH, TRUTH[::-1]], {}, (0, 1)),
    ("Or", [TRUTH, TRUTH[::-1]], {}, (0, 1)),
    ("Xor", [TRUTH, TRUTH[::-1]], {}, (0, 1)),
    ("Equal", [digits(ROWS, 4), digits(ROWS, 4)[::-1]], {}, (0, 1)),
    ("Equal", [TRUTH, TRUTH[::-1]], {}, (0, 1)),
    ("Less", [digits(ROWS, 4).astype(np.uint8), digits(4, 4)[1:].astype(np.uint8)], {}, (0, 1)),
    ("GreaterOrEqual", [signed(ROWS, 4), signed(ROWS, 1)], {}, (0, 1)),
    ("Where", [TRUTH, signed(ROWS, 4), signed(ROWS, 1)], {}, (0, 1, 2)),
    ("Where", [TRUTH, signed(ROWS, 4), np.array(2.0)], {}, (0, 1)),
    ("Where", [TRUTH[0], signed(ROWS, 4), signed(ROWS, 1)], {}, (1, 2)),
    ("Where", [TRUTH[:1], signed(ROWS, 1), np.array(7.0)], {}, (1,)),
    ("PRelu", [signed(ROWS, 4), signed(ROWS, 1)], {}, (0, 1)),
    ("SwiGLU", [signed(ROWS, 4), positive(ROWS, 4)], {"alpha": 0.5}, (0, 1)),
    ("Pow", [positive(ROWS, 4), signed(ROWS, 4)], {}, (0, 1)),
    ("Mean", [signed(ROWS, 4), positive(ROWS, 4), np.array(2.0)], {}, (0, 1)),
    ("Clip", [signed(ROWS, 4), np.array(-0.5), positive(ROWS, 1)[0]], {}, (0,)),
    ("Split", [signed(ROWS, 7), ints(2, 0, 5)], {"axis": 1}, (0,)),
    ("Split", [signed(ROWS, 2, 7)], {"axis": -1, "num_outputs": 3}, (0,)),
    ("Pad", [signed(ROWS, 4, 5), ints(0, 1, -2, 0, 2, 3), np.array(1.5)], {}, (0,)),
    ("Pad", [signed(ROWS, 4, 5), ints(3, 0, 1, 4), None, ints(2, 1)], {"mode": "wrap"}, (0,)),
    ("Pad", [signed(ROWS, 4, 5), ints(0, 1, 2, 0, 2, 3)], {"mode": "reflect"}, (0,)),
    ("Pad", [signed(ROWS, 4, 5), ints(0, 0, 2, 0, 0, 0)], {"mode": "edge"}, (0,)),
    ("Pad", [signed(ROWS, 4, 5), ints(0, 0, -2, 0, 0, 0)], {"mode": "edge"}, (0,)),
    ("Trilu", [signed(ROWS, 3, 5), ints(1)[0]], {"upper": 1}, (0,)),
    ("Trilu", [signed(ROWS, 2, 4, 3), ints(-1)[0]], {"upper": 0}, (0,)),
    ("CenterCropPad", [signed(ROWS, 4, 7), ints(7, 4)], {"axes": (1, 2)}, (0,)),
    ("Resize", [signed(ROWS, 2, 4, 3), None, np.array([1, 1, 2, 0.7], np.float32)], {}, (0,)),
    (
        "Resize",
        [signed(ROWS, 2, 4, 3), None, np.array([1, 1, 2, 0.7], np.float32)],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        (0,),
    ),
    ("Resize", [signed(ROWS, 5), None, None, ints(1, 8)], {"mode": "cubic"}, (0,)),
    ("Gather", [signed(6), digits(ROWS, 4) - 2], {}, (1,)),
    ("Gather", [signed(6, 2), digits(ROWS, 4)], {}, (1,)),
    ("Gather", [signed(4, 7), digits(ROWS) - 1], {}, (1,)),
    ("Gather", [digits(4, 2, 4), digits(ROWS, 2)], {}, (1,)),
    ("OneHot", [digits(ROWS, 2) - 2, ints(3)[0], np.array([5.0, -1.0])], {}, (0,)),
    ("OneHot", [digits(ROWS, 2), ints(3), np.array([0, 1])], {"axis": 1}, (0,)),
    ("BatchNormalization", [signed(ROWS, 4, 2), *map(positive, [4] * 4)], {}, (0,)),
    ("InstanceNormalization", [signed(ROWS, 4, 5), signed(4), signed(4)], {}, (0,)),
    (
        "GroupNormalization",
        [signed(ROWS, 4, 5), signed(4), signed(4)],
        {"num_groups": 2},
        (0,),
    ),
    ("LayerNormalization", [signed(ROWS, 4, 5), signed(5), signed(5)], {}, (0,)),
    ("LayerNormalization", [signed(ROWS, 4, 5), signed(4, 5)], {"axis": 1}, (0,)),
    ("RMSNormalization", [signed(ROWS, 4, 5), signed(5)], {"epsilon": 0.1}, (0,)),
    ("MeanVarianceNormalization", [signed(ROWS, 4, 5, 2)], {"axes": (2, 3)}, (0,)),
    ("LpNormalization", [signed(ROWS, 4, 5)], {"p": 1}, (0,)),
    ("LpNormalization", [np.vstack([signed(2, 4), np.zeros((1, 4))])], {}, (0,)),
    ("Softmax", [200 + signed(ROWS, 4, 5)], {"axis": 1}, (0,)),
    ("LogSoftmax", [signed(ROWS, 4)], {}, (0,)),
    ("ReduceSumSquare", [signed(ROWS, 4, 5), ints(1, -1)], {"keepdims": 0}, (0,)),
    ("ReduceSumSquare", [signed(ROWS, 4), ints()], {"noop_with_empty_axes": 1}, (0,)),
    ("ReduceL1", [signed(ROWS, 4, 5), ints(2)], {}, (0,)),
    ("ReduceL2", [digits(ROWS, 4), ints(1)], {}, (0,)),
    ("ReduceLogSum", [positive(ROWS, 4), ints(1)], {}, (0,)),
    ("ReduceLogSumExp", [signed(ROWS, 4), ints(1)], {}, (0,)),
    ("ReduceProd", [signed(ROWS, 5, 2), ints(1, 2)], {"keepdims": 0}, (0,)),
    ("GlobalAveragePool", [signed(ROWS, 2, 4, 5)], {}, (0,)),
    ("GlobalMaxPool", [signed(ROWS, 2, 4, 5)], {}, (0,)),
    ("LpPool", [signed(ROWS, 2, 4, 5)], {"kernel_shape": (2, 2)}, (0,)),
    (
        "LpPool",
        [signed(ROWS, 2, 4, 5)],
        {"kernel_shape": (2, 3), "strides": (2, 2), "auto_pad": "SAME_LOWER", "p": 3},
        (0,),
    ),
    (
        "LpPool",
        [signed(ROWS, 2, 4, 5)],
        {"kernel_shape": (3, 2), "strides": (2, 2), "auto_pad": "VALID", "ceil_mode": 1},
        (0,),
    ),
    ("CumSum", [signed(ROWS, 4, 5), ints(1)[0]], {"exclusive": 1}, (0,)),
    ("CumSum", [signed(ROWS, 4, 5), ints(-1)[0]], {"reverse": 1}, (0,)),
    (f"{ML}Scaler", [digits(ROWS, 2)], {"offset": (0.5, 1.5)}, (0,)),
    (f"{ML}Normalizer", [digits(ROWS, 2)], {}, (0,)),
    (f"{ML}SVMRegressor", [digits(ROWS, 2)], {"coefficients": (0.3, 0.4), "rho": (0.1,)}, (0,)),
    (f"{ML}LinearRegressor", [signed(ROWS, 2)], {"coefficients": (0.3, 0.4)}, (0,)),
    ("ArgMax", [signed(ROWS, 1)], {"axis": 1}, (0,)),
    ("Hardmax", [signed(ROWS, 1)], {"axis": 1}, (0,)),
    ("QuantizeLinear", [signed(ROWS, 4), np.array(0.1), np.int8(3)], {}, (0,)),
    (
        "QuantizeLinear",
        [signed(ROWS, 2, 4), positive(4), digits(4).astype(np.uint8)],
        {"axis": -1},
        (0,),
    ),
    (
        "DequantizeLinear",
        [digits(ROWS, 4).astype(np.uint8), positive(4), digits(4).astype(np.uint8)],
        {},
        (0,),
    ),
    (
        "MatMulInteger",
        [digits(ROWS, 2, 4).astype(np.uint8), digits(4, 5).astype(np.int8), np.array(3, np.uint8)],
        {},
        (0,),
    ),
    (f"{ML}Scaler", [signed(ROWS, 4)], {"offset": (1.0, 2.0, 3.0, 4.0), "scale": (2.0,)}, (0,)),
    (f"{ML}Imputer", [signed(ROWS, 2)], {"imputed_value_floats": (1.0, 2.0)}, (0,)),
    (
        f"{ML}Imputer",
        [digits(ROWS, 2)],
        {"imputed_value_int64s": (8, 9), "replaced_value_int64": 1},
        (0,),
    ),
    (
        f"{ML}Imputer",
        [signed(ROWS, 2)],
        {"imputed_value_floats": (1.0,), "replaced_value_float": float("nan")},
        (0,),
    ),
    *((f"{ML}Normalizer", [signed(ROWS, 4)], {"norm": norm}, (0,)) for norm in ("MAX", "L1", "L2")),
    (
        f"{ML}FeatureVectorizer",
        [signed(ROWS, 4), signed(ROWS, 2)],
        {"inputdimensions": (3, 4)},
        (0, 1),
    ),
    (f"{ML}OneHotEncoder", [digits(ROWS, 2)], {"cats_int64s": (2, 1, 7)}, (0,)),
    (f"{ML}LinearRegressor", [signed(ROWS, 4)], {**WEIGHTS, "targets": 3}, (0,)),
    (
        f"{ML}LinearRegressor",
        [digits(ROWS, 4).astype(np.int32)],
        {"coefficients": tuple(signed(4)), "intercepts": (0.5,)},
        (0,),
    ),
    *(
        (f"{ML}LinearClassifier", [signed(ROWS, 4)], {**WEIGHTS, **more}, (0,))
        for more in (
            {"classlabels_ints": (0, 1, 2)},
            {"classlabels_ints": (4, 2, 7), "post_transform": "SOFTMAX"},
            {"classlabels_ints": (0, 1, 2), "post_transform": "LOGISTIC"},
        )
    ),
    *(
        (
            f"{ML}LinearClassifier",
            [signed(ROWS, 4)],
            {"coefficients": tuple(signed(4)), "intercepts": (0.1,), **more},
            (0,),
        )
        for more in (
            {"classlabels_ints": (0, 1)},
            {"classlabels_ints": (5,), "post_transform": "LOGISTIC"},
            {"classlabels_ints": (-1, 1), "post_transform": "LOGISTIC"},
        )
    ),
    (
        f"{ML}SVMRegressor",
        [signed(ROWS, 4)],
        {"coefficients": (1.0, -2.0, 0.5, 3.0), "rho": (0.5,)},
        (0,),
    ),
    (
        f"{ML}SVMRegressor",
        [signed(ROWS, 4)],
        {
            "coefficients": (1.0, -2.0),
            "n_supports": 2,
            "support_vectors": tuple(signed(8)),
            "rho": (0.5,),
            "one_class": 1,
        },
        (0,),
    ),
    (f"{ML}SVMClassifier", [signed(ROWS, 4)], SVC, (0,)),
    (f"{ML}SVMClassifier", [signed(ROWS, 4)], SVC2, (0,)),
    (f"{ML}SVMClassifier", [signed(ROWS, 4)], {**SVC2, "post_transform": "LOGISTIC"}, (0,)),
    *(
        ("Einsum", [np.asarray(o) for o in given], {"equation": equation}, places)
        for equation, given, places in (
            ("bij,jk->bik", [signed(ROWS, 2, 4), signed(4, 5)], (0,)),
            ("ij,bjk->bik", [signed(2, 4), signed(ROWS, 4, 5)], (1,)),
            ("bij,bkj->bik", [signed(ROWS, 2, 4), signed(ROWS, 5, 4)], (0, 1)),
            ("bihd,bjhd->bhij", [signed(ROWS, 2, 3, 4), signed(ROWS, 5, 3, 4)], (0, 1)),
            ("bhij,bjhd->bihd", [signed(ROWS, 3, 2, 5), signed(ROWS, 5, 3, 4)], (0, 1)),
            ("bhd,hde->bhe", [signed(ROWS, 3, 4), signed(3, 4, 2)], (0,)),
            ("...ij,jk->...ik", [signed(ROWS, 6, 2, 4), signed(4, 5)], (0,)),
            ("b...,b...->b...", [signed(ROWS, 4), signed(ROWS, 4)], (0, 1)),
            ("bi,bi->b", [signed(ROWS, 4), signed(ROWS, 4)], (0, 1)),
            ("bi,j->bij", [signed(ROWS, 4), signed(2)], (0,)),
            ("bi,bj->bji", [signed(ROWS, 4), signed(ROWS, 2)], (0, 1)),
            ("bii->bi", [signed(ROWS, 4, 4)], (0,)),
            ("bijk->bkj", [signed(ROWS, 2, 4, 5)], (0,)),
            ("bij,jk,kl->bil", [signed(ROWS, 2, 4), signed(4, 5), signed(5, 3)], (0,)),
            ("ij,bj,bk->bik", [signed(2, 4), signed(ROWS, 4), signed(ROWS, 5)], (1, 2)),
            ("bi,ji->bj", [signed(ROWS, 1), signed(3, 4)], (0,)),
        )
    ),
]
