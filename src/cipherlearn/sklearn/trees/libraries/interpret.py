"""Explainable boosting machines of interpret: sums of functions of one feature, and of pairs.

Without interactions a prediction needs no table look-up at all, and with them one for each pair:
see `cipherlearn.sklearn.trees.tables`. What interpret says of a term is true of the encrypted model
up to rounding; of a pair, up to its approximation by a table of ``pair_bits`` bits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from interpret import glassbox

from cipherlearn.errors import ModelError
from cipherlearn.quantization.quantizers import check_bits
from cipherlearn.sklearn.encoding import FeatureCode, OrdinalCode
from cipherlearn.sklearn.links import Exponential, Identity, Link, Logistic, Softmax
from cipherlearn.sklearn.trees._estimator import (
    DecidingClassifier,
    TreeEstimator,
    TreeRegressor,
)
from cipherlearn.sklearn.trees.ensemble import TreeEnsemble
from cipherlearn.sklearn.trees.tables import Axis, approximate, summed, table_tree

PACKAGE = "interpret"
EXTRA = "ebm"

#: Most bits of the table of a pair.
MOST_PAIR_BITS = 8

#: interpret's names of links.
_LINKS: Mapping[str, type[Link]] = {
    "identity": Identity,
    "log": Exponential,
    "logit": Logistic,
    "mlogit": Softmax,
}

#: A term: what it tells apart of its features, its scores, how common they are.
_Term = tuple[list[Axis], np.ndarray, np.ndarray]


def _ensemble(
    model: Any, cells: int | None = None, codes: Sequence[FeatureCode] | None = None
) -> TreeEnsemble:
    """A fitted model as trees.

    Parameters
    ----------
    model : object
    cells : int, optional
        How many cells the table of a pair may have. Default: as many as it has.
    codes : sequence of FeatureCode, optional
        Tables of pairs tell the coarse states of these apart. Default: all that they tell apart.
    """
    if model.link_ == "monoclassification":
        raise ModelError("all labels are of one class; a classifier needs two classes at least")
    if model.link_ not in _LINKS:
        raise ModelError(
            f"the link {model.link_!r} of objective {model.objective!r} is not supported; "
            f"{', '.join(sorted(_LINKS))} are"
        )
    single: dict[int, list[tuple[Axis, np.ndarray]]] = {}
    trees = []
    for axes, scores, weights in _terms(model):
        if len(axes) > 1 and cells is None:
            trees.append(table_tree(axes, scores))
            continue
        parts = [(axes[0], scores)]
        if len(axes) > 1 and cells is not None:
            parts, tabled, table = _approximated(axes, scores, weights, cells, codes)
            trees.append(table_tree(tabled, table))
        for axis, function in parts:
            single.setdefault(axis.feature, []).append((axis, function))
    for of_feature in single.values():
        axis, function = summed(of_feature)
        trees.append(table_tree([axis], function))
    base = np.atleast_1d(np.asarray(model.intercept_, dtype=np.float64))
    known = {
        feature: np.array(sorted(_numbers(levels[0]).values()))
        for feature, levels in enumerate(model.bins_)
        if isinstance(levels[0], dict)
    }
    return TreeEnsemble(trees, base, len(model.bins_), _LINKS[model.link_](), known)


def _terms(model: Any) -> Iterator[_Term]:
    given = zip(model.term_features_, model.term_scores_, model.bin_weights_, strict=True)
    for features, scores, weights in given:
        axes = [_axis(model.bins_[f], f, len(features)) for f in features]
        # Bins are: missing, known ones, unknown. No number is unknown, and an unknown category
        # is as a missing one here.
        order = np.ix_(*([*range(1, axis.n_classes), 0] for axis in axes))
        table = np.asarray(scores, dtype=np.float64)[order]
        outputs = table.reshape(*(axis.n_classes for axis in axes), -1)
        yield axes, outputs, np.asarray(weights, dtype=np.float64)[order]


def _coarse_states(cells: int) -> int:
    """How many states of a feature are sent for tables of so many cells.

    Two features share the cells; with four times as many states to choose from as each has, tables
    are nearly as good as with all (phoneme, 16 cells: area under the curve 0.911 of 0.913).
    """
    return 4 * math.isqrt(cells)


@dataclass(frozen=True, eq=False)
class _Refined:
    """An axis that tells apart what a model does, and what the bits do that pair tables read.

    Parameters
    ----------
    axis : Axis
    fine : numpy.ndarray of int64, shape (classes,)
        The model's class of each class.
    share : numpy.ndarray of float64, shape (classes,)
        Its part of the model's class.
    joined : numpy.ndarray of int64, shape (classes,)
        What the bits tell of it.
    """

    axis: Axis
    fine: np.ndarray
    share: np.ndarray
    joined: np.ndarray

    @classmethod
    def of(cls, axis: Axis, code: FeatureCode, cells: int) -> _Refined:
        if not isinstance(code, OrdinalCode):
            every = np.arange(axis.n_classes)
            return cls(axis, every, np.ones(len(every)), every)
        sent = code.cuts[code.coarse(_coarse_states(cells))[: len(code.cuts)]]
        cuts = _snapped(axis.cuts, code)
        every = np.union1d(cuts, sent).astype(np.float64)
        low = np.concatenate([[-np.inf], every])
        fine = np.searchsorted(cuts, low, side="right")
        width = np.diff(np.concatenate([every[:1] - 1.0, every, every[-1:] + 1.0]))
        width = width if len(every) else np.ones(1)
        known = np.searchsorted(sent, low, side="right")
        return cls(
            Axis(axis.feature, len(low), every),
            np.append(fine, axis.missing),
            np.append(width / np.bincount(fine, weights=width)[fine], 1.0),
            np.append(known, known[-1] + 1),
        )


def _snapped(cuts: np.ndarray, code: OrdinalCode) -> np.ndarray:
    """Cuts of a model where those of a grid are, if these divide the states alike.

    Models that were trained before may have several cuts between two states: they stay.
    """
    bits = np.searchsorted(code.points, cuts) - 1
    numbers, counts = np.unique(bits, return_counts=True)
    alone = np.isin(bits, numbers[counts == 1]) & (bits >= 0) & (bits < len(code.cuts))
    snapped = cuts.astype(np.float64)
    snapped[alone] = code.cuts[bits[alone]]
    return snapped


def _approximated(
    axes: Sequence[Axis],
    table: np.ndarray,
    weights: np.ndarray,
    cells: int,
    codes: Sequence[FeatureCode] | None,
) -> tuple[list[tuple[Axis, np.ndarray]], list[Axis], np.ndarray]:
    """Functions of single features, and a table of so many cells, in place of a table."""
    if codes is None:
        functions, merged, core = approximate(axes, table, weights, cells)
        return list(zip(axes, functions, strict=True)), merged, core
    refined = [_Refined.of(axis, codes[axis.feature], cells) for axis in axes]
    place = np.ix_(*(of_axis.fine for of_axis in refined))
    share = functools.reduce(np.multiply.outer, (of_axis.share for of_axis in refined))
    finer = [of_axis.axis for of_axis in refined]
    joined = [of_axis.joined for of_axis in refined]
    functions, merged, core = approximate(
        finer, table[place], weights[place] * share, cells, joined
    )
    return list(zip(finer, functions, strict=True)), merged, core


def _axis(levels: list[Any], feature: int, features_of_term: int) -> Axis:
    """The bins of a feature, in terms of so many features."""
    bins = levels[min(len(levels), features_of_term) - 1]
    if not isinstance(bins, dict):
        return Axis(feature, len(bins) + 1, np.asarray(bins, dtype=np.float64))
    numbers = _numbers(bins)
    places = {numbers[name]: number - 1 for name, number in bins.items()}
    return Axis(feature, max(bins.values(), default=1), categories=places)


def _numbers(categories: Mapping[str, int]) -> dict[str, float]:
    """Names of categories as numbers: those that they spell, or else their places."""
    if _spell_numbers(categories):
        return {name: float(name) for name in categories}
    return {name: float(place) for place, name in enumerate(categories)}


def _spell_numbers(categories: Iterable[str]) -> bool:
    try:
        for name in categories:
            float(name)
    except ValueError:
        return False
    return True


class _Boosting(TreeEstimator):
    """An explainable boosting machine.

    Parameters
    ----------
    n_bits, inputs, ensembling
        As for all trees: see `TreeEstimator`. Scores have 8 bits at least by default.
    pair_bits : int, default=4
        Bits of the table that stands for a pair of features: at most ``2**pair_bits`` cells, and
        what is additive in the pair is kept in full. Each bit about doubles the time of a row.
        With more than six, a pair is several look-ups.

    The other parameters are interpret's.
    """

    precision = np.float64

    #: They cost next to nothing: no look-up reads them.
    usual_leaf_bits = 8

    own_parameters: ClassVar[Mapping[str, Any]] = {**TreeEstimator.own_parameters, "pair_bits": 4}

    pair_bits: Any

    @staticmethod
    def read(model: Any) -> TreeEnsemble:
        return _ensemble(model)

    @staticmethod
    def _feature_names(model: Any) -> list[str] | None:
        # interpret makes names up where it is given none.
        names = [str(name) for name in model.feature_names_in_]
        return None if names == [f"feature_{n:04}" for n in range(len(names))] else names

    def _read(self, model: Any, codes: Sequence[FeatureCode]) -> TreeEnsemble:
        return _ensemble(model, self._cells, None if self._sends_used else codes)

    @property
    def _cells(self) -> int:
        """How many cells the table of a pair may have."""
        return int(2 ** check_bits(self.pair_bits, "pair_bits", MOST_PAIR_BITS))

    def _looked_up(self, codes: Sequence[FeatureCode]) -> np.ndarray:
        coarse = [code.coarse(_coarse_states(self._cells)) for code in codes]
        return np.flatnonzero(np.concatenate([np.zeros(0, dtype=bool), *coarse]))

    def _exact(self, model: Any) -> TreeEnsemble:
        return _ensemble(model)

    def _library_scores(self, model: Any, rows: Any) -> Any:
        if hasattr(model, "decision_function"):
            return model.decision_function(rows)
        values = model.predict(rows)
        return np.log(values) if model.link_ == "log" else values

    def _as_taken(self, model: Any, rows: np.ndarray) -> Any:
        table = rows.astype(object)
        for feature, names in (self._category_names(model) or {}).items():
            numbers = rows[:, feature]
            known = [None if np.isnan(n) else names[int(n)] for n in numbers.tolist()]
            table[:, feature] = known
        return table

    @staticmethod
    def _category_names(model: Any) -> dict[int, list[Any]] | None:
        named = {}
        for feature, levels in enumerate(model.bins_):
            if isinstance(levels[0], dict) and not _spell_numbers(levels[0]):
                named[feature] = list(levels[0])
        return named or None

    def _takes_missing(self) -> bool:
        return True

    def _takes_categories(self) -> bool:
        return True

    def _categorical(self, X: np.ndarray, fit_params: dict[str, Any]) -> Collection[int]:
        del X, fit_params
        types = enumerate(self.feature_types or [])
        return {*self.categories_, *(place for place, kind in types if _is_categorical(kind))}

    def _train(
        self,
        X: np.ndarray,
        y: np.ndarray,
        categorical: Collection[int],
        fit_params: dict[str, Any],
    ) -> Any:
        params = self.get_sklearn_params(deep=False)
        types = list(params["feature_types"] or [None] * X.shape[1])
        for feature in categorical:
            types[feature] = self._type(feature, types[feature])
        params["feature_types"] = types
        if params["feature_names"] is None and hasattr(self, "feature_names_in_"):
            params["feature_names"] = self.feature_names_in_.tolist()
        return self.float_class(**params).fit(X, y, **fit_params)

    def _type(self, feature: int, kind: Any) -> Any:
        """The type of a feature whose categories are numbers now."""
        if kind is None:
            return "nominal"
        if isinstance(kind, str) or feature not in self.categories_:
            return kind
        places = {str(name): str(n) for n, name in enumerate(self.categories_[feature])}
        return [places[name] for name in kind]

    def term_importances(self, importance_type: str = "avg_weight") -> Any:
        """How much each term matters to the float model: see interpret."""
        return self.sklearn_model.term_importances(importance_type)

    def explain_global(self, name: str | None = None) -> Any:
        """The terms of the float model as graphs: see interpret."""
        return self.sklearn_model.explain_global(name)


def _is_categorical(kind: Any) -> bool:
    """Whether interpret's type of a feature is one of categories."""
    if kind is None or isinstance(kind, str):
        return kind is not None and ("nominal" in kind or kind == "ordinal")
    return any(isinstance(name, str) for name in kind)


class ExplainableBoostingClassifier(
    _Boosting, DecidingClassifier, wraps=glassbox.ExplainableBoostingClassifier
):
    """A sum of functions of few features that tells classes apart: see `_Boosting`."""


class ExplainableBoostingRegressor(
    _Boosting, TreeRegressor, wraps=glassbox.ExplainableBoostingRegressor
):
    """A sum of functions of few features that gives values: see `_Boosting`."""
