"""What libraries for boosting share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.utils.validation import column_or_1d

from cipherlearn.errors import InvalidParameterError, ModelError
from cipherlearn.sklearn.trees._estimator import TreeClassifier
from cipherlearn.sklearn.trees.ensemble import LEAF, TreeEnsemble

#: Rows that a reading is tried on.
_PROBES = 8


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


def probes(ensemble: TreeEnsemble) -> np.ndarray:
    """Rows of thresholds, categories and missing values, where a wrong reading shows most."""
    known: list[list[float]] = [[np.nan] for _ in range(ensemble.n_features)]
    for tree in ensemble.trees:
        for node in np.flatnonzero(tree.feature != LEAF).tolist():
            if np.isfinite(tree.threshold[node]):
                known[tree.feature[node]].append(float(tree.threshold[node]))
            known[tree.feature[node]] += tree.categories.get(node, ())
    generator = np.random.default_rng(0)
    return np.stack([generator.choice(values, _PROBES) for values in known], axis=1)


def check_reading(
    ensemble: TreeEnsemble,
    scores: Callable[[np.ndarray], np.ndarray],
    rows: np.ndarray,
    library: str,
) -> TreeEnsemble:
    """The ensemble, if it gives the scores that the library gives.

    Between their versions, libraries change what the numbers of a stored model mean.

    Parameters
    ----------
    ensemble : TreeEnsemble
    scores : callable
        The library's own scores of rows, before any link.
    rows : numpy.ndarray of float64, shape (rows, features)
    library : str
        Its name and version.

    Raises
    ------
    ModelError
        If the scores differ.
    """
    theirs = np.asarray(scores(rows), dtype=np.float64).reshape(len(rows), -1)
    ours = ensemble.raw_scores(rows)
    reach = np.abs(ensemble.base).max() + sum(np.abs(t.values).max() for t in ensemble.trees)
    difference = np.abs(theirs - ours).max() if theirs.shape == ours.shape else np.inf
    if not difference <= 1e-5 * max(1.0, reach):
        raise ModelError(
            f"the model is not understood: {library} stores it in a way that is not known here, "
            f"and gives scores that differ by {difference:.3g} from those read. Report it with the "
            "parameters of the model"
        )
    return ensemble
