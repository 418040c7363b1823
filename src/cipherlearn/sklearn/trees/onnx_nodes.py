"""Tree ensembles of ONNX files: the three operators of the domain ai.onnx.ml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from cipherlearn.errors import ModelError, UnsupportedAttributeError
from cipherlearn.onnx import attribute_value
from cipherlearn.sklearn.links import (
    Identity,
    Link,
    Logistic,
    Margin,
    Probability,
    Shares,
    Softmax,
    SoftmaxOfNonzero,
)
from cipherlearn.sklearn.trees.ensemble import LEAF, Tree, TreeEnsemble

#: Operators that are read.
OPERATORS = ("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor")

#: Comparisons, as the newest operator numbers them; the others name them.
_MODES = (
    "BRANCH_LEQ",
    "BRANCH_LT",
    "BRANCH_GTE",
    "BRANCH_GT",
    "BRANCH_EQ",
    "BRANCH_NEQ",
    "BRANCH_MEMBER",
)
_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")

_LINKS: Mapping[str, Link] = {
    "NONE": Identity(),
    "SOFTMAX": Softmax(),
    "LOGISTIC": Probability(),
    "SOFTMAX_ZERO": SoftmaxOfNonzero(),
}


@dataclass(frozen=True)
class _Branch:
    """A node that compares.

    Parameters
    ----------
    mode : str
        One of `_MODES`.
    feature : int
    value : float or frozenset of float
    missing_is_true : bool
    if_true, if_false : int
        Positions of nodes.
    """

    mode: str
    feature: int
    value: Any
    missing_is_true: bool
    if_true: int
    if_false: int


#: A leaf holds what it adds to the outputs.
_Node = _Branch | np.ndarray


@dataclass(frozen=True, eq=False)
class OnnxEnsemble:
    """What a node of a graph says.

    Parameters
    ----------
    ensemble : TreeEnsemble
    classes : numpy.ndarray or None
        Labels, of a classifier.
    """

    ensemble: TreeEnsemble
    classes: np.ndarray | None = None


def read_node(node: onnx.NodeProto, n_features: int | None = None) -> OnnxEnsemble:
    """Read a node of one of the `OPERATORS`.

    Parameters
    ----------
    node : NodeProto
    n_features : int, optional
        Default: as many as the trees read.

    Raises
    ------
    ModelError
        If the node is incomplete, or asks for something that is not supported.
    """
    attributes = {item.name: attribute_value(item) for item in node.attribute}
    try:
        if node.op_type == "TreeEnsemble":
            nodes, roots, outputs = _newest(attributes)
        else:
            nodes, roots, outputs = _older(attributes, node.op_type)
        found = _assembled(node.op_type, attributes, nodes, roots, outputs)
    except (KeyError, IndexError) as error:
        raise ModelError(f"the {node.op_type} is incomplete: {error!r} is missing") from error
    trees, base, link, classes = found
    read = 1 + max((int(tree.feature.max()) for tree in trees), default=0)
    _check_comparisons(trees)
    return OnnxEnsemble(TreeEnsemble(trees, base, n_features or read, link), classes)


def _assembled(
    op: str,
    attributes: Mapping[str, Any],
    nodes: Sequence[_Node],
    roots: Sequence[int],
    outputs: int,
) -> tuple[list[Tree], np.ndarray, Link, np.ndarray | None]:
    """Trees, the base, the link and the classes."""
    transform = _named(attributes.get("post_transform", "NONE"), _TRANSFORMS)
    if transform not in _LINKS:
        raise UnsupportedAttributeError(
            f"the {op} has post_transform={transform}; supported are {', '.join(_LINKS)}"
        )
    aggregate = _named(attributes.get("aggregate_function", "SUM"), _AGGREGATES)
    if aggregate not in {"SUM", "AVERAGE"}:
        raise UnsupportedAttributeError(
            f"the {op} has aggregate_function={aggregate}; supported are SUM and AVERAGE"
        )
    share = 1 / len(roots) if aggregate == "AVERAGE" else 1.0
    trees = [_tree(nodes, root, share) for root in roots]
    given = _floats(attributes, "base_values")
    base = np.resize(given, outputs) if len(given) == 1 else np.zeros(outputs)
    if len(given) > 1:
        base = given
    if base.size != outputs:
        raise ModelError(f"the {op} has {base.size} base_values for {outputs} outputs")
    if transform == "SOFTMAX_ZERO" and _may_be_zero(trees, base):
        raise UnsupportedAttributeError(
            f"the {op} has post_transform=SOFTMAX_ZERO and scores that may be exactly zero, which "
            "they cannot be told to be where leaves are rounded; export it with SOFTMAX"
        )
    if op != "TreeEnsembleClassifier":
        return trees, base, _LINKS[transform], None
    labels = [_text(label) for label in attributes.get("classlabels_strings", ())]
    classes = np.array(labels or list(attributes["classlabels_int64s"]))
    if outputs < len(classes):
        positive = (_floats(attributes, "class_weights") >= 0).all()
        return trees, base, _link_of_one_score(transform, is_share=bool(positive)), classes
    return *_fewer_scores(trees, base, transform), classes


def _link_of_one_score(transform: str, *, is_share: bool) -> Link:
    """What one score says of two classes, as onnxruntime has it."""
    if transform == "LOGISTIC":
        return Logistic()
    return Shares() if is_share else Margin()


def _may_be_zero(trees: Sequence[Tree], base: np.ndarray) -> bool:
    """Whether all trees may add nothing to some output."""
    zero = [(tree.values[tree.feature == LEAF] == 0).any(axis=0) for tree in trees]
    return bool((np.all(zero, axis=0) & (base == 0)).any())


def _fewer_scores(
    trees: Sequence[Tree], base: np.ndarray, transform: str
) -> tuple[list[Tree], np.ndarray, Link]:
    """Without the scores that follow from others: each takes as many look-ups as the rest."""
    all_of = [base, *(tree.values[tree.feature == LEAF] for tree in trees)]
    if base.size == 2 and transform == "SOFTMAX":
        differences = [replace(t, values=t.values[:, 1:] - t.values[:, :1]) for t in trees]
        return differences, base[1:] - base[:1], Logistic()
    if base.size == 2 and transform == "LOGISTIC":
        first_follows = all(np.allclose(v[..., 0], -v[..., 1]) for v in all_of)
        link: Link = Logistic()
    else:
        sums = [values.sum(axis=-1) for values in all_of]
        total = sum(float(of_tree.flat[0]) for of_tree in sums)
        is_constant = all(np.ptp(of_tree) <= 1e-4 / len(trees) for of_tree in sums)
        first_follows = transform == "NONE" and is_constant and abs(total - 1) <= 1e-4
        link = Shares()
    if not first_follows:
        return list(trees), base, _LINKS[transform]
    return [replace(tree, values=tree.values[:, 1:]) for tree in trees], base[1:], link


def _older(attributes: Mapping[str, Any], op: str) -> tuple[list[_Node], list[int], int]:
    """Nodes, roots and the number of outputs of the operators for classes and for values."""
    kind = "class" if op == "TreeEnsembleClassifier" else "target"
    weights = _floats(attributes, f"{kind}_weights")
    ids = list(attributes[f"{kind}_ids"])
    if kind == "class":
        count = len(attributes.get("classlabels_strings", ())) or len(
            attributes["classlabels_int64s"]
        )
        # Two classes, of which only one has scores: one output.
        outputs = 1 if count == 2 and len(set(ids)) == 1 else count
        ids = [0] * len(ids) if outputs == 1 else ids
    else:
        outputs = int(attributes.get("n_targets", 1))
    trees, numbers = attributes["nodes_treeids"], attributes["nodes_nodeids"]
    place = {key: position for position, key in enumerate(zip(trees, numbers, strict=True))}
    values = np.zeros((len(place), outputs))
    where = zip(attributes[f"{kind}_treeids"], attributes[f"{kind}_nodeids"], strict=True)
    for key, output, weight in zip(where, ids, weights, strict=True):
        values[place[key], output] += weight
    splits = _floats(attributes, "nodes_values")
    tracks = attributes.get("nodes_missing_value_tracks_true") or [0] * len(place)
    nodes: list[_Node] = []
    for (tree, _), position in place.items():
        mode = _text(attributes["nodes_modes"][position])
        if mode == "LEAF":
            nodes.append(values[position])
            continue
        nodes.append(
            _Branch(
                mode,
                attributes["nodes_featureids"][position],
                splits[position],
                bool(tracks[position]),
                place[tree, attributes["nodes_truenodeids"][position]],
                place[tree, attributes["nodes_falsenodeids"][position]],
            )
        )
    return nodes, _unreferenced(nodes), outputs


def _newest(attributes: Mapping[str, Any]) -> tuple[list[_Node], list[int], int]:
    """Nodes, roots and the number of outputs of the operator with leaves of their own."""
    outputs = int(attributes.get("n_targets", 1))
    weights = np.asarray(attributes["leaf_weights"], dtype=np.float64)
    features = attributes["nodes_featureids"]
    splits = np.asarray(attributes["nodes_splits"])
    tracks = attributes.get("nodes_missing_value_tracks_true") or [0] * len(features)
    sets = _members(attributes.get("membership_values", np.zeros(0)))

    def child(side: str, position: int) -> int:
        number = attributes[f"nodes_{side}nodeids"][position]
        is_leaf = attributes[f"nodes_{side}leafs"][position]
        return int(number) + (len(features) if is_leaf else 0)

    nodes: list[_Node] = []
    for position, number in enumerate(np.asarray(attributes["nodes_modes"]).tolist()):
        mode = _named(number, _MODES)
        value = sets.pop(0) if mode == "BRANCH_MEMBER" else splits[position]
        children = child("true", position), child("false", position)
        nodes.append(_Branch(mode, features[position], value, bool(tracks[position]), *children))
    for target, weight in zip(attributes["leaf_targetids"], weights.tolist(), strict=True):
        nodes.append(weight * np.eye(outputs)[target])
    return nodes, [int(root) for root in attributes["tree_roots"]], outputs


def _members(values: np.ndarray) -> list[frozenset[float]]:
    """Sets of numbers that NaN stands between."""
    parts = np.split(values, np.flatnonzero(np.isnan(values)))
    return [frozenset(part[~np.isnan(part)].astype(np.float64).tolist()) for part in parts]


def _unreferenced(nodes: Sequence[_Node]) -> list[int]:
    """Nodes that are no child of another."""
    children = {c for n in nodes if isinstance(n, _Branch) for c in (n.if_true, n.if_false)}
    return [position for position in range(len(nodes)) if position not in children]


def _tree(nodes: Sequence[_Node], root: int, share: float) -> Tree:
    """The tree below a root, parents first; what several nodes refer to is there several times."""
    order: list[_Node] = []
    children: list[tuple[int, int]] = []
    waiting = [(root, -1, 0)]
    while waiting:
        position, parent, side = waiting.pop()
        node = nodes[position]
        if parent >= 0:
            pair = list(children[parent])
            pair[side] = len(order)
            children[parent] = (pair[0], pair[1])
        if isinstance(node, _Branch):
            right_if_true = _is_right_if_true(node.mode)
            pair_of = (
                (node.if_false, node.if_true) if right_if_true else (node.if_true, node.if_false)
            )
            waiting += [(child, len(order), side) for side, child in enumerate(pair_of)]
        order.append(node)
        children.append((LEAF, LEAF))
        if len(order) > 4 * len(nodes) + 1:
            raise ModelError("the trees are damaged: a node is below itself")
    outputs = next(n.size for n in order if not isinstance(n, _Branch))
    left, right = np.array(children, dtype=np.int64).T
    return Tree(
        np.array([n.feature if isinstance(n, _Branch) else LEAF for n in order], dtype=np.int64),
        np.array([_threshold(n) for n in order]),
        left,
        right,
        np.array([isinstance(n, _Branch) and _missing_right(n) for n in order]),
        np.stack([np.zeros(outputs) if isinstance(n, _Branch) else n * share for n in order]),
        {
            place: n.value if n.mode == "BRANCH_MEMBER" else frozenset({float(n.value)})
            for place, n in enumerate(order)
            if isinstance(n, _Branch) and _compares_equal(n.mode)
        },
    )


def _is_right_if_true(mode: str) -> bool:
    return mode in {"BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_MEMBER"}


def _compares_equal(mode: str) -> bool:
    return mode in {"BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER"}


def _missing_right(node: _Branch) -> bool:
    # A missing value compares as not equal to all others, and as false else.
    is_true = node.missing_is_true or node.mode == "BRANCH_NEQ"
    return is_true == _is_right_if_true(node.mode)


def _threshold(node: _Node) -> float:
    if not isinstance(node, _Branch) or _compares_equal(node.mode):
        return np.nan
    if node.mode not in _MODES:
        raise ModelError(f"the trees have nodes of the mode {node.mode!r}; ONNX has {_MODES}")
    if node.mode in {"BRANCH_LEQ", "BRANCH_GT"}:
        # Rows with x > value go right.
        with np.errstate(over="ignore"):  # nothing is above the largest number
            return float(np.nextafter(node.value, node.value.dtype.type(np.inf)))
    return float(node.value)


def _check_comparisons(trees: Sequence[Tree]) -> None:
    """A feature is a number or a category; categories that are missing go with the unknown ones."""
    by_value: set[int] = set()
    by_order: set[int] = set()
    for tree in trees:
        for node in np.flatnonzero(tree.feature != LEAF).tolist():
            feature = int(tree.feature[node])
            (by_value if node in tree.categories else by_order).add(feature)
            if node in tree.categories and tree.missing_right[node]:
                raise ModelError(
                    f"a node sends rows right where feature {feature} is missing, or one of the "
                    "values that it names; unknown values are told from missing ones for numbers "
                    "only. Set nodes_missing_value_tracks_true to 0"
                )
    if by_value & by_order:
        raise ModelError(
            f"features {sorted(by_value & by_order)} are compared by order and for equality; a "
            "feature is a number (BRANCH_LEQ, LT, GTE, GT) or a category (EQ, NEQ, MEMBER)"
        )


def _floats(attributes: Mapping[str, Any], name: str) -> np.ndarray:
    """Numbers that are given as such, or as a tensor: in single or in double precision."""
    if f"{name}_as_tensor" in attributes:
        return np.asarray(attributes[f"{name}_as_tensor"])
    return np.asarray(attributes.get(name, ()), dtype=np.float32)


def _named(value: Any, names: Sequence[str]) -> str:
    return names[int(value)] if isinstance(value, (int, np.integer)) else _text(value)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
