"""Random trees, for the tests of everything that does not care which library grew them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cipherlearn.sklearn.encoding import CategoricalCode, FeatureCode, OrdinalCode
from cipherlearn.sklearn.trees.ensemble import LEAF, Tree, TreeEnsemble


def codes_of(rng: np.random.Generator, features: int) -> list[FeatureCode]:
    """Every third feature is categorical, every other of the rest may be missing."""
    codes: list[FeatureCode] = []
    for feature in range(features):
        states = int(rng.integers(2, 8))
        if feature % 3 == 2:
            missing = ("lowest", "own")[feature % 2]
            codes.append(CategoricalCode(np.arange(float(states)), missing))
        else:
            cuts = np.sort(rng.normal(size=states)).astype(np.float32)
            codes.append(OrdinalCode.between(cuts, ("refused", "own")[feature % 2]))
    return codes


def tree_of(
    rng: np.random.Generator, codes: list[FeatureCode], depth: int, outputs: int = 1
) -> Tree:
    """A tree with splits in random order, whose leaves hold small integers."""
    nodes: list[tuple[int, float, int, int, bool]] = []
    values: list[np.ndarray] = []
    categories: dict[int, frozenset[float]] = {}

    def grow(level: int) -> int:
        place = len(nodes)
        nodes.append((LEAF, np.nan, LEAF, LEAF, False))
        values.append(rng.integers(-7, 8, size=outputs))
        if level == 0 or rng.random() < 0.2:
            return place
        values[place] = np.zeros(outputs, dtype=np.int64)
        feature = int(rng.integers(len(codes)))
        threshold, code = np.nan, codes[feature]
        if isinstance(code, CategoricalCode):
            chosen = rng.random(len(code.categories)) < 0.5
            categories[place] = frozenset(code.categories[chosen].tolist())
        elif isinstance(code, OrdinalCode):
            threshold = float(rng.choice(code.cuts))
        left, right = grow(level - 1), grow(level - 1)
        nodes[place] = (feature, threshold, left, right, bool(rng.random() < 0.5))
        return place

    grow(depth)
    feature, threshold, left, right, missing = map(np.array, zip(*nodes, strict=True))
    table = np.stack(values).astype(np.int64)
    return Tree(feature, threshold.astype(float), left, right, missing, table, categories)


def ensemble_of(
    rng: np.random.Generator, codes: list[FeatureCode], trees: int, depth: int, outputs: int = 1
) -> TreeEnsemble:
    """Several of them."""
    grown = [tree_of(rng, codes, depth, outputs) for _ in range(trees)]
    known = {f: c.categories for f, c in enumerate(codes) if isinstance(c, CategoricalCode)}
    base = np.zeros(outputs, dtype=np.int64)
    return TreeEnsemble(grown, base, len(codes), known_categories=known)


def rows_of(rng: np.random.Generator, codes: list[FeatureCode], count: int) -> np.ndarray:
    """Values of random states: missing ones where a feature may be missing."""
    columns = [code.representatives[rng.integers(code.n_states, size=count)] for code in codes]
    return np.stack(columns, axis=1)


def full_tree(features: list[int], leaves: list[int]) -> Tree:
    """A tree whose levels split on a feature each, at 0.5; rows that reach it go right."""
    depth = len(features)
    splits, nodes = 2**depth - 1, 2 ** (depth + 1) - 1
    feature = [features[int(np.log2(n + 1))] if n < splits else LEAF for n in range(nodes)]
    places = np.arange(nodes)
    inner = places < splits
    values = np.where(inner, 0, np.concatenate([np.zeros(splits, int), leaves]))
    return Tree(
        np.array(feature),
        np.where(inner, 0.5, np.nan),
        np.where(inner, 2 * places + 1, LEAF),
        np.where(inner, 2 * places + 2, LEAF),
        np.zeros(nodes, dtype=bool),
        values[:, None],
    )


def chain(splits: int, features: int) -> Tree:
    """A tree as deep as it has splits: each has a leaf on its left; features take turns."""
    places = np.arange(2 * splits + 1)
    inner = (places % 2 == 0) & (places < 2 * splits)
    turn = places // 2
    return Tree(
        np.where(inner, turn % features, LEAF),
        np.where(inner, turn // features + 0.5, np.nan),
        np.where(inner, places + 1, LEAF),
        np.where(inner, places + 2, LEAF),
        np.zeros(len(places), dtype=bool),
        np.where(inner, 0, turn % 7)[:, None],
    )


def case(seed: int = 0, outputs: int = 1) -> tuple[TreeEnsemble, list, np.ndarray]:
    """Trees with real numbers in their leaves, codes, rows."""
    rng = np.random.default_rng(seed)
    codes = codes_of(rng, 5)
    ensemble = ensemble_of(rng, codes, 4, 3, outputs)
    trees = [
        replace(t, values=np.where((t.feature == LEAF)[:, None], t.values / 3 + 0.1, 0.0))
        for t in ensemble.trees
    ]
    return (
        replace(ensemble, trees=trees, base=np.full(outputs, 0.7)),
        codes,
        rows_of(rng, codes, 30),
    )
