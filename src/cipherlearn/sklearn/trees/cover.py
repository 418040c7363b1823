"""Trees as few table look-ups: each tree is covered with blocks, each block is one table.

A **block** stands for a node of a tree with all that is below it. Its table reads one integer, the
code, which is a sum over features of a *level* for the feature's state: such a sum is linear in the
bits that the client sends, and costs nothing. The levels count, in mixed radix,

- which way the splits below the node go: for each feature, the classes of states that these splits
  tell apart;
- on how many features the row leaves the path from the root: if any, the block gives zero.

A pair of sibling leaves at depth 4 has 3 features on its path and one split: 2 * 4 codes, 3 bits. A
symmetric tree of depth d has 2**d codes and is one block. A block that reads one feature is a
function of that feature's state: linear in its bits, without any look-up. So is a constant that is
taken from all leaves below a split on one feature; taken such that one of them becomes zero, it
saves the block of that leaf.

The cover with the fewest look-ups of a given width is found by dynamic programming from the leaves
up: a node's block, or the best covers of its children.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cipherlearn.sklearn.trees.encoding import FeatureCode
from cipherlearn.sklearn.trees.ensemble import LEAF, Tree, TreeEnsemble

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

    @property
    def is_leaf(self) -> bool:
        """Whether it gives one value on its path."""
        return int(self.on_path.sum()) == 1

    def shifted(self, value: np.ndarray) -> Block:
        """The block with a value taken from what it gives on its path."""
        return replace(self, table=np.where(self.on_path[:, None], self.table - value, 0))


@dataclass(frozen=True, eq=False)
class Cover:
    """An ensemble as functions of single features, and tables over several.

    Parameters
    ----------
    linear : mapping of int to numpy.ndarray of int64, shape (states, outputs)
        Feature -> what each of its states adds to the outputs.
    blocks : tuple of Block
    base : numpy.ndarray of int64, shape (outputs,)
    """

    linear: Mapping[int, np.ndarray]
    blocks: tuple[Block, ...]
    base: np.ndarray

    @property
    def n_lookups(self) -> int:
        """Table look-ups for a row."""
        return sum(block.n_lookups for block in self.blocks)


def cover_ensemble(ensemble: TreeEnsemble, codes: Sequence[FeatureCode], width: int) -> Cover:
    """Cover all trees with tables of at most ``width`` bits, as few as possible.

    Parameters
    ----------
    ensemble : TreeEnsemble
        With integers in its leaves.
    codes : sequence of FeatureCode
        One a feature.
    width : int
        Bits of the widest table. A leaf whose path alone needs more gets a wider one.
    """
    linear: dict[int, np.ndarray] = {}
    merged: dict[tuple[tuple[int, bytes], ...], Block] = {}
    base = np.zeros(ensemble.n_outputs, dtype=np.int64)
    for tree in ensemble.trees:
        for block in _TreeCover(tree, codes, 2**width).blocks():
            if not block.levels:
                base = base + block.table[0]
            elif len(block.levels) == 1:
                ((feature, levels),) = block.levels.items()
                linear[feature] = linear.get(feature, 0) + block.table[levels]
            elif block.key in merged:
                known = merged[block.key]
                merged[block.key] = replace(known, table=known.table + block.table)
            else:
                merged[block.key] = block
    return Cover(linear, tuple(b for b in merged.values() if b.table.any()), base)


@dataclass(frozen=True, eq=False)
class _Part:
    """The best cover found for what is below a node.

    Parameters
    ----------
    blocks : tuple of Block
    is_shifted : bool
        Whether a constant was taken from it already.
    """

    blocks: tuple[Block, ...]
    is_shifted: bool = False

    @property
    def cost(self) -> int:
        return sum(block.n_lookups for block in self.blocks)


class _TreeCover:
    """The best cover of one tree."""

    def __init__(self, tree: Tree, codes: Sequence[FeatureCode], most_codes: int) -> None:
        self.tree = tree
        self.most_codes = most_codes
        self.right = [
            np.zeros(0, dtype=bool) if f == LEAF else tree.goes_right(n, codes[f].representatives)
            for n, f in enumerate(tree.feature.tolist())
        ]
        feature, values = tree.feature.copy(), tree.values.copy()
        self._prune(0, {}, feature, values)
        self.tree = replace(tree, feature=feature, values=values)

    def blocks(self) -> tuple[Block, ...]:
        """The blocks of the whole tree."""
        return self._best(0, {}).blocks

    def _prune(self, node: int, path: Path, feature: np.ndarray, values: np.ndarray) -> bool:
        """Make leaves of nodes below which all rows get the same: rounded leaves often are equal.

        Returns whether the node is a leaf.
        """
        if feature[node] == LEAF:
            return True
        children = list(self._children(node, path))
        are_leaves = [self._prune(*child, feature, values) for child in children]
        first, last = children[0][0], children[-1][0]
        if not all(are_leaves) or (values[first] != values[last]).any():
            return False
        feature[node], values[node] = LEAF, values[first]
        return True

    def _best(self, node: int, path: Path) -> _Part:
        is_leaf = self.tree.feature[node] == LEAF
        block = self._block(node, path, math.inf if is_leaf else self.most_codes)
        # Two features or more need a look-up: where leaves differ, they are no sum.
        if block is not None and (is_leaf or block.n_lookups <= 1):
            return _Part((block,))
        children = [self._best(*child) for child in self._children(node, path)]
        parts = _Part(tuple(block for child in children for block in child.blocks))
        if any(child.is_shifted for child in children):
            parts = replace(parts, is_shifted=True)
        elif len(path) < 2:
            parts = _shifted(parts, path)
        return parts if block is None or parts.cost < block.n_lookups else _Part((block,))

    def _children(self, node: int, path: Path) -> Iterator[tuple[int, Path]]:
        """The children that rows can reach, and their paths."""
        feature, right = int(self.tree.feature[node]), self.right[node]
        for child, side in ((self.tree.left[node], ~right), (self.tree.right[node], right)):
            allowed = side & path[feature] if feature in path else side
            if allowed.all():
                yield int(child), path
            elif allowed.any():
                yield int(child), {**path, feature: allowed}

    def _block(self, node: int, path: Path, most_codes: float) -> Block | None:
        """The table of a node with all below it; None if it has too many codes."""
        classes = {
            feature: _classes(np.stack([self.right[n] for n in nodes]), path.get(feature))
            for feature, nodes in self._splits_below(node).items()
        }
        if len(classes.keys() | path.keys()) == 1:
            most_codes = math.inf  # it is linear in the feature's bits
        least = math.prod(int(of_states.max()) + 1 for of_states in classes.values())
        if least > most_codes:
            return None
        guards, outside = _guards(classes, path)
        sizes = {f: int(c.max()) + 1 + (f in outside) for f, c in classes.items()}
        inside = math.prod(sizes.values())
        count = inside * (len(guards) + 1)
        if count > most_codes:
            return None
        levels: dict[int, np.ndarray] = {}
        strides, stride = {}, 1
        for feature, of_states in classes.items():
            levels[feature] = of_states * stride
            if feature in outside:
                levels[feature][~path[feature]] = (sizes[feature] - 1) * stride
            strides[feature] = stride
            stride *= sizes[feature]
        for feature in guards:
            levels[feature] = levels.get(feature, 0) + ~path[feature] * inside
        table = np.zeros((count, self.tree.values.shape[1]), dtype=np.int64)
        on_path = np.zeros(count, dtype=bool)
        for state in self._rows(classes, path):
            code = sum(int(classes[f][s]) * strides[f] for f, s in state.items())
            table[code], on_path[code] = self.tree.values[self._leaf(node, state)], True
        return Block({f: v for f, v in levels.items() if v.any()}, table, on_path)

    @staticmethod
    def _rows(classes: Mapping[int, np.ndarray], path: Path) -> Iterator[dict[int, int]]:
        """One state of each feature, for all combinations of classes on the path."""
        states = []
        for feature, of_states in classes.items():
            allowed = path[feature] if feature in path else np.ones(len(of_states), dtype=bool)
            places = np.flatnonzero(allowed)
            states.append(places[np.unique(of_states[places], return_index=True)[1]].tolist())
        for chosen in itertools.product(*states):
            yield dict(zip(classes, chosen, strict=True))

    def _leaf(self, node: int, state: Mapping[int, int]) -> int:
        """Where a row ends that starts in a node."""
        while (feature := int(self.tree.feature[node])) != LEAF:
            right = self.right[node][state[feature]]
            node = int(self.tree.right[node] if right else self.tree.left[node])
        return node

    def _splits_below(self, node: int) -> dict[int, list[int]]:
        """Feature -> the nodes below (and with) a node that split on it."""
        found: dict[int, list[int]] = {}
        waiting = [node]
        while waiting:
            place = waiting.pop()
            feature = int(self.tree.feature[place])
            if feature != LEAF:
                found.setdefault(feature, []).append(place)
                waiting += [int(self.tree.right[place]), int(self.tree.left[place])]
        return found


def _classes(right: np.ndarray, allowed: np.ndarray | None) -> np.ndarray:
    """Number the states that no split tells apart: shape (splits, states) -> (states,).

    Classes are numbered in the order of the states, and states off the path join a neighbour, so
    that few bits have coefficients.
    """
    inside = np.arange(right.shape[1]) if allowed is None else np.flatnonzero(allowed)
    known: dict[bytes, int] = {}
    numbers = [known.setdefault(right[:, s].tobytes(), len(known)) for s in inside]
    before = np.searchsorted(inside, np.arange(right.shape[1]), side="right") - 1
    return np.array(numbers)[np.maximum(before, 0)]


def _guards(classes: Mapping[int, np.ndarray], path: Path) -> tuple[list[int], set[int]]:
    """Features of a path that count as misses, and those with a class of states off the path.

    A feature that is split below as well may be either: whichever gives fewer codes.
    """
    alone = [f for f in path if f not in classes]
    shared = [f for f in path if f in classes]

    def codes(counted: tuple[int, ...]) -> int:
        sizes = (
            int(of_states.max()) + 1 + (f in shared and f not in counted)
            for f, of_states in classes.items()
        )
        return (len(alone) + len(counted) + 1) * math.prod(sizes)

    ways = (itertools.combinations(shared, n) for n in range(len(shared) + 1))
    counted = min(itertools.chain.from_iterable(ways), key=codes)
    return [*alone, *counted], set(shared) - set(counted)


def _shifted(part: _Part, path: Path) -> _Part:
    """Take the value of the most blocks that are single leaves from all: these are zero then.

    The path is on one feature at most, so that what is taken is linear in the feature's bits.
    """
    leaves = Counter(b.table[b.on_path].tobytes() for b in part.blocks if b.is_leaf and b.n_lookups)
    if not leaves:
        return part
    ((most, _),) = leaves.most_common(1)
    value = np.frombuffer(most, dtype=np.int64)
    rest = (block.shifted(value) for block in part.blocks)
    levels = {feature: (~allowed).astype(np.int64) for feature, allowed in path.items()}
    on_path = np.array([True, False]) if levels else np.array([True])
    taken = Block(levels, np.where(on_path[:, None], value, 0), on_path)
    return _Part((*(b for b in rest if b.table.any()), taken), is_shifted=True)
