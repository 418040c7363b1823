"""The trees of XGBoost, read from its own JSON form of a model."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xgboost

from cipherlearn.errors import InvalidParameterError, ModelError
from cipherlearn.sklearn._base import EstimatorNotFittedError
from cipherlearn.sklearn.links import (
    Exponential,
    Identity,
    Link,
    Logistic,
    Probability,
    Softmax,
)
from cipherlearn.sklearn.trees._estimator import TreeEstimator, TreeRegressor, on_grid
from cipherlearn.sklearn.trees.ensemble import LEAF, Tree, TreeEnsemble
from cipherlearn.sklearn.trees.libraries._boosting import BoostedClassifier

if TYPE_CHECKING:
    from typing_extensions import Self

PACKAGE = "xgboost"
EXTRA = "boosting"

#: Objectives of classifiers. A raw score of ``binary:logitraw`` is a logarithm of odds as well.
_CLASSES: Mapping[str, Link] = {
    "binary:logistic": Logistic(),
    "binary:logitraw": Logistic(),
    "reg:logistic": Logistic(),
    "multi:softmax": Softmax(),
    "multi:softprob": Softmax(),
}

#: Objectives of regressors.
_VALUES: Mapping[str, Link] = {
    "reg:squarederror": Identity(),
    "reg:absoluteerror": Identity(),
    "reg:pseudohubererror": Identity(),
    "reg:quantileerror": Identity(),
    "count:poisson": Exponential(),
    "reg:gamma": Exponential(),
    "reg:tweedie": Exponential(),
    "reg:logistic": Probability(),
    "binary:logistic": Probability(),
    "binary:logitraw": Identity(),
}

#: Objectives whose ``base_score`` is a probability; of those with exponentials it is a value.
_BASE_IS_PROBABILITY = ("binary:logistic", "reg:logistic")


class _Boosted(TreeEstimator):
    seed_names = ("random_state", "seed")

    unnamed_categories = "codes"

    @staticmethod
    def read(model: Any) -> TreeEnsemble:
        learner = _learner(model)
        objective, link = _objective(model, learner)
        booster = learner["gradient_booster"]
        if booster["name"] == "gblinear":
            raise ModelError(
                "the model has booster='gblinear': it is linear, without trees. The boosters "
                "'gbtree' and 'dart' are supported"
            )
        weights = booster.get("weight_drop")
        forest = booster.get("gbtree", booster)["model"]
        known = learner["learner_model_param"]
        groups = forest["tree_info"]
        base = _base(objective, known)
        outputs = max(len(base), int(known["num_class"]), int(known.get("num_target", 1)))
        best = learner["attributes"].get("best_iteration")
        best = None if best is None else int(best)
        used = _used_trees(best, forest, outputs)
        trees = [
            _tree(grown, group, outputs, 1.0 if weights is None else weights[place])
            for place, (grown, group) in enumerate(
                zip(forest["trees"][:used], groups, strict=False)
            )
        ]
        return TreeEnsemble(
            trees,
            np.broadcast_to(base, outputs).copy(),
            int(known["num_feature"]),
            link,
            {f: np.arange(float(len(n))) for f, n in _categories(forest).items()},
            unknown_is_missing=False,
        )

    @classmethod
    def takes(cls, model: Any) -> bool:
        """Whether a model becomes this estimator; of a Booster, its objective says it."""
        if not isinstance(model, xgboost.Booster):
            return super().takes(model)
        _check_booster(model)
        name = json.loads(model.save_config())["learner"]["objective"]["name"]
        of_classes = name.startswith(("binary:", "multi:"))
        return cls.float_class is (xgboost.XGBClassifier if of_classes else xgboost.XGBRegressor)

    @classmethod
    def _wrapped(cls, model: Any) -> Any:
        if not isinstance(model, xgboost.Booster):
            return model
        _check_booster(model)
        wrapped = cls.float_class()
        wrapped.load_model(bytearray(model.save_raw("ubj")))
        return wrapped

    def _probes(self, ensemble: TreeEnsemble) -> np.ndarray:
        rows = super()._probes(ensemble)
        return np.where(self.missing == rows, np.nan, rows)

    def _library_scores(self, model: Any, rows: Any) -> Any:
        booster = model.get_booster()
        best = booster.attributes().get("best_iteration")
        rounds = (0, 0) if best is None else (0, int(best) + 1)
        return booster.inplace_predict(
            rows,
            iteration_range=rounds,
            predict_type="margin",
            missing=self.missing,
            validate_features=False,
        )

    @staticmethod
    def _category_names(model: Any) -> dict[int, list[Any]] | None:
        booster = _learner(model)["gradient_booster"]
        return _categories(booster.get("gbtree", booster)["model"]) or None

    @property
    def best_iteration(self) -> int:
        """The last boosting round that predictions use, after early stopping."""
        return int(self.sklearn_model.best_iteration)

    @property
    def best_score(self) -> float:
        """The score of that round."""
        return float(self.sklearn_model.best_score)

    def _takes_missing(self) -> bool:
        return True

    def _takes_categories(self) -> bool:
        # A Booster that was imported says by its names that it does.
        return bool(self.enable_categorical or vars(self).get("categories_"))

    def _table(self, X: Any, *, reset: bool) -> Any:
        if reset and hasattr(X, "iloc") and not self.enable_categorical:
            named = [str(X.columns[place]) for place in self._category_columns(X)]
            if named:
                raise InvalidParameterError(
                    f"the columns {named} hold categories: set enable_categorical=True, or "
                    "encode them as numbers"
                )
        return super()._table(X, reset=reset)

    def _categorical(self, X: np.ndarray, fit_params: dict[str, Any]) -> Collection[int]:
        types = self.feature_types
        declared = () if types is None else [f for f, kind in enumerate(types) if kind == "c"]
        return {*declared, *super()._categorical(X, fit_params)}

    def _with_gaps(self, X: np.ndarray, categorical: Collection[int]) -> np.ndarray:
        del categorical
        return np.where(self.missing == X, np.nan, X)

    def _train(
        self,
        X: np.ndarray,
        y: np.ndarray,
        categorical: Collection[int],
        fit_params: dict[str, Any],
    ) -> Any:
        parameters = self.get_sklearn_params(deep=False)
        if categorical:
            types = ["c" if feature in categorical else "float" for feature in range(X.shape[1])]
            parameters |= {"feature_types": types, "enable_categorical": True}
        _check_weights(fit_params.get("sample_weight"), len(X))
        pairs = fit_params.get("eval_set")
        if pairs is not None:
            checked = [
                (on_grid(self._rows(rows), self.codes_), self._encoded(targets))
                for rows, targets in pairs
            ]
            fit_params = {**fit_params, "eval_set": checked}
        # Values that stand for missing ones are NaN by now.
        model = self.float_class(**{**parameters, "missing": np.nan})
        model.fit(X, self._encoded(y), **fit_params)
        return model.set_params(missing=self.missing)

    def _encoded(self, y: Any) -> Any:
        """Targets as the library takes them."""
        return y


class _Classifier(_Boosted, BoostedClassifier):
    def _encoded(self, y: Any) -> Any:
        """The numbers of classes, which are what the library takes for labels."""
        labels = np.asarray(y)
        unknown = sorted({*labels.tolist()} - {*self.classes_.tolist()}, key=str)
        if unknown:
            raise InvalidParameterError(
                f"eval_set holds the labels {unknown}, which y does not: {self.classes_.tolist()}"
            )
        return np.searchsorted(self.classes_, labels)

    def fit_benchmark(
        self, X: Any, y: Any = None, random_state: int | None = None, **fit_params: Any
    ) -> tuple[Self, Any]:
        """Fit, and fit the float model, to compare: see `EncryptedEstimator.fit_benchmark`.

        The float model takes, and predicts, the places of labels in ``classes_``.
        """
        labels = np.unique(np.asarray(y))
        places = np.searchsorted(labels, np.asarray(y))
        if fit_params.get("eval_set") is not None:
            self.classes_ = labels
            pairs = [(rows, self._encoded(targets)) for rows, targets in fit_params["eval_set"]]
            fit_params = {**fit_params, "eval_set": pairs}
        found = super().fit_benchmark(X, places, random_state, **fit_params)
        self.classes_ = labels
        return found


class _Regressor(_Boosted, TreeRegressor):
    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _check_weights(weights: Any, rows: int) -> None:
    if weights is None:
        return
    given = np.asarray(weights, dtype=np.float64)
    if given.shape != (rows,) or not (np.isfinite(given) & (given >= 0)).all():
        raise InvalidParameterError(
            f"sample_weight must hold a number from 0 for each of {rows} rows; it has the shape "
            f"{given.shape} and {given.min(initial=np.inf):.3g} as its least"
        )


def _check_booster(booster: Any) -> None:
    try:
        rounds = booster.num_boosted_rounds()
    except xgboost.core.XGBoostError:  # it does not even know its features
        rounds = 0
    if not rounds:
        raise EstimatorNotFittedError("the Booster is not fitted: it has no trees")


def _learner(model: Any) -> dict[str, Any]:
    learner: dict[str, Any] = json.loads(model.get_booster().save_raw("json"))["learner"]
    return learner


def _objective(model: Any, learner: Mapping[str, Any]) -> tuple[str, Link]:
    """The objective, and what its scores mean."""
    is_classifier = isinstance(model, xgboost.XGBClassifier)
    links = _CLASSES if is_classifier else _VALUES
    name = learner["objective"]["name"]
    # That of models that were trained with a function is what the library predicts with.
    if name not in links:
        raise ModelError(
            f"the objective {name!r} of the {type(model).__name__} is not supported; these are: "
            f"{', '.join(links)}"
        )
    if is_classifier and int(learner["learner_model_param"].get("num_target", 1)) > 1:
        raise ModelError(
            "the classifier has several targets (labels) a row, which is not supported: train one "
            "classifier for each"
        )
    return name, links[name]


def _base(objective: str, known: Mapping[str, Any]) -> np.ndarray:
    """The scores without any tree: one, or one an output."""
    base = np.atleast_1d(np.array(json.loads(known["base_score"]), dtype=np.float64))
    if objective in _BASE_IS_PROBABILITY:
        # As the library computes it: where training saw one class only, rounding matters.
        share = np.clip(base, 1e-6, 1.0 - 1e-6).astype(np.float32)
        return -np.log(1 / share - 1).astype(np.float64)
    if not isinstance(_VALUES.get(objective), Exponential):
        return base
    if not (base > 0).all():
        raise ModelError(
            f"base_score is {base.tolist()}, whose logarithm is not finite, as when all targets of "
            f"training are zero: {objective} predicts zero then. Train on some that are positive"
        )
    return np.log(base)


def _used_trees(best: int | None, forest: Mapping[str, Any], outputs: int) -> int:
    """How many trees a prediction uses: those up to the best round, after early stopping."""
    if best is None:
        return len(forest["trees"])
    if "iteration_indptr" in forest:
        return int(forest["iteration_indptr"][best + 1])
    each = int(forest["gbtree_model_param"]["num_parallel_tree"])
    return (best + 1) * outputs * each


def _tree(grown: Mapping[str, Any], group: int, outputs: int, weight: float) -> Tree:
    left, right = np.array(grown["left_children"]), np.array(grown["right_children"])
    order = [0]  # of the nodes in use: some may have been pruned
    for node in order:
        if left[node] != LEAF:
            order += [int(left[node]), int(right[node])]
    place = np.full(len(left), LEAF, dtype=np.int64)
    place[order] = np.arange(len(order))
    is_leaf = left[order] == LEAF
    numbers = np.array(grown["split_conditions"], dtype=np.float32).astype(np.float64)[order]
    if int(grown["tree_param"]["size_leaf_vector"]) > 1:
        values = _leaf_vectors(grown, right, outputs)[order]
    else:
        values = np.zeros((len(order), outputs))
        values[:, group] = numbers
    categories = {
        int(place[node]): frozenset(map(float, grown["categories"][first : first + size]))
        for node, first, size in zip(
            grown["categories_nodes"],
            grown["categories_segments"],
            grown["categories_sizes"],
            strict=True,
        )
        if place[node] != LEAF
    }
    no_threshold = is_leaf | np.isin(np.arange(len(order)), list(categories))
    return Tree(
        np.where(is_leaf, LEAF, np.array(grown["split_indices"])[order]),
        np.where(no_threshold, np.nan, numbers),
        np.where(is_leaf, LEAF, place[left[order]]),
        np.where(is_leaf, LEAF, place[right[order]]),
        ~is_leaf & (np.array(grown["default_left"])[order] == 0),
        np.where(is_leaf[:, None], values * weight, 0.0),
        categories,
    )


def _leaf_vectors(grown: Mapping[str, Any], right: np.ndarray, outputs: int) -> np.ndarray:
    """What the leaves of a tree with several outputs hold, of shape (nodes, outputs)."""
    if "leaf_weights" not in grown:
        return np.array(grown["base_weights"], dtype=np.float64).reshape(-1, outputs)
    vectors = np.array(grown["leaf_weights"], dtype=np.float64).reshape(-1, outputs)
    # A leaf has the number of its vector where splits have their right child.
    is_leaf = np.array(grown["left_children"]) == LEAF
    return vectors[np.where(is_leaf, right, 0)]


def _categories(forest: Mapping[str, Any]) -> dict[int, list[Any]]:
    """The categories of features that were columns of a data frame."""
    found = enumerate(forest.get("cats", {}).get("enc", []))
    named = {feature: _names(known) for feature, known in found}
    return {feature: names for feature, names in named.items() if names}


def _names(known: Mapping[str, Any]) -> list[Any]:
    """The categories of a feature: numbers, or the bytes of all names with where each begins."""
    if "offsets" not in known:
        return list(known["values"])
    text, offsets = bytes(value % 256 for value in known["values"]), known["offsets"]
    return [text[a:b].decode() for a, b in itertools.pairwise(offsets)]


class XGBClassifier(_Classifier, wraps=xgboost.XGBClassifier):
    """Boosted trees of XGBoost that tell classes apart: see `TreeEstimator`.

    A Booster that is imported has the classes 0 to n - 1, and predicts with its best iteration.

    Labels may be anything. The objective ``binary:logitraw`` predicts the class that is more
    probable (XGBoost compares the raw score with one half).
    """


class XGBRFClassifier(_Classifier, wraps=xgboost.XGBRFClassifier):
    """A random forest of XGBoost that tells classes apart: see `TreeEstimator`."""


class XGBRegressor(_Regressor, wraps=xgboost.XGBRegressor):
    """Boosted trees of XGBoost that give values: see `TreeEstimator`."""


class XGBRFRegressor(_Regressor, wraps=xgboost.XGBRFRegressor):
    """A random forest of XGBoost that gives values: see `TreeEstimator`."""
