"""Linear models, generalized ones, and those trained by gradient descent."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn import linear_model
from sklearn.metrics import check_scoring, d2_tweedie_score

from cipherlearn.errors import ModelError
from cipherlearn.sklearn import _kinds as kinds
from cipherlearn.sklearn.linear._estimator import (
    LinearClassifier,
    LinearOutlierDetector,
    LinearRegressor,
)
from cipherlearn.sklearn.linear.affine import Affine
from cipherlearn.sklearn.linear.maps import FeatureMap
from cipherlearn.sklearn.links import ClippedMargin, Exponential, Identity, Link, OneVersusRest

PACKAGE = "sklearn"
EXTRA = None


class LinearRegression(LinearRegressor, wraps=linear_model.LinearRegression):
    """Ordinary least squares: see `LinearEstimator`."""


class Ridge(LinearRegressor, wraps=linear_model.Ridge):
    """Least squares with a squared penalty: see `LinearEstimator`."""


class RidgeCV(LinearRegressor, wraps=linear_model.RidgeCV):
    """`Ridge` with a penalty chosen by cross-validation: see `LinearEstimator`."""


class Lasso(LinearRegressor, wraps=linear_model.Lasso):
    """Least squares with a penalty on absolute weights: see `LinearEstimator`."""


class LassoCV(LinearRegressor, wraps=linear_model.LassoCV):
    """`Lasso` with a penalty chosen by cross-validation: see `LinearEstimator`."""


class ElasticNet(LinearRegressor, wraps=linear_model.ElasticNet):
    """Least squares with both penalties: see `LinearEstimator`."""


class ElasticNetCV(LinearRegressor, wraps=linear_model.ElasticNetCV):
    """`ElasticNet` with penalties chosen by cross-validation: see `LinearEstimator`."""


class MultiTaskLasso(LinearRegressor, wraps=linear_model.MultiTaskLasso):
    """`Lasso` of several targets that share their features: see `LinearEstimator`."""


class MultiTaskElasticNet(LinearRegressor, wraps=linear_model.MultiTaskElasticNet):
    """`ElasticNet` of several targets that share their features: see `LinearEstimator`."""


class MultiTaskLassoCV(LinearRegressor, wraps=linear_model.MultiTaskLassoCV):
    """`MultiTaskLasso` with a penalty chosen by cross-validation: see `LinearEstimator`."""


class MultiTaskElasticNetCV(LinearRegressor, wraps=linear_model.MultiTaskElasticNetCV):
    """`MultiTaskElasticNet` with penalties chosen by cross-validation: see `LinearEstimator`."""


class Lars(LinearRegressor, wraps=linear_model.Lars):
    """Least-angle regression: see `LinearEstimator`."""


class LassoLars(LinearRegressor, wraps=linear_model.LassoLars):
    """`Lasso` by least-angle regression: see `LinearEstimator`."""


class LarsCV(LinearRegressor, wraps=linear_model.LarsCV):
    """`Lars` of as many steps as cross-validation finds best: see `LinearEstimator`."""


class LassoLarsCV(LinearRegressor, wraps=linear_model.LassoLarsCV):
    """`LassoLars` with a penalty chosen by cross-validation: see `LinearEstimator`."""


class LassoLarsIC(LinearRegressor, wraps=linear_model.LassoLarsIC):
    """`LassoLars` with a penalty chosen by an information criterion: see `LinearEstimator`."""


class OrthogonalMatchingPursuit(LinearRegressor, wraps=linear_model.OrthogonalMatchingPursuit):
    """Least squares on few features: see `LinearEstimator`."""


class OrthogonalMatchingPursuitCV(LinearRegressor, wraps=linear_model.OrthogonalMatchingPursuitCV):
    """`OrthogonalMatchingPursuit` of as many features as are best: see `LinearEstimator`."""


class BayesianRidge(kinds.Expecting, LinearRegressor, wraps=linear_model.BayesianRidge):
    """`Ridge` with a penalty found by Bayes' rule; gives no deviations: see `LinearEstimator`."""


class ARDRegression(kinds.Expecting, LinearRegressor, wraps=linear_model.ARDRegression):
    """`BayesianRidge` with a penalty for each weight: see `LinearEstimator`."""


class HuberRegressor(LinearRegressor, wraps=linear_model.HuberRegressor):
    """Robust to outliers in the targets: see `LinearEstimator`."""


class QuantileRegressor(LinearRegressor, wraps=linear_model.QuantileRegressor):
    """Gives a quantile instead of the mean: see `LinearEstimator`."""


class TheilSenRegressor(LinearRegressor, wraps=linear_model.TheilSenRegressor):
    """A median of least squares on subsets: see `LinearEstimator`."""


class RANSACRegressor(LinearRegressor, wraps=linear_model.RANSACRegressor):
    """Least squares on the rows that agree, with any linear estimator: see `LinearEstimator`."""

    def _read(self, model: Any, mapped: FeatureMap, rows: np.ndarray) -> Affine:
        try:
            return super()._read(model, mapped, rows)
        except ModelError as error:
            raise ModelError(
                f"RANSACRegressor holds a {type(model.estimator_).__name__}, which is not linear; "
                "only linear estimators can be encrypted in it"
            ) from error


class SGDRegressor(LinearRegressor, wraps=linear_model.SGDRegressor):
    """A linear model trained by gradient descent: see `LinearEstimator`."""


class _Generalized(LinearRegressor):
    """A generalized linear model: the client computes the inverse of its link."""

    #: How variance grows with the mean, where that is no parameter.
    _power: ClassVar[float] = 1.0

    @classmethod
    def _library_scores(cls, model: Any, rows: np.ndarray) -> np.ndarray:
        # Not by predictions: their logarithm is lost where they are zero to a computer.
        return np.asarray(rows @ model.coef_ + model.intercept_)

    def _link(self) -> Link:
        return Exponential() if _is_logarithmic(self.sklearn_model) else Identity()

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """D2, the share of deviance that is explained, as scikit-learn's models have it."""
        values = self.predict(X)
        power = getattr(self.sklearn_model, "power", self._power)
        return float(d2_tweedie_score(y, values, sample_weight=sample_weight, power=power))


def _is_logarithmic(model: Any) -> bool:
    """Whether the scores of a generalized model are logarithms of its values."""
    link = getattr(model, "link", "log")
    return link == "log" or (link == "auto" and model.power > 0)


class PoissonRegressor(_Generalized, wraps=linear_model.PoissonRegressor):
    """Counts: see `LinearEstimator`."""


class GammaRegressor(_Generalized, wraps=linear_model.GammaRegressor):
    """Positive values whose deviation grows with them: see `LinearEstimator`."""

    _power = 2.0


class TweedieRegressor(_Generalized, wraps=linear_model.TweedieRegressor):
    """Between counts and positive values: see `LinearEstimator`."""


class LogisticRegression(LinearClassifier, wraps=linear_model.LogisticRegression):
    """Logistic regression, multinomial for several classes: see `LinearEstimator`."""


class LogisticRegressionCV(LinearClassifier, wraps=linear_model.LogisticRegressionCV):
    """`LogisticRegression` with penalties chosen by cross-validation: see `LinearEstimator`."""

    def score(self, X: Any, y: Any, **score_params: Any) -> float:
        """By what penalties were chosen by: ``scoring``, or else accuracy."""
        if self.scoring in {None, "warn"}:
            return float(super().score(X, y, **score_params))
        return float(check_scoring(self, self.scoring)(self, X, y, **score_params))


class _Binarized(LinearClassifier):
    """Least squares on labels of -1 and 1, one or several a row."""

    def _predictions(self, scores: np.ndarray) -> np.ndarray:
        """The class of each row; of several labels a row, 0 or 1 for each."""
        binarizer = self.sklearn_model._label_binarizer  # noqa: SLF001 - nothing else tells it
        if binarizer.y_type_.startswith("multilabel"):
            return (scores > 0).astype(np.int64)
        return super()._predictions(scores)


class RidgeClassifier(_Binarized, wraps=linear_model.RidgeClassifier):
    """`Ridge` on labels of -1 and 1, one or several a row: see `LinearEstimator`."""


class RidgeClassifierCV(_Binarized, wraps=linear_model.RidgeClassifierCV):
    """`RidgeClassifier` with a penalty chosen by cross-validation: see `LinearEstimator`."""


class Perceptron(LinearClassifier, wraps=linear_model.Perceptron):
    """The perceptron: see `LinearEstimator`."""


class SGDClassifier(LinearClassifier, wraps=linear_model.SGDClassifier):
    """A linear model trained by gradient descent, in the clear: see `LinearEstimator`."""

    def _link(self) -> Link:
        if self.sklearn_model.loss == "modified_huber":
            return ClippedMargin()
        return super()._link() if len(self.classes_) == 2 else OneVersusRest()


class SGDOneClassSVM(LinearOutlierDetector, wraps=linear_model.SGDOneClassSVM):
    """A linear one-class SVM, for outliers: see `LinearEstimator`."""
