"""Naive Bayes: sums over features of what each says of the class."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn import naive_bayes

from cipherlearn.errors import InvalidParameterError
from cipherlearn.sklearn import _kinds as kinds
from cipherlearn.sklearn.encoding import OrdinalCode
from cipherlearn.sklearn.linear._estimator import FineEstimator, centered
from cipherlearn.sklearn.linear.maps import Above, Bits, FeatureMap, Squares
from cipherlearn.sklearn.linear.module import LinearBits

PACKAGE = "sklearn"
EXTRA = None


class _NaiveBayes(kinds.Classifier, FineEstimator):
    """Scores are joint log-probabilities, less their mean over the classes."""

    @classmethod
    def _library_scores(cls, model: Any, rows: np.ndarray) -> np.ndarray:
        return centered(np.asarray(model.predict_joint_log_proba(rows)))


class GaussianNB(_NaiveBayes, wraps=naive_bayes.GaussianNB):
    """Features with a mean and a variance in each class: see `FineEstimator`.

    The client encrypts the squares of features as well.
    """

    def _map(self, model: Any, rows: np.ndarray, bits: LinearBits) -> FeatureMap:
        del model, bits
        return Squares.around(rows)


class BernoulliNB(_NaiveBayes, wraps=naive_bayes.BernoulliNB):
    """Features that are there or not: see `FineEstimator`."""

    def _map(self, model: Any, rows: np.ndarray, bits: LinearBits) -> FeatureMap:
        if model.binarize is None:
            return super()._map(model, rows, bits)
        return Above(model.binarize, rows.shape[1])


class MultinomialNB(_NaiveBayes, wraps=naive_bayes.MultinomialNB):
    """Counts: see `FineEstimator`."""


class ComplementNB(_NaiveBayes, wraps=naive_bayes.ComplementNB):
    """Counts, in classes of different sizes: see `FineEstimator`."""


class CategoricalNB(_NaiveBayes, wraps=naive_bayes.CategoricalNB):
    """Features that are numbers of categories: see `FineEstimator`.

    The client encrypts bits that tell the categories apart: one less than there are.
    """

    takes_steps: ClassVar[bool] = False  # its features are numbers of categories

    def _map(self, model: Any, rows: np.ndarray, bits: LinearBits) -> FeatureMap:
        del rows, bits
        counts = [np.arange(float(count)) for count in model.n_categories_]
        return Bits([OrdinalCode(numbers[1:] - 0.5, numbers) for numbers in counts])

    def _rows(self, X: Any) -> np.ndarray:
        rows = np.trunc(super()._rows(X))  # as scikit-learn does
        if self.is_fitted:
            _check_categories(rows, self.n_categories_)
        return rows


def _check_categories(rows: np.ndarray, known: np.ndarray) -> None:
    """Raise `InvalidParameterError` for numbers that training did not have."""
    places = np.argwhere((rows < 0) | (rows >= known))
    if places.size:
        row, feature = places[0]
        raise InvalidParameterError(
            f"feature {feature} of row {row} of X is {rows[row, feature]:g}; it takes the numbers "
            f"of {known[feature]} categories, from 0 on: train with min_categories, if there are "
            "more"
        )
