"""What all linear estimators share: the function that is read, and the product it becomes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

import numpy as np

from cipherlearn.errors import InvalidParameterError, ModelError
from cipherlearn.sklearn import _kinds as kinds
from cipherlearn.sklearn._steps import dense
from cipherlearn.sklearn._wrapping import WrappingEstimator
from cipherlearn.sklearn.linear.affine import Affine
from cipherlearn.sklearn.linear.maps import Bits, FeatureMap, Plain, Products, Squares
from cipherlearn.sklearn.linear.module import Box, LinearBits, LinearModule

#: Bits that are tried in turn, if nobody says how many.
_AUTO_BITS = (8, 10, 12, 13, 14, 15, 16)

#: The logarithm of the probability of what training never saw.
_IMPOSSIBLE = -1e12

#: Rows that a reading is checked on: of models, and of models with steps before them.
_PROBES, _MANY_PROBES = 64, 2000

#: Most features whose products with each other are tried; most bits of the states of each feature,
#: which all are encrypted, where steps come before a model.
_MOST_PAIRED, _MOST_STATE_BITS = 64, 6


class LinearEstimator(WrappingEstimator):
    """A model that is an affine function of its features, or of what the client computes of them.

    Parameters
    ----------
    n_bits : int, dict or "auto", default=8
        Bits of features (``op_inputs``) and of weights (``op_weights``), up to 16 each. There are
        no look-ups: more bits cost little. ``"auto"`` takes the fewest, from 8 on, with which the
        rows of training have the labels of the float model (of values, R2 of 0.9999 with its
        values as the truth), or as many as results have room for.

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
    takes_steps: ClassVar[bool] = True

    module_: LinearModule

    def _map(self, model: Any, rows: np.ndarray, bits: LinearBits) -> FeatureMap:
        """What the client computes of its features before it encrypts them.

        It is public: it depends on features alone and on parameters of the model, and not on what
        training found. `FeatureMap.tells` says what the client learns by it.
        """
        del model, bits
        return Plain.around(rows)

    @classmethod
    @abstractmethod
    def _library_scores(cls, model: Any, rows: np.ndarray) -> np.ndarray:
        """What a float model gives for rows, before any link."""

    @property
    def affine_(self) -> Affine:
        """The function of mapped features that the float model computes, before any link."""
        self.check_model_is_fitted()
        return self.module_.affine

    @property
    def n_sent(self) -> int:
        """How many mapped features of a row are encrypted."""
        return self.affine_.n_features

    @property
    def client_learns(self) -> str:
        """What whoever encrypts rows learns of the training data."""
        self.check_model_is_fitted()
        return self.module_.mapped.tells

    def _options(self) -> tuple[LinearBits, ...]:
        if isinstance(self.n_bits, str) and self.n_bits == "auto":
            return tuple(LinearBits(bits, bits) for bits in _AUTO_BITS)
        return (LinearBits.of(self.n_bits),)

    def _quantized(
        self, model: Any, rows: np.ndarray, options: tuple[LinearBits, ...], before: Any
    ) -> LinearModule:
        found = self._with_bits(model, rows, options[0], before)
        for bits in options[1:]:
            if self._compared(found, rows).is_close:
                break
            with suppress(InvalidParameterError):  # results have no room for so many
                found = self._with_bits(model, rows, bits, before)
        return found

    def _with_bits(
        self, model: Any, rows: np.ndarray, bits: LinearBits, before: LinearModule | None
    ) -> LinearModule:
        probes = rows[:: -(-len(rows) // (_MANY_PROBES if self._folded else _PROBES))]
        if before is not None:
            mapped = before.mapped
            affine = self._read(model, mapped, probes)
        elif self._folded:
            affine, mapped = self._read_folded(model, rows, bits, probes)
        else:
            mapped = self._map(model, rows, bits)
            affine = self._read(model, mapped, probes)
        if mapped.is_binary:
            box, sent = Box.unit(affine.n_features), LinearBits(1, bits.weights)
        else:
            box, sent = Box.around(mapped(rows), None if before is None else before.box), bits
        module = LinearModule(affine, box, sent, mapped)
        self.n_bits_ = bits.as_dict
        return module

    def _read_folded(
        self, model: Any, rows: np.ndarray, bits: LinearBits, probes: np.ndarray
    ) -> tuple[Affine, FeatureMap]:
        """The function that a model computes after other steps, and the map of least width."""
        maps: list[FeatureMap] = [Plain.around(rows), Squares.around(rows)]
        if rows.shape[1] <= _MOST_PAIRED:
            maps.append(Products.around(rows))
        maps.append(Bits.around(rows, min(bits.inputs, _MOST_STATE_BITS)))
        for mapped in sorted(maps, key=lambda each: each(probes[:1]).shape[1]):
            # Steps refuse rows in words of their own.
            with suppress(ModelError, ValueError):
                return self._read(model, mapped, probes), mapped
        raise ModelError(
            f"with them, a {type(model).__name__} is neither affine or quadratic in the features "
            "nor a sum of functions of one feature each (products are tried of "
            f"{_MOST_PAIRED} features at most)"
        )

    def _read(self, model: Any, mapped: FeatureMap, rows: np.ndarray) -> Affine:
        """The function that a float model computes of mapped features, checked on rows."""

        def scores(rows: np.ndarray) -> np.ndarray:
            return _two_dimensional(self._library_scores(model, self._taken(rows)), len(rows))

        theirs = scores(mapped.rounded(rows))
        if not np.isfinite(theirs).all():
            raise ModelError(
                f"the {type(model).__name__} gives scores that are no finite numbers for the rows "
                "of training: was there only one sample, or one sample of a class?"
            )
        affine = mapped.read(scores)
        affine.check(theirs, mapped(rows))
        return affine


class FineEstimator(LinearEstimator):
    """A model whose terms often cancel each other, as those of likelihoods do.

    Parameters
    ----------
    n_bits : int, dict or "auto", default="auto"
        As for `LinearEstimator`.
    """

    own_parameters: ClassVar[Mapping[str, Any]] = {"n_bits": "auto"}


def _two_dimensional(scores: Any, rows: int) -> np.ndarray:
    """Scores of shape (rows, outputs), whatever shape a library gives them."""
    found = dense(scores)
    # One number a row, or, of some transformers, all numbers of a single row.
    found = found.reshape(rows, -1) if found.ndim == 1 else found
    return np.asarray(found, dtype=np.float64)


def centered(scores: np.ndarray) -> np.ndarray:
    """Scores of classes less their mean; of two classes, what the second has more.

    What all classes have in common says nothing of the class, and may be so large that nothing
    else has bits.
    """
    if scores.ndim == 1:
        return scores
    scores = np.where(np.isneginf(scores), _IMPOSSIBLE, scores)
    if scores.shape[1] == 2:
        return np.asarray(scores[:, 1] - scores[:, 0])
    return np.asarray(scores - scores.mean(axis=1, keepdims=True))


class LinearRegressor(kinds.Regressor, LinearEstimator):
    """A linear model that gives values."""


class LinearClassifier(kinds.Scoring, kinds.Classifier, LinearEstimator):
    """A linear model that tells classes apart."""


class LinearOutlierDetector(kinds.OutlierDetector, LinearEstimator):
    """A linear model that tells what is unlike the rows of training."""


class LinearTransformer(kinds.Transformer, LinearEstimator):
    """An affine map to other features."""


class ProjectingEstimator(kinds.Transforming, LinearEstimator):
    """A model that gives scores and, beside them, new features: one product computes both."""

    @classmethod
    def _new(cls, model: Any, rows: np.ndarray) -> np.ndarray:
        """New features that a float model gives for rows."""
        return np.asarray(model.transform(rows))

    @classmethod
    def _library_scores(cls, model: Any, rows: np.ndarray) -> np.ndarray:
        scores = super()._library_scores(model, rows).reshape(len(rows), -1)
        return np.concatenate([scores, cls._new(model, rows)], axis=1)

    def _with_bits(
        self, model: Any, rows: np.ndarray, bits: LinearBits, before: LinearModule | None
    ) -> LinearModule:
        found = super()._with_bits(model, rows, bits, before)
        self._n_scores = found.affine.n_outputs - self._new(model, rows[:1]).shape[1]
        return found

    def _predictions(self, scores: np.ndarray) -> np.ndarray:
        return np.asarray(super()._predictions(scores[:, : self._n_scores]))  # type: ignore[safe-super]

    def _raw(self, X: Any, fhe: Any) -> np.ndarray:
        return super()._raw(X, fhe)[:, : self._n_scores]

    def post_processing(self, *values: np.ndarray) -> np.ndarray:
        """Predictions, or probabilities, of dequantized results; new features are left out."""
        self.check_model_is_fitted()
        return self._link()(self.module_.post_processing(*values)[:, : self._n_scores])

    def transform(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """New features of rows: see `cipherlearn.sklearn._kinds.Transforming.transform`."""
        return super()._raw(X, fhe)[:, self._n_scores :]
