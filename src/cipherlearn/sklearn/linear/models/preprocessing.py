"""Scalers."""

from __future__ import annotations

from sklearn import preprocessing

from cipherlearn.sklearn.linear._estimator import LinearTransformer

PACKAGE = "sklearn"
EXTRA = None


class StandardScaler(LinearTransformer, wraps=preprocessing.StandardScaler):
    """Mean 0, deviation 1: see `LinearEstimator`."""


class RobustScaler(LinearTransformer, wraps=preprocessing.RobustScaler):
    """Median 0, a distance of 1 between quartiles: see `LinearEstimator`."""


class MinMaxScaler(LinearTransformer, wraps=preprocessing.MinMaxScaler):
    """All features in one range: see `LinearEstimator`."""


class MaxAbsScaler(LinearTransformer, wraps=preprocessing.MaxAbsScaler):
    """Features divided by their largest absolute value: see `LinearEstimator`."""
