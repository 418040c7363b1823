"""Models that answer by the nearest of a few centers."""

from __future__ import annotations

from typing import Any

import numpy as np

from cipherlearn.errors import CalibrationWarning, warn
from cipherlearn.sklearn.neighbors._estimator import NeighborsEstimator
from cipherlearn.sklearn.neighbors.distances import Grid
from cipherlearn.sklearn.neighbors.selection import Ranked, Selection


class CentersEstimator(NeighborsEstimator):
    """A model that answers by the nearest center: the client learns which one it is.

    Of the nearest centers, if they are about as near, any may be it.
    """

    @property
    def _told(self) -> tuple[str, str, str]:
        return (
            "ranges of the features",
            "with each answer, which center is the nearest",
            "with each answer, the distances from all centers, which tell where these are",
        )

    def _selection(self, model: Any, grid: Grid, bits: int) -> Selection | None:
        centers = self.read(model)
        if len(centers) == 1:
            return None
        return Ranked.fitted(centers, grid, 1, bits, self._offsets(model))

    def _counted(self, model: Any) -> np.ndarray:
        return np.eye(len(self.read(model)), dtype=np.int64)

    def _nearest(self, scores: np.ndarray) -> np.ndarray:
        """The place of each row's center, of counts or of distances."""
        if self._reveals:
            return np.asarray(scores.argmin(axis=1))
        if (without := np.count_nonzero(~scores.any(axis=1))) > 0:
            warn(
                f"no center is the nearest of {without} rows: several are about as near, and "
                "comparing each with each by rounded differences went in a circle. They are taken "
                "for the first one's",
                CalibrationWarning,
            )
        return np.asarray(scores.argmax(axis=1))
