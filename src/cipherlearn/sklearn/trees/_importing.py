"""What of a tree estimator takes over models that were fitted before."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from sklearn.base import is_regressor
from sklearn.utils.validation import validate_data

from cipherlearn.errors import (
    InvalidParameterError,
)
from cipherlearn.sklearn._agreement import Agreement, agreement_of, alike, tell
from cipherlearn.sklearn._base import EncryptedEstimator, check_choice, takes_any
from cipherlearn.sklearn._reading import check_reading, library_of, reading
from cipherlearn.sklearn.encoding import CategoricalCode, FeatureCode, OrdinalCode
from cipherlearn.sklearn.trees import columns
from cipherlearn.sklearn.trees.bits import USUAL_LEAF_BITS, TreeBits
from cipherlearn.sklearn.trees.ensemble import TreeEnsemble
from cipherlearn.sklearn.trees.grid import threshold_codes
from cipherlearn.sklearn.trees.quantized import QuantizedTrees
from cipherlearn.sklearn.trees.reading import probes, reach_of, split_by_category

if TYPE_CHECKING:
    from typing_extensions import Self

INPUTS = ("grid", "used-thresholds")
ENSEMBLING = ("server", "client")

#: Most rows that agreement is taken on.
_COMPARED_ROWS = 10_000


class ImportingEstimator(EncryptedEstimator):
    """An estimator that reads the trees of fitted float models: see `TreeEstimator`."""

    #: What the library compares values in.
    precision: ClassVar[Any] = np.float32

    #: Bits that leaves have at least, unless users say how many.
    usual_leaf_bits: ClassVar[int] = USUAL_LEAF_BITS

    #: What models that do not name categories see of those in a data frame: the values; the places
    #: that the frame happens to give them; or hashes, so that rows must tell which there are.
    unnamed_categories: ClassVar[Literal["values", "codes", "hashes"]] = "values"

    inputs: str
    ensemble_: TreeEnsemble
    codes_: list[FeatureCode]
    quantized_: QuantizedTrees
    agreement_: float | None

    @staticmethod
    @abstractmethod
    def read(model: Any) -> TreeEnsemble:
        """The trees of a fitted float model."""

    @classmethod
    def _wrapped(cls, model: Any) -> Any:
        """A model as the float class: libraries have other classes for what it holds."""
        return model

    def _read(self, model: Any, codes: Sequence[FeatureCode]) -> TreeEnsemble:
        """The trees of a fitted float model, with categories numbered as in the codes."""
        del codes
        return self.read(model)

    def _exact(self, model: Any) -> TreeEnsemble:
        """The trees of the float model that was taken over, without any approximation."""
        del model
        return self.ensemble_

    def _library_scores(self, model: Any, rows: Any) -> Any:
        """The library's own scores of rows as it takes them, before any link; None without one."""
        del model, rows

    def _as_taken(self, model: Any, rows: np.ndarray) -> Any:
        """Rows of numbers as a float model takes them."""
        del model
        return rows

    def _probes(self, ensemble: TreeEnsemble) -> np.ndarray:
        """Rows that the library's scores are compared on."""
        return probes(ensemble, missing=self._takes_missing(), precision=self.precision)

    @classmethod
    def _check_rows(cls, ensemble: TreeEnsemble, X: Any) -> None:
        """Raise an error if more is needed to import a model."""

    @staticmethod
    def _feature_names(model: Any) -> list[str] | None:
        """The names of features that a float model was trained with; None without any."""
        names = getattr(model, "feature_names_in_", None)
        return None if names is None else [str(name) for name in names]

    @staticmethod
    def _category_names(model: Any) -> dict[int, list[Any]] | None:
        """The values that a model numbers, by feature; None if it does not know them."""
        del model
        return None

    @abstractmethod
    def _takes_missing(self) -> bool:
        """Whether the library's trees know missing values."""

    @abstractmethod
    def _table(self, X: Any, *, reset: bool) -> Any:
        """Rows with numbers in place of categories."""

    @abstractmethod
    def _number(self, X: Any, features: Iterable[int]) -> None:
        """Number the categories of some columns as they are in a data frame."""

    @abstractmethod
    def _with_gaps(self, X: np.ndarray, categorical: Collection[int]) -> np.ndarray:
        """Rows with NaN where a library takes a value for a missing one."""

    @abstractmethod
    def _grid(
        self, rows: np.ndarray, bits: TreeBits, categories: Collection[int]
    ) -> list[FeatureCode]:
        """What is sent of each feature, from rows."""

    @abstractmethod
    def _adopt(self, model: Any, codes: list[FeatureCode], bits: TreeBits) -> Self:
        """Take over a fitted float model."""

    @abstractmethod
    def _predictions(self, scores: np.ndarray) -> np.ndarray:
        """What `predict` says of rows with such scores."""

    def _alike(self, scores: np.ndarray, exact: np.ndarray) -> np.ndarray:
        """Rows with the same prediction by these scores and by those."""
        return alike(self._predictions(scores), self._predictions(exact))

    @classmethod
    def from_model(
        cls,
        model: Any,
        X: Any = None,
        *,
        n_bits: Any = 8,
        inputs: str = "grid",
        ensembling: str = "server",
        **own: Any,
    ) -> Self:
        """An estimator from a fitted float model, without training.

        Parameters
        ----------
        model : object
            A fitted `float_class`, or what the library itself calls such a model.
        X : array-like of shape (rows, features), optional
            Rows that the grid is chosen for, and that `agreement_` is measured on. Without them,
            cuts are at equal distances over the range of each feature's thresholds.
        n_bits : int or dict, default=8
        inputs : {"grid", "used-thresholds"}, default="grid"
            With a grid, thresholds move to the nearest cut. With ``"used-thresholds"``, trees split
            exactly where they did, and the client learns the thresholds.
        ensembling : {"server", "client"}, default="server"
        **own
            Other parameters that are the estimator's own, where it has some.

        Returns
        -------
        TreeEstimator
            With the parameters of the model.

        Raises
        ------
        InvalidTypeError
            If the model is of another class.
        NotFittedError
            If it is not fitted.
        ModelError
            If it cannot be encrypted, or its library stores it in a way that is not known here.

        Warns
        -----
        AgreementWarning
            If `agreement_` is below 0.99 of the rows (0.98 of the variance, for regressors).
        """
        model = cls._wrapped(model)
        own = {"n_bits": n_bits, "inputs": inputs, "ensembling": ensembling, **own}
        cls._check_import(model, own)
        self, bits = cls._with_parameters_of(model, own)
        with reading(cls.float_class):
            ensemble = cls.read(model)
            named, names = cls._feature_names(model), cls._category_names(model)
        cls._check_rows(ensemble, X)
        if named is not None:
            self.feature_names_in_ = np.asarray(named, dtype=object)
        self.n_features_in_ = ensemble.n_features
        self.categories_ = names or {}
        self._was_framed = bool(names)
        self._number_unnamed(ensemble, X)
        codes, rows = self._codes_of(ensemble, X, bits)
        self._adopt(model, codes, bits)
        self.agreement_ = None if rows is None else self._agreement(model, rows, X)
        return self

    from_sklearn_model = from_model

    def _number_unnamed(self, ensemble: TreeEnsemble, X: Any) -> None:
        """Number the categories of rows where a model that splits on them does not name them."""
        if not hasattr(X, "iloc") or X.shape[1] != ensemble.n_features:
            return  # wrong numbers of features are told later
        types = list(X.dtypes)
        split = sorted(split_by_category(ensemble) - self.categories_.keys())
        if self.unnamed_categories == "hashes":
            self._number(X, [f for f in split if types[f].kind not in "biuf"])
        if self.unnamed_categories != "codes":
            return
        if named := [str(X.columns[f]) for f in split if types[f].name == "category"]:
            raise InvalidParameterError(
                f"the columns {named} of X hold categories, and the model does not tell how it "
                "numbers them: give the numbers that it was trained on, in columns of numbers"
            )

    @classmethod
    def _with_parameters_of(cls, model: Any, own: Mapping[str, Any]) -> tuple[Self, TreeBits]:
        """An estimator with the parameters of a float model, and with checked ones of its own."""
        check_choice(own["inputs"], "inputs", INPUTS)
        check_choice(own["ensembling"], "ensembling", ENSEMBLING)
        n_bits = own["n_bits"]
        if isinstance(n_bits, str):
            raise InvalidParameterError(
                "from_model does not train, and cannot choose bits: n_bits must be an integer or a "
                f"dictionary, not {n_bits!r}"
            )
        bits = TreeBits.of(n_bits, cls.usual_leaf_bits)
        known, taken = cls._get_param_names(), model.get_params(deep=False)
        if not takes_any(cls):
            taken = {name: value for name, value in taken.items() if name in known}
        return cls(**{**taken, **own}), bits

    def _codes_of(
        self, ensemble: TreeEnsemble, X: Any, bits: TreeBits
    ) -> tuple[list[FeatureCode], np.ndarray | None]:
        """What is sent of each feature of an imported model: for its thresholds, or for rows.

        The rows are returned as the module takes them.
        """
        exact, missing = self.inputs == "used-thresholds", self._takes_missing()
        codes = threshold_codes(
            ensemble, None if exact else bits.inputs, missing=missing, precision=self.precision
        )
        if X is None:
            return codes, None
        table = self._table(X, reset=False)
        rows = validate_data(
            self,
            table,
            reset=False,
            dtype=np.float64,
            ensure_all_finite="allow-nan" if missing else True,
        )
        categories = split_by_category(ensemble)
        rows = np.asarray(self._with_gaps(rows, categories))
        columns.check_range(rows, self.precision)
        chosen = self._grid(rows, bits, categories)
        if missing:
            own = not ensemble.unknown_is_missing
            chosen = [with_missing(code, categories_too=own) for code in chosen]
        if self.unnamed_categories != "hashes":  # the rows need not hold all that splits name
            chosen = [_united(new, code) for code, new in zip(codes, chosen, strict=True)]
        codes = [
            code if f in ensemble.known_categories or (exact and f not in categories) else new
            for f, (code, new) in enumerate(zip(codes, chosen, strict=True))
        ]
        return codes, rows

    def _check_reading(self, model: Any) -> None:
        """Raise `ModelError` unless the library gives the scores that were read."""
        ensemble = self._exact(model)
        rows = self._probes(ensemble)
        with warnings.catch_warnings(), reading(self.float_class):
            # Of what is unusual about these rows, which are not the user's.
            warnings.simplefilter("ignore")
            scores = self._library_scores(model, self._as_taken(model, rows))
        if scores is not None:
            check_reading(
                ensemble.raw_scores(rows),
                scores,
                f"the model is not understood: {library_of(self.float_class)} stores it in "
                "a way that is not known here. Report it with the parameters of the model",
                reach=reach_of(ensemble),
            )

    def _model_scores(self, model: Any, rows: np.ndarray, X: Any) -> np.ndarray:
        """The scores of the float model: of the user's rows themselves, if it takes them."""
        compared = rows.astype(self.precision).astype(np.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ours are given already
            try:
                taken = X if hasattr(X, "iloc") else self._as_taken(model, compared)
                scores = self._library_scores(model, taken)
            except Exception:  # noqa: BLE001 - libraries raise anything where they refuse rows
                scores = None
        if scores is None:
            return self._exact(model).raw_scores(compared)
        return np.asarray(scores, dtype=np.float64).reshape(len(rows), self.ensemble_.n_outputs)

    def _agreement(self, model: Any, rows: np.ndarray, X: Any) -> float:
        """How far predictions of rows are those of the float model; users are warned if little."""
        step = -(-len(rows) // _COMPARED_ROWS)
        rows = rows[::step]
        ours = self.quantized_.scores(rows)
        theirs = self._model_scores(model, rows, X.iloc[::step] if hasattr(X, "iloc") else X)
        if is_regressor(self):
            answers = self._predictions(ours), self._predictions(theirs)
            found = agreement_of(*answers, of_values=True)
        else:
            found = Agreement(float(self._alike(ours, theirs).mean()), len(rows), of_values=False)
        finer = [name for name in self.own_parameters if name.endswith("bits")]
        exact = [] if self.inputs == "used-thresholds" else ["inputs='used-thresholds'"]
        tell(self, found, [f"more {' or '.join(finer)}", *exact, "or fit on such rows"])
        return found.share


def with_missing(code: FeatureCode, *, categories_too: bool = False) -> FeatureCode:
    """A code with a state for missing values, whether or not there were some: the trees know."""
    takes_own = isinstance(code, OrdinalCode) or (
        categories_too and isinstance(code, CategoricalCode)
    )
    return replace(code, missing="own") if takes_own else code  # type: ignore[type-var]


def _united(code: FeatureCode, other: FeatureCode) -> FeatureCode:
    """A code with the categories of both, if they have some."""
    if not isinstance(code, CategoricalCode) or not isinstance(other, CategoricalCode):
        return code
    return replace(code, categories=np.union1d(code.categories, other.categories))
