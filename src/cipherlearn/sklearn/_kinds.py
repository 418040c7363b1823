"""What scores are good for: labels, values, outliers, new features. Mixins of estimators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, OutlierMixin, RegressorMixin, TransformerMixin
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if

from cipherlearn.errors import InvalidParameterError
from cipherlearn.sklearn._agreement import Agreement, alike, as_probable
from cipherlearn.sklearn._base import without_graph
from cipherlearn.sklearn.links import Link, Logistic, Softmax


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


class Predicting:
    """A model that answers by `predict`."""

    def predict(self: Any, X: Any, fhe: str = "disable") -> np.ndarray:
        """Values or labels of rows.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        fhe : {"disable", "simulate", "execute"}, default="disable"
            Exact integers in the clear; with the errors that encryption may cause; encrypted.

        Returns
        -------
        numpy.ndarray, shape (rows,) or (rows, outputs)
        """
        return np.asarray(self._predictions(self._raw(X, fhe)))

    @staticmethod
    def _library_predictions(model: Any, rows: np.ndarray) -> np.ndarray:
        return np.asarray(model.predict(rows))


class Regressor(MirroredTags, Predicting, RegressorMixin):  # type: ignore[misc]
    """A model that gives values."""

    answers_values = True

    @classmethod
    def _library_scores(cls, model: Any, rows: np.ndarray) -> np.ndarray:
        return np.asarray(model.predict(rows))

    def _predictions(self: Any, scores: np.ndarray) -> np.ndarray:
        values = self._link()(scores)
        return np.asarray(values[:, 0] if self._is_flat else values)


class Expecting(Regressor):
    """A model that gives the values that it expects, and not how far off they may be."""

    def predict(
        self, X: Any, fhe: str = "disable", return_std: bool = False, return_cov: bool = False
    ) -> np.ndarray:
        """Expected values of rows.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        fhe : {"disable", "simulate", "execute"}, default="disable"
            Exact integers in the clear; with the errors that encryption may cause; encrypted.
        return_std, return_cov : bool, default=False
            Deviations are not computed under encryption.

        Returns
        -------
        numpy.ndarray of float64, shape (rows,) or (rows, outputs)

        Raises
        ------
        InvalidParameterError
            If deviations are asked for.
        """
        if return_std or return_cov:
            raise InvalidParameterError(
                "return_std and return_cov: deviations are quadratic in all features or kernels, "
                "and are not computed under encryption; leave them out, or ask the float model, "
                "sklearn_model.predict"
            )
        return super().predict(X, fhe)


def float_model_has(method: str) -> Callable[[Any], bool]:
    """Whether the float model of an estimator has a method; a condition of `available_if`."""

    def has(estimator: Any) -> bool:
        # Asked of a model that is not fitted as well: some have it with some parameters only.
        model = estimator.sklearn_model
        return hasattr(estimator._unfitted() if model is None else model, method)  # noqa: SLF001

    return has


def of_each_class(scores: np.ndarray) -> np.ndarray:
    """A score for each class, where there may be one for the second of two."""
    return np.concatenate([-scores, scores], axis=1) if scores.shape[1] == 1 else scores


class Classifier(MirroredTags, Predicting, ClassifierMixin):  # type: ignore[misc]
    """A model that tells classes apart: by a score of each or, of two, by one of the second."""

    def _predictions(self: Any, scores: np.ndarray) -> np.ndarray:
        single = scores.shape[1] == 1
        places = (scores[:, 0] > 0).astype(np.int64) if single else scores.argmax(axis=1)
        return np.asarray(self.classes_[places])

    def _agreement(self: Any, scores: np.ndarray, rows: np.ndarray) -> Agreement:
        ours = self._predictions(scores)
        same = alike(ours, np.asarray(self._library_predictions(self.sklearn_model, rows)))
        if ours.ndim == 1:  # where two classes are as probable, either will do
            theirs = self._library_scores(self.sklearn_model, rows).reshape(len(rows), -1)
            same |= as_probable(of_each_class(scores), of_each_class(theirs))
        return Agreement(float(same.mean()), len(rows), of_values=False)

    @available_if(float_model_has("predict_proba"))  # type: ignore[untyped-decorator]
    def predict_proba(self: Any, X: Any, fhe: str = "disable") -> np.ndarray:
        """Probabilities of the classes: see `predict`.

        Returns
        -------
        numpy.ndarray of float64, shape (rows, classes)
        """
        scores = self._raw(X, fhe)
        return np.asarray(self._link()(scores))

    @available_if(float_model_has("predict_proba"))  # type: ignore[untyped-decorator]
    def predict_log_proba(self: Any, X: Any, fhe: str = "disable") -> np.ndarray:
        """Logarithms of `predict_proba`."""
        with np.errstate(divide="ignore"):  # a class may be impossible
            return np.asarray(np.log(self.predict_proba(X, fhe)))

    def _link(self: Any) -> Link:
        return Logistic() if len(self.classes_) == 2 else Softmax()


class Deciding:
    """A model that gives the scores that it decides by."""

    def decision_function(self: Any, X: Any, fhe: str = "disable") -> np.ndarray:
        """Scores of rows: of classes, the higher, the more probable; negative for outliers.

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
        return np.asarray(scores[:, 0] if scores.shape[1] == 1 else scores)


class Scoring(Deciding):
    """A model that gives the scores that its float model gives."""

    @classmethod
    def _library_scores(cls, model: Any, rows: np.ndarray) -> np.ndarray:
        return np.asarray(model.decision_function(rows))


class OutlierDetector(MirroredTags, Scoring, Predicting, OutlierMixin):  # type: ignore[misc]
    """A model that tells what is unlike the rows of training."""

    def score_samples(self: Any, X: Any, fhe: str = "disable") -> np.ndarray:
        """Scores of rows before ``offset_`` is taken off: see `decision_function`."""
        return np.asarray(self.decision_function(X, fhe) + self.offset_)

    def _predictions(self, scores: np.ndarray) -> np.ndarray:
        """-1 for outliers, 1 for other rows."""
        return np.where(scores[:, 0] >= 0, 1, -1)


class Transforming(MirroredTags, TransformerMixin):  # type: ignore[misc]
    """A model that gives new features."""

    def transform(self: Any, X: Any, fhe: str = "disable") -> np.ndarray:
        """New features of rows.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        fhe : {"disable", "simulate", "execute"}, default="disable"
            Exact integers in the clear; with the errors that encryption may cause; encrypted.

        Returns
        -------
        numpy.ndarray of float64, shape (rows, new features)
        """
        return np.asarray(self._raw(X, fhe))

    @available_if(float_model_has("inverse_transform"))  # type: ignore[untyped-decorator]
    def inverse_transform(self: Any, X: Any) -> np.ndarray:
        """Rows that have these new features, or come closest to it; by the float model, in clear.

        Parameters
        ----------
        X : array-like of shape (rows, new features)

        Returns
        -------
        numpy.ndarray of float64, shape (rows, features)
        """
        self.check_model_is_fitted()
        return np.asarray(self.sklearn_model.inverse_transform(without_graph(X)))

    def get_feature_names_out(self: Any, input_features: Any = None) -> np.ndarray:
        """Names of the new features."""
        self.check_model_is_fitted()
        return np.asarray(self.sklearn_model.get_feature_names_out(input_features))


class Transformer(Transforming):
    """A model that gives new features, and nothing else."""

    answers_values = True

    @classmethod
    def _library_scores(cls, model: Any, rows: np.ndarray) -> np.ndarray:
        return np.asarray(model.transform(rows))

    @staticmethod
    def _library_predictions(model: Any, rows: np.ndarray) -> np.ndarray:
        return np.asarray(model.transform(rows))

    def _predictions(self, scores: np.ndarray) -> np.ndarray:
        return scores
