"""Scalers."""

from __future__ import annotations

from sklearn import preprocessing

from cipherlearn.sklearn.linear._estimator import LinearTransformer

PACKAGE = "sklearn"
EXTRA = None


class StandardScaler(LinearTransformer, wraps=preprocessing.StandardScaler):
    """Mean 0, deviation 1: see `LinearEstimator`."""
