"""Explainable boosting machines of interpret: sums of functions of one feature, and of pairs.

Without interactions a prediction needs no table look-up at all, and with them one for each pair:
see `cipherlearn.sklearn.trees.tables`. What interpret says of a term is true of the encrypted model
up to rounding; of a pair, up to its approximation by a table of ``pair_bits`` bits.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from interpret import glassbox

from cipherlearn.errors import ModelError
from cipherlearn.quantization.quantizers import check_bits
from cipherlearn.sklearn.links import Exponential, Identity, Link, Logistic, Softmax
from cipherlearn.sklearn.trees._estimator import (
    DecidingClassifier,
    TreeEstimator,
    TreeRegressor,
)
from cipherlearn.sklearn.trees.encoding import FeatureCode, OrdinalCode
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
        functions, tabled, table = [scores], axes, scores
        if len(axes) > 1:
            if cells is not None:
                joined = (
                    None if codes is None else [_coarse(a, codes[a.feature], cells) for a in axes]
                )
                functions, tabled, table = approximate(axes, scores, weights, cells, joined)
            trees.append(table_tree(tabled, table))
        if len(axes) == 1 or cells is not None:
            for axis, function in zip(axes, functions, strict=True):
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
    are nearly as good as with all (phoneme, 16 cells: area under the curve 0.9216 of 0.9230).
    """
    return 4 * math.isqrt(cells)


def _coarse(axis: Axis, code: FeatureCode, cells: int) -> np.ndarray:
    """What each class becomes where only the bits are known that tables of pairs read."""
    if not isinstance(code, OrdinalCode):
        return np.arange(axis.n_classes)
    # A cut of the model lies between the values of two states, as a cut of the grid does.
    bits = np.searchsorted(code.points, axis.cuts) - 1
    sent = np.flatnonzero(code.coarse(_coarse_states(cells))[: len(code.cuts)])
    is_known = np.isin(bits, sent)
    known = np.concatenate([[0], np.cumsum(is_known)])
    missing = known[-1] + np.arange(1, axis.n_classes - len(known) + 1)
    return np.concatenate([known, missing])


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
    try:
        return {name: float(name) for name in categories}
    except ValueError:
        return {name: float(place) for place, name in enumerate(categories)}


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

    def _library_scores(self, model: Any, rows: np.ndarray) -> Any:
        table = rows.astype(object)
        for feature, names in (self._category_names(model) or {}).items():
            numbers = rows[:, feature]
            known = [None if np.isnan(n) else names[int(n)] for n in numbers.tolist()]
            table[:, feature] = known
        if hasattr(model, "decision_function"):
            return model.decision_function(table)
        values = model.predict(table)
        return np.log(values) if model.link_ == "log" else values

    @staticmethod
    def _category_names(model: Any) -> dict[int, list[Any]] | None:
        named = {}
        for feature, levels in enumerate(model.bins_):
            names = list(levels[0]) if isinstance(levels[0], dict) else []
            if [*_numbers(dict.fromkeys(names, 0)).values()] == [*range(len(names))] and names:
                named[feature] = names
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
