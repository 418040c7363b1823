"""Where the cuts between the states of a feature are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cipherlearn.sklearn.trees.encoding import CategoricalCode, FeatureCode, OrdinalCode
from cipherlearn.sklearn.trees.ensemble import LEAF, TreeEnsemble


def feature_code(
    values: np.ndarray, bits: int, *, categorical: bool = False, precision: Any = np.float32
) -> FeatureCode:
    """The states of one feature, from its training values alone.

    Cuts divide the mean of two distributions evenly: that of the values, and the uniform one over
    their range. The latter alone wastes states on outliers, the former on what is common; this way
    each has half of the states at least. Few values have a state each.

    Parameters
    ----------
    values : numpy.ndarray of float64, shape (rows,)
        NaN where a value is missing.
    bits : int
        At most ``2**bits`` states, beside that of missing values.
    categorical : bool, default=False
        Whether values are numbers of categories: each has a state then, however many there are.
    precision : numpy dtype, default=float32
        What values are compared in.
    """
    present = values[~np.isnan(values)]
    known = np.unique(present)
    if categorical:
        return CategoricalCode(known)
    code = OrdinalCode.between(_cuts(known, present, 2**bits).astype(precision))
    states = code.states(present)
    count = np.bincount(states, minlength=code.n_states)
    total = np.bincount(states, weights=present, minlength=code.n_states)
    means = (total / np.maximum(count, 1)).astype(precision)
    # Of values that are nearly equal, the mean may round into another state.
    usable = (count > 0) & (code.states(means) == np.arange(code.n_states))
    points = np.where(usable, means, code.points)
    return replace(code, points=points, missing="own" if len(present) < len(values) else "refused")


def _cuts(known: np.ndarray, present: np.ndarray, states: int) -> np.ndarray:
    if len(known) <= states:
        return np.asarray((known[1:] + known[:-1]) / 2)
    counts = np.unique(present, return_counts=True)[1]
    by_count = (np.cumsum(counts) - counts / 2) / len(present)
    by_distance = (known - known[0]) / (known[-1] - known[0])
    # The mean of both distributions: whatever the outliers, half of the states follow the counts.
    return np.interp(np.arange(1, states) / states, (by_count + by_distance) / 2, known)


def threshold_codes(
    ensemble: TreeEnsemble, bits: int | None, *, missing: bool, precision: Any = np.float32
) -> list[FeatureCode]:
    """The states of all features from the thresholds of trees, where there is no data.

    Parameters
    ----------
    ensemble : TreeEnsemble
    bits : int or None
        States at equal distances over the range of a feature's thresholds; None for a cut at each
        threshold, which tells them to the client.
    missing : bool
        Whether values may be missing.
    precision : numpy dtype, default=float32
        What values are compared in.
    """
    found: list[list[float]] = [[] for _ in range(ensemble.n_features)]
    known = ensemble.known_categories
    categories = [set(np.asarray(known.get(f, ())).tolist()) for f in range(ensemble.n_features)]
    for tree in ensemble.trees:
        for node in np.flatnonzero(tree.feature != LEAF).tolist():
            feature = int(tree.feature[node])
            if node in tree.categories:
                categories[feature] |= tree.categories[node]
            elif np.isfinite(tree.threshold[node]):  # infinite ones tell missing values from others
                found[feature].append(float(tree.threshold[node]))
    codes: list[FeatureCode] = []
    for thresholds, names in zip(found, categories, strict=True):
        cuts = np.array(thresholds, dtype=precision)
        if names:
            own = missing and not ensemble.unknown_is_missing
            codes.append(CategoricalCode(np.array(sorted(names)), "own" if own else "lowest"))
            continue
        if bits is not None and len(cuts) > 1:
            cuts = np.linspace(cuts.min(), cuts.max(), 2**bits - 1, dtype=precision)
        codes.append(OrdinalCode.between(cuts, "own" if missing else "refused"))
    return codes


def used_codes(ensemble: TreeEnsemble, codes: Sequence[FeatureCode]) -> list[FeatureCode]:
    """The same states as far as trees tell them apart: the client then learns their thresholds."""
    columns: list[list[np.ndarray]] = [[] for _ in codes]
    for tree in ensemble.trees:
        for node in np.flatnonzero(tree.feature != LEAF).tolist():
            feature = int(tree.feature[node])
            columns[feature].append(tree.goes_right(node, codes[feature].representatives))
    return [
        code.merged(np.stack(found) if found else np.zeros((0, code.n_states), dtype=bool))
        for code, found in zip(codes, columns, strict=True)
    ]
