"""Linear discriminant analysis."""

from __future__ import annotations

from sklearn import discriminant_analysis

from cipherlearn.sklearn.linear._estimator import LinearClassifier

PACKAGE = "sklearn"
EXTRA = None


class LinearDiscriminantAnalysis(
    LinearClassifier, wraps=discriminant_analysis.LinearDiscriminantAnalysis
):
    """Classes of equal covariance: see `LinearEstimator`."""
