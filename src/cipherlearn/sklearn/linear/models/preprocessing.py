"""Scalers."""

from __future__ import annotations

from typing import Any

from sklearn import preprocessing

from cipherlearn.errors import ModelError
from cipherlearn.sklearn.linear._estimator import LinearTransformer
from cipherlearn.sklearn.linear.affine import Affine

PACKAGE = "sklearn"
EXTRA = None


class StandardScaler(LinearTransformer, wraps=preprocessing.StandardScaler):
    """Mean 0, deviation 1: see `LinearEstimator`."""


class RobustScaler(LinearTransformer, wraps=preprocessing.RobustScaler):
    """Median 0, a distance of 1 between quartiles: see `LinearEstimator`."""


class _Unclipped(LinearTransformer):
    """A scaler that may cut off what training had not: that is no affine function."""

    @classmethod
    def read(cls, model: Any) -> Affine:
        if model.clip:
            name = type(model).__name__
            raise ModelError(
                f"{name}(clip=True) cuts off values beyond those of training, which is no sum of "
                f"products: use {name}(clip=False). Features are cut off all the same when they "
                "are quantized"
            )
        return super().read(model)


class MinMaxScaler(_Unclipped, wraps=preprocessing.MinMaxScaler):
    """All features in one range: see `LinearEstimator`."""


class MaxAbsScaler(_Unclipped, wraps=preprocessing.MaxAbsScaler):
    """Features divided by their largest absolute value: see `LinearEstimator`."""
