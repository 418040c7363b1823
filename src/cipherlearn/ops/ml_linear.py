"""Linear models and support vector machines of classical machine learning."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from cipherlearn.errors import UnsupportedAttributeError
from cipherlearn.ops._composition import Attributes, Operands, attribute, cast, required, take
from cipherlearn.ops._expand import Composer, Tensor
from cipherlearn.ops._operands import Array
from cipherlearn.ops._registry import Kind, register
from cipherlearn.ops.ml_preprocessing import as_float

_LINKS: Final = {"NONE": "", "LOGISTIC": "Sigmoid", "SOFTMAX": "Softmax"}


def _check_regressor(values: Mapping[str, Any]) -> str | None:
    link = values.get("post_transform", "NONE")
    if link != "NONE":
        return f"post_transform={link!r} is not supported; accepted: 'NONE'."
    return _check_kernel(values)


def _check_classifier(values: Mapping[str, Any]) -> str | None:
    link = values.get("post_transform", "NONE")
    if link not in _LINKS:
        accepted = ", ".join(map(repr, _LINKS))
        return f"post_transform={link!r} is not supported; accepted: {accepted}."
    if values.get("classlabels_strings"):
        return (
            "classlabels_strings is not supported: strings cannot be encrypted. Train on numbers as"
            " labels, and map them to names after decryption."
        )
    if values.get("prob_a"):
        return (
            "prob_a is not supported: calibrated probabilities are found by an iteration on"
            " encrypted scores. Train with `probability=False` and use the scores."
        )
    return _check_kernel(values)


def _check_kernel(values: Mapping[str, Any]) -> str | None:
    kernel = values.get("kernel_type", "LINEAR")
    if kernel == "LINEAR":
        return None
    return (
        f"kernel_type={kernel!r} is not supported; accepted: 'LINEAR'. Other kernels compare an"
        " encrypted sample with every support vector: train with `kernel='linear'`, or on features"
        " that are computed before encryption (`sklearn.kernel_approximation`)."
    )


def _linear(composer: Composer, x: Tensor, weights: Array, bias: Any) -> Tensor:
    """``x @ weights + bias``."""
    x = as_float(composer, x)
    dtype = x.sample.dtype
    shift = np.broadcast_to(np.asarray(bias, dtype=dtype), weights.shape[1:])
    return composer.add("Gemm", x, weights.astype(dtype), shift)


def _regressor(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    x = required(operands)
    targets = int(attribute(attributes, "targets", 1))
    weights = np.reshape(attribute(attributes, "coefficients", ()), (targets, -1)).T
    return _linear(composer, x, weights, attribute(attributes, "intercepts", 0.0))


def _classifier(
    composer: Composer, operands: Operands, attributes: Attributes
) -> tuple[Tensor, Tensor]:
    x = required(operands)
    weights = np.reshape(attributes["coefficients"], (-1, x.shape[1])).T
    bias = np.asarray(attribute(attributes, "intercepts", 0.0), dtype=np.float64)
    labels = attribute(attributes, "classlabels_ints", ())
    if weights.shape[1] == 1 and len(labels) == 2:
        # The score of one class against the other.
        weights, bias = np.hstack([-weights, weights]), np.hstack([-bias, bias])
    scores = _linear(composer, x, weights, bias)
    result = _linked(composer, scores, attributes)
    if scores.shape[1] > 1:
        best = composer.add("ArgMax", scores, axis=1, keepdims=0)
        return _labelled(composer, best, labels), result
    # A single class stands against 0. The logistic function has its middle at 0; probabilities of
    # one class alone are all 1.
    link = attribute(attributes, "post_transform", "NONE")
    reached = composer.add("GreaterOrEqual", scores, -np.inf if link == "SOFTMAX" else 0.0)
    label = composer.add("Mul", cast(composer, reached, np.int64), int(labels[0]) if labels else 1)
    return composer.reshape(label), result


def _linked(composer: Composer, scores: Tensor, attributes: Attributes) -> Tensor:
    op = _LINKS[attribute(attributes, "post_transform", "NONE")]
    if not op:
        return scores
    return composer.add(op, scores, **({"axis": 1} if op == "Softmax" else {}))


def _labelled(composer: Composer, index: Tensor, labels: Sequence[int]) -> Tensor:
    """The label of each class number."""
    if not labels or list(labels) == list(range(len(labels))):
        return index
    table = composer.constant(np.array(labels, dtype=np.int64))
    return composer.add("Gather", table, index, axis=0)


def _svm_regressor(composer: Composer, operands: Operands, attributes: Attributes) -> Tensor:
    weights = np.asarray(attribute(attributes, "coefficients", ()), dtype=np.float64)
    supports = int(attribute(attributes, "n_supports", 0))
    if supports:
        weights = weights @ np.reshape(attributes["support_vectors"], (supports, -1))
    scores = _linear(composer, required(operands), weights[:, None], attributes["rho"][0])
    if not attribute(attributes, "one_class", 0):
        return scores
    one, other = (np.asarray(number, scores.sample.dtype) for number in (1, -1))
    return composer.add("Where", composer.add("Greater", scores, 0.0), one, other)


def _svm_classifier(
    composer: Composer, operands: Operands, attributes: Attributes
) -> tuple[Tensor, Tensor]:
    x = required(operands)
    counts = attribute(attributes, "vectors_per_class", ())
    labels = attribute(attributes, "classlabels_ints", ())
    coefficients = np.asarray(attributes["coefficients"], dtype=np.float64)
    if not counts or len(counts) != len(labels):
        raise UnsupportedAttributeError(
            "it has no support vectors for each class; accepted: a classifier with"
            " `vectors_per_class` for all `classlabels_ints` (without support vectors, write a"
            " LinearClassifier)"
        )
    if len(labels) == 2 and coefficients.min() >= 0:
        raise UnsupportedAttributeError(
            "all its coefficients are positive, so that it always answers the second class"
        )
    weights = _weights_of_pairs(coefficients, attributes, counts, x.shape[1])
    scores = _linear(composer, x, weights, np.asarray(attributes["rho"]))
    if len(labels) > 2:
        best = composer.add("ArgMax", _votes(composer, scores, len(labels)), axis=1, keepdims=0)
        return _labelled(composer, best, labels), _linked(composer, scores, attributes)
    first = take(composer, composer.add("Greater", scores, 0.0), np.array(0), 1)
    names = [np.array(label, dtype=np.int64) for label in labels]
    both = composer.add("Concat", composer.add("Neg", scores), scores, axis=1)
    return composer.add("Where", first, *names), _linked(composer, both, attributes)


def _weights_of_pairs(
    coefficients: Array, attributes: Attributes, counts: Sequence[int], features: int
) -> Array:
    """One column for each pair of classes: the support vectors of both, weighed."""
    vectors = np.reshape(attributes["support_vectors"], (sum(counts), features))
    duals = coefficients.reshape(-1, sum(counts))
    ends = np.cumsum(counts)
    own = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
    columns = [
        duals[j - 1, own[i]] @ vectors[own[i]] + duals[i, own[j]] @ vectors[own[j]]
        for i, j in itertools.combinations(range(len(counts)), 2)
    ]
    return np.stack(columns, axis=1)


def _votes(composer: Composer, scores: Tensor, classes: int) -> Tensor:
    """How many of its comparisons each class wins."""
    won = cast(composer, composer.add("Greater", scores, 0.0), np.float32)
    pairs = list(itertools.combinations(range(classes), 2))
    signs = np.zeros((len(pairs), classes), dtype=np.float32)
    for row, (i, j) in enumerate(pairs):
        signs[row, [i, j]] = 1, -1
    losses = (signs < 0).sum(axis=0).astype(np.float32)
    return composer.add("Add", composer.add("MatMul", won, signs), losses)


register("ai.onnx.ml.LinearRegressor", kind=Kind.MIXING, check=_check_regressor, expand=_regressor)
register(
    "ai.onnx.ml.LinearClassifier", kind=Kind.MIXING, check=_check_classifier, expand=_classifier
)
register("ai.onnx.ml.SVMRegressor", kind=Kind.MIXING, check=_check_regressor, expand=_svm_regressor)
register(
    "ai.onnx.ml.SVMClassifier", kind=Kind.MIXING, check=_check_classifier, expand=_svm_classifier
)
