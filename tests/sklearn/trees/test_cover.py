from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier

from cipherlearn.circuit import count_lookups, evaluate
from cipherlearn.errors import LookupWidthError
from cipherlearn.sklearn.encoding import FeatureCode, OrdinalCode
from cipherlearn.sklearn.trees import cover as cover_module
from cipherlearn.sklearn.trees.cover import Cover, Covers, cover_ensemble
from cipherlearn.sklearn.trees.ensemble import LEAF, Tree, TreeEnsemble
from cipherlearn.sklearn.trees.program import SCORES, TERMS, build_circuit, linear_constant
from tests.sklearn.trees.ensembles import chain, codes_of, ensemble_of, full_tree, rows_of


def scores_of(cover: Cover, codes: list[FeatureCode], rows: np.ndarray) -> np.ndarray:
    """What the circuit of a cover gives, with what the client adds."""
    circuit = build_circuit(cover, codes)
    pairs = zip(codes, rows.T, strict=True)
    bits = np.concatenate([code.bits(code.states(c)) for code, c in pairs], axis=1)
    inputs = [bits[:, None].astype(np.int64)] * len(circuit.inputs)
    found = evaluate(circuit, *inputs)
    assert not found.overflow_count
    assert circuit.is_proved
    return found.outputs[0][:, 0] + cover.base + linear_constant(cover, codes)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 6), st.integers(1, 3))
def test_a_cover_gives_what_the_trees_give(seed: int, width: int, depth: int, outputs: int) -> None:
    rng = np.random.default_rng(seed)
    codes = codes_of(rng, int(rng.integers(1, 7)))
    ensemble = ensemble_of(rng, codes, 3, depth, outputs)
    rows = rows_of(rng, codes, 50)
    cover = cover_ensemble(ensemble, codes, width)
    np.testing.assert_array_equal(scores_of(cover, codes, rows), ensemble.raw_scores(rows))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(3, 6))
def test_tables_have_the_width_that_is_asked_for(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    codes = codes_of(rng, 6)
    cover = cover_ensemble(ensemble_of(rng, codes, 4, 4), codes, width)
    circuit = build_circuit(cover, codes)
    assert all(bits <= width for bits in count_lookups(circuit).by_width)
    assert count_lookups(circuit).total == cover.n_lookups


def single(tree: Tree, features: int) -> tuple[TreeEnsemble, list[FeatureCode]]:
    codes: list[FeatureCode] = [OrdinalCode.between(np.array([0.5])) for _ in range(features)]
    return TreeEnsemble([tree], np.zeros(1, dtype=np.int64), features), codes


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_a_symmetric_tree_is_one_table(depth: int) -> None:
    leaves = np.random.default_rng(depth).integers(-9, 9, size=2**depth).tolist()
    ensemble, codes = single(full_tree(list(range(depth)), leaves), depth)
    cover = cover_ensemble(ensemble, codes, depth)
    assert cover.n_lookups == 1
    assert len(cover.blocks[0].table) == 2**depth


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(2, 8))
def test_symmetric_trees_of_few_values_give_what_they_gave(
    seed: int, depth: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    codes = [c for c in codes_of(rng, 6) if isinstance(c, OrdinalCode)]
    trees = []
    for _ in range(3):
        features = rng.integers(len(codes), size=depth).tolist()
        tree = full_tree(features, rng.integers(-1, 2, size=2**depth).tolist())
        of_level = [float(rng.choice(codes[f].cuts)) for f in features]
        levels = np.log2(np.arange(2**depth - 1) + 1).astype(int)
        threshold = tree.threshold.copy()
        threshold[: len(levels)] = np.array(of_level)[levels]
        trees.append(replace(tree, threshold=threshold))
    ensemble = TreeEnsemble(trees, np.zeros(1, dtype=np.int64), len(codes))
    rows = rows_of(rng, list(codes), 60)
    cover = cover_ensemble(ensemble, codes, width)
    np.testing.assert_array_equal(scores_of(cover, list(codes), rows), ensemble.raw_scores(rows))
    assert cover.n_lookups <= 3 or depth > width


def test_equal_leaves_are_one() -> None:
    # Rows with the first feature get 7 whatever the second is; the third alone counts otherwise.
    ensemble, codes = single(full_tree([0, 1, 2], [1, 2, 1, 2, 7, 7, 7, 7]), 3)
    cover = cover_ensemble(ensemble, codes, 2)
    assert (
        cover.n_lookups
        < cover_ensemble(
            single(full_tree([0, 1, 2], [1, 2, 1, 2, 7, 6, 7, 7]), 3)[0], codes, 2
        ).n_lookups
    )


def test_trees_of_one_split_need_no_table() -> None:
    trees = [full_tree([feature], [feature, 5]) for feature in (0, 1, 1)]
    codes: list[FeatureCode] = [OrdinalCode.between(np.array([0.5])) for _ in range(2)]
    ensemble = TreeEnsemble(trees, np.zeros(1, dtype=np.int64), 2)
    cover = cover_ensemble(ensemble, codes, 2)
    assert not cover.blocks
    assert set(cover.linear) == {0, 1}


def test_equal_codes_share_a_table() -> None:
    first, second = full_tree([0, 1], [1, 2, 3, 5]), full_tree([0, 1], [4, 0, 0, 1])
    codes: list[FeatureCode] = [OrdinalCode.between(np.array([0.5])) for _ in range(2)]
    cover = cover_ensemble(TreeEnsemble([first, second], np.zeros(1, np.int64), 2), codes, 2)
    assert cover.n_lookups == 1


def test_a_leaf_that_is_taken_from_all_others_needs_no_table() -> None:
    # Below the root's left side: a leaf, and a pair behind another split.
    tree = Tree(
        np.array([0, 1, LEAF, 2, LEAF, LEAF, LEAF]),
        np.array([0.5, 0.5, np.nan, 0.5, np.nan, np.nan, np.nan]),
        np.array([1, 3, LEAF, 5, LEAF, LEAF, LEAF]),
        np.array([2, 4, LEAF, 6, LEAF, LEAF, LEAF]),
        np.zeros(7, dtype=bool),
        np.array([[0], [0], [7], [0], [3], [1], [2]]),
    )
    ensemble, codes = single(tree, 3)
    rows = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)], dtype=float)
    cover = cover_ensemble(ensemble, codes, 3)
    assert cover.n_lookups == 1
    np.testing.assert_array_equal(scores_of(cover, codes, rows), ensemble.raw_scores(rows))


def test_results_may_come_one_by_one() -> None:
    rng = np.random.default_rng(5)
    codes = codes_of(rng, 5)
    ensemble = ensemble_of(rng, codes, 3, 3, outputs=2)
    cover = cover_ensemble(ensemble, codes, 4)
    circuit = build_circuit(cover, codes, sums=False)
    sizes = {
        n: node.size for n, node in zip(circuit.output_names, circuit.output_nodes, strict=True)
    }
    assert sizes[TERMS] == cover.n_lookups
    assert sizes.get(SCORES, 2) == 2


def looked_up(cover: Cover, codes: list[FeatureCode], rows: np.ndarray) -> np.ndarray:
    """What a cover gives, without a circuit: quick for many blocks."""
    states = [code.states(column) for code, column in zip(codes, rows.T, strict=True)]
    total = np.tile(cover.base, (len(rows), 1))
    for feature, function in cover.linear.items():
        total = total + function[states[feature]]
    for block in cover.blocks:
        total = total + block.table[np.sum([v[states[f]] for f, v in block.levels.items()], axis=0)]
    return total


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_widths_share_what_they_have_in_common(seed: int, outputs: int) -> None:
    rng = np.random.default_rng(seed)
    codes = codes_of(rng, 6)
    ensemble = ensemble_of(rng, codes, 3, 5, outputs)
    rows = rows_of(rng, codes, 50)
    covers = Covers(ensemble, codes, 8)
    for width in (8, 2, 5):
        cover = covers.of_width(width)
        assert cover.n_lookups == cover_ensemble(ensemble, codes, width).n_lookups
        np.testing.assert_array_equal(looked_up(cover, codes, rows), ensemble.raw_scores(rows))


@pytest.mark.parametrize("features", [1, 2, 7])
def test_a_chain_of_3000_splits(features: int) -> None:
    cuts = np.arange(-(-3000 // features)) + 0.5
    codes: list[FeatureCode] = [OrdinalCode.between(cuts) for _ in range(features)]
    ensemble = TreeEnsemble([chain(3000, features)], np.zeros(1, np.int64), features)
    rows = rows_of(np.random.default_rng(0), codes, 50)
    cover = cover_ensemble(ensemble, codes, 4)
    np.testing.assert_array_equal(looked_up(cover, codes, rows), ensemble.raw_scores(rows))
    assert (cover.n_lookups == 0) == (features == 1)


def test_an_unbounded_forest() -> None:
    rng = np.random.default_rng(0)
    codes: list[FeatureCode] = [OrdinalCode.between(np.arange(31) + 0.5) for _ in range(5)]
    rows = rows_of(rng, codes, 600)
    forest = RandomForestClassifier(10, random_state=0).fit(rows, rng.integers(0, 3, size=600))
    trees = []
    for model in forest.estimators_:
        grown = model.tree_
        leaf = grown.feature < 0
        values = np.where(leaf[:, None], np.rint(grown.value[:, 0] * 7), 0).astype(np.int64)
        threshold = np.where(leaf, np.nan, np.nextafter(grown.threshold, np.inf))
        left, right = grown.children_left, grown.children_right
        missing = np.zeros(len(leaf), dtype=bool)
        feature = np.where(leaf, LEAF, grown.feature)
        trees.append(Tree(feature, threshold, left, right, missing, values))
    ensemble = TreeEnsemble(trees, np.zeros(3, dtype=np.int64), 5)
    assert max(model.get_depth() for model in forest.estimators_) > 10
    covers, counts = Covers(ensemble, codes, 10), []
    for width in (3, 6, 10):
        cover = covers.of_width(width)
        counts.append(cover.n_lookups)
        found = looked_up(cover, codes, rows[:100])
        np.testing.assert_array_equal(found, ensemble.raw_scores(rows[:100]))
    assert counts == sorted(counts, reverse=True)


def test_what_is_taken_from_many_outputs_is_chosen_for_each() -> None:
    # Leaves are sure of one class each: without what all others have, each needs one look-up.
    rng = np.random.default_rng(0)
    tree = full_tree([0, 1, 2, 3], [0] * 16)
    values = np.full((31, 5), -7)
    values[np.arange(31), rng.integers(5, size=31)] = 7
    values[:15] = 0
    ensemble, codes = single(replace(tree, values=values), 4)
    ensemble = replace(ensemble, base=np.zeros(5, dtype=np.int64))
    assert cover_ensemble(ensemble, codes, 2).n_lookups <= 16


def test_a_path_on_too_many_features_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cover_module, "MOST_BITS", 3)
    codes: list[FeatureCode] = [OrdinalCode.between(np.array([0.5])) for _ in range(8)]
    trees = [chain(7, 8), chain(8, 8)]
    with pytest.raises(LookupWidthError, match=r"tree 1 .* on 8 features.*max_depth"):
        cover_ensemble(TreeEnsemble(trees, np.zeros(1, np.int64), 8), codes, 3)
    cover_ensemble(TreeEnsemble(trees[:1], np.zeros(1, np.int64), 8), codes, 3)
