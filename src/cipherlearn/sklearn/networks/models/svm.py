"""Support vector machines with kernels."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from sklearn import svm

from cipherlearn.errors import InvalidParameterError
from cipherlearn.sklearn import _kinds as kinds
from cipherlearn.sklearn._agreement import Agreement
from cipherlearn.sklearn._steps import dense
from cipherlearn.sklearn.linear.affine import Affine
from cipherlearn.sklearn.links import Identity, Link
from cipherlearn.sklearn.networks._estimator import KernelMachine
from cipherlearn.sklearn.networks.kernels import Kernel, kernel_machine
from cipherlearn.sklearn.networks.network import Network
from cipherlearn.sklearn.networks.votes import Coupling, Votes, pair_coefficients

PACKAGE = "sklearn"
EXTRA = None


class _Machine(KernelMachine):
    """A sum of kernels with support vectors: one look-up each."""

    @classmethod
    def read(cls, model: Any, center: np.ndarray) -> Affine | Network:
        """The decision function, before votes are counted."""
        kernel = Kernel.of(model.kernel, model._gamma, model.degree, model.coef0)  # noqa: SLF001
        vectors = dense(model.support_vectors_)
        coefficients = cls._coefficients(model)
        return kernel_machine(kernel, vectors, coefficients, model.intercept_, center)

    @classmethod
    def _coefficients(cls, model: Any) -> np.ndarray:
        """Of shape (support vectors, outputs)."""
        return dense(model.dual_coef_).T


class SVR(kinds.Regressor, _Machine, wraps=svm.SVR):
    """Support vector regression: see `NetworkEstimator`."""


class NuSVR(kinds.Regressor, _Machine, wraps=svm.NuSVR):
    """Support vector regression with a share of support vectors: see `NetworkEstimator`."""


class OneClassSVM(kinds.OutlierDetector, _Machine, wraps=svm.OneClassSVM):
    """A support vector machine for outliers: see `NetworkEstimator`."""

    def _predictions(self, scores: np.ndarray) -> np.ndarray:
        return np.where(scores[:, 0] > 0, 1, -1)

    def _agreement(self, scores: np.ndarray, rows: np.ndarray) -> Agreement:
        # Support vectors lie on the border, as near as training comes: these are on no side.
        model = self.sklearn_model
        inside = np.abs(self._library_scores(model, rows)) > model.tol
        kept = inside if inside.any() else slice(None)
        return super()._agreement(scores[kept], rows[kept])


class _Classifier(kinds.Classifier, kinds.Deciding, _Machine):
    """Two classes by the sign of a score; of several, each two vote."""

    # Read when it predicts, as scikit-learn does.
    decision_function_shape: str
    break_ties: bool

    @classmethod
    def _coefficients(cls, model: Any) -> np.ndarray:
        dual = dense(model.dual_coef_)
        return dual.T if len(model.classes_) == 2 else pair_coefficients(dual, model.n_support_)

    @classmethod
    def _library_scores(cls, model: Any, rows: np.ndarray) -> np.ndarray:
        pairwise = copy.copy(model)
        pairwise.decision_function_shape = "ovo"
        return np.asarray(pairwise.decision_function(rows))

    def decision_function(self, X: Any, fhe: str = "disable") -> np.ndarray:
        """Scores of rows, as ``decision_function_shape`` says.

        Parameters
        ----------
        X : array-like of shape (rows, features)
        fhe : {"disable", "simulate", "execute"}, default="disable"
            Exact integers in the clear; with the errors that encryption may cause; encrypted.

        Returns
        -------
        numpy.ndarray of float64
            Of shape (rows,) for two classes; for more, (rows, classes), or (rows, pairs of classes)
            with ``decision_function_shape="ovo"``.
        """
        scores = self._raw(X, fhe)
        if scores.shape[1] == 1:
            return scores[:, 0]
        if self.decision_function_shape == "ovr":
            return Votes(len(self.classes_)).scores(scores)
        return scores

    def _link(self) -> Link:
        model = self.sklearn_model
        if not hasattr(model, "predict_proba"):
            return Identity()
        return Coupling(len(model.classes_), model.probA_, model.probB_)

    def _told(self) -> list[str]:
        told = super()._told()
        if len(self.classes_) > 2:
            told.append("scores of all pairs of classes")
        if isinstance(self._link(), Coupling):
            told.append("slope and offset of the probability of each pair")
        return told

    def _predictions(self, scores: np.ndarray) -> np.ndarray:
        if self.break_ties and self.decision_function_shape == "ovo":
            raise InvalidParameterError(
                "break_ties=True needs decision_function_shape='ovr': ties are broken by its scores"
            )
        votes = Votes(len(self.classes_))
        if scores.shape[1] == 1:
            places = (scores[:, 0] >= 0).astype(np.int64)
        elif self.break_ties:
            places = votes.scores(scores).argmax(axis=1)
        else:
            places = votes.most(scores)
        return np.asarray(self.classes_[places])

    def _agreement(self, scores: np.ndarray, rows: np.ndarray) -> Agreement:
        # Scores of pairs do not say which class is as probable as another.
        return super(kinds.Classifier, self)._agreement(scores, rows)

    def _labels(self, scores: np.ndarray) -> Any:
        # Votes are not the largest score: all of them count.
        return (scores >= 0).astype(np.int64)[:, 0] if scores.shape[1] == 1 else scores


class SVC(_Classifier, wraps=svm.SVC):
    """A support vector machine: see `NetworkEstimator`."""


class NuSVC(_Classifier, wraps=svm.NuSVC):
    """A support vector machine with a share of support vectors: see `NetworkEstimator`."""
