"""Trees as few table look-ups: each tree is covered with blocks, each block is one table.

The cover with the fewest look-ups of a given width is found by dynamic programming from the leaves
up: a node's block, or the best covers of its children. Beside that, a constant may be taken from
all leaves below a split on one feature, which costs nothing: taken such that many leaves become
zero, it saves their blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cipherlearn.errors import LookupWidthError
from cipherlearn.sklearn.encoding import FeatureCode
from cipherlearn.sklearn.trees.blocks import Block, constant_block, nodes_of
from cipherlearn.sklearn.trees.ensemble import Tree, TreeEnsemble

#: Bits of the widest table that an engine looks up.
MOST_BITS = 16


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


class Covers:
    """Covers of an ensemble: what does not depend on the width of the tables is found once.

    Parameters
    ----------
    ensemble : TreeEnsemble
        With integers in its leaves.
    codes : sequence of FeatureCode
        One a feature.
    widest : int
        Bits of the widest tables that covers are asked for with.

    Raises
    ------
    LookupWidthError
        If the path of a leaf alone needs a table that no engine looks up.
    """

    def __init__(self, ensemble: TreeEnsemble, codes: Sequence[FeatureCode], widest: int) -> None:
        points = [code.representatives for code in codes]
        self._trees = [_TreeCovers(tree, points, 2**widest) for tree in ensemble.trees]
        self._base = np.zeros(ensemble.n_outputs, dtype=np.int64)
        for number, covers in enumerate(self._trees):
            longest = max(node.n_path for node in covers.nodes)
            if longest >= 2**MOST_BITS:
                raise LookupWidthError(
                    f"tree {number} has a leaf whose path is on {longest} features: its table "
                    f"needs more than {MOST_BITS} bits. Grow shallower trees (max_depth)"
                )

    def of_width(self, width: int) -> Cover:
        """The cover with tables of at most ``width`` bits: as few as possible.

        Parameters
        ----------
        width : int
            Bits of the widest table. A leaf whose path alone needs more gets a wider one.
        """
        linear: dict[int, np.ndarray] = {}
        merged: dict[tuple[tuple[int, bytes], ...], Block] = {}
        base = self._base
        for tree in self._trees:
            for block in tree.blocks(2**width):
                if not block.levels:
                    base = base + block.table[0]
                elif len(block.levels) == 1:
                    ((feature, levels),) = block.levels.items()
                    linear[feature] = linear.get(feature, 0) + block.table[levels]
                else:
                    key = block.key
                    known = merged.get(key)
                    table = block.table if known is None else known.table + block.table
                    merged[key] = block if known is None else replace(known, table=table)
        return Cover(linear, tuple(b for b in merged.values() if b.table.any()), base)


def cover_ensemble(ensemble: TreeEnsemble, codes: Sequence[FeatureCode], width: int) -> Cover:
    """The cover of an ensemble with tables of at most ``width`` bits: see `Covers`."""
    return Covers(ensemble, codes, width).of_width(width)


@dataclass(frozen=True, eq=False)
class _Choice:
    """Which nodes are blocks, of those below a node: the uppermost on each way.

    Parameters
    ----------
    first : int
        The place of the node.
    is_block : list of bool
        Of the places from there on.
    costs : list of int
        Look-ups below each of them.
    taken : numpy.ndarray of int64, shape (outputs,)
        A value that is taken from all blocks, and given to all rows on the node's path at once.
    """

    first: int
    is_block: list[bool]
    costs: list[int]
    taken: np.ndarray


class _TreeCovers:
    """The best covers of one tree."""

    def __init__(self, tree: Tree, points: Sequence[np.ndarray], most_codes: int) -> None:
        self.nodes = nodes = nodes_of(tree, points, most_codes)
        self.values = np.stack([node.values for node in nodes])
        low, high = self.values.copy(), self.values.copy()
        for node in reversed(nodes):
            if node.children:
                left, right = (child.place for child in node.children)
                np.minimum(low[left], low[right], out=low[node.place])
                np.maximum(high[left], high[right], out=high[node.place])
        # The least and the highest value of each output among the leaves below a node.
        self.low, self.high = low, high
        self.n_codes = np.array([node.n_codes for node in nodes])
        self.is_linear = np.array([node.is_linear for node in nodes])
        self.is_leaf = np.array([not node.children for node in nodes])
        self.known_blocks: dict[int, Block] = {}

    def blocks(self, most_codes: int) -> Iterator[Block]:
        """The blocks of the whole tree, with tables of at most so many codes."""
        whole, shifts = self._best((self.n_codes <= most_codes).tolist())
        waiting = [(0, whole)]
        while waiting:
            place, choice = waiting.pop()
            if choice is whole and place in shifts:
                choice = shifts[place]
                yield constant_block(self.nodes[place].path, choice.taken)
            if choice.is_block[place - choice.first]:
                block = self._block(place)
                yield block.shifted(choice.taken) if choice.taken.any() else block
            else:
                waiting += [(child.place, choice) for child in self.nodes[place].children[::-1]]

    def _block(self, place: int) -> Block:
        """The block of a node: no width changes it."""
        if place not in self.known_blocks:
            self.known_blocks[place] = self.nodes[place].block
        return self.known_blocks[place]

    def _best(self, fits: list[bool]) -> tuple[_Choice, dict[int, _Choice]]:
        """The best choice, and what replaces it below nodes where taking a value saves look-ups.

        Where paths are on one feature at most, what is taken is linear in the feature's bits.

        Parameters
        ----------
        fits : list of bool
            Whether the table of a node is small enough.
        """
        whole = self._chosen(0, np.zeros_like(self.values[0]), fits)
        costs, is_block = whole.costs, whole.is_block
        own = self._lookups(0, len(self.nodes), whole.taken)
        shifts: dict[int, _Choice] = {}
        was_shifted: set[int] = set()
        for node in reversed(self.nodes):
            if node.n_path > 1 or not node.children:
                continue
            place, below = node.place, sum(costs[child.place] for child in node.children)
            is_shifted = any(child.place in was_shifted for child in node.children)
            # Two features or more need a look-up: where leaves differ, they are no sum.
            if not is_shifted and not (fits[place] and own[place] < 2):
                found = self._shifted(place, is_block, fits)
                if is_shifted := found.costs[0] < below:
                    shifts[place], below = found, found.costs[0]
            is_block[place] = fits[place] and own[place] <= below
            costs[place] = own[place] if is_block[place] else below
            if is_block[place]:
                shifts.pop(place, None)
            elif is_shifted:
                was_shifted.add(place)
        return whole, shifts

    def _shifted(self, first: int, is_block: list[bool], fits: list[bool]) -> _Choice:
        """The best choice below a node with something taken from all: what many leaves give."""
        alone, waiting = [], [first]
        while waiting:
            place = waiting.pop()
            if not is_block[place]:
                waiting += [child.place for child in self.nodes[place].children[::-1]]
            elif self.is_leaf[place] and not self.is_linear[place] and self.values[place].any():
                alone.append(place)
        leaves = first + np.flatnonzero(self.is_leaf[first : self.nodes[first].end])
        ways = [_most_common(self.values[places]) for places in (alone, leaves) if len(places)]
        if len(ways[0]) > 1:
            columns = self.values[leaves].T
            ways.append(np.concatenate([_most_common(column[:, None]) for column in columns]))
        choices = (self._chosen(first, value, fits) for value in ways)
        return min(choices, key=lambda choice: choice.costs[0])

    def _chosen(self, first: int, taken: np.ndarray, fits: list[bool]) -> _Choice:
        """The cheapest blocks below a node, once a value is taken from all of them."""
        end = self.nodes[first].end
        costs, is_block = self._lookups(first, end, taken), fits[first:end]
        for place in range(end - first - 1, -1, -1):
            children = self.nodes[first + place].children
            if children:
                below = costs[children[0].place - first] + costs[children[1].place - first]
                if not is_block[place] or below < costs[place]:
                    costs[place], is_block[place] = below, False
        return _Choice(first, is_block, costs, taken)

    def _lookups(self, first: int, end: int, taken: np.ndarray) -> list[int]:
        """Look-ups of the tables of nodes, once a value is taken from what they give."""
        differs = (self.low[first:end] != taken) | (self.high[first:end] != taken)
        found: list[int] = np.where(self.is_linear[first:end], 0, differs.sum(axis=1)).tolist()
        return found


def _most_common(values: np.ndarray) -> np.ndarray:
    """The row that occurs most often: the first of several."""
    ((most, _),) = Counter(row.tobytes() for row in values).most_common(1)
    return np.frombuffer(most, dtype=values.dtype)
