"""What libraries for boosting share."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import column_or_1d

from cipherlearn.errors import InvalidParameterError
from cipherlearn.sklearn.trees._estimator import TreeClassifier


class BoostedClassifier(TreeClassifier):
    """A classifier of one label a row, that needs at least two of them.

    Attributes
    ----------
    classes_ : numpy.ndarray of shape (classes,)
        The labels of training, sorted.
    """

    def _checked(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        rows, labels = super()._checked(X, y)
        labels = column_or_1d(labels, warn=True)
        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2:
            raise InvalidParameterError(
                f"y holds one class only, {self.classes_.tolist()}: a classifier needs rows of "
                "two classes at least"
            )
        return rows, labels
