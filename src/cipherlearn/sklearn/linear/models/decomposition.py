"""Projections on few components."""

from __future__ import annotations

from sklearn import decomposition

from cipherlearn.sklearn.linear._estimator import LinearTransformer

PACKAGE = "sklearn"
EXTRA = None


class PCA(LinearTransformer, wraps=decomposition.PCA):
    """Principal components: see `LinearEstimator`."""


class IncrementalPCA(LinearTransformer, wraps=decomposition.IncrementalPCA):
    """Principal components, found batch by batch: see `LinearEstimator`."""


class TruncatedSVD(LinearTransformer, wraps=decomposition.TruncatedSVD):
    """Singular vectors, without centering: see `LinearEstimator`."""


class FactorAnalysis(LinearTransformer, wraps=decomposition.FactorAnalysis):
    """Means of latent factors: see `LinearEstimator`."""


class FastICA(LinearTransformer, wraps=decomposition.FastICA):
    """Independent components: see `LinearEstimator`."""


class SparsePCA(LinearTransformer, wraps=decomposition.SparsePCA):
    """Components of few features each: see `LinearEstimator`."""


class MiniBatchSparsePCA(LinearTransformer, wraps=decomposition.MiniBatchSparsePCA):
    """`SparsePCA`, found batch by batch: see `LinearEstimator`."""
