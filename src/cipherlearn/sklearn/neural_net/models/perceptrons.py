"""Networks that skorch trains."""

from __future__ import annotations

from typing import Any

import numpy as np

from cipherlearn.sklearn import _kinds as kinds
from cipherlearn.sklearn.links import Link, Softmax
from cipherlearn.sklearn.neural_net import nets
from cipherlearn.sklearn.neural_net._estimator import NeuralNet

PACKAGE = "skorch"
EXTRA = "nn"


class NeuralNetClassifier(kinds.Classifier, NeuralNet, wraps=nets.TrainedClassifier):
    """A network for classes: see `NeuralNet`."""

    dense_class = nets.DenseClassifier

    @classmethod
    def _library_scores(cls, model: Any, rows: np.ndarray) -> np.ndarray:
        return np.asarray(model.scores(rows))

    def _link(self) -> Link:
        return Softmax()


class NeuralNetRegressor(kinds.Regressor, NeuralNet, wraps=nets.TrainedRegressor):
    """A network for values, of one target or several: see `NeuralNet`."""

    dense_class = nets.DenseRegressor
