"""What a reading of trees is compared on."""

from __future__ import annotations

from typing import Any

import numpy as np

from cipherlearn.sklearn.trees.ensemble import LEAF, TreeEnsemble

#: Rows that a reading is tried on.
PROBES = 16


def probes(
    ensemble: TreeEnsemble,
    *,
    missing: bool = True,
    precision: Any = np.float32,
    count: int = PROBES,
) -> np.ndarray:
    """Rows where a wrong reading shows most.

    They hold thresholds, the numbers just below them, categories, and missing values.

    Parameters
    ----------
    ensemble : TreeEnsemble
    missing : bool, default=True
        Whether values may be missing.
    precision : numpy dtype, default=float32
        What values are compared in.
    count : int
        How many rows.
    """
    known: list[list[float]] = [[np.nan] if missing else [] for _ in range(ensemble.n_features)]
    for feature, categories in ensemble.known_categories.items():
        known[feature] += np.asarray(categories).tolist()
    for tree in ensemble.trees:
        for node in np.flatnonzero(tree.feature != LEAF).tolist():
            values = known[tree.feature[node]]
            threshold = precision(tree.threshold[node])
            if np.isfinite(threshold):
                below = np.nextafter(threshold, precision(-np.inf))
                values += [float(threshold), float(below)]
            values += tree.categories.get(node, ())
    generator = np.random.default_rng(0)
    columns = [generator.choice(values or [0.0], count) for values in known]
    return np.stack(columns, axis=1)


def split_by_category(ensemble: TreeEnsemble) -> set[int]:
    """The features that some trees split by category."""
    return {int(f) for tree in ensemble.trees for f in tree.feature[list(tree.categories)]}


def reach_of(ensemble: TreeEnsemble) -> float:
    """The sum of the greatest values of all trees."""
    tallest = (float(np.abs(tree.values).max(initial=0.0)) for tree in ensemble.trees)
    return float(np.abs(ensemble.base).max(initial=0.0)) + sum(tallest)
