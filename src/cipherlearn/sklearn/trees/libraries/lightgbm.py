"""The trees of LightGBM, read from its own dump of a model."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import lightgbm
import numpy as np
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.validation import column_or_1d

from cipherlearn.errors import InvalidParameterError, ModelError
from cipherlearn.sklearn.encoding import FeatureCode, OrdinalCode
from cipherlearn.sklearn.links import (
    Exponential,
    Identity,
    Link,
    Logistic,
    Probability,
    Softmax,
)
from cipherlearn.sklearn.trees._estimator import TreeEstimator, TreeRegressor, on_grid
from cipherlearn.sklearn.trees.bits import TreeBits
from cipherlearn.sklearn.trees.ensemble import LEAF, Tree, TreeEnsemble
from cipherlearn.sklearn.trees.libraries._boosting import BoostedClassifier

PACKAGE = "lightgbm"
EXTRA = "boosting"

#: Objectives of classifiers.
_CLASSES: Mapping[str, Link] = {
    "binary": Logistic(),
    "cross_entropy": Logistic(),
    "multiclass": Softmax(),
    "multiclassova": Probability(),  # of each class alone: they do not add up to one
}

#: Objectives of regressors.
_VALUES: Mapping[str, Link] = {
    "regression": Identity(),
    "regression_l1": Identity(),
    "huber": Identity(),
    "fair": Identity(),
    "quantile": Identity(),
    "mape": Identity(),
    "poisson": Exponential(),
    "gamma": Exponential(),
    "tweedie": Exponential(),
    "cross_entropy": Probability(),
    "binary": Probability(),
}

#: Values up to this are zero to the library.
_ZERO = float(np.float32(1e-35))

#: Thresholds from this on tell missing values from all others.
_UNREACHED = 1e300

#: What the library calls the parameter that `fit` takes as ``categorical_feature``.
_CATEGORICAL_ALIASES = (
    "categorical_feature",
    "cat_feature",
    "categorical_column",
    "cat_column",
    "categorical_features",
)


class _Boosted(TreeEstimator):
    seed_names = ("random_state", "random_seed", "seed")

    precision = np.float64

    unnamed_categories = "codes"

    @staticmethod
    def read(model: Any) -> TreeEnsemble:
        dump = model.booster_.dump_model()
        link = _link(model, dump.get("objective", "custom"))
        outputs = int(dump["num_tree_per_iteration"])
        grown = dump["tree_info"]
        count = len(grown) // outputs if dump["average_output"] else 1
        trees = [
            _tree(known["tree_structure"], place % outputs, outputs, count)
            for place, known in enumerate(grown)
        ]
        features = int(dump["max_feature_idx"]) + 1
        categories = {f: np.array(c) for f, c in enumerate(_categories(dump)) if c}
        return TreeEnsemble(trees, np.zeros(outputs), features, link, categories)

    @classmethod
    def takes(cls, model: Any) -> bool:
        """Whether a model becomes this estimator; of a Booster, its objective says it."""
        if not isinstance(model, lightgbm.Booster):
            return super().takes(model)
        of_classes = _objective_of(model).startswith(("binary", "multiclass"))
        return cls.float_class is (
            lightgbm.LGBMClassifier if of_classes else lightgbm.LGBMRegressor
        )

    @classmethod
    def _wrapped(cls, model: Any) -> Any:
        if not isinstance(model, lightgbm.Booster):
            return model
        known = cls.float_class().get_params()
        params = {name: value for name, value in model.params.items() if name in known}
        params |= {"objective": _objective_of(model), "n_estimators": model.current_iteration()}
        wrapped = cls.float_class(**params)
        names = model.feature_name()
        named = names != [f"Column_{place}" for place in range(len(names))]
        classes = np.arange(max(2, model.num_model_per_iteration()))
        # The library has no other way to make one of a Booster.
        vars(wrapped).update(
            {
                "fitted_": True,
                "_Booster": model,
                "_n_features": len(names),
                "_n_features_in": len(names),
                "_fitted_with_feature_names": named,
            }
        )
        if issubclass(cls.float_class, lightgbm.LGBMClassifier):
            encoder = LabelEncoder().fit(classes)
            vars(wrapped).update({"_le": encoder, "_classes": classes, "_n_classes": len(classes)})
        return wrapped

    def _probes(self, ensemble: TreeEnsemble) -> np.ndarray:
        rows = super()._probes(ensemble)
        rows[np.abs(rows) <= _ZERO] = np.nan  # where zeros are missing values
        return rows

    def _library_scores(self, model: Any, rows: Any) -> Any:
        scores = model.booster_.predict(rows, raw_score=True)
        is_mean = model.booster_.dump_model(num_iteration=1)["average_output"]
        rounds = len(self.ensemble_.trees) // self.ensemble_.n_outputs
        return scores / rounds if is_mean else scores

    @staticmethod
    def _category_names(model: Any) -> dict[int, list[Any]] | None:
        named = model.booster_.pandas_categorical
        if not named:
            return None
        known = dict(enumerate(_categories(model.booster_.dump_model(num_iteration=1))))
        features = _declared(model.booster_)
        if features is None:  # columns that do not vary are not told from others
            features = [feature for feature, values in known.items() if values]
        fits = len(features) == len(named) and all(
            max(known[feature], default=-1) < len(names)
            for feature, names in zip(features, named, strict=True)
        )
        if not fits and any(known.values()):
            raise ModelError(
                "the model does not tell which columns its names of categories belong to: it was "
                f"trained on {len(named)} columns of dtype category, and took {len(features)} "
                "features for categorical. Train it with categorical_feature='auto'"
            )
        return dict(zip(features, named, strict=True)) if fits else None

    def _takes_missing(self) -> bool:
        return True

    def _takes_categories(self) -> bool:
        return True

    def _categorical(self, X: np.ndarray, fit_params: dict[str, Any]) -> Collection[int]:
        elsewhere = [name for name in _CATEGORICAL_ALIASES if name in self._more_params]
        if elsewhere:
            raise InvalidParameterError(
                f"{elsewhere[0]} is given as a parameter of the {type(self).__name__}: give it to "
                "fit, as categorical_feature"
            )
        given = fit_params.get("categorical_feature", "auto")
        names = fit_params.get("feature_name", "auto")
        if isinstance(names, str):
            names = vars(self).get("feature_names_in_", ())
        listed = () if isinstance(given, str) else given
        features = {
            *(_place(name, list(names)) for name in listed),
            *super()._categorical(X, fit_params),
        }
        for feature in sorted(features):
            known = X[~np.isnan(X[:, feature]), feature]
            if ((known < 0) | (known % 1 != 0)).any():
                raise InvalidParameterError(
                    f"feature {feature} is categorical and holds "
                    f"{known[(known < 0) | (known % 1 != 0)][0]}; categories are whole numbers "
                    "from 0, or columns of dtype category in a data frame"
                )
        return features

    @property
    def _more_params(self) -> Mapping[str, Any]:
        return vars(self).get("_library_params", {})

    @property
    def _zero_is_missing(self) -> bool:
        return str(self._more_params.get("zero_as_missing", False)).lower() in {"true", "1", "+"}

    def _with_gaps(self, X: np.ndarray, categorical: Collection[int]) -> np.ndarray:
        if not self._zero_is_missing:
            return X
        is_number = ~np.isin(np.arange(X.shape[1]), list(categorical))
        return np.where(is_number & (np.abs(X) <= _ZERO), np.nan, X)

    def _grid(
        self, rows: np.ndarray, bits: TreeBits, categories: Collection[int]
    ) -> list[FeatureCode]:
        codes = super()._grid(rows, bits, categories)
        return [_without_zeros(code) for code in codes] if self._zero_is_missing else codes

    def _train(
        self,
        X: np.ndarray,
        y: np.ndarray,
        categorical: Collection[int],
        fit_params: dict[str, Any],
    ) -> Any:
        given = dict(fit_params)
        if categorical:
            given["categorical_feature"] = sorted(categorical)
        pairs = _evaluation_pairs(given)
        if pairs is None:
            return super()._train(X, y, categorical, given)
        pairs = [(on_grid(self._rows(rows), self.codes_), targets) for rows, targets in pairs]
        with warnings.catch_warnings():
            # The library prefers other parameters by now; only of this one it encodes the labels.
            warnings.filterwarnings("ignore", message=".*'eval_set' is deprecated")
            return super()._train(X, y, categorical, {**given, "eval_set": pairs})


def _place(feature: Any, names: list[str]) -> int:
    """The number of a feature that is given as a number or a name."""
    if not isinstance(feature, str):
        return int(feature)
    if feature not in names:
        raise InvalidParameterError(
            f"categorical_feature holds {feature!r}; the features are {names or 'without names'}"
        )
    return names.index(feature)


def _without_zeros(code: FeatureCode) -> FeatureCode:
    """The same states: a zero that stands for one would be a missing value in training."""
    if not isinstance(code, OrdinalCode):
        return code
    tiny = 2 * _ZERO
    state_of = code.states(np.array([0.0, tiny]))
    return replace(
        code,
        points=np.where(
            code.points == 0, tiny if state_of[0] == state_of[1] else -tiny, code.points
        ),
    )


def _evaluation_pairs(given: dict[str, Any]) -> list[tuple[Any, Any]] | None:
    """Rows and targets to evaluate on, taken out of what `fit` was given either way."""
    pairs, rows, targets = (given.pop(name, None) for name in ("eval_set", "eval_X", "eval_y"))
    if rows is None and targets is None:
        return [pairs] if isinstance(pairs, tuple) else pairs
    if pairs is not None or rows is None or targets is None:
        raise InvalidParameterError(
            "fit takes rows to evaluate on as eval_X with eval_y, or as eval_set, not both"
        )
    if not isinstance(rows, tuple):
        return [(rows, targets)]
    if not isinstance(targets, tuple) or len(targets) != len(rows):
        raise InvalidParameterError(
            f"eval_X is a tuple of {len(rows)} arrays; eval_y must be one of as many"
        )
    return list(zip(rows, targets, strict=True))


def _categories(dump: Mapping[str, Any]) -> list[list[float]]:
    """The categories of each feature; none of those that are numbers."""
    infos = [dump["feature_infos"].get(name, {}) for name in dump["feature_names"]]
    return [sorted(float(v) for v in info.get("values", ()) if v >= 0) for info in infos]


def _declared(booster: Any) -> list[int] | None:
    """The features that training took for categorical, constant ones too; None if unknown."""
    found = re.search(r"^\[categorical_feature: ([\d,]*)\]$", booster.model_to_string(), re.M)
    return [int(place) for place in found[1].split(",") if place] if found else None


def _objective_of(booster: Any) -> str:
    """The name of an objective, without its options."""
    objective: str = booster.dump_model(num_iteration=1).get("objective", "custom")
    return objective.partition(" ")[0]


def _link(model: Any, given: str) -> Link:
    """What the scores of an objective mean."""
    links = _CLASSES if isinstance(model, lightgbm.LGBMClassifier) else _VALUES
    name, *options = given.split()
    if name not in links or "sqrt" in options:
        raise ModelError(
            f"the objective {given!r} of the {type(model).__name__} is not supported; these are: "
            f"{', '.join(links)} (without reg_sqrt)"
        )
    link = links[name]
    scales = [float(option.partition(":")[2]) for option in options if option[:8] == "sigmoid:"]
    return replace(link, scale=scales[0]) if scales and isinstance(link, Probability) else link


def _tree(root: Mapping[str, Any], output: int, outputs: int, count: int) -> Tree:
    """A tree of a sum, or of a mean of some ``count``."""
    nodes, parents = [root], [(LEAF, "")]
    for place, node in enumerate(nodes):
        if "leaf_coeff" in node:
            raise ModelError(
                "the model has linear functions in its leaves; train it with linear_tree=False"
            )
        if "split_feature" in node:
            nodes += [node["left_child"], node["right_child"]]
            parents += [(place, "left"), (place, "right")]
    tree = Tree(
        np.full(len(nodes), LEAF),
        np.full(len(nodes), np.nan),
        np.full(len(nodes), LEAF),
        np.full(len(nodes), LEAF),
        np.zeros(len(nodes), dtype=bool),
        np.zeros((len(nodes), outputs)),
    )
    categories: dict[int, frozenset[float]] = {}
    for place, (node, (parent, side)) in enumerate(zip(nodes, parents, strict=True)):
        # Categories that are named go left there, and right here: children change places.
        swapped = parent in categories
        if side:
            (tree.left if (side == "left") != swapped else tree.right)[parent] = place
        if "split_feature" not in node:
            tree.values[place, output] = node["leaf_value"] / count
            continue
        tree.feature[place] = node["split_feature"]
        if node["decision_type"] == "==":
            categories[place] = frozenset(map(float, str(node["threshold"]).split("||")))
        else:
            finite = abs(node["threshold"]) < _UNREACHED
            tree.threshold[place] = np.nextafter(node["threshold"], np.inf) if finite else np.inf
            # Where training saw no missing value, the library takes them for zeros.
            as_zero = node["missing_type"] == "None"
            left = node["threshold"] >= 0.0 if as_zero else node["default_left"]
            tree.missing_right[place] = not left
    return replace(tree, categories=categories)


class LGBMClassifier(_Boosted, BoostedClassifier, wraps=lightgbm.LGBMClassifier):
    """Boosted trees of LightGBM that tell classes apart: see `TreeEstimator`."""


class LGBMRegressor(_Boosted, TreeRegressor, wraps=lightgbm.LGBMRegressor):
    """Boosted trees of LightGBM that give values: see `TreeEstimator`."""

    def _checked(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        rows, targets = super()._checked(X, y)
        return rows, column_or_1d(targets, warn=True)
