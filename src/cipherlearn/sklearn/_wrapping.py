"""Estimators that train a float model in the clear as it is, and quantize what came of it."""

from __future__ import annotations

import copy
import functools
import inspect
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.utils.validation import validate_data

from cipherlearn.errors import InvalidParameterError
from cipherlearn.sklearn._agreement import Agreement, agreement_of, tell
from cipherlearn.sklearn._base import EncryptedEstimator, counted, without_graph
from cipherlearn.sklearn._reading import reading
from cipherlearn.sklearn._steps import dense, through
from cipherlearn.sklearn.links import Identity, Link

if TYPE_CHECKING:
    from typing_extensions import Self

    from cipherlearn.quantization.circuit_model import CircuitModel

#: Most rows of training that agreement is taken on.
COMPARED_ROWS = 1000


class WrappingEstimator(EncryptedEstimator):
    """A model of scikit-learn's kind, trained on the values as they are and quantized afterwards.

    Subclasses say how bits are given (`_options`) and what is computed (`_quantized`); a mixin of
    `cipherlearn.sklearn._kinds` says what its scores are good for.

    Attributes
    ----------
    sklearn_model : object
        The float model, trained in the clear.
    n_bits_ : dict
        Bits, by what they are for.
    agreement_ : float
        Of classifiers and the like, the share of rows that the float model answers alike; of
        values, R2 with its values as the truth. Of at most 1,000 of the rows of training or, of an
        imported model, of the rows that it came with.
    """

    #: Whether it answers values, and no labels.
    answers_values: ClassVar[bool] = False

    #: What users can try for better agreement.
    ways_to_agree: ClassVar[tuple[str, ...]] = ("more n_bits",)

    n_bits: Any

    def __init_subclass__(cls, *, wraps: type | None = None, **options: Any) -> None:
        if wraps is not None:  # first: scikit-learn reads what methods take
            type.__setattr__(cls, "fit", _mirrored(wraps, "fit"))
            if hasattr(wraps, "partial_fit"):
                type.__setattr__(cls, "partial_fit", _mirrored(wraps, "partial_fit"))
        super().__init_subclass__(wraps=wraps, **options)

    @abstractmethod
    def _options(self) -> Any:
        """The estimator's own parameters, checked: before training, which may take long."""

    @abstractmethod
    def _quantized(
        self, model: Any, rows: np.ndarray, options: Any, before: CircuitModel | None
    ) -> CircuitModel:
        """The module of a fitted float model; sets `n_bits_`.

        Parameters
        ----------
        model : object
        rows : numpy.ndarray of float64, shape (rows, features)
            Rows like those that it will see.
        options : object
            Of `_options`.
        before : CircuitModel or None
            The module of earlier rows, if training goes on.
        """

    @abstractmethod
    def _predictions(self, scores: np.ndarray) -> np.ndarray:
        """What is answered of scores."""

    @staticmethod
    @abstractmethod
    def _library_predictions(model: Any, rows: np.ndarray) -> np.ndarray:
        """What the float model answers."""

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

        Warns
        -----
        AgreementWarning
            If `agreement_` is below 0.99 (0.98 of values).
        """
        return self._trained("fit", X, y, fit_params)

    def _trained(self, method: str, X: Any, y: Any, fit_params: Mapping[str, Any]) -> Self:
        options = self._options()
        goes_on = method == "partial_fit" and self.is_fitted
        before = self.__dict__.get("module_") if goes_on else None
        if not goes_on:
            self.__dict__.pop("module_", None)
        X, y = without_graph(X), without_graph(y)
        model = self._float_model_before(goes_on=goes_on)
        getattr(model, method)(X, y, **fit_params)
        if not goes_on:
            validate_data(self, X, skip_check_array=True)
        rows = counted(self._rows(X), fit_params.get("sample_weight"))
        return self._adopt(model, rows, options, before)

    def _float_model_before(self, *, goes_on: bool) -> Any:
        """The float model that training begins with."""
        params = self.get_sklearn_params(deep=False)
        if self.sklearn_model is not None and (goes_on or params.get("warm_start")):
            # A copy: the model may be one that a user imported.
            return copy.deepcopy(self.sklearn_model).set_params(**params)
        return self.float_class(**params)

    def _adopt(
        self,
        model: Any,
        rows: np.ndarray,
        options: Any,
        before: CircuitModel | None = None,
        folded: Sequence[Any] = (),
    ) -> Self:
        """Take over a fitted float model, and fitted transformers that come before it."""
        known = dict(self.__dict__)
        try:
            return self._taken_over(model, rows, options, before, folded)
        except BaseException:  # all of it, or nothing: training may go on
            self.__dict__.clear()
            self.__dict__.update(known)
            raise

    def _taken_over(
        self,
        model: Any,
        rows: np.ndarray,
        options: Any,
        before: CircuitModel | None,
        folded: Sequence[Any],
    ) -> Self:
        self._float_model, self._folded = model, tuple(folded)
        with reading(self.float_class), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is unusual about rows that are not the user's
            # Whether the float model answers one number a row, and no rows of numbers.
            self._is_flat = np.ndim(self._library_predictions(model, self._taken(rows[:1]))) == 1
            module = self._quantized(model, rows, options, before)
        self.n_features_in_ = rows.shape[1]
        self.module_ = module
        self._agreed = self._compared(module, rows)
        self.agreement_ = self._agreed.share
        self.tell_agreement()
        return self

    def tell_agreement(self) -> None:
        """Give an `AgreementWarning` if answers are not those of the float model."""
        tell(self, self._agreed, self.ways_to_agree)

    def _adopt_after(self, steps: Sequence[Any], X: Any) -> Self:
        """Take over the same float model anew, together with fitted transformers before it.

        Parameters
        ----------
        steps : sequence of transformers
        X : array-like of shape (rows, features)
            Rows that the first of them takes.
        """
        validate_data(self, X, skip_check_array=True)
        return self._adopt(self.sklearn_model, self._rows(X), self._options(), folded=steps)

    def _taken(self, rows: np.ndarray) -> np.ndarray:
        """Rows as the float model takes them."""
        return through(self._folded, rows, vars(self).get("feature_names_in_"))

    def _compared(self, module: CircuitModel, rows: np.ndarray) -> Agreement:
        """How far answers of a module are those of the float model."""
        rows = rows[:: -(-len(rows) // COMPARED_ROWS)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rows without the names that training had
            return self._agreement(np.asarray(module.forward(rows)), self._taken(rows))

    def _agreement(self, scores: np.ndarray, rows: np.ndarray) -> Agreement:
        """How far answers of scores are those of the float model for rows."""
        theirs = dense(self._library_predictions(self.sklearn_model, rows))
        return agreement_of(self._predictions(scores), theirs, of_values=self.answers_values)

    @classmethod
    def from_model(cls, model: Any, X: Any = None, **own: Any) -> Self:
        """An estimator from a fitted float model, without training.

        Parameters
        ----------
        model : object
            A fitted `float_class`.
        X : array-like of shape (rows, features)
            Rows that ranges are taken from, and that `agreement_` is measured on.
        **own
            Parameters of the estimator itself, ``n_bits`` among them.

        Returns
        -------
        WrappingEstimator
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
        UnknownKeyError
            If the estimator has no parameter of that name.

        Warns
        -----
        AgreementWarning
            If `agreement_` is below 0.99 (0.98 of values).
        """
        cls._check_import(model, own)
        if X is None:
            raise InvalidParameterError(
                f"{cls.__name__}.from_model needs rows X: a {type(model).__name__} does not know "
                "the ranges of its features"
            )
        self = cls(**model.get_params(deep=False), **own)
        options = self._options()
        if (names := getattr(model, "feature_names_in_", None)) is not None:
            self.feature_names_in_ = names
        if (known := getattr(model, "n_features_in_", None)) is not None:
            self.n_features_in_ = known
        return self._adopt(model, self._rows(X), options)

    from_sklearn_model = from_model

    def _rows(self, X: Any) -> np.ndarray:
        rows = validate_data(
            self, without_graph(X), reset=False, dtype=np.float64, accept_sparse="csr"
        )
        return dense(rows)

    def post_processing(self, *values: np.ndarray) -> np.ndarray:
        """Predictions, or probabilities, of dequantized results."""
        self.check_model_is_fitted()
        return self._link()(self.module_.post_processing(*values))

    def _link(self) -> Link:
        """What the scores mean."""
        return Identity()


def _mirrored(wrapped: type, method: str) -> Callable[..., Any]:
    """A method that trains, and takes what that of the float class takes."""
    theirs = getattr(wrapped, method)
    signature = inspect.signature(theirs)

    @functools.wraps(WrappingEstimator.fit)
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
