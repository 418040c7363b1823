from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cipherlearn.sklearn.trees.blocks import Node, nodes_of
from tests.sklearn.trees.ensembles import codes_of, rows_of, tree_of


def brute_codes(node: Node) -> int:
    """The fewest codes: each feature of the path and below is a miss, or has a class of its own."""
    path, below, waiting = node.path, {}, [node]
    while waiting:
        one = waiting.pop()
        if one.children:
            reach = one.reach(one.feature)
            sides = one.right + 1 if reach is None else (one.right + 1) * reach
            below.setdefault(one.feature, []).append(sides)
            waiting += one.children
    sizes = {}
    for feature, sides in below.items():
        columns = np.stack(sides)[:, path.get(feature, slice(None))]
        sizes[feature] = len(np.unique(columns, axis=1).T)
    shared = sorted(path.keys() & sizes.keys())
    alone = len(path.keys() - sizes.keys())
    found = []
    for chosen in range(2 ** len(shared)):
        counted = {f for n, f in enumerate(shared) if chosen >> n & 1}
        inside = math.prod(s + (f in shared and f not in counted) for f, s in sizes.items())
        found.append(inside * (alone + len(counted) + 1))
    return min(found)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_codes_are_counted_right_and_grow_towards_the_root(seed: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    codes = codes_of(rng, int(rng.integers(1, 6)))
    most = 2 ** int(rng.integers(2, 9))
    nodes = nodes_of(tree_of(rng, codes, depth), [code.representatives for code in codes], most)
    for node in nodes:
        assert node.is_linear == (len(node.block.levels) < 2 if node.classes is not None else False)
        if not node.children or node.is_linear:
            continue
        count = brute_codes(node)
        assert (node.classes is None) == (count > most)
        if node.classes is not None:
            assert node.n_codes == len(node.block.table) == count
        for child in node.children:
            assert child.is_linear or brute_codes(child) <= count


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_a_block_gives_what_is_below_its_node_and_zero_elsewhere(seed: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    codes = codes_of(rng, 4)
    tree, rows = tree_of(rng, codes, depth, outputs=2), rows_of(rng, codes, 60)
    states = [code.states(column) for code, column in zip(codes, rows.T, strict=True)]
    expected = tree.values[tree.leaf_of(rows)]
    for node in nodes_of(tree, [code.representatives for code in codes], 2**9):
        if node.classes is None:
            with pytest.raises(ValueError, match="too many codes"):
                _ = node.block
            continue
        here = np.all([a[states[f]] for f, a in node.path.items()] or [[True] * 60], axis=0)
        block = node.block
        code = np.zeros(60, dtype=np.int64)
        for feature, levels in block.levels.items():
            code = code + levels[states[feature]]
        np.testing.assert_array_equal(block.on_path[code], here)
        np.testing.assert_array_equal(block.table[code], np.where(here[:, None], expected, 0))
