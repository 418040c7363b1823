"""What all tree estimators share: the grid, training on it, importing, predicting."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data

from cipherlearn.engines.execution import FheMode
from cipherlearn.errors import InvalidParameterError, InvalidTypeError
from cipherlearn.sklearn._base import check_choice, counted, without_graph
from cipherlearn.sklearn._entry import codes_before
from cipherlearn.sklearn._kinds import Deciding
from cipherlearn.sklearn._reading import reading
from cipherlearn.sklearn._steps import through
from cipherlearn.sklearn.encoding import CategoricalCode, FeatureCode, feature_code
from cipherlearn.sklearn.trees import columns
from cipherlearn.sklearn.trees._importing import (
    ENSEMBLING,
    INPUTS,
    ImportingEstimator,
    with_missing,
)
from cipherlearn.sklearn.trees.bits import TreeBits, choose_bits
from cipherlearn.sklearn.trees.grid import used_codes
from cipherlearn.sklearn.trees.module import TreeModule
from cipherlearn.sklearn.trees.program import Planes
from cipherlearn.sklearn.trees.quantized import QuantizedTrees

if TYPE_CHECKING:
    from typing_extensions import Self


class TreeEstimator(ImportingEstimator):
    """A tree ensemble of some library, trained on a grid of few states a feature.

    Parameters
    ----------
    n_bits : int, dict or "auto", default=6
        Bits of the features (``op_inputs``: at most ``2**bits`` states each) and of the values in
        the leaves (``op_leaves``; default: as many, but 6 at least).
        ``"auto"`` takes the fewest that lose at most
        0.01 of accuracy or R2 on a quarter of the rows, which costs about ten trainings.
    inputs : {"grid", "used-thresholds"}, default="grid"
        What the client sends of each feature: a bit for each cut of the grid, which depends on the
        training data alone; or only for the cuts that some tree uses, which **tells the client the
        thresholds of the model**, and makes inputs smaller.
    ensembling : {"server", "client"}, default="server"
        Who adds the trees up. The client gets one number an output, or the result of each look-up:
        cheaper, and **it tells the client more of the model**.

    The other parameters are those of the float class, in its installed version.

    Attributes
    ----------
    sklearn_model : object
        The float model, trained on values rounded to the grid.
    ensemble_ : TreeEnsemble
        Its trees.
    codes_ : list of FeatureCode
        What the client sends of each feature.
    n_bits_ : dict
        ``op_inputs`` and ``op_leaves``.
    quantized_ : QuantizedTrees
        The trees as integers.
    module_ : TreeModule
        Their circuit.
    agreement_ : float or None
        After `from_model` with rows X: the share of them that the float model predicts alike (where
        it finds two classes equally probable, either will do); of regressors, R2 with its
        predictions as the truth. At most 10,000 rows are compared. Otherwise None.
    """

    own_parameters: ClassVar[Mapping[str, Any]] = {
        "n_bits": 6,
        "inputs": "grid",
        "ensembling": "server",
    }

    takes_steps: ClassVar[bool] = True

    n_bits: Any
    inputs: str
    ensembling: str

    def _takes_missing(self) -> bool:
        """Whether the library's trees know missing values."""
        return False

    def _takes_categories(self) -> bool:
        """Whether columns of data frames may hold categories (dtypes category, object)."""
        return False

    def _category_columns(self, X: Any) -> list[int]:
        """Places of the columns of a data frame of training whose values are numbered."""
        return [f for f in range(X.shape[1]) if columns.holds_categories(X.iloc[:, f])]

    def _categorical(self, X: np.ndarray, fit_params: dict[str, Any]) -> Collection[int]:
        """Features that are categories: columns of data frames, unless a library knows more."""
        del X, fit_params
        return self.categories_

    def _with_gaps(self, X: np.ndarray, categorical: Collection[int]) -> np.ndarray:
        """Rows with NaN where a library takes a value for a missing one."""
        del categorical
        return X

    def _train(
        self,
        X: np.ndarray,
        y: np.ndarray,
        categorical: Collection[int],
        fit_params: dict[str, Any],
    ) -> Any:
        """The float model, fitted to rows on the grid."""
        del categorical
        params = self.get_sklearn_params(deep=False)
        return self._float_estimator(params, fit_params).fit(X, y, **fit_params)

    @abstractmethod
    def _checked(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Training data as arrays."""

    def fit(self, X: Any, y: Any, **fit_params: Any) -> Self:
        """Train the float model on the grid, and quantize its leaves.

        Parameters
        ----------
        X : array-like of shape (rows, features)
            NaN where a value is missing, if the library's trees know that.
        y : array-like of shape (rows,) or (rows, outputs)
        **fit_params
            Given to the float model's ``fit``.

        Returns
        -------
        self
        """
        check_choice(self.inputs, "inputs", INPUTS)
        check_choice(self.ensembling, "ensembling", ENSEMBLING)
        self._check_spelling(vars(self).get("_library_params", ()))
        # If training fails, nothing of an earlier one may answer with what is new already.
        for name in ("quantized_", "module_"):
            self.__dict__.pop(name, None)
        is_auto = isinstance(self.n_bits, str) and self.n_bits == "auto"
        usual = self.usual_leaf_bits
        bits = choose_bits(self, X, y, fit_params) if is_auto else TreeBits.of(self.n_bits, usual)
        rows, targets = self._checked(X, y)
        categories = self._categorical(rows, fit_params)
        rows = self._with_gaps(rows, categories)
        columns.check_range(rows, self.precision)
        weighed = counted(rows, fit_params.get("sample_weight"))
        self.codes_ = codes = self._kept_grid(rows) or self._grid(weighed, bits, categories)
        model = self._train(on_grid(rows, codes), targets, categories, fit_params)
        return self._adopt(model, codes, bits)

    def _kept_grid(self, rows: np.ndarray) -> list[FeatureCode] | None:
        """The grid of an earlier training that this one goes on with; None if it starts anew."""
        params = self.get_params(deep=False)
        if not params.get("warm_start") or self.sklearn_model is None:
            return None
        # The first trees split where the states of their grid end: those after them must, too.
        codes, categories = self._trained_grid
        if len(codes) != rows.shape[1]:
            return None  # the library says so
        if categories != self.categories_:
            raise InvalidParameterError(
                f"warm_start goes on with trees that know the categories {categories} (by place of "
                f"the column), and X holds {self.categories_}: give columns of the same categories"
            )
        gaps = np.isnan(rows).any(axis=0)
        return [
            with_missing(code) if gap and code.missing == "refused" else code
            for code, gap in zip(codes, gaps.tolist(), strict=True)
        ]

    def _grid(
        self, rows: np.ndarray, bits: TreeBits, categories: Collection[int]
    ) -> list[FeatureCode]:
        return [
            feature_code(column, bits.inputs, categorical=f in categories, precision=self.precision)
            for f, column in enumerate(rows.T)
        ]

    def _adopt(self, model: Any, codes: list[FeatureCode], bits: TreeBits) -> Self:
        """Take over a fitted float model."""
        self._float_model = model
        self.agreement_ = None
        self._trained_grid = codes, self.categories_
        with reading(self.float_class):
            self.ensemble_ = self._read(model, codes)
        self._check_reading(model)
        if self._sends_used:
            codes = used_codes(self.ensemble_, codes)
        self.codes_ = codes
        self.n_bits_ = bits.as_dict
        self.n_features_in_ = len(codes)
        self.quantized_ = QuantizedTrees.of(self.ensemble_, codes, bits.leaves)
        # As parameters are now: they may be set anew before the next fit.
        self._planes: Planes | Literal["used"] = "used"
        if not self._sends_used:
            self._planes = Planes.public(codes, self._looked_up(codes))
        self._sums = self.ensembling == "server"
        return self

    def _adopt_after(self, steps: Sequence[Any], X: Any) -> Self:
        """Take over fitted transformers that every feature goes through by itself.

        Parameters
        ----------
        steps : sequence of transformers
        X : array-like of shape (rows, features)
            Rows that the first of them takes.
        """
        rows = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan")
        names = vars(self).get("feature_names_in_")
        codes = codes_before(self.codes_, lambda given: through(steps, given, names), rows)
        self.codes_, self.quantized_ = list(codes), replace(self.quantized_, codes=codes)
        self.__dict__.pop("module_", None)
        self._after_steps = True
        return self

    @cached_property
    def module_(self) -> TreeModule:
        """The quantized model, between bits and scores: made when first asked for."""
        return TreeModule(self.quantized_, planes=self._planes, sums=self._sums)

    def __sklearn_is_fitted__(self) -> bool:
        return "quantized_" in self.__dict__

    @property
    def is_compiled(self) -> bool:
        """Whether the model can simulate and execute."""
        return "module_" in self.__dict__ and self.module_.is_compiled

    def _raw(self, X: Any, fhe: str | FheMode) -> np.ndarray:
        # Whoever predicts in the clear alone needs no tables, and need not wait for them.
        if FheMode.of(fhe) is FheMode.DISABLE:
            self.check_model_is_fitted()
            return self.quantized_.scores(self._rows(X))
        return super()._raw(X, fhe)

    @property
    def client_learns(self) -> str:
        """What whoever encrypts rows learns of the training data."""
        if self._sends_used:
            return "the thresholds of the model"
        moved = ", as the steps move them" if vars(self).get("_after_steps") else ""
        return f"cuts of the features, half of them by how their values are distributed{moved}"

    @property
    def _sends_used(self) -> bool:
        """Whether the client sends what the model reads, instead of what the grid has."""
        return self.inputs == "used-thresholds"

    def _looked_up(self, codes: Sequence[FeatureCode]) -> np.ndarray | None:
        """Places of the bits that look-ups may read: of all, unless a library needs fewer."""
        del codes
        return None

    def _table(self, X: Any, *, reset: bool) -> Any:
        """Data frames with numbers in place of categories: their place among those of training.

        Categories that training did not know are missing values. Tensors are arrays.
        """
        X = without_graph(X)
        if reset:
            self.categories_: dict[int, list[Any]] = {}
            self._was_framed = False
        is_frame = hasattr(X, "iloc")
        if is_frame and not reset:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they come when the values are checked
                validate_data(self, X, reset=False, skip_check_array=True)
        if self._takes_categories() and is_frame:
            columns.check_names(X)
            if reset:
                self._number(X, self._category_columns(X))
            X = columns.numbered(X, self.categories_)
        elif not reset and self._was_framed:
            raise InvalidTypeError(
                "the model knows the categories of some columns by name; give a data frame with "
                f"the columns of training, not a {type(X).__name__}"
            )
        columns.refuse_text(X, "train" if reset else "predict", self._takes_categories())
        return X

    def _number(self, X: Any, features: Iterable[int]) -> None:
        """Number the categories of some columns as they are in a data frame."""
        self.categories_ = {f: columns.categories_of(X.iloc[:, f]) for f in features}
        self._was_framed = bool(self.categories_)

    def _rows(self, X: Any) -> np.ndarray:
        rows = validate_data(
            self,
            self._table(X, reset=False),
            reset=False,
            dtype=np.float64,
            ensure_all_finite="allow-nan" if self._takes_missing() else True,
        )
        codes = enumerate(self.codes_)
        rows = self._with_gaps(rows, [f for f, c in codes if isinstance(c, CategoricalCode)])
        columns.check_range(rows, self.precision)
        for feature in np.flatnonzero(np.isnan(rows).any(axis=0)).tolist():
            if self.codes_[feature].missing == "refused":
                raise InvalidParameterError(
                    f"feature {feature} holds NaN; it had no missing values in training, so that "
                    "nothing is known of them. Impute them, or train on rows with some"
                )
        return np.asarray(rows)

    def post_processing(self, *values: np.ndarray) -> np.ndarray:
        """Predictions of a regressor, or probabilities of classes, of dequantized results."""
        self.check_model_is_fitted()
        return self.ensemble_.link(self.module_.post_processing(*values))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self._takes_missing()
        return tags


class TreeClassifier(ClassifierMixin, TreeEstimator):  # type: ignore[misc]
    """A tree ensemble that tells classes apart."""

    def _checked(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        rows, labels = _validated(self, X, y)
        check_classification_targets(labels)
        return rows, labels

    def predict_proba(self, X: Any, fhe: str = "disable") -> Any:
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        fhe : {"disable", "simulate", "execute"}, default="disable"
            Exact integers in the clear; with the errors that encryption may cause; encrypted.

        Returns
        -------
        numpy.ndarray of float64, shape (rows, classes)
            In the order of ``classes_``.
        """
        scores = self._raw(X, fhe)
        return self.ensemble_.link(scores)

    def predict(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """The most probable class of each row: see `predict_proba`."""
        return self._predictions(self._raw(X, fhe))

    def _predictions(self, scores: np.ndarray) -> np.ndarray:
        return np.asarray(self.classes_[self.ensemble_.link(scores).argmax(axis=1)])

    def predict_log_proba(self, X: Any, fhe: str = "disable") -> Any:
        """Logarithms of the probabilities of the classes: see `predict_proba`."""
        shares = self.predict_proba(X, fhe)
        with np.errstate(divide="ignore"):  # a class may be impossible
            return [np.log(s) for s in shares] if isinstance(shares, list) else np.log(shares)


class DecidingClassifier(Deciding, TreeClassifier):
    """A classifier whose library gives scores as well."""


class TreeRegressor(RegressorMixin, TreeEstimator):  # type: ignore[misc]
    """A tree ensemble that gives values."""

    def _checked(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        return _validated(self, X, y, y_numeric=True)

    def predict(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Values of rows.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        fhe : {"disable", "simulate", "execute"}, default="disable"

        Returns
        -------
        numpy.ndarray of float64, shape (rows,) or (rows, outputs)
        """
        return self._predictions(self._raw(X, fhe))

    def _predictions(self, scores: np.ndarray) -> np.ndarray:
        values = self.ensemble_.link(scores)
        return values[:, 0] if values.shape[1] == 1 else values


def on_grid(rows: np.ndarray, codes: list[FeatureCode]) -> np.ndarray:
    """Rows with each value replaced by the one that stands for its state."""
    found = [
        code.representatives[code.states(column)]
        for code, column in zip(codes, rows.T, strict=True)
    ]
    return np.stack(found, axis=1)


def _validated(
    estimator: TreeEstimator, X: Any, y: Any, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    finite = "allow-nan" if estimator._takes_missing() else True  # noqa: SLF001
    table = estimator._table(X, reset=True)  # noqa: SLF001
    rows, targets = validate_data(
        estimator,
        table,
        without_graph(y),
        dtype=np.float64,
        ensure_all_finite=finite,
        multi_output=True,
        **options,
    )
    if np.shape(targets)[1:] == (1,) and not get_tags(estimator).target_tags.multi_output:
        targets = column_or_1d(targets, warn=True)
    return np.asarray(rows), np.asarray(targets)
