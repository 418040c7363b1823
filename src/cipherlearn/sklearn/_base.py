"""What all estimators share: parameters by construction, the mode switch, compiling, the cost.

An estimator wraps the float estimator of another library (`float_class`). Its parameters are those
of the installed version of that class, with their defaults, and some of its own; it trains that
class and keeps the result as `sklearn_model`, whose fitted attributes can be read on the estimator
itself.
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError as ScikitNotFittedError
from sklearn.utils import check_random_state

from cipherlearn.engines.estimate import CostReport
from cipherlearn.engines.execution import FheMode
from cipherlearn.errors import (
    InvalidParameterError,
    InvalidTypeError,
    NotCompiledError,
    NotFittedError,
    UnknownKeyError,
)
from cipherlearn.onnx import from_circuit
from cipherlearn.sklearn._reading import is_fitted, refuse_composed

if TYPE_CHECKING:
    from onnx import ModelProto
    from typing_extensions import Self

    from cipherlearn.circuit import Circuit
    from cipherlearn.engines import Program


#: Fitted attributes of the estimator itself: scikit-learn's validation sets and deletes them.
_OWN = frozenset({"feature_names_in_", "n_features_in_"})

#: How alike a parameter of a library may be to one of the estimator's own (`difflib`).
_TOO_ALIKE = 0.75


class EstimatorNotFittedError(NotFittedError, ScikitNotFittedError):  # type: ignore[misc]
    """As scikit-learn raises it, and as cipherlearn does."""


class EncryptedEstimator(BaseEstimator, ABC):  # type: ignore[misc]
    """An estimator that trains in the clear and predicts on encrypted rows.

    Subclasses for one model name its float class: ``class Ridge(Base, wraps=linear_model.Ridge)``.

    Attributes
    ----------
    sklearn_model : object or None
        The fitted float model.
    module_ : CircuitModel
        The quantized model, once fitted.
    """

    #: The float estimator that is trained.
    float_class: ClassVar[Any]

    #: Parameters of the estimator itself, with their defaults.
    own_parameters: ClassVar[Mapping[str, Any]] = {}

    #: Whether steps of a pipeline before it can be part of its circuit.
    takes_steps: ClassVar[bool] = False

    #: What the float class calls its seed: it may have several names for it.
    seed_names: ClassVar[tuple[str, ...]] = ("random_state",)

    def __init_subclass__(cls, *, wraps: type | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if wraps is not None:
            cls.float_class = wraps
            constructor = storing_constructor(_signature(wraps, cls.own_parameters))
            type.__setattr__(cls, "__init__", constructor)

    @classmethod
    def takes(cls, model: Any) -> bool:
        """Whether a model becomes this estimator where nobody says which: its float model does."""
        return type(model) is cls.float_class

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters, those included that the library takes under other names than its own."""
        return {**super().get_params(deep), **vars(self).get("_library_params", {})}

    def set_params(self, **params: Any) -> Self:
        """Set parameters; see `get_params`."""
        if takes_any(type(self)):
            known = set(self._get_param_names())
            more = {k: params.pop(k) for k in list(params) if k.partition("__")[0] not in known}
            if more:
                self._check_spelling(more)
                self._library_params = {**vars(self).get("_library_params", {}), **more}
        super().set_params(**params)
        return self

    @staticmethod
    def _is_trained(model: Any) -> bool:
        """Whether a float model is fitted."""
        return is_fitted(model)

    @classmethod
    def _check_import(cls, model: Any, own: Mapping[str, Any]) -> None:
        """Raise an error unless a float model can be taken over, with such parameters of our own.

        Raises
        ------
        InvalidTypeError
            If it is of another class.
        NotFittedError
            If it is not fitted.
        UnknownKeyError
            If the estimator has no parameter of some name.
        """
        refuse_composed(model)
        if not isinstance(model, cls.float_class):
            raise InvalidTypeError(
                f"{cls.__name__}.from_model takes a fitted {cls.float_class.__name__}, not a "
                f"{type(model).__name__}"
            )
        if not cls._is_trained(model):
            raise EstimatorNotFittedError(f"the {type(model).__name__} is not fitted")
        if unknown := sorted(own.keys() - cls.own_parameters.keys()):
            raise UnknownKeyError(
                f"{cls.__name__}.from_model does not take {unknown}; it takes "
                f"{sorted(cls.own_parameters)}, and has the other parameters from the model"
            )

    def _check_spelling(self, names: Iterable[str]) -> None:
        """Raise `UnknownKeyError` for what is nearly a parameter of the estimator's own.

        Libraries that take any parameter would take that one as well, and ignore it.
        """
        for name in names:
            near = difflib.get_close_matches(name.lower(), self.own_parameters, 1, _TOO_ALIKE)
            if near:
                raise UnknownKeyError(
                    f"{type(self).__name__} has no parameter {name!r}; did you mean {near[0]!r}? "
                    f"Beside those of {self.float_class.__name__} it takes "
                    f"{', '.join(self.own_parameters)}"
                )

    def seed_name(self) -> str | None:
        """The parameter that is the seed: the one that is given, or else the first there is."""
        params = self.get_params(deep=False)
        known = [name for name in self.seed_names if name in params]
        return next((n for n in known if params[n] is not None), known[0] if known else None)

    def _unfitted(self) -> Any:
        """The float model that would be trained."""
        with warnings.catch_warnings():
            # Of parameters that a library will drop: `fit` gives them once.
            warnings.simplefilter("ignore")
            return self.float_class(**self.get_sklearn_params(deep=False))

    def _float_estimator(self, params: Mapping[str, Any], fit_params: Mapping[str, Any]) -> Any:
        """The float model with given parameters, before it is fitted with others."""
        del fit_params
        return self.float_class(**params)

    def get_sklearn_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters of the float model."""
        return {k: v for k, v in self.get_params(deep).items() if k not in self.own_parameters}

    def __getattr__(self, name: str) -> Any:
        # Only asked for what is not there: fitted attributes of the float model.
        model = self.__dict__.get("_float_model")
        forwarded = name.endswith("_") and not name.startswith("_") and name not in _OWN
        if model is not None and forwarded:
            return getattr(model, name)
        inherent = inspect.getattr_static(type(self), name, None)
        if isinstance(inherent, property):
            # It raised an AttributeError (not fitted, say), which brought us here: say it again.
            return inherent.__get__(self)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __sklearn_is_fitted__(self) -> bool:
        return "module_" in self.__dict__

    @property
    def sklearn_model(self) -> Any:
        """The fitted float model; None before `fit`."""
        # Kept under a private name: public attributes are for parameters, in scikit-learn's terms.
        return self.__dict__.get("_float_model")

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` was called."""
        return self.__sklearn_is_fitted__()

    @property
    def is_compiled(self) -> bool:
        """Whether the model can simulate and execute."""
        return self.is_fitted and self.module_.is_compiled

    def check_model_is_fitted(self) -> None:
        """Raise `NotFittedError` (scikit-learn's as well) unless `fit` was called."""
        if not self.is_fitted:
            raise EstimatorNotFittedError(
                f"this {type(self).__name__} is not fitted: call fit(X, y) first, or import a "
                "fitted model with from_model"
            )

    def check_model_is_compiled(self) -> None:
        """Raise `NotCompiledError` unless `compile` was called."""
        self.check_model_is_fitted()
        if not self.is_compiled:
            raise NotCompiledError(
                f"this {type(self).__name__} is not compiled: call compile() before "
                "fhe='simulate' or fhe='execute'"
            )

    @abstractmethod
    def fit(self, X: Any, y: Any, **fit_params: Any) -> Self:
        """Train, and quantize."""

    def fit_benchmark(
        self, X: Any, y: Any = None, random_state: int | None = None, **fit_params: Any
    ) -> tuple[Self, Any]:
        """Fit, and fit the float model with the same parameters on the same data, to compare.

        Parameters
        ----------
        X, y : array-like
        random_state : int, optional
            Seed of both. Default: the estimator's own, or one drawn at random. The parameters of
            the estimator stay what they are.
        **fit_params
            Given to both.

        Returns
        -------
        (self, object)
            The second is a fitted `float_class`.
        """
        params, name = self.get_params(deep=False), self.seed_name()
        if name is None:
            self.fit(X, y, **fit_params)
        else:
            given = params[name]
            seed = given if random_state is None else random_state
            if not isinstance(seed, int | np.integer):
                seed = int(check_random_state(seed).randint(2**15))
            params[name] = seed
            try:
                self.set_params(**{name: seed}).fit(X, y, **fit_params)
            finally:
                self.set_params(**{name: given})  # training changes no parameter
        floats = {k: v for k, v in params.items() if k not in self.own_parameters}
        model = self._float_estimator(floats, fit_params)
        model.fit(X, y, **fit_params)
        return self, model

    def compile(self, X: Any = None, **options: Any) -> Program:
        """Compile the model. No key is made.

        Parameters
        ----------
        X : array-like of shape (rows, features), optional
            Rows for a self-check (``check=True``).
        **options
            As for `CircuitModel.compile`: ``p_error``, ``global_p_error``, ``configuration``,
            ``artifacts``, ``show_mlir``, ``verbose``, ``device``, ``engine``, ``check``,
            ``compress_inputs``.

        Returns
        -------
        Program
            Also `fhe_circuit`.

        Raises
        ------
        NotFittedError
            If the model was not fitted.
        """
        self.check_model_is_fitted()
        rows = None if X is None else self._rows(X)
        return self.module_.compile(rows, **options)

    @abstractmethod
    def _rows(self, X: Any) -> np.ndarray:
        """Checked rows, as the module takes them."""

    @property
    def circuit(self) -> Circuit:
        """The integer program for one row."""
        self.check_model_is_fitted()
        return self.module_.circuit

    @property
    def n_sent(self) -> int:
        """How many features of a row are encrypted."""
        return int(self.n_features_in_)

    @property
    def client_learns(self) -> str:
        """What whoever encrypts rows learns of the training data."""
        return "ranges of the features"

    @property
    def onnx_model(self) -> ModelProto:
        """The integer program as an ONNX graph, to be looked at: see `from_circuit`."""
        return from_circuit(self.circuit, type(self).__name__)

    @property
    def fhe_circuit(self) -> Program | None:
        """The compiled program; None before `compile`."""
        return self.module_.fhe_circuit if self.is_compiled else None

    def cost(self) -> CostReport:
        """What a prediction costs, before any key is made: see `CircuitModel.cost`."""
        self.check_model_is_compiled()
        return self.module_.cost()

    def _raw(self, X: Any, fhe: str | FheMode) -> np.ndarray:
        """Decrypted real results of rows."""
        mode = FheMode.of(fhe)
        self.check_model_is_fitted()
        if mode is not FheMode.DISABLE:
            self.check_model_is_compiled()
        return np.asarray(self.module_.forward(self._rows(X), fhe=mode))

    def quantize_input(self, X: Any) -> Any:
        """Integers that the client encrypts: see `CircuitModel.quantize_input`."""
        self.check_model_is_fitted()
        return self.module_.quantize_input(self._rows(X))

    def dequantize_output(self, *q_y: np.ndarray) -> Any:
        """Real results of decrypted integers."""
        self.check_model_is_fitted()
        return self.module_.dequantize_output(*q_y)

    @abstractmethod
    def post_processing(self, *values: np.ndarray) -> np.ndarray:
        """Predictions, or probabilities, of real results."""


def _signature(wrapped: type, own: Mapping[str, Any]) -> inspect.Signature:
    """The parameters of a class, of those that it inherits from as far as it asks for, and more."""
    found: dict[str, inspect.Parameter] = {}
    rest: list[inspect.Parameter] = []
    for ancestor in wrapped.__mro__:
        if "__init__" not in vars(ancestor) or ancestor is object:
            continue
        given = list(inspect.signature(vars(ancestor)["__init__"]).parameters.values())[1:]
        rest = [p for p in given if p.kind is p.VAR_KEYWORD]
        for parameter in given:
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                found.setdefault(parameter.name, parameter)
        if not rest:
            break
    empty, keyword = inspect.Parameter.empty, inspect.Parameter.KEYWORD_ONLY
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    theirs = [p.replace(annotation=empty) for p in (*found.values(), *rest)]
    ours = [inspect.Parameter(n, keyword, default=d) for n, d in own.items()]
    return inspect.Signature(sorted((itself, *theirs, *ours), key=lambda p: p.kind))


def storing_constructor(signature: inspect.Signature) -> Callable[..., None]:
    """An ``__init__`` that stores its parameters, as scikit-learn asks for."""

    def store(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        for name, value in list(bound.arguments.items())[1:]:
            if signature.parameters[name].kind is not inspect.Parameter.VAR_KEYWORD:
                setattr(self, name, value)
            elif value:
                self._library_params = dict(value)

    store.__signature__ = signature  # type: ignore[attr-defined]
    store.__name__ = "__init__"
    return store


def takes_any(cls: type) -> bool:
    """Whether a class takes parameters that it does not name."""
    parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
    return any(p.kind is p.VAR_KEYWORD for p in parameters)


def without_graph(values: Any) -> Any:
    """Tensors as arrays; all else as it is."""
    return values.detach().cpu().numpy() if hasattr(values, "detach") else values


def counted(rows: np.ndarray, weights: Any) -> np.ndarray:
    """Rows without those that weigh nothing: quantization is as if they were not there."""
    given = np.asarray(() if weights is None else without_graph(weights))
    return rows[given != 0] if given.shape == (len(rows),) and given.any() else rows


def check_choice(value: Any, name: str, accepted: tuple[str, ...]) -> str:
    """A parameter that is one of a few strings, or an `InvalidParameterError`."""
    if value not in accepted:
        raise InvalidParameterError(f"{name} must be one of {list(accepted)}, not {value!r}")
    return str(value)
