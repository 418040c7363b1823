"""Decision trees as arrays, whatever library grew them.

A tree library gives a `TreeEnsemble`; what comes after (`encoding`, `cover`, `program`) knows no
library. A split sends a row to the right if its value is at least the threshold, or is one of the
categories that go right; a missing value, or a category that no split names, goes where the split
says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cipherlearn.errors import ModelError
from cipherlearn.sklearn.links import Identity, Link

#: What stands for a feature in the nodes that are leaves.
LEAF = -1


@dataclass(frozen=True, eq=False)
class Tree:
    """One tree; node 0 is its root.

    Parameters
    ----------
    feature : numpy.ndarray of int64, shape (nodes,)
        What a node splits on; `LEAF` for leaves.
    threshold : numpy.ndarray of float64, shape (nodes,)
        Rows with ``x >= threshold`` go right. Not a number in leaves and in splits on categories.
    left, right : numpy.ndarray of int64, shape (nodes,)
        Positions of the children; `LEAF` in leaves.
    missing_right : numpy.ndarray of bool, shape (nodes,)
        Whether missing values (and unknown categories) go right.
    values : numpy.ndarray of float64, shape (nodes, outputs)
        What leaves add to the outputs; splits hold zeros.
    categories : mapping of int to frozenset of float
        Splits on categories: node -> those that go right.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_right: np.ndarray
    values: np.ndarray
    categories: Mapping[int, frozenset[float]] = field(default_factory=dict)

    def goes_right(self, node: int, values: np.ndarray) -> np.ndarray:
        """Where a split sends values of its feature; NaN is a missing one."""
        if node in self.categories:
            # Categories that no split names share a state with missing values.
            right = np.isin(values, sorted(self.categories[node]))
        else:
            right = values >= self.threshold[node]
        return np.where(np.isnan(values), self.missing_right[node], right)

    def leaf_of(self, X: np.ndarray) -> np.ndarray:
        """The leaf that each row reaches.

        Parameters
        ----------
        X : numpy.ndarray of float64, shape (rows, features)

        Returns
        -------
        numpy.ndarray of int64, shape (rows,)
        """
        place = np.zeros(len(X), dtype=np.int64)
        waiting = [(0, np.arange(len(X)))]
        while waiting:
            node, here = waiting.pop()
            if self.feature[node] == LEAF:
                place[here] = node
                continue
            right = self.goes_right(node, X[here, self.feature[node]])
            sides = (self.left[node], here[~right]), (self.right[node], here[right])
            waiting += [(int(child), rows) for child, rows in sides if len(rows)]
        return place


@dataclass(frozen=True, eq=False)
class TreeEnsemble:
    """A sum of trees.

    Parameters
    ----------
    trees : sequence of Tree
    base : numpy.ndarray of float64, shape (outputs,)
        What the outputs are without any tree.
    n_features : int
    link : Link, default=Identity()
        What the scores mean.
    known_categories : mapping of int to numpy.ndarray of float64, default={}
        Feature -> the categories that the library knows, beside those that splits name.
    unknown_is_missing : bool, default=True
        Whether other categories are treated as missing values. Otherwise they go left.

    Raises
    ------
    ModelError
        If a child stands before its parent, or a split reads a feature that is not there.
    """

    trees: Sequence[Tree]
    base: np.ndarray
    n_features: int
    link: Link = field(default_factory=Identity)
    known_categories: Mapping[int, np.ndarray] = field(default_factory=dict)
    unknown_is_missing: bool = True

    def __post_init__(self) -> None:
        for number, tree in enumerate(self.trees):
            positions = np.arange(len(tree.feature))
            splits = tree.feature != LEAF
            forward = (tree.left > positions) & (tree.right > positions)
            if not forward[splits].all() or (tree.feature >= self.n_features).any():
                raise ModelError(
                    f"tree {number} is damaged: children must come after their parents, and "
                    f"splits must read one of {self.n_features} features"
                )

    @property
    def n_outputs(self) -> int:
        """How many numbers the ensemble gives for a row."""
        return int(self.base.size)

    def raw_scores(self, X: np.ndarray) -> np.ndarray:
        """The sum of all trees, in real numbers.

        Parameters
        ----------
        X : numpy.ndarray of float64, shape (rows, features)

        Returns
        -------
        numpy.ndarray of float64, shape (rows, outputs)
        """
        total = np.tile(self.base, (len(X), 1))
        for tree in self.trees:
            total += tree.values[tree.leaf_of(X)]
        return total
