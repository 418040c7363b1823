"""What all linear estimators share: the function that is read, and the product it becomes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from cipherlearn.sklearn import _kinds as kinds
from cipherlearn.sklearn._wrapping import WrappingEstimator
from cipherlearn.sklearn.linear.affine import Affine
from cipherlearn.sklearn.linear.maps import FeatureMap, Plain
from cipherlearn.sklearn.linear.module import Box, LinearBits, LinearModule

#: Rows that a reading is checked on.
_PROBES = 16


class LinearEstimator(WrappingEstimator):
    """A model that is an affine function of its features, or of what the client computes of them.

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

    module_: LinearModule

    @classmethod
    def read(cls, model: Any) -> Affine:
        """The function of mapped features that a fitted float model computes, before any link."""
        return Affine.of_model(model.coef_, model.intercept_)

    @classmethod
    def feature_map(cls, model: Any) -> FeatureMap:
        """What the client computes of its features before it encrypts them.

        It is public: it depends on parameters of the model, and not on what training found.
        """
        del model
        return Plain()

    @classmethod
    @abstractmethod
    def _library_scores(cls, model: Any, rows: np.ndarray) -> np.ndarray:
        """What a float model gives for rows, before any link."""

    @property
    def affine_(self) -> Affine:
        """The function that the float model computes."""
        self.check_model_is_fitted()
        return self.module_.affine

    def _options(self) -> LinearBits:
        return LinearBits.of(self.n_bits)

    def _quantized(
        self, model: Any, rows: np.ndarray, options: LinearBits, before: Any
    ) -> LinearModule:
        mapped = self.feature_map(model)
        affine = self.read(model)
        probes = rows[:: -(-len(rows) // _PROBES)]
        affine.check(self._library_scores(model, probes), mapped(probes))
        box = Box.around(mapped(rows), None if before is None else before.box)
        return LinearModule(affine, box, options, mapped)


class LinearRegressor(kinds.Regressor, LinearEstimator):
    """A linear model that gives values."""


class LinearClassifier(kinds.Scoring, kinds.Classifier, LinearEstimator):
    """A linear model that tells classes apart."""


class LinearOutlierDetector(kinds.OutlierDetector, LinearEstimator):
    """A linear model that tells what is unlike the rows of training."""

    @classmethod
    def read(cls, model: Any) -> Affine:
        return Affine.of_model(model.coef_, -model.offset_)


class LinearTransformer(kinds.Transformer, LinearEstimator):
    """An affine map to other features."""

    @classmethod
    def read(cls, model: Any) -> Affine:
        return Affine.of_function(model.transform, model.n_features_in_)


class ProjectingEstimator(kinds.Transforming, LinearEstimator):
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

    def _quantized(
        self, model: Any, rows: np.ndarray, options: LinearBits, before: Any
    ) -> LinearModule:
        self._n_scores = super().read(model).n_outputs
        return super()._quantized(model, rows, options, before)

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
