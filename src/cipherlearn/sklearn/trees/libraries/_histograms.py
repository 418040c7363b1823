"""What scikit-learn's trees on histograms keep: node arrays, and bit sets of encoded categories.

Their models put categorical features first and number the categories of each. Here features have
the places that they have in the rows; categories that are numbers are themselves, and others the
numbers that the model gives them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cipherlearn.errors import InvalidParameterError
from cipherlearn.sklearn.links import Link
from cipherlearn.sklearn.trees.ensemble import LEAF, Tree, TreeEnsemble


@dataclass(frozen=True)
class _Features:
    """How a model sees the features.

    Parameters
    ----------
    order : numpy.ndarray of int64
        The place in the rows of each feature of the model.
    values : mapping of int to sequence of float
        Feature -> what stands for each of its categories in rows, in the model's order.
    known : mapping of int to frozenset of int
        Feature -> numbers of the categories that training met.
    """

    order: np.ndarray
    values: Mapping[int, Sequence[float]]
    known: Mapping[int, frozenset[int]]

    @classmethod
    def of(cls, model: Any) -> _Features:
        mask = model.is_categorical_
        if mask is None:
            return cls(np.arange(model.n_features_in_), {}, {})
        found = _categories(model)
        bins = model._bin_mapper.bin_thresholds_  # noqa: SLF001
        return cls(
            np.concatenate([np.flatnonzero(mask), np.flatnonzero(~mask)]),
            {f: _numbers(values) for f, values in found.items()},
            {f: frozenset(np.asarray(bins[n]).astype(int).tolist()) for n, f in enumerate(found)},
        )


def _categories(model: Any) -> dict[int, list[Any]]:
    """The categories of each feature that has some, in the model's order."""
    if model.is_categorical_ is None:
        return {}
    encoder = model._preprocessor.named_transformers_["encoder"]  # noqa: SLF001
    features = np.flatnonzero(model.is_categorical_).tolist()
    pairs = zip(features, encoder.categories_, strict=True)
    # A missing value stands last: it is no category.
    return {f: [v for v in of.tolist() if v == v] for f, of in pairs}  # noqa: PLR0124


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _numbers(values: Sequence[Any]) -> list[float]:
    return (
        [float(v) for v in values] if _are_numbers(values) else list(map(float, range(len(values))))
    )


def names(model: Any) -> dict[int, list[Any]]:
    """The categories that are no numbers, by feature."""
    return {f: of for f, of in _categories(model).items() if not _are_numbers(of)}


def named(model: Any, rows: np.ndarray) -> Any:
    """Rows with the names of categories, where a model has some: it takes nothing else."""
    by_feature = names(model)
    if not by_feature:
        return rows
    import pandas as pd

    table = pd.DataFrame(rows, columns=getattr(model, "feature_names_in_", None))
    for feature, categories in by_feature.items():
        places = np.nan_to_num(rows[:, feature], nan=-1).astype(np.int64)
        column = pd.Categorical.from_codes(places, categories)
        table[table.columns[feature]] = column
    return table


def read(model: Any, link: Link) -> TreeEnsemble:
    """The trees of a model."""
    rounds = model._predictors  # noqa: SLF001
    features = _Features.of(model)
    base = np.asarray(model._baseline_prediction, dtype=np.float64).reshape(-1)  # noqa: SLF001
    trees = [
        _tree(grown, features, output, base.size)
        for of_round in rounds
        for output, grown in enumerate(of_round)
    ]
    known = {f: np.array(values, dtype=np.float64) for f, values in features.values.items()}
    return TreeEnsemble(trees, base, model.n_features_in_, link, known)


def _tree(grown: Any, features: _Features, output: int, outputs: int) -> Tree:
    nodes = grown.nodes
    is_leaf = nodes["is_leaf"].astype(bool)
    on_categories = nodes["is_categorical"].astype(bool) & ~is_leaf
    feature = np.where(is_leaf, LEAF, features.order[np.where(is_leaf, 0, nodes["feature_idx"])])
    values = np.zeros((len(nodes), outputs))
    values[:, output] = np.where(is_leaf, nodes["value"], 0.0)
    missing_right = ~is_leaf & ~nodes["missing_go_to_left"].astype(bool)
    categories = {}
    for node in np.flatnonzero(on_categories).tolist():
        bits = grown.raw_left_cat_bitsets[nodes["bitset_idx"][node]]
        left = np.unpackbits(bits.astype("<u4").view(np.uint8), bitorder="little").astype(bool)
        place, beyond = int(feature[node]), bool(missing_right[node])
        known = features.known[place]
        categories[node] = frozenset(
            value
            for number, value in enumerate(features.values[place])
            if not left[number] and (number in known or beyond)
        )
    return Tree(
        feature,
        # Rows with x <= threshold go left.
        np.where(is_leaf | on_categories, np.nan, np.nextafter(nodes["num_threshold"], np.inf)),
        np.where(is_leaf, LEAF, nodes["left"].astype(np.int64)),
        np.where(is_leaf, LEAF, nodes["right"].astype(np.int64)),
        missing_right,
        values,
        categories,
    )


def chosen(given: Any, n_features: int, names: Sequence[Any] | None) -> list[int] | None:
    """Places of the features that are categories; None if the types of columns say it.

    Parameters
    ----------
    given : "from_dtype", None, or array-like of bool, int or str
        The parameter ``categorical_features``.
    n_features : int
    names : sequence of str or None
        Of the features.

    Raises
    ------
    InvalidParameterError
        If it names a feature that is not there.
    """
    if isinstance(given, str) and given == "from_dtype":
        return None
    wanted = np.asarray([] if given is None else given)
    if wanted.dtype.kind == "b" and wanted.shape == (n_features,):
        return list(np.flatnonzero(wanted).tolist())
    if wanted.dtype.kind in "iu" and ((wanted >= 0) & (wanted < n_features)).all():
        return sorted(set(wanted.tolist()))
    known = [] if names is None else list(names)
    if wanted.dtype.kind in "UO" and all(name in known for name in wanted.tolist()):
        return sorted({known.index(name) for name in wanted.tolist()})
    if wanted.size == 0:
        return []
    raise InvalidParameterError(
        f"categorical_features is {given!r}; it must be 'from_dtype', None, or name some of the "
        f"{n_features} features: by a mask of booleans, by their places, or by their names"
        + (f" ({known})" if known else " (which X must have then: give a data frame)")
    )


def constraints(given: Any, names: Sequence[Any] | None) -> Any:
    """The parameter ``monotonic_cst`` with places instead of names.

    Raises
    ------
    InvalidParameterError
        If it names a feature that is not there.
    """
    if not isinstance(given, Mapping):
        return given
    known = [] if names is None else list(names)
    unknown = [name for name in given if name not in known]
    if unknown:
        raise InvalidParameterError(
            f"monotonic_cst names features that X does not have: {unknown}; it has {known}. Give a "
            "data frame with these columns, or a sequence with a number for each feature"
        )
    return [given.get(name, 0) for name in known]
