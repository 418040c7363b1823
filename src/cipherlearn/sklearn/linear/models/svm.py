"""Linear support vector machines."""

from __future__ import annotations

from sklearn import svm

from cipherlearn.sklearn.linear._estimator import LinearClassifier, LinearRegressor

PACKAGE = "sklearn"
EXTRA = None


class LinearSVC(LinearClassifier, wraps=svm.LinearSVC):
    """A support vector machine without a kernel: see `LinearEstimator`."""


class LinearSVR(LinearRegressor, wraps=svm.LinearSVR):
    """Support vector regression without a kernel: see `LinearEstimator`."""
