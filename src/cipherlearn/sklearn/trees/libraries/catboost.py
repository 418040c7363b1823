"""The trees of CatBoost, from the model's own export to JSON."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import catboost
import numpy as np

from cipherlearn.errors import InvalidParameterError, InvalidTypeError, ModelError
from cipherlearn.sklearn._base import EstimatorNotFittedError
from cipherlearn.sklearn.encoding import CategoricalCode, FeatureCode
from cipherlearn.sklearn.links import (
    Exponential,
    Identity,
    Link,
    Logistic,
    Probability,
    Softmax,
)
from cipherlearn.sklearn.trees._estimator import (
    TreeClassifier,
    TreeEstimator,
    TreeRegressor,
    on_grid,
)
from cipherlearn.sklearn.trees.ensemble import LEAF, Tree, TreeEnsemble
from cipherlearn.sklearn.trees.reading import split_by_category

if TYPE_CHECKING:
    from typing_extensions import Self

PACKAGE = "catboost"
EXTRA = "boosting"

#: What the scores of each supported loss function mean.
_LINKS: Mapping[str, Link] = {
    "CrossEntropy": Logistic(),
    "Expectile": Identity(),
    "Huber": Identity(),
    "LogCosh": Identity(),
    "Logloss": Logistic(),
    "MAE": Identity(),
    "MultiClass": Softmax(),
    "MultiClassOneVsAll": Probability(),
    "MultiRMSE": Identity(),
    "Poisson": Exponential(),
    "Quantile": Identity(),
    "RMSE": Identity(),
    "Tweedie": Exponential(),
}

#: Borders that all numbers are on one side of.
_MOST = float(np.finfo(np.float32).max)

#: What a missing category is called: CatBoost takes strings and integers only.
_MISSING = "nan"

#: Parameters that say what is printed.
_PRINTING = frozenset({"verbose", "silent", "logging_level", "verbose_eval", "metric_period"})


@dataclass(frozen=True)
class _Split:
    """A split of the export.

    Parameters
    ----------
    feature : int
    threshold : float
        Not a number in splits on categories.
    missing_right : bool
    categories : frozenset of float or None
        Those that go right; None in splits on numbers.
    """

    feature: int
    threshold: float
    missing_right: bool
    categories: frozenset[float] | None = None


class _CatBoost(TreeEstimator):
    seed_names = ("random_seed", "random_state")

    unnamed_categories = "hashes"

    @staticmethod
    def read(model: Any) -> TreeEnsemble:
        """The trees of a fitted model; categories are named by CatBoost's own hash of them."""
        return _ensemble(model, _export(model))

    @staticmethod
    def _feature_names(model: Any) -> list[str] | None:
        # CatBoost numbers features that it is given no names for.
        names = [str(name) for name in model.feature_names_]
        return None if names == [str(n) for n in range(len(names))] else names

    def _read(self, model: Any, codes: Sequence[FeatureCode]) -> TreeEnsemble:
        names = {
            feature: {n: self._name(feature, n) for n in (*code.categories.tolist(), np.nan)}
            for feature, code in enumerate(codes)
            if isinstance(code, CategoricalCode)
        }
        exported = _export(model, _pool(model, names) if names else None)
        hashes = {
            entry["value"]: entry["hash"]
            for entry in exported["features_info"].get("cat_features_hash", ())
        }
        return _ensemble(
            model,
            exported,
            {
                feature: {number: hashes[name] for number, name in of_feature.items()}
                for feature, of_feature in names.items()
            },
        )

    def _name(self, feature: int, number: float) -> str:
        """What CatBoost is told of a category."""
        if np.isnan(number):
            return _MISSING
        if feature in self.categories_:
            return str(self.categories_[feature][int(number)])
        if number != int(number):
            raise InvalidTypeError(
                f"feature {feature} is among cat_features and holds {number}; categories are "
                "integers, or the columns of data frames with the dtypes category and object"
            )
        return str(int(number))

    def _takes_missing(self) -> bool:
        return self.nan_mode != "Forbidden"

    def _takes_categories(self) -> bool:
        return True

    def fit(self, X: Any, y: Any, **fit_params: Any) -> Self:
        """Train the float model on the grid, and quantize its leaves.

        Nothing is printed, and no file is written, unless parameters ask for it.

        Parameters
        ----------
        X : array-like of shape (rows, features)
            NaN where a value is missing. Categories are numbers of columns named by
            ``cat_features``, and all columns of data frames with the dtypes category and object.
        y : array-like of shape (rows,) or (rows, outputs)
        **fit_params
            Given to the float model's ``fit``; rows of ``eval_set`` are rounded to the grid.

        Returns
        -------
        self
        """
        return super().fit(X, y, **fit_params)

    @classmethod
    def takes(cls, model: Any) -> bool:
        """Whether a model becomes this estimator; plain ones have classes, or have not."""
        if type(model) is not catboost.CatBoost:
            return super().takes(model)
        return issubclass(cls, TreeClassifier) == bool(model.is_fitted() and len(model.classes_))

    @classmethod
    def _wrapped(cls, model: Any) -> Any:
        if type(model) is not catboost.CatBoost:
            return model
        if not model.is_fitted():
            raise EstimatorNotFittedError("the CatBoost is not fitted")
        of_classes = issubclass(cls, TreeClassifier)
        try:
            return (catboost.to_classifier if of_classes else catboost.to_regressor)(model)
        except catboost.CatBoostError as error:
            raise ModelError(f"the CatBoost is no {cls.float_class.__name__}: {error}") from error

    @staticmethod
    def _is_trained(model: Any) -> bool:
        return bool(model.is_fitted())

    @classmethod
    def _check_rows(cls, ensemble: TreeEnsemble, X: Any) -> None:
        named = split_by_category(ensemble)
        if X is None and named:
            raise ModelError(
                f"the model splits on categories (of features {sorted(named)}), of "
                "which it holds hashes only: give from_model rows X in which all of them occur"
            )

    def _library_scores(self, model: Any, rows: Any) -> Any:
        return model.predict(rows, prediction_type="RawFormulaVal")

    def _as_taken(self, model: Any, rows: np.ndarray) -> Any:
        return self._named(rows, model.get_cat_feature_indices())

    def _categorical(self, X: np.ndarray, fit_params: dict[str, Any]) -> Collection[int]:
        given = fit_params.pop("cat_features", None)
        given = self.cat_features if given is None else given
        known = getattr(self, "feature_names_in_", np.arange(X.shape[1])).tolist()
        places = {known.index(f) if isinstance(f, str) and f in known else f for f in given or ()}
        wrong = [f for f in places if f not in range(X.shape[1])]
        if wrong:
            raise InvalidParameterError(
                f"cat_features names {wrong}; the features are {known}, or their places"
            )
        return {*map(int, places), *self.categories_}

    def _train(
        self,
        X: np.ndarray,
        y: np.ndarray,
        categorical: Collection[int],
        fit_params: dict[str, Any],
    ) -> Any:
        params = self.get_sklearn_params(deep=False)
        if categorical:
            params["cat_features"] = sorted(categorical)
            # One-hot whatever their number: statistics of categories cannot be encrypted.
            most = max(len(np.unique(X[:, f])) for f in categorical)
            if params["one_hot_max_size"] is None:
                params["one_hot_max_size"] = max(most, 2)
        if fit_params.get("eval_set") is not None:
            fit_params["eval_set"] = [
                (self._named(on_grid(self._rows(rows), self.codes_), categorical), targets)
                for rows, targets in _pairs(fit_params["eval_set"])
            ]
        model = self._float_estimator(params, fit_params)
        return model.fit(self._named(X, categorical), y, **fit_params)

    def _float_estimator(self, params: Mapping[str, Any], fit_params: Mapping[str, Any]) -> Any:
        """The float model, which prints and writes only what parameters ask for."""
        given = {name: value for name, value in params.items() if value is not None}
        given.setdefault("allow_writing_files", False)
        if not _PRINTING & {*given, *fit_params}:
            given["logging_level"] = "Silent"
        return self.float_class(**given)

    def _named(self, rows: np.ndarray, categorical: Collection[int]) -> Any:
        """Rows with the names of features and categories."""
        import pandas as pd

        names = getattr(self, "feature_names_in_", None)
        if names is None and not categorical:
            return rows
        table = pd.DataFrame(rows, columns=names)
        for feature in categorical:
            column = [self._name(feature, number) for number in rows[:, feature].tolist()]
            table[table.columns[feature]] = pd.Series(column, dtype=object)
        return table


class CatBoostClassifier(_CatBoost, TreeClassifier, wraps=catboost.CatBoostClassifier):
    """Symmetric trees that tell classes apart, one look-up each: see `TreeEstimator`.

    The class is the most probable, or as `set_probability_threshold` of the float model says.
    """

    def _predictions(self, scores: np.ndarray) -> np.ndarray:
        shares = self.ensemble_.link(scores)
        if shares.shape[1] > 2:
            return np.asarray(self.classes_[shares.argmax(axis=1)])
        is_second = shares[:, 1] > self.sklearn_model.get_probability_threshold()
        return np.asarray(self.classes_[is_second.astype(np.int64)])


class CatBoostRegressor(_CatBoost, TreeRegressor, wraps=catboost.CatBoostRegressor):
    """Symmetric trees that give values, one look-up each: see `TreeEstimator`."""


def _pairs(eval_set: Any) -> list[tuple[Any, Any]]:
    listed = eval_set if isinstance(eval_set, list) else [eval_set]
    for entry in listed:
        if not isinstance(entry, tuple) or len(entry) != 2:
            raise InvalidTypeError(
                f"eval_set holds a {type(entry).__name__}; it takes (X, y), or a list of such "
                "pairs, which are rounded to the grid"
            )
    return listed


def _export(model: Any, pool: Any = None) -> dict[str, Any]:
    """The model as CatBoost writes it; with a pool, the hashes of its categories."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        try:
            model.save_model(str(path), format="json", pool=pool)
        except catboost.CatBoostError as error:
            raise ModelError(
                f"CatBoost cannot write the model as JSON, which its trees are read from: {error}"
            ) from error
        exported: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return exported


def _pool(model: Any, names: Mapping[int, Mapping[float, str]]) -> Any:
    """A table in which all categories occur."""
    import pandas as pd

    declared = model.get_cat_feature_indices()
    rows = max(map(len, names.values()))
    table = pd.DataFrame(
        {
            feature: [
                name
                for name, _ in zip_longest(
                    names.get(feature, {}).values(), range(rows), fillvalue=_MISSING
                )
            ]
            if feature in declared
            else np.zeros(rows)
            for feature in range(len(model.feature_names_))
        }
    )
    table.columns = model.feature_names_
    return catboost.Pool(table, cat_features=declared)


def _ensemble(
    model: Any,
    exported: Mapping[str, Any],
    hashes: Mapping[int, Mapping[float, int]] | None = None,
) -> TreeEnsemble:
    """The trees of an export; numbers of categories are their hashes where there are no others."""
    loss = exported["model_info"]["params"]["loss_function"]["type"]
    if loss not in _LINKS:
        raise ModelError(
            f"CatBoost's loss function {loss} is not supported; supported are {', '.join(_LINKS)}"
        )
    scale, bias = exported["scale_and_bias"]
    base = np.array(bias, dtype=np.float64)
    split_of = _splits(exported["features_info"], hashes or {})
    trees = [
        *(_symmetric(t, split_of, scale, base.size) for t in exported.get("oblivious_trees", ())),
        *(_general(t, split_of, scale, base.size) for t in exported.get("trees", ())),
    ]
    return TreeEnsemble(trees, base, len(model.feature_names_), _LINKS[loss])


def _threshold(border: float) -> float:
    """Where rows with x > border begin, compared in single precision."""
    if abs(border) >= _MOST:  # tells missing values from all others
        return float(np.copysign(np.inf, border))
    return float(np.nextafter(np.float32(border), np.float32(np.inf)))


def _splits(
    info: Mapping[str, Any], hashes: Mapping[int, Mapping[float, int]]
) -> Callable[[Mapping[str, Any]], _Split]:
    """What reads a split of the export."""
    floats = {f["feature_index"]: f for f in info.get("float_features", ())}
    places = {
        f["feature_index"]: f["flat_feature_index"] for f in info.get("categorical_features", ())
    }

    def read(split: Mapping[str, Any]) -> _Split:
        kind = split["split_type"]
        if kind == "FloatFeature":
            feature = floats[split["float_feature_index"]]
            missing_right = feature["nan_value_treatment"] == "AsTrue"
            threshold = _threshold(split["border"])
            return _Split(feature["flat_feature_index"], threshold, missing_right)
        if kind != "OneHotFeature":
            raise ModelError(
                f"the model has splits of the kind {kind}, which need the training data; only "
                "thresholds and single categories are supported. Train with one_hot_max_size at "
                "least the number of categories of a feature (cipherlearn does so where it is not "
                "given), and without text and embedding features"
            )
        place = places[split["cat_feature_index"]]
        value = split["value"] % 2**32  # the export has it signed, its table of hashes has not
        known = hashes.get(place, {float(value): value})
        right = {number for number, of_number in known.items() if of_number == value}
        if not right:
            name = info["categorical_features"][split["cat_feature_index"]].get("feature_id")
            raise ModelError(
                f"the model splits on a category of feature {place} ({name}) that is in none of "
                "the rows X, and it holds hashes of categories only: give from_model rows X in "
                "which all of them occur, such as those of training"
            )
        missing = {number for number in right if np.isnan(number)}
        return _Split(place, np.nan, bool(missing), frozenset(right - missing))

    return read


def _tree(splits: Sequence[_Split | None], left: Any, right: Any, values: np.ndarray) -> Tree:
    """A tree of nodes, of which leaves have no split."""
    return Tree(
        np.array([LEAF if s is None else s.feature for s in splits], dtype=np.int64),
        np.array([np.nan if s is None else s.threshold for s in splits]),
        np.array(left, dtype=np.int64),
        np.array(right, dtype=np.int64),
        np.array([s is not None and s.missing_right for s in splits]),
        values,
        {
            node: s.categories
            for node, s in enumerate(splits)
            if s is not None and s.categories is not None
        },
    )


def _symmetric(
    tree: Mapping[str, Any], split_of: Callable[..., _Split], scale: float, outputs: int
) -> Tree:
    """A tree with one split a level: bit i of the number of a leaf is the way at split i."""
    levels = [split_of(split) for split in reversed(tree["splits"] or ())]
    inner = 2 ** len(levels) - 1
    leaves = scale * np.array(tree["leaf_values"], dtype=np.float64).reshape(-1, outputs)
    splits = [split for level, split in enumerate(levels) for _ in range(2**level)]
    nodes, none = np.arange(inner), np.full(inner + 1, LEAF)
    return _tree(
        [*splits, *(None for _ in range(inner + 1))],
        np.concatenate([2 * nodes + 1, none]),
        np.concatenate([2 * nodes + 2, none]),
        np.concatenate([np.zeros((inner, outputs)), leaves]),
    )


def _general(
    tree: Mapping[str, Any], split_of: Callable[..., _Split], scale: float, outputs: int
) -> Tree:
    """A tree of nested nodes."""
    nodes = list(_flat(tree))
    place = {id(node): number for number, node in enumerate(nodes)}
    left, right = (
        [place[id(n[side])] if "split" in n else LEAF for n in nodes] for side in ("left", "right")
    )
    values = [np.atleast_1d(n.get("value", np.zeros(outputs))) * scale for n in nodes]
    splits = [split_of(n["split"]) if "split" in n else None for n in nodes]
    return _tree(splits, left, right, np.stack(values))


def _flat(tree: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All nodes, parents first."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if "split" in node:
            waiting += [node["right"], node["left"]]
