"""Functions of one feature that never fall, or never rise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn import isotonic
from sklearn.base import TransformerMixin

from cipherlearn.errors import InvalidParameterError
from cipherlearn.sklearn._base import without_graph
from cipherlearn.sklearn.linear._estimator import LinearRegressor
from cipherlearn.sklearn.linear.maps import Bits, FeatureMap
from cipherlearn.sklearn.linear.module import LinearBits

if TYPE_CHECKING:
    from typing_extensions import Self

PACKAGE = "sklearn"
EXTRA = None


class IsotonicRegression(
    LinearRegressor,
    TransformerMixin,  # type: ignore[misc]
    wraps=isotonic.IsotonicRegression,
):
    """Isotonic regression: see `LinearEstimator`.

    The client encrypts the bits of the state that its value is in, one of ``2**op_inputs`` at most.
    """

    takes_steps: ClassVar[bool] = False  # the client has to know which values are out of bounds

    def _map(self, model: Any, rows: np.ndarray, bits: LinearBits) -> FeatureMap:
        del model
        return Bits.around(rows, bits.inputs)

    def _trained(self, method: str, X: Any, y: Any, fit_params: Mapping[str, Any]) -> Self:
        return super()._trained(method, _column(X), y, fit_params)

    def _rows(self, X: Any) -> np.ndarray:
        return super()._rows(_column(X))

    def predict(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Values of rows.

        Parameters
        ----------
        X : array-like of shape (rows,) or (rows, 1)
        fhe : {"disable", "simulate", "execute"}, default="disable"

        Returns
        -------
        numpy.ndarray of float64, shape (rows,)
            Outside of the range of training, as ``out_of_bounds`` says.
        """
        self.check_model_is_fitted()
        rows = self._rows(X)
        values = super().predict(X, fhe)
        beyond = ((rows < self.X_min_) | (rows > self.X_max_))[:, 0]
        if self.out_of_bounds == "raise" and beyond.any():
            raise InvalidParameterError(
                f"{rows[beyond][0, 0]:g} is outside of the range of training, from {self.X_min_:g} "
                f"to {self.X_max_:g}, and out_of_bounds='raise': use 'clip' or 'nan'"
            )
        return np.where(beyond, np.nan, values) if self.out_of_bounds == "nan" else values

    def transform(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """As `predict`."""
        return self.predict(X, fhe)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """One name."""
        self.check_model_is_fitted()
        return np.asarray(self.sklearn_model.get_feature_names_out(input_features))


def _column(values: Any) -> Any:
    """One feature, in a table."""
    values = without_graph(values)
    if hasattr(values, "iloc") or np.ndim(values) != 1:
        return values.to_frame() if hasattr(values, "to_frame") else values
    return np.asarray(values)[:, None]
