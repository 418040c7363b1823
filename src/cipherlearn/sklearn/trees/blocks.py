"""The nodes of a tree that rows can reach, and the table of each.

A **block** stands for a node of a tree with all that is below it. Its table reads one integer, the
code, which is a sum over features of a *level* for the feature's state: such a sum is linear in the
bits that the client sends, and costs nothing. The levels count, in mixed radix,

- which way the splits below the node go: for each feature, the classes of states that these splits
  tell apart;
- on how many features the row leaves the path from the root: if any, the block gives zero.

A pair of sibling leaves at depth 4 has 3 features on its path and one split: 2 * 4 codes, 3 bits. A
symmetric tree of depth d has 2**d codes and is one block. A block that reads one feature is a
function of that feature's state: linear in its bits, without any look-up.

Nothing here recurses: trees may be as deep as they have splits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cipherlearn.sklearn.trees.ensemble import LEAF, Tree

#: Which states of a feature a path allows; features that it does not mention are free.
Path = Mapping[int, np.ndarray]


@dataclass(frozen=True, eq=False)
class Block:
    """A table over a sum of levels.

    Parameters
    ----------
    levels : mapping of int to numpy.ndarray of int64, shape (states,)
        Feature -> what each of its states adds to the code.
    table : numpy.ndarray of int64, shape (codes, outputs)
    on_path : numpy.ndarray of bool, shape (codes,)
        The codes of rows that reach the block's node; the table holds zeros elsewhere.
    """

    levels: Mapping[int, np.ndarray]
    table: np.ndarray
    on_path: np.ndarray

    @property
    def key(self) -> tuple[tuple[int, bytes], ...]:
        """Equal for blocks that read the same code."""
        return tuple((f, self.levels[f].tobytes()) for f in sorted(self.levels))

    @property
    def n_lookups(self) -> int:
        """One for each output that it adds to; none for a function of one feature."""
        return int(self.table.any(axis=0).sum()) if len(self.levels) > 1 else 0

    def shifted(self, value: np.ndarray) -> Block:
        """The block with a value taken from what it gives on its path."""
        return replace(self, table=np.where(self.on_path[:, None], self.table - value, 0))


def constant_block(path: Path, value: np.ndarray) -> Block:
    """A value for all rows on a path."""
    levels = {feature: (~path[feature]).astype(np.int64) for feature in sorted(path)}
    table = np.zeros((len(levels) + 1, len(value)), dtype=np.int64)
    table[0] = value
    return Block(levels, table, np.arange(len(table)) == 0)


@dataclass(eq=False)
class Node:
    """A leaf, or a split that sends rows both ways.

    Parameters
    ----------
    parent : Node or None
    allowed : numpy.ndarray of bool, shape (states,)
        Which states of the parent's feature lead here, of those that reach the parent.
    n_path : int
        How many features the path from the root is on.
    values : numpy.ndarray of int64, shape (outputs,)
        What a leaf gives.
    feature : int
        What a split reads; `LEAF` for leaves.
    right : numpy.ndarray of bool, shape (states,)
        The states that a split sends to the right.
    children : tuple of Node
        Left and right; empty for leaves.
    classes : mapping of int to numpy.ndarray of int64, or None
        For each feature that is split on here or below: states on the path have different numbers
        if these splits tell them apart, counted from 0. None if there are too many codes.
    n_codes : float
        Codes of the table. 0 where width is no matter: a leaf has no choice, and what reads one
        feature needs no table.
    is_linear : bool
        Whether the block reads one feature at most.
    place, end : int
        Where the node stands, and where all below it end, if nodes are put in a row: parents
        first, left before right.
    """

    parent: Node | None
    allowed: np.ndarray
    n_path: int
    values: np.ndarray
    feature: int = LEAF
    right: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    children: tuple[Node, ...] = ()
    classes: Mapping[int, np.ndarray] | None = field(default_factory=dict)
    n_codes: float = 0
    is_linear: bool = False
    place: int = 0
    end: int = 0

    @property
    def path(self) -> Path:
        """What the path from the root allows."""
        found: dict[int, np.ndarray] = {}
        node = self
        while node.parent is not None:
            found.setdefault(node.parent.feature, node.allowed)
            node = node.parent
        return found

    def reach(self, feature: int) -> np.ndarray | None:
        """The states of a feature that lead here; None if all do."""
        node = self
        while node.parent is not None:
            if node.parent.feature == feature:
                return node.allowed
            node = node.parent
        return None

    @property
    def block(self) -> Block:
        """The table of the node with all below it.

        Raises
        ------
        ValueError
            If it was found to have too many codes.
        """
        path = self.path
        if not self.children:
            return constant_block(path, self.values)
        if self.classes is None:
            raise ValueError("the node has too many codes for a table")
        classes = {f: _in_order(self.classes[f], path.get(f)) for f in sorted(self.classes)}
        sizes = {feature: int(of_states.max()) + 1 for feature, of_states in classes.items()}
        _, guards = _guards(sizes, path)
        levels: dict[int, np.ndarray] = {}
        strides, inside = {}, 1
        for feature, of_states in classes.items():
            levels[feature], strides[feature] = of_states * inside, inside
            if feature in path and feature not in guards:
                levels[feature][~path[feature]] = sizes[feature] * inside
                inside *= sizes[feature] + 1
            else:
                inside *= sizes[feature]
        for feature in guards:
            levels[feature] = levels.get(feature, 0) + ~path[feature] * inside
        count = inside * (len(guards) + 1)
        table = np.zeros((count, len(self.values)), dtype=np.int64)
        on_path = np.zeros(count, dtype=bool)
        codes, leaves = self._leaves(classes, path, strides)
        table[codes], on_path[codes] = leaves, True
        return Block(levels, table, on_path)

    def _leaves(
        self, classes: Mapping[int, np.ndarray], path: Path, strides: Mapping[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The codes of all rows on the path, and what they get: shapes (n,), (n, outputs)."""
        states = []  # one of each class
        for feature, of_states in classes.items():
            inside = np.flatnonzero(path.get(feature, np.ones(len(of_states), dtype=bool)))
            states.append(inside[np.unique(of_states[inside], return_index=True)[1]])
        grid = np.meshgrid(*states, indexing="ij")
        rows = {feature: chosen.ravel() for feature, chosen in zip(classes, grid, strict=True)}
        codes = sum(classes[f][of_rows] * strides[f] for f, of_rows in rows.items())
        values = np.empty((len(codes), len(self.values)), dtype=np.int64)
        waiting: list[tuple[Node, np.ndarray]] = [(self, np.arange(len(codes)))]
        while waiting:
            node, here = waiting.pop()
            if not node.children:
                values[here] = node.values
                continue
            right = node.right[rows[node.feature][here]]
            waiting += zip(node.children, (here[~right], here[right]), strict=True)
        return codes, values


def nodes_of(tree: Tree, points: Sequence[np.ndarray], most_codes: int) -> list[Node]:
    """The nodes of a tree that rows can reach, and that tell rows apart: see `Node.place`.

    Parameters
    ----------
    tree : Tree
    points : sequence of numpy.ndarray
        For each feature, a value in each of its states.
    most_codes : int
        Codes of the largest table that will be asked for.
    """
    nodes = _reachable(tree, points)
    for node in reversed(nodes):
        if node.children and all(not child.children for child in node.children):
            left, right = node.children
            if (left.values == right.values).all():
                # Rounded leaves often are equal.
                node.children, node.feature, node.values = (), LEAF, left.values
    kept: list[Node] = []
    waiting = nodes[:1]
    while waiting:
        node = waiting.pop()
        node.place = len(kept)
        kept.append(node)
        waiting += node.children[::-1]
    for node in reversed(kept):
        node.end = node.children[-1].end if node.children else node.place + 1
        _count(node, most_codes)
    return kept


def _reachable(tree: Tree, points: Sequence[np.ndarray]) -> list[Node]:
    """Nodes that rows can reach, parents first; splits that send all rows one way are left out."""
    nodes: list[Node] = []
    leaves = tree.values.astype(np.int64)
    of_nodes = tree.feature.tolist()
    none = np.zeros(0, dtype=bool)
    waiting = [(0, Node(None, none, 0, leaves[0]))]
    while waiting:
        place, node = waiting.pop()
        nodes.append(node)
        while (feature := of_nodes[place]) != LEAF:
            right = tree.goes_right(place, points[feature])
            reach = node.reach(feature)
            lower, upper = (~right, right) if reach is None else (reach & ~right, reach & right)
            ways = (int(tree.left[place]), lower), (int(tree.right[place]), upper)
            if lower.any() and upper.any():
                n_path = node.n_path + (reach is None)
                below = [(n, Node(node, side, n_path, leaves[n])) for n, side in ways]
                node.feature, node.right = feature, right
                node.children = tuple(child for _, child in below)
                waiting += below[::-1]
                break
            place = ways[bool(upper.any())][0]
        node.values = leaves[place]
    return nodes


def _count(node: Node, most_codes: int) -> None:
    """Find the classes of a node from those of its children, and count codes.

    A node has at least as many codes as either child: what is a miss or nothing for the child is a
    class or two more. So nothing is counted above a node that has too many.
    """
    if not node.children:
        node.is_linear = node.n_path < 2
        return
    left, right = (child.classes for child in node.children)
    node.classes, node.n_codes = None, math.inf
    if left is None or right is None:
        return
    path, own = node.path, node.feature
    shared = (left.keys() & right.keys()) - {own}
    sizes = {f: max(_size(left, f), _size(right, f)) for f in {*left, *right, own}}
    sizes[own] = _size(left, own) + _size(right, own)
    node.is_linear = len(path.keys() | sizes.keys()) < 2
    if not node.is_linear and _guards(sizes, path)[0] > most_codes:
        return  # the sizes of shared features are too small as yet
    classes = {**left, **right}
    zeros = np.zeros(len(node.right), dtype=np.int64)
    on_right = right.get(own, zeros) + _size(left, own)
    classes[own] = np.where(node.right, on_right, left.get(own, zeros))
    for feature in shared:
        pairs = left[feature] * _size(right, feature) + right[feature]
        classes[feature] = _numbered(pairs, path.get(feature))
        sizes[feature] = _size(classes, feature)
    node.n_codes = 0 if node.is_linear else _guards(sizes, path)[0]
    if node.n_codes <= most_codes:
        node.classes = classes


def _size(classes: Mapping[int, np.ndarray], feature: int) -> int:
    """How many classes a feature has; one if nothing is known of it."""
    return int(classes[feature].max()) + 1 if feature in classes else 1


def _numbered(names: np.ndarray, allowed: np.ndarray | None) -> np.ndarray:
    """Numbers from 0 for names of the states on a path, 0 for others."""
    inside = slice(None) if allowed is None else allowed
    numbers = np.zeros(len(names), dtype=np.int64)
    numbers[inside] = np.unique(names[inside], return_inverse=True)[1]
    return numbers


def _in_order(classes: np.ndarray, allowed: np.ndarray | None) -> np.ndarray:
    """Classes numbered in the order of the states.

    States off the path join a neighbour: few bits have coefficients then.
    """
    inside = np.arange(len(classes)) if allowed is None else np.flatnonzero(allowed)
    _, first, names = np.unique(classes[inside], return_index=True, return_inverse=True)
    numbers = first.argsort().argsort()[names]
    before = np.searchsorted(inside, np.arange(len(classes)), side="right") - 1
    return np.asarray(numbers[np.maximum(before, 0)])


def _guards(sizes: Mapping[int, int], path: Path) -> tuple[int, list[int]]:
    """How many codes a node has, and the features of its path that count as misses.

    A feature that is split below as well has a class more for states off the path instead, if that
    gives fewer codes: those with the fewest classes are the first to count as misses.

    Parameters
    ----------
    sizes : mapping of int to int
        Feature -> how many classes of it the splits below tell apart.
    path : Path
    """
    shared = sorted((f for f in sizes if f in path), key=lambda f: (sizes[f], f))
    alone = len(path) - len(shared)
    best = math.prod(sizes[f] + (f in path) for f in sizes) * (alone + 1)
    counted = 0
    for n in range(1, len(shared) + 1):
        outside = shared[n:]
        codes = math.prod(sizes[f] + (f in outside) for f in sizes) * (alone + n + 1)
        if codes < best:
            best, counted = codes, n
    return best, [*sorted(f for f in path if f not in sizes), *shared[:counted]]
