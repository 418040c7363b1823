"""Random projections, which keep distances."""

from __future__ import annotations

from sklearn import random_projection

from cipherlearn.sklearn.linear._estimator import LinearTransformer

PACKAGE = "sklearn"
EXTRA = None


class GaussianRandomProjection(LinearTransformer, wraps=random_projection.GaussianRandomProjection):
    """Sums of features with normal weights: see `LinearEstimator`."""


class SparseRandomProjection(LinearTransformer, wraps=random_projection.SparseRandomProjection):
    """Sums of few features each: see `LinearEstimator`."""
