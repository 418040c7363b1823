"""Whole pipelines on encrypted rows."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn import pipeline as floats
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if

from cipherlearn.errors import AgreementWarning, InvalidParameterError, InvalidTypeError, ModelError
from cipherlearn.sklearn._base import EncryptedEstimator, EstimatorNotFittedError
from cipherlearn.sklearn._branches import branches_of, split
from cipherlearn.sklearn._catalog import estimator_for
from cipherlearn.sklearn._public_steps import knows_categories, public_part
from cipherlearn.sklearn._reading import is_fitted
from cipherlearn.sklearn._twins import (
    adopted,
    client_rows,
    encrypted_twin,
    float_twin,
    is_ours,
    passes,
)
from cipherlearn.sklearn._wrapping import WrappingEstimator

if TYPE_CHECKING:
    from typing_extensions import Self

    from cipherlearn.engines import Program

#: What a pipeline has from the estimator that computes it under encryption.
_FORWARDED = frozenset(
    {
        "agreement_",
        "circuit",
        "cost",
        "dequantize_output",
        "fhe_circuit",
        "module_",
        "n_bits_",
        "onnx_model",
        "post_processing",
    }
)


def _has(method: str) -> Callable[[Any], bool]:
    return lambda self: hasattr(self.steps[-1][1], method)


class Pipeline(floats.Pipeline):  # type: ignore[misc]
    """Steps, the last of which is computed on encrypted rows together with others before it.

    Leading steps are left to the client if they are public: if they hold nothing of the training
    data, or only ranges and categories of features. All others become part of the circuit: what
    they compute has to be, with the last step, an affine or quadratic function of the features that
    the client encrypts, or a sum of functions of one feature each. Scalers, projections and
    selections before a linear model are; so are splines, bins and quantiles of each feature. Trees
    and neighbours take steps that each feature goes through by itself, growing with it; the first
    layer of perceptrons takes affine ones.

    Parameters
    ----------
    steps : list of (str, transformer)
        As scikit-learn's pipeline takes them. The last is an estimator of this package, or a model
        that one of its estimators wraps; its ``n_bits`` are those of the whole. Other steps of this
        package are trained as their float models, and their ``n_bits`` change nothing.
    public : bool or collection of str, default=False
        Names of steps that the client may learn, True for all of them. They are computed by the
        client if they, and all steps before them, are public.
    transform_input, memory, verbose
        As for scikit-learn's pipeline.

    Attributes
    ----------
    client_steps_, encrypted_steps_ : list of str
        Who computes what.
    client_learns_ : dict of str to str
        What the client learns of the training data by each of its steps, and for encrypting rows
        for the last one. (What can be told of a model from its answers is not in it.)
    encrypted_ : EncryptedEstimator
        Takes rows as the client's steps give them.
    """

    def __init__(
        self,
        steps: list[tuple[str, Any]],
        *,
        public: bool | Collection[str] = False,
        transform_input: Any = None,
        memory: Any = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(steps, transform_input=transform_input, memory=memory, verbose=verbose)
        self.steps: list[tuple[str, Any]] = steps
        self.public = public

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Train all steps in the clear, and quantize what is computed under encryption.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        y : array-like of shape (rows,) or (rows, outputs), optional
        **params
            As for scikit-learn's pipeline: ``step__parameter``.

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError
            If a step can neither be left to the client nor be computed under encryption.
        """
        self.__dict__.pop("encrypted_", None)
        if not self.steps:
            raise InvalidParameterError("the Pipeline is empty: give steps, the last an estimator")
        _check_public(self.public, self.steps)
        name, last = self.steps[-1]
        before = [(n, float_twin(step)) for n, step in self.steps[:-1]]
        options = {"memory": self.memory, "verbose": self.verbose}
        if self.transform_input is not None:
            options["transform_input"] = self.transform_input
        final = encrypted_twin(last)
        if not final.get_params(deep=False).get("warm_start"):
            final = clone(final)
        trained = floats.Pipeline([*before, (name, final)], **options)
        with warnings.catch_warnings():
            # Told of what is computed under encryption, once that is known.
            warnings.simplefilter("ignore", AgreementWarning)
            trained.fit(X, y, **params)
        return self._adopt(trained.steps, X)

    def _adopt(self, trained: Sequence[tuple[str, Any]], X: Any) -> Self:
        """Take over fitted steps, the last of them an estimator of ours."""
        rows, own = X, []
        for (_, given), (_, step) in zip(self.steps, trained[:-1], strict=False):
            own.append(adopted(given, step, rows))
            rows = rows if passes(step) else step.transform(rows)
        name, final = trained[-1]
        division, encrypted = self._encrypted(final, self._divisions(trained[:-1], X), X)
        if isinstance(encrypted, WrappingEstimator):
            encrypted.tell_agreement()
        self._client = [step for _, step in division.client]
        names = [each for each, _ in trained]
        self.steps = [*zip(names, [*own, final], strict=True)]
        self.client_steps_ = [*division.public]
        self.encrypted_steps_ = [*division.hidden, name]
        tells = {label: public_part(step) for label, step in division.public.items()}
        self.client_learns_ = {
            label: "all that the step learned" if told is None else told
            for label, told in tells.items()
        }
        self.client_learns_[name] = encrypted.client_learns
        self.encrypted_ = encrypted
        return self

    def _divisions(self, steps: Sequence[tuple[str, Any]], X: Any) -> list[_Division]:
        """Ways to divide fitted steps among the client and the server."""

        def is_public(label: str, step: Any) -> bool:
            allowed = self.public if isinstance(self.public, Collection) else ()
            return self.public is True or label in allowed or public_part(step) is not None

        count = next((i for i, each in enumerate(steps) if not is_public(*each)), len(steps))
        leading, rest = list(steps[:count]), list(steps[count:])
        whole = _Division(leading, rest, dict(leading), dict(rest))
        if not rest:
            return [whole]
        name, step = rest[0]
        rows = client_rows([each for _, each in leading], X)
        parted = split(step, rows, lambda branch, part: is_public(f"{name}__{branch}", part))
        if parted is None:
            return [whole]
        # Of a step that has no public branch, the client chooses columns.
        public = {f"{name}__{branch}": part for branch, part in parted.public.items()}
        public = whole.public | (public or {name: "passthrough"})
        hidden = {f"{name}__{branch}": part for branch, part in parted.hidden.items()}
        client = [*leading, (name, parted.client)]
        encrypted = [(name, parted.encrypted), *rest[1:]]
        return [whole, _Division(client, encrypted, public, hidden | dict(rest[1:]))]

    def _encrypted(
        self, final: Any, divisions: Sequence[_Division], X: Any
    ) -> tuple[_Division, EncryptedEstimator]:
        """The least wide way to compute the last step, and those before it that are not public."""
        found: list[tuple[_Division, EncryptedEstimator]] = []
        refusals = []
        for division in divisions:
            steps = [step for _, step in division.encrypted if not passes(step)]
            if not steps:
                return division, final
            rows = client_rows([step for _, step in division.client], X)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", AgreementWarning)  # told of what is taken
                    found.append((division, _folded(final, steps, rows, division.hidden)))
            except InvalidParameterError as refusal:
                refusals.append(refusal)
        if not found:
            raise refusals[-1]  # that which leaves the least to the client
        return min(found, key=lambda each: each[1].n_sent)

    @classmethod
    def from_model(
        cls, model: Any, X: Any = None, *, public: bool | Collection[str] = False, **own: Any
    ) -> Self:
        """A pipeline from a fitted one of scikit-learn, without training.

        Parameters
        ----------
        model : sklearn.pipeline.Pipeline
        X : array-like of shape (rows, features)
            Rows that ranges are taken from.
        public : bool or collection of str, default=False
        **own
            Parameters of the last step's estimator: ``n_bits``, ...

        Raises
        ------
        InvalidTypeError
            If the model is no pipeline.
        NotFittedError
            If it is not fitted.
        InvalidParameterError
            If a step can neither be left to the client nor be computed under encryption.
        """
        if not isinstance(model, floats.Pipeline):
            raise InvalidTypeError(
                f"Pipeline.from_model takes a fitted Pipeline, not a {type(model).__name__}"
            )
        if not is_fitted(model):
            raise EstimatorNotFittedError("the Pipeline is not fitted")
        if X is None:
            raise InvalidParameterError(
                "Pipeline.from_model needs rows X: it takes ranges from them"
            )
        if inner := [name for name, step in model.steps if is_ours(step)]:
            raise InvalidTypeError(
                f"the steps {inner} are estimators of cipherlearn: a Pipeline of this package has "
                "them from the start, with cipherlearn.sklearn.Pipeline(steps).fit(X, y)"
            )
        _check_public(public, model.steps)
        name, last = model.steps[-1]
        rows = client_rows([step for _, step in model.steps[:-1]], X)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AgreementWarning)  # as in `fit`
            final = estimator_for(last).from_model(last, rows, **own)
        steps = [*model.steps[:-1], (name, final)]
        self = cls(steps, public=public, memory=model.memory, verbose=model.verbose)
        return self._adopt(steps, X)

    from_sklearn_model = from_model

    def fit_benchmark(
        self, X: Any, y: Any = None, random_state: int | None = None, **params: Any
    ) -> tuple[Self, Any]:
        """Fit, and train a pipeline of the float models beside.

        Parameters
        ----------
        X, y : array-like
        random_state : int, optional
            Seed of all steps of both that have none. Default: one drawn at random. The parameters
            of the steps stay what they are.
        **params
            As for `fit`.

        Returns
        -------
        (self, sklearn.pipeline.Pipeline)
        """
        given = self.get_params(deep=True)
        unset = [n for n, v in given.items() if n.endswith("__random_state") and v is None]
        seed = int(check_random_state(random_state).randint(2**15))
        try:
            self.set_params(**dict.fromkeys(unset, seed))
            twins = [(name, float_twin(step)) for name, step in self.steps]
            self.fit(X, y, **params)
        finally:
            self.set_params(**dict.fromkeys(unset))  # training changes no parameter
        return self, floats.Pipeline(twins).fit(X, y, **params)

    @property
    def sklearn_model(self) -> Any:
        """The fitted pipeline of float models; None before `fit`."""
        if not self.is_fitted:
            return None
        return floats.Pipeline([(n, s.sklearn_model if is_ours(s) else s) for n, s in self.steps])

    @available_if(_has("predict"))  # type: ignore[untyped-decorator]
    def fit_predict(self, X: Any, y: Any = None, **params: Any) -> np.ndarray:
        """Fit, and give the answers for the rows."""
        return np.asarray(self.fit(X, y, **params).predict(X))

    def set_output(self, *, transform: Any = None) -> Self:
        """What `transform` gives: see scikit-learn."""
        super().set_output(transform=transform)
        if self.is_fitted:
            self.encrypted_.set_output(transform=transform)
        return self

    def __getitem__(self, key: Any) -> Any:
        # A part of the steps is no whole to be encrypted.
        if isinstance(key, slice):
            return floats.Pipeline(self.steps, memory=self.memory, verbose=self.verbose)[key]
        return super().__getitem__(key)

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` was called."""
        return "encrypted_" in vars(self)

    @property
    def is_compiled(self) -> bool:
        """Whether it can simulate and execute."""
        return self.is_fitted and self.encrypted_.is_compiled

    def __sklearn_is_fitted__(self) -> bool:
        return self.is_fitted

    def __getattr__(self, name: str) -> Any:
        # Only asked for what is not there.
        if name in _FORWARDED:
            return getattr(self._fitted(), name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _fitted(self) -> Any:
        if not self.is_fitted:
            raise EstimatorNotFittedError("this Pipeline is not fitted: call fit(X, y) first")
        return self.encrypted_

    def _client_rows(self, X: Any) -> Any:
        """Rows as the client encrypts them."""
        return client_rows(self._client, X)

    def _answer(self, method: str, X: Any, **options: Any) -> Any:
        fitted, last = self._fitted(), self.steps[-1][1]
        if fitted is not last:
            if fitted.sklearn_model is not last.sklearn_model:
                raise InvalidParameterError(
                    f"the step {self.steps[-1][0]!r} was trained again by itself: fit the Pipeline"
                )
            fitted.set_params(**last.get_params(deep=False))
        return getattr(fitted, method)(self._client_rows(X), **options)

    def compile(self, X: Any = None, **options: Any) -> Program:
        """Compile what is computed under encryption: see `EncryptedEstimator.compile`."""
        fitted = self._fitted()
        return fitted.compile(None if X is None else self._client_rows(X), **options)

    def quantize_input(self, X: Any) -> Any:
        """Integers that the client encrypts, after its own steps."""
        return self._answer("quantize_input", X)

    @available_if(_has("predict"))  # type: ignore[untyped-decorator]
    def predict(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Values or labels of rows.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        fhe : {"disable", "simulate", "execute"}, default="disable"
        """
        return np.asarray(self._answer("predict", X, fhe=fhe))

    @available_if(_has("predict_proba"))  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Probabilities of classes: see `predict`."""
        return np.asarray(self._answer("predict_proba", X, fhe=fhe))

    @available_if(_has("predict_log_proba"))  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Logarithms of `predict_proba`."""
        return np.asarray(self._answer("predict_log_proba", X, fhe=fhe))

    @available_if(_has("decision_function"))  # type: ignore[untyped-decorator]
    def decision_function(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Scores of rows: see `predict`."""
        return np.asarray(self._answer("decision_function", X, fhe=fhe))

    @available_if(_has("score_samples"))  # type: ignore[untyped-decorator]
    def score_samples(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Scores of rows: see `predict`."""
        return np.asarray(self._answer("score_samples", X, fhe=fhe))

    @available_if(_has("transform"))  # type: ignore[untyped-decorator]
    def transform(self, X: Any, fhe: str = "disable") -> Any:
        """New features of rows: see `predict`."""
        return self._answer("transform", X, fhe=fhe)

    @available_if(_has("transform"))  # type: ignore[untyped-decorator]
    def fit_transform(self, X: Any, y: Any = None, **params: Any) -> Any:
        """Fit, and give the new features of the rows."""
        return self.fit(X, y, **params).transform(X)

    @available_if(_has("score"))  # type: ignore[untyped-decorator]
    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The last step's score, of rows in the clear."""
        options = {} if sample_weight is None else {"sample_weight": sample_weight}
        return float(self._answer("score", X, y=y, **options))


@dataclass(frozen=True)
class _Division:
    """Who computes what: fitted steps of the client, and of the server; by name, whose they are."""

    client: list[tuple[str, Any]]
    encrypted: list[tuple[str, Any]]
    public: dict[str, Any]
    hidden: dict[str, Any]


def _folded(
    final: Any, steps: Sequence[Any], rows: Any, hidden: dict[str, Any]
) -> EncryptedEstimator:
    """The last step together with those before it that the client does not compute."""
    whole = copy.copy(final)
    for name in ("feature_names_in_", "n_features_in_"):
        vars(whole).pop(name, None)
    try:
        if not final.takes_steps:
            raise ModelError(f"a {type(final).__name__} takes encrypted features as they are")
        if checking := [name for name, step in hidden.items() if knows_categories(step)]:
            raise ModelError(f"only the client can tell which categories {checking} knows")
        return whole._adopt_after(steps, rows)  # noqa: SLF001
    except ValueError as error:  # of ours, or of steps and checks in words of their own
        raise InvalidParameterError(
            f"the steps {[*hidden]} cannot be computed under encryption: {error}. They hold what "
            f"was found in training: let the client compute them, and learn it, with "
            f"public={[*hidden]}, or leave them out"
        ) from error


def make_pipeline(*steps: Any, public: bool | Collection[str] = False, **options: Any) -> Pipeline:
    """A pipeline whose steps are named after their classes: see `Pipeline`."""
    named = floats.make_pipeline(*steps).steps
    return Pipeline(named, public=public, **options)


def _check_public(public: Any, steps: Sequence[tuple[str, Any]]) -> None:
    """Raise `InvalidParameterError` unless it is a bool, or names of steps before the last."""
    if isinstance(public, bool):
        return
    known = [name for name, _ in steps[:-1]]
    known += [f"{name}__{branch}" for name, step in steps[:-1] for branch, _ in branches_of(step)]
    is_list = isinstance(public, Collection) and not isinstance(public, str)
    if not is_list or any(name not in known for name in public):
        raise InvalidParameterError(
            f"public must be True, False, or a list of names of steps before the last, which are "
            f"{known}; not {public!r}"
        )
