"""The trees of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn import ensemble, tree

from cipherlearn.sklearn.trees._estimator import TreeClassifier, TreeEstimator, TreeRegressor
from cipherlearn.sklearn.trees.ensemble import LEAF, Tree, TreeEnsemble
from cipherlearn.sklearn.trees.links import Identity, Link, Shares

PACKAGE = "sklearn"
EXTRA = None


def _tree(grown: Any, values: np.ndarray) -> Tree:
    """A tree with given values in its nodes, of shape (nodes, outputs)."""
    is_leaf = grown.children_left < 0
    # Rows with x <= threshold go left, where values are compared in double precision.
    threshold = np.nextafter(grown.threshold, np.inf)
    return Tree(
        np.where(is_leaf, LEAF, grown.feature),
        np.where(is_leaf, np.nan, threshold),
        np.where(is_leaf, LEAF, grown.children_left),
        np.where(is_leaf, LEAF, grown.children_right),
        ~is_leaf & ~grown.missing_go_to_left.astype(bool),
        np.where(is_leaf[:, None], values, 0.0),
    )


def _shares(grown: Any) -> np.ndarray:
    """Probabilities of all classes but the first, of shape (nodes, classes - 1)."""
    counts = grown.value[:, 0]
    return np.asarray((counts / counts.sum(axis=1, keepdims=True))[:, 1:])


def _mean(model: Any, grown: Sequence[Any]) -> TreeEnsemble:
    """The mean of trees that give probabilities, or values."""
    is_classifier = hasattr(model, "classes_")
    values = [_shares(t.tree_) if is_classifier else t.tree_.value[:, :, 0] for t in grown]
    trees = [_tree(t.tree_, v / len(grown)) for t, v in zip(grown, values, strict=True)]
    link: Link = Shares() if is_classifier else Identity()
    return TreeEnsemble(trees, np.zeros(values[0].shape[1]), model.n_features_in_, link)


class _Single(TreeEstimator):
    @staticmethod
    def read(model: Any) -> TreeEnsemble:
        return _mean(model, [model])

    def _takes_missing(self) -> bool:
        return self.splitter == "best" and self.criterion != "absolute_error"


class _Forest(TreeEstimator):
    @staticmethod
    def read(model: Any) -> TreeEnsemble:
        return _mean(model, model.estimators_)


class DecisionTreeClassifier(_Single, TreeClassifier, wraps=tree.DecisionTreeClassifier):
    """One decision tree that tells classes apart: see `TreeEstimator`."""


class DecisionTreeRegressor(_Single, TreeRegressor, wraps=tree.DecisionTreeRegressor):
    """One decision tree that gives values: see `TreeEstimator`."""


class RandomForestClassifier(_Forest, TreeClassifier, wraps=ensemble.RandomForestClassifier):
    """A random forest that tells classes apart: see `TreeEstimator`."""


class RandomForestRegressor(_Forest, TreeRegressor, wraps=ensemble.RandomForestRegressor):
    """A random forest that gives values: see `TreeEstimator`."""


class ExtraTreesClassifier(_Forest, TreeClassifier, wraps=ensemble.ExtraTreesClassifier):
    """Extremely randomized trees that tell classes apart: see `TreeEstimator`."""


class ExtraTreesRegressor(_Forest, TreeRegressor, wraps=ensemble.ExtraTreesRegressor):
    """Extremely randomized trees that give values: see `TreeEstimator`."""
