"""Operators of classical machine learning that prepare features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from cipherlearn.errors import UnsupportedAttributeError
from cipherlearn.ops._composition import (
    Attributes,
    Operands,
    attribute,
    cast,
    part,
    reduce,
    required,
    root,
)
from cipherlearn.ops._expand import Composer, Tensor
from cipherlearn.ops._registry import Kind, register
from cipherlearn.ops.normalization import inverse_or_zero

_NORMS: Final = ("MAX", "L1", "L2")


def as_float(composer: Composer, x: Tensor) -> Tensor:
    """Integer features as the operators of this domain read them."""
    return x if x.sample.dtype.kind == "f" else cast(composer, x, np.float32)


def _scaler(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    x = as_float(composer, required(operands))
    offset = np.asarray(attribute(attributes, "offset", (0.0,)), dtype=x.sample.dtype)
    scale = np.asarray(attribute(attributes, "scale", (1.0,)), dtype=x.sample.dtype)
    return composer.add("Mul", composer.add("Sub", x, offset), scale)


def _check_norm(values: Mapping[str, Any]) -> str | None:
    norm = values.get("norm", "MAX")
    if norm in _NORMS:
        return None
    return f"norm={norm!r} does not exist; accepted: {', '.join(map(repr, _NORMS))}."


def _normalizer(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    x = as_float(composer, required(operands))
    norm = attribute(attributes, "norm", "MAX")
    if norm == "L2":
        squares = reduce(composer, "ReduceSum", composer.add("Mul", x, x), (1,))
        size = root(composer, squares)
    else:
        op = "ReduceSum" if norm == "L1" else "ReduceMax"
        size = reduce(composer, op, composer.add("Abs", x), (1,))
    return composer.add("Mul", x, inverse_or_zero(composer, size))


def _imputer(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    x = required(operands)
    kind = "int64" if not attribute(attributes, "imputed_value_floats", ()) else "float"
    values = attribute(attributes, f"imputed_value_{kind}s", ())
    missing = attribute(attributes, f"replaced_value_{kind}", 0)
    if math.isnan(missing):
        # What is encrypted is a number, always.
        return composer.add("Identity", x)
    found = composer.add("Equal", x, np.asarray(missing, dtype=x.sample.dtype))
    return composer.add("Where", found, np.asarray(values, dtype=x.sample.dtype), x)


def _vectorizer(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    columns: list[Tensor] = []
    given = [one for one in operands if one is not None]
    for value, wanted in zip(given, attribute(attributes, "inputdimensions", ()), strict=True):
        x = composer.reshape(value, 1) if value.ndim == 1 else value
        count = x.shape[1]
        columns.append(part(composer, x, 1, 0, wanted) if wanted < count else x)
        if wanted > count:
            zeros = np.zeros((1, wanted - count), x.sample.dtype)
            columns.append(composer.constant(zeros))
    return columns[0] if len(columns) == 1 else composer.add("Concat", *columns, axis=1)


def _check_numbers(values: Mapping[str, Any]) -> str | None:
    texts = sorted({"keys_strings", "values_strings", "cats_strings"} & set(values))
    if texts:
        return (
            f"{texts[0]} is not supported: strings cannot be encrypted. Map labels to numbers"
            " before encryption, and numbers to labels after decryption."
        )
    return None


def _check_categories(values: Mapping[str, Any]) -> str | None:
    if not values.get("zeros", 1):
        return (
            "zeros=0 is not supported: an error about an unknown category would reveal an encrypted"
            " value; accepted: zeros=1 (in scikit-learn, `handle_unknown='ignore'`)."
        )
    return _check_numbers(values)


def _one_hot(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    x = required(operands)
    categories = attribute(attributes, "cats_int64s", ())
    if not categories:
        raise UnsupportedAttributeError("cats_int64s is empty; give the numbers of the categories")
    index = composer.reshape(x, *x.shape[1:], 1)
    hits = composer.add("Equal", index, np.asarray(categories, dtype=x.sample.dtype))
    return cast(composer, hits, np.float32)


register("ai.onnx.ml.Scaler", kind=Kind.MIXING, expand=_scaler)
register(
    "ai.onnx.ml.Normalizer", kind=Kind.MIXING, check=_check_norm, expand=_normalizer, client=True
)
register("ai.onnx.ml.Imputer", kind=Kind.MIXING, expand=_imputer)
register("ai.onnx.ml.FeatureVectorizer", kind=Kind.MIXING, expand=_vectorizer)
register("ai.onnx.ml.ArrayFeatureExtractor", kind=Kind.MOVEMENT, raw_inputs={1})
register("ai.onnx.ml.Binarizer")
register("ai.onnx.ml.LabelEncoder", check=_check_numbers)
register(
    "ai.onnx.ml.OneHotEncoder",
    kind=Kind.MIXING,
    check=_check_categories,
    expand=_one_hot,
    encoding=True,
)
