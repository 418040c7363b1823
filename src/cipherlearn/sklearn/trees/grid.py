"""Where the cuts between the states of a feature are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cipherlearn.sklearn.encoding import CategoricalCode, FeatureCode, OrdinalCode
from cipherlearn.sklearn.trees.ensemble import LEAF, TreeEnsemble


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
