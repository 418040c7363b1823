"""The trees of scikit-learn."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn import ensemble, tree
from sklearn.base import OutlierMixin
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.utils import get_tags
from sklearn.utils.validation import validate_data

from cipherlearn.errors import InvalidParameterError
from cipherlearn.sklearn._agreement import as_probable
from cipherlearn.sklearn.encoding import FeatureCode
from cipherlearn.sklearn.links import (
    Exponential,
    Identity,
    Isolation,
    Link,
    Logistic,
    Shares,
    Softmax,
)
from cipherlearn.sklearn.trees._estimator import (
    DecidingClassifier,
    TreeClassifier,
    TreeEstimator,
    TreeRegressor,
    on_grid,
)
from cipherlearn.sklearn.trees.bits import TreeBits
from cipherlearn.sklearn.trees.ensemble import LEAF, Tree, TreeEnsemble
from cipherlearn.sklearn.trees.libraries import _histograms as histograms

if TYPE_CHECKING:
    from typing_extensions import Self

PACKAGE = "sklearn"
EXTRA = None


class _Estimator(TreeEstimator):
    """What all have in common: sample weights, more trees after others, what data they take."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **fit_params: Any) -> Self:
        """Train the float model on the grid, and quantize its leaves.

        Parameters
        ----------
        X : array-like of shape (rows, features)
            NaN where a value is missing, if the trees know that.
        y : array-like of shape (rows,) or (rows, outputs)
        sample_weight : array-like of shape (rows,), optional
            What a row counts. Rows of weight 0 do not shape the grid; others count alike there.
        **fit_params
            Given to the float model's ``fit``.

        Returns
        -------
        self
        """
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        return super().fit(X, y, **weights, **fit_params)

    def _train(
        self,
        X: np.ndarray,
        y: np.ndarray,
        categorical: Collection[int],
        fit_params: dict[str, Any],
    ) -> Any:
        params = self._float_params(categorical)
        model = self.float_class(**params)
        if params.get("warm_start") and self.sklearn_model is not None:
            # A copy: the model may be one that a user imported.
            model = copy.deepcopy(self.sklearn_model).set_params(**params)
        return model.fit(X, y, **fit_params)

    def _float_params(self, categorical: Collection[int]) -> dict[str, Any]:
        """Parameters of the float model, which is trained on arrays."""
        del categorical
        return self.get_sklearn_params(deep=False)

    def _takes_missing(self) -> bool:
        return bool(self._float_tags().input_tags.allow_nan)

    def _float_tags(self) -> Any:
        with warnings.catch_warnings():
            # Of parameters that scikit-learn will drop: `fit` gives them once.
            warnings.simplefilter("ignore")
            return get_tags(self.float_class(**self.get_sklearn_params(deep=False)))

    def __sklearn_tags__(self) -> Any:
        tags, theirs = super().__sklearn_tags__(), self._float_tags()
        tags.target_tags = theirs.target_tags
        tags.classifier_tags = theirs.classifier_tags
        tags.regressor_tags = theirs.regressor_tags
        return tags


def _tree(grown: Any, values: np.ndarray, features: np.ndarray | None = None) -> Tree:
    """A tree with given values in its nodes, of shape (nodes, outputs).

    It may number the features that it was given: ``features`` are their places.
    """
    is_leaf = grown.children_left < 0
    # Values are in single precision, thresholds are not: those that are greater go right.
    threshold = grown.threshold.astype(np.float32)
    too_low = threshold <= grown.threshold
    threshold[too_low] = np.nextafter(threshold[too_low], np.float32(np.inf))
    feature = grown.feature if features is None else features[np.maximum(grown.feature, 0)]
    return Tree(
        np.where(is_leaf, LEAF, feature),
        np.where(is_leaf, np.nan, threshold),
        np.where(is_leaf, LEAF, grown.children_left),
        np.where(is_leaf, LEAF, grown.children_right),
        ~is_leaf & ~grown.missing_go_to_left.astype(bool),
        np.where(is_leaf[:, None], values, 0.0),
    )


def _class_counts(model: Any) -> tuple[int, ...]:
    """How many classes each target has."""
    return tuple(np.atleast_1d(model.n_classes_).tolist())


def _shares(grown: Any, classes: Sequence[int]) -> np.ndarray:
    """Probabilities of all classes but the first of each target, side by side."""
    found = []
    for target, count in enumerate(classes):
        counts = grown.value[:, target, :count]
        found.append((counts / counts.sum(axis=1, keepdims=True))[:, 1:])
    shares = np.concatenate(found, axis=1)
    # A sum of nothing, where there is but one class.
    return shares if shares.shape[1] else np.zeros((len(shares), 1))


def _mean(model: Any, grown: Sequence[Any]) -> TreeEnsemble:
    """The mean of trees that give probabilities, or values."""
    link: Link = Identity()
    if hasattr(model, "classes_"):
        classes = _class_counts(model)
        link = Shares(classes)
        values = [_shares(t.tree_, classes) for t in grown]
    else:
        values = [t.tree_.value[:, :, 0] for t in grown]
    trees = [_tree(t.tree_, v / len(grown)) for t, v in zip(grown, values, strict=True)]
    return TreeEnsemble(trees, np.zeros(values[0].shape[1]), model.n_features_in_, link)


class _Averaged(_Estimator):
    """Probabilities, or values, are means over trees."""

    def _library_scores(self, model: Any, rows: Any) -> Any:
        if not hasattr(model, "classes_"):
            return model.predict(rows)
        shares = model.predict_proba(rows)
        found = shares if isinstance(shares, list) else [shares]
        others = np.concatenate([of[:, 1:] for of in found], axis=1)
        return others if others.shape[1] else np.zeros((len(rows), 1))


class _Single(_Averaged):
    @staticmethod
    def read(model: Any) -> TreeEnsemble:
        return _mean(model, [model])


class _Forest(_Averaged):
    @staticmethod
    def read(model: Any) -> TreeEnsemble:
        return _mean(model, model.estimators_)


class _SharesClassifier(TreeClassifier):
    """Of one target, or of several."""

    def predict_proba(self, X: Any, fhe: str = "disable") -> Any:
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        fhe : {"disable", "simulate", "execute"}, default="disable"
            Exact integers in the clear; with the errors that encryption may cause; encrypted.

        Returns
        -------
        numpy.ndarray of float64, shape (rows, classes), or a list of them
            In the order of ``classes_``; one a target, if there are several.
        """
        return self._divided(super().predict_proba(X, fhe))

    def _divided(self, shares: np.ndarray) -> Any:
        """The probabilities of each target."""
        classes = _class_counts(self.sklearn_model)
        ends = np.cumsum(classes)[:-1]
        return shares if len(classes) == 1 else np.split(shares, ends, axis=1)

    def _predictions(self, scores: np.ndarray) -> np.ndarray:
        shares = self._divided(self.ensemble_.link(scores))
        if not isinstance(shares, list):
            return np.asarray(self.classes_[shares.argmax(axis=1)])
        pairs = zip(self.classes_, shares, strict=True)
        return np.stack([names[of.argmax(axis=1)] for names, of in pairs], axis=1)

    def _alike(self, scores: np.ndarray, exact: np.ndarray) -> np.ndarray:
        ours, theirs = (self._divided(self.ensemble_.link(s)) for s in (scores, exact))
        pairs = zip(ours, theirs, strict=True) if isinstance(ours, list) else [(ours, theirs)]
        return np.asarray(np.all([as_probable(*pair) for pair in pairs], axis=0))


class _Boosted(_Estimator):
    """One tree an output and round, on top of a constant."""

    @staticmethod
    def read(model: Any) -> TreeEnsemble:
        rounds = model.estimators_
        outputs = rounds.shape[1]
        trees = []
        for grown in rounds:
            for output, one in enumerate(grown):
                values = np.zeros((one.tree_.node_count, outputs))
                values[:, output] = model.learning_rate * one.tree_.value[:, 0, 0]
                trees.append(_tree(one.tree_, values))
        base = _start(model)
        link: Link = Identity()
        if hasattr(model, "classes_"):
            link = Softmax() if outputs > 1 else Logistic(2.0 if _is_exponential(model) else 1.0)
        return TreeEnsemble(trees, base, model.n_features_in_, link)

    def _library_scores(self, model: Any, rows: Any) -> Any:
        return _own_scores(model, rows)

    def _float_params(self, categorical: Collection[int]) -> dict[str, Any]:
        _check_start(self.init)
        return super()._float_params(categorical)


def _own_scores(model: Any, rows: Any) -> Any:
    """What a boosted model says before any link."""
    return (model.decision_function if hasattr(model, "classes_") else model.predict)(rows)


def _is_exponential(model: Any) -> bool:
    return bool(model.loss == "exponential")


def _check_start(init: Any) -> None:
    accepted = (DummyClassifier, DummyRegressor)
    if init is not None and not isinstance(init, accepted) and not _is_zero(init):
        raise InvalidParameterError(
            f"boosting that starts from another model (init={init!r}) cannot be encrypted: "
            "init must be None, 'zero', or a DummyClassifier or DummyRegressor"
        )


def _is_zero(init: Any) -> bool:
    return isinstance(init, str) and init == "zero"


def _start(model: Any) -> np.ndarray:
    """The scores before the first tree, which are the same for all rows."""
    _check_start(model.init_)
    row = np.zeros((1, model.n_features_in_), dtype=np.float32)
    return np.asarray(model._raw_predict_init(row)[0], dtype=np.float64)  # noqa: SLF001


class _Histograms(_Estimator):
    """Trees on histograms: in double precision, with missing values and categories."""

    precision: ClassVar[Any] = np.float64

    @staticmethod
    def read(model: Any) -> TreeEnsemble:
        link: Link = Identity()
        if hasattr(model, "classes_"):
            link = Softmax() if model.n_trees_per_iteration_ > 1 else Logistic()
        elif model.loss in {"poisson", "gamma"}:
            link = Exponential()
        return histograms.read(model, link)

    def _as_taken(self, model: Any, rows: np.ndarray) -> Any:
        return histograms.named(model, rows)

    def _library_scores(self, model: Any, rows: Any) -> Any:
        scores = _own_scores(model, rows)
        return np.log(scores) if isinstance(self.ensemble_.link, Exponential) else scores

    def _takes_categories(self) -> bool:
        return True

    def _category_columns(self, X: Any) -> list[int]:
        types = list(X.dtypes)
        chosen = histograms.chosen(self.categorical_features, X.shape[1], list(X.columns))
        if chosen is not None:
            return [f for f in chosen if types[f].kind not in "biuf"]
        return [f for f, kind in enumerate(types) if kind.name == "category"]

    @staticmethod
    def _category_names(model: Any) -> dict[int, list[Any]] | None:
        return histograms.names(model)

    def _categorical(self, X: np.ndarray, fit_params: dict[str, Any]) -> Collection[int]:
        del fit_params
        names = vars(self).get("feature_names_in_")
        chosen = histograms.chosen(self.categorical_features, X.shape[1], names)
        return self.categories_ if chosen is None else chosen

    def _float_params(self, categorical: Collection[int]) -> dict[str, Any]:
        params = super()._float_params(categorical)
        names = vars(self).get("feature_names_in_")
        constraints = histograms.constraints(self.monotonic_cst, names)
        features = sorted(categorical) or None
        return {**params, "categorical_features": features, "monotonic_cst": constraints}

    def _train(
        self,
        X: np.ndarray,
        y: np.ndarray,
        categorical: Collection[int],
        fit_params: dict[str, Any],
    ) -> Any:
        if fit_params.get("X_val") is not None:
            # What decides when to stop is seen as training rows are.
            rows = self._rows(fit_params["X_val"])
            fit_params = {**fit_params, "X_val": on_grid(rows, self.codes_)}
        return super()._train(X, y, categorical, fit_params)


class DecisionTreeClassifier(_Single, _SharesClassifier, wraps=tree.DecisionTreeClassifier):
    """One decision tree that tells classes apart: see `TreeEstimator`."""


class DecisionTreeRegressor(_Single, TreeRegressor, wraps=tree.DecisionTreeRegressor):
    """One decision tree that gives values: see `TreeEstimator`."""


class RandomForestClassifier(_Forest, _SharesClassifier, wraps=ensemble.RandomForestClassifier):
    """A random forest that tells classes apart: see `TreeEstimator`."""


class RandomForestRegressor(_Forest, TreeRegressor, wraps=ensemble.RandomForestRegressor):
    """A random forest that gives values: see `TreeEstimator`."""


class ExtraTreesClassifier(_Forest, _SharesClassifier, wraps=ensemble.ExtraTreesClassifier):
    """Extremely randomized trees that tell classes apart: see `TreeEstimator`."""


class ExtraTreesRegressor(_Forest, TreeRegressor, wraps=ensemble.ExtraTreesRegressor):
    """Extremely randomized trees that give values: see `TreeEstimator`."""


class GradientBoostingClassifier(
    _Boosted, DecidingClassifier, wraps=ensemble.GradientBoostingClassifier
):
    """Boosted trees that tell classes apart: see `TreeEstimator`."""


class GradientBoostingRegressor(_Boosted, TreeRegressor, wraps=ensemble.GradientBoostingRegressor):
    """Boosted trees that give values: see `TreeEstimator`."""


class HistGradientBoostingClassifier(
    _Histograms, DecidingClassifier, wraps=ensemble.HistGradientBoostingClassifier
):
    """Boosted trees on histograms that tell classes apart: see `TreeEstimator`."""


class HistGradientBoostingRegressor(
    _Histograms, TreeRegressor, wraps=ensemble.HistGradientBoostingRegressor
):
    """Boosted trees on histograms that give values: see `TreeEstimator`."""


class IsolationForest(OutlierMixin, _Estimator, wraps=ensemble.IsolationForest):  # type: ignore[misc]
    """Random trees that tell how quickly a row is isolated from others: see `TreeEstimator`.

    Attributes
    ----------
    offset_ : float
        Rows that score less are outliers.
    """

    offset_: float

    @staticmethod
    def read(model: Any) -> TreeEnsemble:
        """The trees of a fitted float model."""
        trees = []
        usual = float(_path_length(np.array([model._max_samples]))[0])  # noqa: SLF001
        for grown, features in zip(model.estimators_, model.estimators_features_, strict=True):
            one = grown.tree_
            lengths = one.compute_node_depths() - 1 + _path_length(one.n_node_samples)
            # With one row in training, no path is shorter than another.
            mean = lengths / (usual * len(model.estimators_)) if usual else np.zeros_like(lengths)
            trees.append(_tree(one, mean[:, None], np.asarray(features)))
        base = np.full(1, 0.0 if usual else 1.0)
        return TreeEnsemble(trees, base, model.n_features_in_, Isolation())

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, **fit_params: Any) -> Self:
        """Train the float model on the grid, and quantize the lengths of paths.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        y : ignored
        sample_weight : array-like of shape (rows,), optional
        **fit_params
            Given to the float model's ``fit``.

        Returns
        -------
        self
        """
        del y
        if isinstance(self.n_bits, str):
            raise InvalidParameterError(
                f"n_bits={self.n_bits!r} needs labels to compare with, which IsolationForest has "
                "not: give an integer or a dictionary"
            )
        super().fit(X, None, sample_weight, **fit_params)
        if self.contamination != "auto":
            # That share of the training rows is below, as rounded leaves score them.
            self.offset_ = float(np.percentile(self.score_samples(X), 100.0 * self.contamination))
        return self

    def fit_benchmark(
        self, X: Any, y: Any = None, random_state: int | None = None, **fit_params: Any
    ) -> tuple[Self, Any]:
        """As other estimators do, without labels."""
        return super().fit_benchmark(X, y, random_state, **fit_params)

    def _checked(self, X: Any, y: Any) -> tuple[np.ndarray, Any]:
        finite = "allow-nan" if self._takes_missing() else True
        table = self._table(X, reset=True)
        rows = validate_data(self, table, dtype=np.float64, ensure_all_finite=finite)
        return np.asarray(rows), y

    def _adopt(self, model: Any, codes: list[FeatureCode], bits: TreeBits) -> Self:
        self.offset_ = float(model.offset_)
        return super()._adopt(model, codes, bits)

    def _library_scores(self, model: Any, rows: Any) -> Any:
        return -np.log2(-model.score_samples(rows))

    def score_samples(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Scores of rows, from -1 to 0: the lower, the more abnormal.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        fhe : {"disable", "simulate", "execute"}, default="disable"

        Returns
        -------
        numpy.ndarray of float64, shape (rows,)
        """
        scores = self._raw(X, fhe)
        return self.ensemble_.link(scores)[:, 0]

    def decision_function(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Scores less `offset_`: negative ones are outliers. See `score_samples`."""
        return self._decisions(self._raw(X, fhe))

    def _decisions(self, scores: np.ndarray) -> np.ndarray:
        return self.ensemble_.link(scores)[:, 0] - self.offset_

    def predict(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """-1 for outliers, 1 for others: see `score_samples`."""
        return self._predictions(self._raw(X, fhe))

    def _predictions(self, scores: np.ndarray) -> np.ndarray:
        return np.where(self._decisions(scores) < 0, -1, 1)


def _path_length(rows: np.ndarray) -> np.ndarray:
    """The mean number of splits that isolate one of so many rows: as in a random search tree."""
    count = np.maximum(np.asarray(rows, dtype=np.float64), 3)
    many = 2 * (np.log(count - 1) + np.euler_gamma) - 2 * (count - 1) / count
    return np.where(rows > 2, many, np.where(rows == 2, 1.0, 0.0))
