"""Perceptrons of several layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import neural_network

from cipherlearn.sklearn import _kinds as kinds
from cipherlearn.sklearn.linear.affine import Affine
from cipherlearn.sklearn.links import Exponential, Identity, Link, Logistic, Probability, Softmax
from cipherlearn.sklearn.networks._estimator import NetworkEstimator
from cipherlearn.sklearn.networks.network import Layer, Network

PACKAGE = "sklearn"
EXTRA = None

#: Operators of ONNX for the activations.
FUNCTIONS = {"identity": "", "logistic": "Sigmoid", "relu": "Relu", "tanh": "Tanh"}


class _Perceptron(NetworkEstimator):
    """Layers of weights, with a function after each but the last."""

    _built_for = ("activation",)

    def _as_library(self, scores: np.ndarray) -> np.ndarray:
        return self._link()(scores)

    @classmethod
    def read(cls, model: Any, center: np.ndarray) -> Affine | Network:
        """The layers; what has no function between becomes one."""
        del center
        arrays = (
            [np.asarray(a, np.float64) for a in of] for of in (model.coefs_, model.intercepts_)
        )
        pairs = list(zip(*arrays, strict=True))
        function = FUNCTIONS[model.activation]
        if not function or len(pairs) == 1:
            product, total = pairs[0]
            for weights, constant in pairs[1:]:
                product, total = product @ weights, total @ weights + constant
            return Affine(product, total)
        hidden = tuple(Layer(weights, constant, function) for weights, constant in pairs[:-1])
        return Network((*hidden, Layer(*pairs[-1])))


class MLPRegressor(kinds.Regressor, _Perceptron, wraps=neural_network.MLPRegressor):
    """A perceptron of several layers, for values: see `NetworkEstimator`."""

    def _link(self) -> Link:
        is_count = self.sklearn_model.out_activation_ == "exp"  # with loss="poisson"
        return Exponential() if is_count else Identity()


class MLPClassifier(kinds.Classifier, _Perceptron, wraps=neural_network.MLPClassifier):
    """A perceptron of several layers, for classes: see `NetworkEstimator`."""

    @classmethod
    def _library_scores(cls, model: Any, rows: np.ndarray) -> np.ndarray:
        return np.asarray(model.predict_proba(rows))

    @property
    def _is_multilabel(self) -> bool:
        binarizer = self.sklearn_model._label_binarizer  # noqa: SLF001 - nothing else tells it
        return bool(binarizer.y_type_.startswith("multilabel"))

    def _link(self) -> Link:
        if self._is_multilabel:
            return Probability()
        return Logistic() if self.sklearn_model.n_outputs_ == 1 else Softmax()

    def _predictions(self, scores: np.ndarray) -> np.ndarray:
        if self._is_multilabel:
            return (scores > 0).astype(np.int64)
        return np.asarray(super()._predictions(scores))

    def _labels(self, scores: np.ndarray) -> Any:
        if scores.shape[1] == 1:
            return (scores > 0).astype(np.int64)[:, 0]
        return scores if self._is_multilabel else None
