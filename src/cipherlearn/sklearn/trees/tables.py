"""Tables over a few features as trees, and their approximation by small ones.

An additive model is a sum of functions of one feature, and of tables over two (or more). Each of
them is a tree as well: it splits on its first feature until that is known, then on the next. So
additive models are tree ensembles, and share everything that comes after: a function of one feature
is found to be linear in the client's bits, a table that fits is one look-up.

Tables over two features are larger than what a look-up reads. `approximate` divides one into
functions of single features, which cost nothing, and a table over few classes of the states.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cipherlearn.sklearn.trees.ensemble import LEAF, Tree

#: Weight of each cell beside that of its rows, as a share of the mean: where there were no rows in
#: training, the approximation follows the table as far as that costs nothing elsewhere.
_PRIOR = 1e-3

#: Rounds over all parts of a table, each fitted to what the others leave.
_ROUNDS = 20


@dataclass(frozen=True, eq=False)
class Axis:
    """What a table tells apart of one feature: classes, numbered from 0.

    Parameters
    ----------
    feature : int
    missing : int
        The class of missing values, and of unknown categories. One that no other value has is the
        last.
    cuts : numpy.ndarray of float64, shape (n,)
        Of numbers: ascending; the class is how many of them a value reaches.
    categories : mapping of float to int
        Of categories: their classes.
    """

    feature: int
    missing: int
    cuts: np.ndarray = field(default_factory=lambda: np.zeros(0))
    categories: Mapping[float, int] = field(default_factory=dict)

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return max([self.missing, len(self.cuts), *self.categories.values()]) + 1

    def classes(self, values: np.ndarray) -> np.ndarray:
        """The class of each value."""
        if self.categories:
            found = np.array([self.categories.get(float(v), self.missing) for v in values])
        else:
            found = np.searchsorted(self.cuts, values, side="right")
        return np.where(np.isnan(values), self.missing, found)

    def merged(self, classes: np.ndarray) -> Axis:
        """With fewer classes.

        Parameters
        ----------
        classes : numpy.ndarray of int64, shape (classes,)
            What each class becomes: ascending over the classes of numbers.
        """
        if self.categories:
            names = {name: int(classes[c]) for name, c in self.categories.items()}
            return replace(self, missing=int(classes[self.missing]), categories=names)
        needed = np.diff(classes[: len(self.cuts) + 1]) > 0
        return replace(self, missing=int(classes[self.missing]), cuts=self.cuts[needed])

    def mergeable(self) -> np.ndarray:
        """Pairs of classes that may become one, of shape (pairs, 2): neighbours, of numbers."""
        if self.categories:
            pairs = list(itertools.combinations(range(self.n_classes), 2))
        else:
            pairs = [(n, n + 1) for n in range(len(self.cuts))]
            if self.missing > len(self.cuts):
                pairs += [(n, self.missing) for n in range(self.missing)]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)

    def split(self, at: int) -> tuple[float, frozenset[float] | None, bool]:
        """The split that sends classes from ``at`` on to the right.

        Returns
        -------
        (threshold, categories or None, missing_right)
        """
        right = self.missing >= at
        if self.categories:
            return np.nan, frozenset(n for n, c in self.categories.items() if c >= at), right
        return (float(self.cuts[at - 1]) if at <= len(self.cuts) else np.inf), None, right


def table_tree(axes: Sequence[Axis], values: np.ndarray) -> Tree:
    """A tree that looks a table up: it halves the classes of its first feature, then of the next.

    Parameters
    ----------
    axes : sequence of Axis
        Of different features.
    values : numpy.ndarray of float64, shape (classes of the first axis, ..., outputs)
    """
    feature, threshold, missing, children = [], [], [], []
    leaves: list[np.ndarray] = []
    categories: dict[int, frozenset[float]] = {}
    none = np.zeros(values.shape[-1])

    def node(place: int, cut: float, goes_right: bool, value: np.ndarray) -> int:
        feature.append(place)
        threshold.append(cut)
        missing.append(goes_right)
        leaves.append(value)
        children.append((LEAF, LEAF))
        return len(feature) - 1

    def grown(known: tuple[int, ...], low: int, high: int) -> int:
        if high - low == 1:
            known = (*known, low)
            if len(known) == len(axes):
                return node(LEAF, np.nan, False, values[known])
            return grown(known, 0, axes[len(known)].n_classes)
        axis, middle = axes[len(known)], (low + high) // 2
        cut, names, goes_right = axis.split(middle)
        own = node(axis.feature, cut, goes_right, none)
        if names is not None:
            categories[own] = names
        children[own] = grown(known, low, middle), grown(known, middle, high)
        return own

    grown((), 0, axes[0].n_classes)
    left, right = np.array(children, dtype=np.int64).T
    where = np.array(feature, dtype=np.int64)
    rest = np.array(missing, dtype=bool), np.array(leaves, dtype=np.float64)
    return Tree(where, np.array(threshold), left, right, *rest, categories)


def summed(functions: Sequence[tuple[Axis, np.ndarray]]) -> tuple[Axis, np.ndarray]:
    """The sum of functions of one feature, as a function of it.

    Parameters
    ----------
    functions : sequence of (Axis, numpy.ndarray of shape (classes, outputs))
    """
    if len(functions) == 1:
        return functions[0]
    axes = [axis for axis, _ in functions]
    names = sorted(set().union(*(axis.categories for axis in axes)))
    cuts = np.unique(np.concatenate([axis.cuts for axis in axes]))
    of_cuts = np.concatenate([[-np.inf], cuts])
    values = np.append(names or of_cuts, np.nan)
    numbers = {name: number for number, name in enumerate(names)}
    axis = Axis(axes[0].feature, len(values) - 1, cuts, numbers)
    return axis, np.sum([of_class[a.classes(values)] for a, of_class in functions], axis=0)


def approximate(
    axes: Sequence[Axis],
    table: np.ndarray,
    weights: np.ndarray,
    most: int,
    joined: Sequence[np.ndarray] | None = None,
) -> tuple[list[np.ndarray], list[Axis], np.ndarray]:
    """Functions of single features, and a table over few classes, whose sum is near a table.

    Classes are merged by twos, on whichever axis the weighted squared error grows least for what
    it saves. Then all parts are fitted again, each to what the others leave.

    Parameters
    ----------
    axes : sequence of Axis
    table : numpy.ndarray of float64, shape (classes of the first axis, ..., outputs)
    weights : numpy.ndarray of float64, shape (classes of the first axis, ...)
        How common they are.
    most : int
        How many cells the small table may have.
    joined : sequence of numpy.ndarray of int64, optional
        What each class of each axis becomes to begin with: the small table cannot tell more apart.
        Default: itself.

    Returns
    -------
    (functions, axes, table)
        Functions of shapes (classes of the axis, outputs); the merged axes; the table over them.
    """
    prior = _PRIOR * weights.mean() or 1.0
    trust = (weights + prior)[..., None]
    _, _, rest = _fitted(table, trust, [np.zeros(n, dtype=np.int64) for n in weights.shape])
    start = [np.arange(axis.n_classes) for axis in axes] if joined is None else list(joined)
    classes, merged = _merged(axes, rest, trust, start, most)
    functions, core, _ = _fitted(table, trust, classes)
    return functions, merged, core


def _fitted(
    table: np.ndarray, trust: np.ndarray, classes: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Functions of single features, a table over classes, and what they leave of a table."""
    rest = table
    sizes = [int(of_axis.max()) + 1 for of_axis in classes]
    functions = [np.zeros((n, table.shape[-1])) for n in table.shape[:-1]]
    core = np.zeros((*sizes, table.shape[-1]))
    for _ in range(_ROUNDS):
        for place in range(len(functions)):
            others = tuple(n for n in range(len(functions)) if n != place)
            mean = (rest * trust).sum(others, keepdims=True) / trust.sum(others, keepdims=True)
            functions[place] += mean.reshape(functions[place].shape)
            rest = rest - mean
        mean = _pooled(rest * trust, classes) / _pooled(trust, classes)
        core += mean
        rest = rest - mean[np.ix_(*classes)]
    return functions, core, rest


def _merged(
    axes: Sequence[Axis],
    rest: np.ndarray,
    trust: np.ndarray,
    classes: list[np.ndarray],
    most: int,
) -> tuple[list[np.ndarray], list[Axis]]:
    """Merge classes further until a table over them has few enough cells."""
    merged = [axis.merged(of_axis) for axis, of_axis in zip(axes, classes, strict=True)]
    total, trust = _pooled(rest * trust, classes), _pooled(trust, classes)
    while math.prod(axis.n_classes for axis in merged) > most:
        ways = [_cheapest(axis, place, total, trust) for place, axis in enumerate(merged)]
        place = int(np.argmin([growth for growth, _ in ways]))
        joined = ways[place][1]
        labels = [np.arange(axis.n_classes) for axis in merged]
        labels[place] = joined
        total, trust = _pooled(total, labels), _pooled(trust, labels)
        merged[place] = merged[place].merged(joined)
        classes[place] = joined[classes[place]]
    return classes, merged


def _cheapest(
    axis: Axis, place: int, total: np.ndarray, trust: np.ndarray
) -> tuple[float, np.ndarray]:
    """What the best merge on an axis costs for what it saves, and what each class becomes."""
    first, second = axis.mergeable().T
    if not len(first):
        return np.inf, np.arange(axis.n_classes)
    weight, means = np.moveaxis(trust, place, 0), np.moveaxis(total / trust, place, 0)
    shared = weight[first] * weight[second] / (weight[first] + weight[second])
    growth = (shared * (means[first] - means[second]) ** 2).reshape(len(first), -1).sum(axis=1)
    best = int(growth.argmin())
    labels = np.arange(axis.n_classes)
    labels[second[best]] = first[best]
    # A table of n classes shrinks by the factor (n - 1) / n.
    return growth[best] * axis.n_classes, np.unique(labels, return_inverse=True)[1]


def _pooled(values: np.ndarray, classes: Sequence[np.ndarray]) -> np.ndarray:
    """Sums over the cells that share their classes."""
    for place, of_axis in enumerate(classes):
        members = np.eye(int(of_axis.max()) + 1)[of_axis]
        values = np.moveaxis(np.tensordot(members, values, (0, place)), 0, place)
    return values
