"""Tables over few features: as trees, as sums, and approximated by smaller ones."""

import numpy as np
import pytest

from cipherlearn.sklearn.encoding import CategoricalCode, OrdinalCode
from cipherlearn.sklearn.trees.cover import cover_ensemble
from cipherlearn.sklearn.trees.ensemble import TreeEnsemble
from cipherlearn.sklearn.trees.tables import Axis, approximate, summed, table_tree
from tests.sklearn.trees.ensembles import codes_of

NUMBERS = Axis(0, 4, np.array([-1.0, 0.0, 2.0]))
NAMES = Axis(1, 3, categories={1.0: 0, 5.0: 1, 7.0: 2})


def rows_of(rng: np.random.Generator, rows: int = 200) -> np.ndarray:
    numbers = rng.choice([-3.0, -1.0, -0.5, 0.0, 1.0, 2.0, 3.0, np.nan], rows)
    return np.stack([numbers, rng.choice([1.0, 5.0, 7.0, np.nan], rows)], axis=1)


def looked_up(axes: list[Axis], table: np.ndarray, X: np.ndarray) -> np.ndarray:
    return table[tuple(axis.classes(X[:, axis.feature]) for axis in axes)]


def total(
    axes: list[Axis], parts: tuple[list[np.ndarray], list[Axis], np.ndarray], X: np.ndarray
) -> np.ndarray:
    functions, merged, core = parts
    single = (f[a.classes(X[:, a.feature])] for a, f in zip(axes, functions, strict=True))
    return sum(single, looked_up(merged, core, X))


@pytest.mark.parametrize("axes", [[NUMBERS], [NAMES], [NUMBERS, NAMES], [NAMES, NUMBERS]])
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_tree_looks_a_table_up(axes: list[Axis], outputs: int) -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(*(axis.n_classes for axis in axes), outputs))
    tree = table_tree(axes, table)
    X = rows_of(rng)
    np.testing.assert_array_equal(tree.values[tree.leaf_of(X)], looked_up(axes, table, X))
    TreeEnsemble([tree], np.zeros(outputs), 2)


def test_an_axis_without_cuts_is_a_constant() -> None:
    tree = table_tree([Axis(0, 0)], np.array([[2.5]]))
    assert tree.values.tolist() == [[2.5]]


def test_functions_of_one_feature_add_up() -> None:
    rng = np.random.default_rng(1)
    coarse = Axis(0, 0, np.array([0.5]))
    functions = [(axis, rng.normal(size=(axis.n_classes, 2))) for axis in (NUMBERS, coarse)]
    axis, function = summed(functions)
    X = rows_of(rng)
    expected = sum(looked_up([a], f, X) for a, f in functions)
    np.testing.assert_allclose(looked_up([axis], function, X), expected)
    assert axis.cuts.tolist() == [-1.0, 0.0, 0.5, 2.0]


def test_functions_of_categories_add_up() -> None:
    rng = np.random.default_rng(2)
    other = Axis(1, 0, categories={1.0: 0, 5.0: 0, 7.0: 1})
    functions = [(axis, rng.normal(size=(axis.n_classes, 1))) for axis in (NAMES, other)]
    axis, function = summed(functions)
    X = rows_of(rng)
    expected = sum(looked_up([a], f, X) for a, f in functions)
    np.testing.assert_allclose(looked_up([axis], function, X), expected)


def test_a_table_that_fits_is_kept() -> None:
    rng = np.random.default_rng(3)
    table = rng.normal(size=(5, 4, 2))
    parts = approximate([NUMBERS, NAMES], table, np.ones((5, 4)), 20)
    X = rows_of(rng)
    expected = looked_up([NUMBERS, NAMES], table, X)
    np.testing.assert_allclose(total([NUMBERS, NAMES], parts, X), expected, atol=1e-12)


def test_what_is_additive_needs_no_table() -> None:
    rng = np.random.default_rng(4)
    table = (rng.normal(size=(5, 1)) + rng.normal(size=(1, 4)))[..., None]
    weights = rng.integers(0, 9, size=(5, 4)).astype(float)
    parts = approximate([NUMBERS, NAMES], table, weights, 1)
    assert parts[2].shape == (1, 1, 1)
    X = rows_of(rng)
    expected = looked_up([NUMBERS, NAMES], table, X)
    np.testing.assert_allclose(total([NUMBERS, NAMES], parts, X), expected, atol=1e-5)


def test_steps_are_found_again() -> None:
    """A table of two classes by two, written in many, is approximated without an error."""
    rng = np.random.default_rng(5)
    axes = [Axis(f, 40, np.arange(39.0)) for f in range(2)]
    step = (np.arange(41) >= 17).astype(float)
    table = (step[:, None] * step[None])[..., None]
    parts = approximate(axes, table, np.ones((41, 41)), 4)
    assert parts[2].shape == (2, 2, 1)
    assert [axis.cuts.tolist() for axis in parts[1]] == [[16.0], [16.0]]
    X = rng.uniform(-2, 42, size=(300, 2))
    np.testing.assert_allclose(total(axes, parts, X), looked_up(axes, table, X), atol=1e-9)


def test_more_cells_are_never_much_worse() -> None:
    rng = np.random.default_rng(6)
    axes = [Axis(f, 20, np.arange(19.0)) for f in range(2)]
    table = np.outer(np.sin(np.arange(21) / 3), np.cos(np.arange(21) / 4))[..., None]
    weights = rng.integers(0, 5, size=(21, 21)).astype(float)
    X = np.argwhere(weights >= 0) - 0.5
    errors = []
    for cells in (4, 16, 64, 441):
        parts = approximate(axes, table, weights, cells)
        assert parts[2].size <= cells
        squares = (total(axes, parts, X) - looked_up(axes, table, X)) ** 2
        errors.append((squares[:, 0] * weights.reshape(-1)).sum())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-12


def test_a_table_without_rows_is_approximated_too() -> None:
    _, merged, core = approximate([NUMBERS, NAMES], np.ones((5, 4, 1)), np.zeros((5, 4)), 6)
    assert core.size <= 6
    assert core.shape[:-1] == tuple(axis.n_classes for axis in merged)


def test_functions_of_one_feature_need_no_look_up() -> None:
    rng = np.random.default_rng(7)
    numbers = OrdinalCode.between(np.arange(200.0), "own")
    names = CategoricalCode(np.arange(100.0))
    cuts = Axis(0, 200, np.arange(199.0))
    categories = Axis(1, 100, categories={float(n): n for n in range(100)})
    trees = [
        table_tree([axis], rng.integers(-9, 9, size=(axis.n_classes, 1)))
        for axis in (cuts, categories)
    ]
    ensemble = TreeEnsemble(trees, np.zeros(1), 2)
    cover = cover_ensemble(ensemble, [numbers, names], 2)
    assert cover.n_lookups == 0
    X = np.stack([rng.choice(c.representatives, 500) for c in (numbers, names)], axis=1)
    states = [c.states(column) for c, column in zip((numbers, names), X.T, strict=True)]
    found = cover.base + sum(cover.linear[f][of_rows] for f, of_rows in enumerate(states))
    np.testing.assert_array_equal(found, ensemble.raw_scores(X))


def test_boosted_stumps_need_no_look_up() -> None:
    rng = np.random.default_rng(8)
    codes = codes_of(rng, 6)
    trees = []
    for _ in range(50):
        feature = int(rng.integers(6))
        code, leaves = codes[feature], rng.integers(-9, 9, size=(2, 1))
        if isinstance(code, CategoricalCode):
            sides = {float(name): int(rng.integers(2)) for name in code.categories}
            axis = Axis(feature, 1, categories=sides)
        else:
            axis = Axis(feature, int(rng.integers(2)), rng.choice(code.cuts, 1).astype(float))
        trees.append(table_tree([axis], leaves))
    assert cover_ensemble(TreeEnsemble(trees, np.zeros(1), 6), codes, 3).n_lookups == 0
