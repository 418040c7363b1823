"""Estimators from tree ensembles in ONNX files, whatever library they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper
from sklearn.base import BaseEstimator

from cipherlearn.errors import InvalidParameterError, ModelError
from cipherlearn.onnx import ModelSource, OnnxRuntimeModel, load_model
from cipherlearn.onnx.graph import tensor_shapes, tensor_types
from cipherlearn.sklearn._reading import check_reading
from cipherlearn.sklearn.trees._estimator import TreeClassifier, TreeEstimator, TreeRegressor
from cipherlearn.sklearn.trees.ensemble import TreeEnsemble
from cipherlearn.sklearn.trees.onnx_nodes import OPERATORS, read_node
from cipherlearn.sklearn.trees.reading import probes

if TYPE_CHECKING:
    from typing_extensions import Self

_DOMAIN = "ai.onnx.ml"

#: Operators after the trees that change no value; only the first stands before them.
_NEUTRAL = ("Identity", "Cast", "Flatten", "Reshape", "ZipMap")

#: Rows that onnxruntime is compared on.
_ROWS = 64


class OnnxTrees(BaseEstimator):  # type: ignore[misc]
    """The trees of an ONNX model, as a fitted model.

    Attributes
    ----------
    ensemble_ : TreeEnsemble
    classes_ : numpy.ndarray
        Labels; only of classifiers.
    n_features_in_ : int
    precision_ : numpy dtype
        What values are compared in.
    """

    @classmethod
    def load(cls, source: ModelSource) -> Self:
        """Read a model, and compare its trees with what onnxruntime makes of it.

        Parameters
        ----------
        source : ModelProto, bytes, str or path

        Raises
        ------
        ModelError
            If the model is not one tree ensemble, or onnxruntime understands it otherwise.
        """
        model = load_model(source)
        node = _only_node(model)
        shape = tensor_shapes(model).get(node.input[0], ())
        width = shape[-1] if len(shape) == 2 else None
        found = read_node(node, width)
        self = cls()
        self.ensemble_ = found.ensemble
        self.n_features_in_ = found.ensemble.n_features
        if found.classes is not None:
            self.classes_ = found.classes
        known = tensor_types(model).get(node.input[0])
        is_double = known is not None and known.elem_type == onnx.TensorProto.DOUBLE
        self.precision_ = np.float64 if is_double else np.float32
        _compare(node, model, found.ensemble, self.precision_)
        return self


class _Onnx(TreeEstimator):
    @staticmethod
    def read(model: Any) -> TreeEnsemble:
        ensemble: TreeEnsemble = model.ensemble_
        return ensemble

    @staticmethod
    def _is_trained(model: Any) -> bool:
        return hasattr(model, "ensemble_")

    def fit(self, X: Any, y: Any, **fit_params: Any) -> Self:
        """Raise: an ONNX model is trained already."""
        del X, y, fit_params
        raise InvalidParameterError(
            "a model from an ONNX file cannot be trained; use the estimator of its library, or "
            "from_onnx"
        )

    def _takes_missing(self) -> bool:
        return True


class OnnxTreeClassifier(_Onnx, TreeClassifier, wraps=OnnxTrees):
    """Trees of an ONNX file that tell classes apart: see `from_onnx`."""


class OnnxTreeRegressor(_Onnx, TreeRegressor, wraps=OnnxTrees):
    """Trees of an ONNX file that give values: see `from_onnx`."""


class OnnxDoubleTreeClassifier(OnnxTreeClassifier, wraps=OnnxTrees):
    """The same, of a model that compares in double precision."""

    precision = np.float64


class OnnxDoubleTreeRegressor(OnnxTreeRegressor, wraps=OnnxTrees):
    """The same, of a model that compares in double precision."""

    precision = np.float64


def from_onnx(
    model: ModelSource,
    X: Any = None,
    *,
    n_bits: Any = 8,
    inputs: str = "grid",
    ensembling: str = "server",
) -> Any:
    """An estimator from an ONNX model that is one tree ensemble.

    The operators are TreeEnsembleClassifier, TreeEnsembleRegressor and TreeEnsemble; what stands
    beside them may rename, cast or reshape.

    Parameters
    ----------
    model : ModelProto, bytes, str or path
    X : array-like of shape (rows, features), optional
        Rows that the grid is chosen for. Without them, cuts are at equal distances over the range
        of each feature's thresholds.
    n_bits : int or dict, default=8
    inputs : {"grid", "used-thresholds"}, default="grid"
        With a grid, thresholds move to the nearest cut. With ``"used-thresholds"``, trees split
        exactly where they did, and the client learns the thresholds.
    ensembling : {"server", "client"}, default="server"

    Returns
    -------
    OnnxTreeClassifier or OnnxTreeRegressor
        A TreeEnsemble without labels gives values.

    Raises
    ------
    ModelError
        If the model is anything else, or is not supported.
    """
    trees = OnnxTrees.load(model)
    is_double = trees.precision_ is np.float64
    if hasattr(trees, "classes_"):
        estimator = OnnxDoubleTreeClassifier if is_double else OnnxTreeClassifier
    else:
        estimator = OnnxDoubleTreeRegressor if is_double else OnnxTreeRegressor
    return estimator.from_model(trees, X, n_bits=n_bits, inputs=inputs, ensembling=ensembling)


def _only_node(model: onnx.ModelProto) -> onnx.NodeProto:
    nodes = list(model.graph.node)
    trees = [node for node in nodes if node.domain == _DOMAIN and node.op_type in OPERATORS]
    others = sorted({n.op_type for n in nodes if n not in trees and n.op_type not in _NEUTRAL})
    if len(trees) != 1 or others:
        beside = f" beside {', '.join(others)}" if others else ""
        raise ModelError(
            f"the model has {len(trees)} tree ensembles{beside}; one is supported, beside "
            f"{', '.join(sorted(_NEUTRAL))}. Export the trees without what comes before and after"
        )
    before = _before(model, trees[0])
    changing = [n for n in before if n.op_type != "Identity" and not _casts_to_float(n)]
    if changing:
        raise ModelError(
            f"{', '.join(sorted({n.op_type for n in changing}))} stands before the trees, and may "
            "change what they read. Export the trees without what comes before"
        )
    return trees[0]


def _before(model: onnx.ModelProto, trees: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The nodes that the input of the trees comes from."""
    makers = {name: node for node in model.graph.node for name in node.output}
    found, name = [], trees.input[0]
    while name in makers:
        found.append(makers[name])
        name = found[-1].input[0]
    return found


def _casts_to_float(node: onnx.NodeProto) -> bool:
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    return node.op_type == "Cast" and node.attribute[0].i in kinds


def _compare(
    node: onnx.NodeProto, model: onnx.ModelProto, ensemble: TreeEnsemble, dtype: Any
) -> None:
    """Raise `ModelError` unless onnxruntime gives the same on rows around the thresholds.

    ONNX leaves open what some combinations of attributes mean.
    """
    rows = probes(ensemble, precision=dtype, count=_ROWS).astype(dtype)
    scores = ensemble.link(ensemble.raw_scores(rows.astype(np.float64)))
    (found,) = OnnxRuntimeModel(_of_node(node, model, rows))(rows)
    found = np.asarray(found, dtype=np.float64).reshape(len(rows), -1)
    if found.shape[1] == 2 and ensemble.n_outputs == 1:
        # The share of the other class is what is left: some models leave it out.
        found, scores = found[:, 1:], scores[:, 1:]
    check_reading(
        scores,
        found,
        f"onnxruntime gives other values for the {node.op_type} than its attributes say "
        "(class_ids, base_values and post_transform can be combined in ways that ONNX does not "
        "define, and onnxruntime 1.31 reads SOFTMAX of a TreeEnsemble as LOGISTIC, and the "
        "reverse); export the scores alone, with post_transform NONE",
        tolerance=1e-4,
    )


def _of_node(node: onnx.NodeProto, model: onnx.ModelProto, rows: np.ndarray) -> onnx.ModelProto:
    """The scores of a node alone, with numbers for classes."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[0] = "rows"
    copy.output[-1] = "scores"
    for item in copy.attribute:
        if item.name == "classlabels_strings":
            count = len(item.strings)
            copy.attribute.remove(item)
            copy.attribute.append(helper.make_attribute("classlabels_int64s", list(range(count))))
            break
    kind = helper.np_dtype_to_tensor_dtype(rows.dtype)
    result = kind if node.op_type == "TreeEnsemble" else onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [copy],
        "trees",
        [helper.make_tensor_value_info("rows", kind, [None, rows.shape[1]])],
        [helper.make_tensor_value_info("scores", result, [None, None])],
    )
    return helper.make_model(graph, opset_imports=model.opset_import)
