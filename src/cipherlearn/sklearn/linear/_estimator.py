"""What all linear estimators share: training in the clear, quantizing, predicting."""

from __future__ import annotations

import copy
import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy import sparse
from sklearn.base import ClassifierMixin, OutlierMixin, RegressorMixin, TransformerMixin
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import validate_data

from cipherlearn.errors import InvalidParameterError, InvalidTypeError
from cipherlearn.sklearn._base import (
    EncryptedEstimator,
    EstimatorNotFittedError,
    counted,
    without_graph,
)
from cipherlearn.sklearn._reading import is_fitted, reading, refuse_composed
from cipherlearn.sklearn.linear.affine import Affine
from cipherlearn.sklearn.linear.module import Box, LinearBits, LinearModule
from cipherlearn.sklearn.links import Identity, Link, Logistic, Softmax

if TYPE_CHECKING:
    from typing_extensions import Self


class LinearEstimator(EncryptedEstimator):
    """A model of scikit-learn that is an affine function of its features.

    Parameters
    ----------
    n_bits : int or dict, default=8
        Bits of features (``op_inputs``) and of weights (``op_weights``), up to 16 each. There are
        no look-ups: more bits cost little.

    The other parameters are those of the float class, in its installed version.

    Attributes
    ----------
    sklearn_model : object
        The float model, trained in the clear on the values as they are.
    affine_ : Affine
        The function that it computes.
    n_bits_ : dict
        ``op_inputs`` and ``op_weights``.
    module_ : LinearModule
    """

    own_parameters: ClassVar[Mapping[str, Any]] = {"n_bits": 8}

    n_bits: Any

    def __init_subclass__(cls, *, wraps: type | None = None, **options: Any) -> None:
        if wraps is not None:  # first: scikit-learn reads what methods take
            type.__setattr__(cls, "fit", _mirrored(wraps, "fit"))
            if hasattr(wraps, "partial_fit"):
                type.__setattr__(cls, "partial_fit", _mirrored(wraps, "partial_fit"))
        super().__init_subclass__(wraps=wraps, **options)

    @classmethod
    def read(cls, model: Any) -> Affine:
        """The function that a fitted float model computes, before any link."""
        return Affine.of_model(model.coef_, model.intercept_)

    @classmethod
    def _library_scores(cls, model: Any, rows: np.ndarray) -> np.ndarray:
        """What a float model gives for rows, before any link."""
        return np.asarray(model.predict(rows))

    def fit(self, X: Any, y: Any = None, **fit_params: Any) -> Self:
        """Train the float model in the clear, and quantize it.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (rows, features)
        y : array-like of shape (rows,) or (rows, outputs)
        **fit_params
            As the float model's ``fit`` takes them.

        Returns
        -------
        self
        """
        return self._trained("fit", X, y, fit_params)

    def _trained(self, method: str, X: Any, y: Any, fit_params: Mapping[str, Any]) -> Self:
        bits = LinearBits.of(self.n_bits)
        goes_on = method == "partial_fit" and self.is_fitted
        box = self.module_.box if goes_on else None
        self.__dict__.pop("module_", None)
        X, y = without_graph(X), without_graph(y)
        model = self._float_model_before(goes_on=goes_on)
        getattr(model, method)(X, y, **fit_params)
        if not goes_on:
            validate_data(self, X, skip_check_array=True)
        rows = counted(self._rows(X), fit_params.get("sample_weight"))
        return self._adopt(model, Box.around(rows, box), bits)

    def _float_model_before(self, *, goes_on: bool) -> Any:
        """The float model that training begins with."""
        params = self.get_sklearn_params(deep=False)
        if self.sklearn_model is not None and (goes_on or params.get("warm_start")):
            # A copy: the model may be one that a user imported.
            return copy.deepcopy(self.sklearn_model).set_params(**params)
        return self.float_class(**params)

    def _adopt(self, model: Any, box: Box, bits: LinearBits) -> Self:
        """Take over a fitted float model."""
        self._float_model = model
        with reading(self.float_class), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is unusual about rows that are not the user's
            self.affine_ = self.read(model)
            self.affine_.check(lambda rows: self._library_scores(model, rows))
            self._is_flat = self._gives_one(model)
        self.n_features_in_ = self.affine_.n_features
        self.n_bits_ = bits.as_dict
        self.module_ = LinearModule(self.affine_, box, bits)
        return self

    def _gives_one(self, model: Any) -> bool:
        """Whether the float model gives one number a row, and no rows of numbers."""
        return np.ndim(self._library_scores(model, np.zeros((1, self.affine_.n_features)))) == 1

    @classmethod
    def from_model(cls, model: Any, X: Any = None, *, n_bits: Any = 8) -> Self:
        """An estimator from a fitted float model, without training.

        Parameters
        ----------
        model : object
            A fitted `float_class`.
        X : array-like of shape (rows, features)
            Rows that ranges of features are taken from.
        n_bits : int or dict, default=8

        Returns
        -------
        LinearEstimator
            With the parameters of the model.

        Raises
        ------
        InvalidTypeError
            If the model is of another class.
        InvalidParameterError
            If no rows are given.
        NotFittedError
            If it is not fitted.
        ModelError
            If it cannot be encrypted, or its library stores it in a way that is not known here.
        """
        refuse_composed(model)
        if not isinstance(model, cls.float_class):
            raise InvalidTypeError(
                f"{cls.__name__}.from_model takes a fitted {cls.float_class.__name__}, not a "
                f"{type(model).__name__}"
            )
        if not is_fitted(model):
            raise EstimatorNotFittedError(f"the {type(model).__name__} is not fitted")
        if X is None:
            raise InvalidParameterError(
                f"{cls.__name__}.from_model needs rows X: a {type(model).__name__} does not know "
                "the ranges of its features"
            )
        self = cls(**model.get_params(deep=False), n_bits=n_bits)
        bits = LinearBits.of(n_bits)
        if (names := getattr(model, "feature_names_in_", None)) is not None:
            self.feature_names_in_ = names
        self.n_features_in_ = model.n_features_in_
        return self._adopt(model, Box.around(self._rows(X)), bits)

    from_sklearn_model = from_model

    def _rows(self, X: Any) -> np.ndarray:
        rows = validate_data(
            self, without_graph(X), reset=False, dtype=np.float64, accept_sparse="csr"
        )
        return rows.toarray() if sparse.issparse(rows) else np.asarray(rows)

    def post_processing(self, *values: np.ndarray) -> np.ndarray:
        """Predictions, or probabilities, of dequantized results."""
        self.check_model_is_fitted()
        return self._link()(self.module_.post_processing(*values))

    def _link(self) -> Link:
        """What the scores mean."""
        return Identity()

    def _unfitted(self) -> Any:
        with warnings.catch_warnings():
            # Of parameters that scikit-learn will drop: `fit` gives them once.
            warnings.simplefilter("ignore")
            return self.float_class(**self.get_sklearn_params(deep=False))


class MirroredTags:
    """What scikit-learn is told of an estimator: what it is told of the float model.

    Before mixins of scikit-learn, which would say what is usual.
    """

    def __sklearn_tags__(self: Any) -> Any:
        tags = get_tags(self._unfitted())
        tags.input_tags.allow_nan = False  # an integer stands for each value
        tags.array_api_support = False
        if tags.transformer_tags is not None:
            tags.transformer_tags.preserves_dtype = ["float64"]  # whatever comes in
        return tags


def _mirrored(wrapped: type, method: str) -> Callable[..., Any]:
    """A method that trains, and takes what that of the float class takes."""
    theirs = getattr(wrapped, method)
    signature = inspect.signature(theirs)

    @functools.wraps(LinearEstimator.fit)
    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, *args, **kwargs)
        given = dict(list(bound.arguments.items())[1:])
        for parameter in signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= given.pop(parameter.name, {})
        X, y = given.pop("X"), given.pop("y", None)
        return self._trained(method, X, y, given)

    train.__signature__ = signature  # type: ignore[attr-defined]
    train.__name__ = method
    return train


class LinearRegressor(MirroredTags, RegressorMixin, LinearEstimator):  # type: ignore[misc]
    """A linear model that gives values."""

    def predict(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Values of rows.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        fhe : {"disable", "simulate", "execute"}, default="disable"
            Exact integers in the clear; with the errors that encryption may cause; encrypted.

        Returns
        -------
        numpy.ndarray of float64, shape (rows,) or (rows, outputs)
        """
        scores = self._raw(X, fhe)
        values = self._link()(scores)
        return values[:, 0] if self._is_flat else values


def _has_probabilities(estimator: Any) -> bool:
    # Asked of a model that is not fitted as well: some have them for some losses only.
    model = estimator.sklearn_model
    return hasattr(estimator._unfitted() if model is None else model, "predict_proba")  # noqa: SLF001


class LinearClassifier(MirroredTags, ClassifierMixin, LinearEstimator):  # type: ignore[misc]
    """A linear model that tells classes apart."""

    @classmethod
    def _library_scores(cls, model: Any, rows: np.ndarray) -> np.ndarray:
        return np.asarray(model.decision_function(rows))

    def decision_function(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Scores of rows: the higher, the more probable is a class.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        fhe : {"disable", "simulate", "execute"}, default="disable"
            Exact integers in the clear; with the errors that encryption may cause; encrypted.

        Returns
        -------
        numpy.ndarray of float64, shape (rows,) of two classes, (rows, classes) of more
        """
        scores = self._raw(X, fhe)
        return scores[:, 0] if self._is_flat else scores

    def predict(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """The most probable class of each row: see `decision_function`."""
        scores = self.decision_function(X, fhe)
        places = scores.argmax(axis=1) if scores.ndim > 1 else (scores > 0).astype(np.int64)
        return np.asarray(self.classes_[places])

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Probabilities of the classes: see `decision_function`.

        Returns
        -------
        numpy.ndarray of float64, shape (rows, classes)
        """
        scores = self._raw(X, fhe)
        return self._link()(scores)

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Logarithms of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.predict_proba(X, fhe)))

    def _link(self) -> Link:
        return Logistic() if self._is_flat else Softmax()


class LinearOutlierDetector(MirroredTags, OutlierMixin, LinearEstimator):  # type: ignore[misc]
    """A linear model that tells what is unlike the rows of training."""

    @classmethod
    def read(cls, model: Any) -> Affine:
        return Affine.of_model(model.coef_, -model.offset_)

    @classmethod
    def _library_scores(cls, model: Any, rows: np.ndarray) -> np.ndarray:
        return np.asarray(model.decision_function(rows))

    def decision_function(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Scores of rows, negative for outliers.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        fhe : {"disable", "simulate", "execute"}, default="disable"
            Exact integers in the clear; with the errors that encryption may cause; encrypted.

        Returns
        -------
        numpy.ndarray of float64, shape (rows,)
        """
        return self._raw(X, fhe)[:, 0]

    def score_samples(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Scores of rows before ``offset_`` is taken off: see `decision_function`."""
        return np.asarray(self.decision_function(X, fhe) + self.offset_)

    def predict(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """-1 for outliers, 1 for other rows: see `decision_function`."""
        return np.where(self.decision_function(X, fhe) >= 0, 1, -1)


class LinearTransformer(MirroredTags, TransformerMixin, LinearEstimator):  # type: ignore[misc]
    """An affine map to other features."""

    @classmethod
    def read(cls, model: Any) -> Affine:
        return Affine.of_function(model.transform, model.n_features_in_)

    @classmethod
    def _library_scores(cls, model: Any, rows: np.ndarray) -> np.ndarray:
        return np.asarray(model.transform(rows))

    def transform(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """New features of rows.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        fhe : {"disable", "simulate", "execute"}, default="disable"
            Exact integers in the clear; with the errors that encryption may cause; encrypted.

        Returns
        -------
        numpy.ndarray of float64, shape (rows, outputs)
        """
        return self._raw(X, fhe)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the new features."""
        self.check_model_is_fitted()
        return np.asarray(self.sklearn_model.get_feature_names_out(input_features))


class ProjectingEstimator(MirroredTags, TransformerMixin, LinearEstimator):  # type: ignore[misc]
    """A model that gives scores and, beside them, new features: one product computes both."""

    @classmethod
    def read(cls, model: Any) -> Affine:
        features = Affine.of_function(lambda rows: cls._new(model, rows), model.n_features_in_)
        return super().read(model).beside(features)

    @classmethod
    def _new(cls, model: Any, rows: np.ndarray) -> np.ndarray:
        """New features that a float model gives for rows."""
        return np.asarray(model.transform(rows))

    @classmethod
    def _library_scores(cls, model: Any, rows: np.ndarray) -> np.ndarray:
        scores = super()._library_scores(model, rows).reshape(len(rows), -1)
        return np.concatenate([scores, cls._new(model, rows)], axis=1)

    def _gives_one(self, model: Any) -> bool:
        return bool(super()._library_scores(model, np.zeros((1, self.affine_.n_features))).ndim < 2)

    @property
    def _n_scores(self) -> int:
        """How many results are scores, before the new features."""
        model, zeros = self.sklearn_model, np.zeros((1, self.affine_.n_features))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # training may have had names of features
            return int(super()._library_scores(model, zeros).size)

    def _raw(self, X: Any, fhe: Any) -> np.ndarray:
        found = super()._raw(X, fhe)
        return found[:, : self._n_scores]

    def post_processing(self, *values: np.ndarray) -> np.ndarray:
        """Predictions, or probabilities, of dequantized results; new features are left out."""
        self.check_model_is_fitted()
        return self._link()(self.module_.post_processing(*values)[:, : self._n_scores])

    def transform(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """New features of rows.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        fhe : {"disable", "simulate", "execute"}, default="disable"

        Returns
        -------
        numpy.ndarray of float64, shape (rows, components)
        """
        found = super()._raw(X, fhe)
        return found[:, self._n_scores :]

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the new features."""
        self.check_model_is_fitted()
        return np.asarray(self.sklearn_model.get_feature_names_out(input_features))
