"""Whether what was read from a library's model is that model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError as ScikitNotFittedError
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from cipherlearn.errors import CipherlearnError, InvalidTypeError, ModelError
from cipherlearn.sklearn.trees.ensemble import LEAF, TreeEnsemble

#: Rows that a reading is tried on.
PROBES = 16


def is_fitted(model: Any) -> bool:
    """Whether a model that follows scikit-learn's conventions is fitted."""
    try:
        check_is_fitted(model)
    except ScikitNotFittedError:
        return False
    return True


def refuse_composed(model: Any) -> None:
    """Raise `InvalidTypeError` for a pipeline or a search, and say what to take of it."""
    if isinstance(model, Pipeline):
        raise InvalidTypeError(
            "a Pipeline cannot be imported: what comes before the model stays in the clear. Import "
            "its last step, pipeline[-1], with X as pipeline[:-1].transform(X) gives it"
        )
    if isinstance(model, BaseSearchCV):
        raise InvalidTypeError(
            f"a {type(model).__name__} cannot be imported: give the model that it chose, "
            "search.best_estimator_"
        )


def library_of(float_class: type) -> str:
    """The package of a class, with its version."""
    package = float_class.__module__.partition(".")[0]
    return f"{package} {getattr(sys.modules.get(package), '__version__', '(unknown version)')}"


@contextmanager
def reading(float_class: type) -> Iterator[None]:
    """Where a fitted model is read: what it lacks, another version of its library renamed.

    Raises
    ------
    ModelError
        In place of the errors that come of it.
    """
    try:
        yield
    except (AttributeError, LookupError, TypeError) as error:
        if isinstance(error, CipherlearnError):
            raise
        raise ModelError(
            f"the {float_class.__name__} cannot be read: {library_of(float_class)} stores models "
            f"in a way that is not known here ({type(error).__name__}: {error}). Install another "
            "version of the library, or report it with the parameters of the model"
        ) from error


def probes(
    ensemble: TreeEnsemble,
    *,
    missing: bool = True,
    precision: Any = np.float32,
    count: int = PROBES,
) -> np.ndarray:
    """Rows where a wrong reading shows most.

    They hold thresholds, the numbers just below them, categories, and missing values.

    Parameters
    ----------
    ensemble : TreeEnsemble
    missing : bool, default=True
        Whether values may be missing.
    precision : numpy dtype, default=float32
        What values are compared in.
    count : int
        How many rows.
    """
    known: list[list[float]] = [[np.nan] if missing else [] for _ in range(ensemble.n_features)]
    for feature, categories in ensemble.known_categories.items():
        known[feature] += np.asarray(categories).tolist()
    for tree in ensemble.trees:
        for node in np.flatnonzero(tree.feature != LEAF).tolist():
            values = known[tree.feature[node]]
            threshold = precision(tree.threshold[node])
            if np.isfinite(threshold):
                below = np.nextafter(threshold, precision(-np.inf))
                values += [float(threshold), float(below)]
            values += tree.categories.get(node, ())
    generator = np.random.default_rng(0)
    columns = [generator.choice(values or [0.0], count) for values in known]
    return np.stack(columns, axis=1)


def check_reading(
    ours: np.ndarray, theirs: Any, what: str, *, reach: float = 0.0, tolerance: float = 1e-5
) -> None:
    """Raise `ModelError` unless a model as it was read gives what its library gives.

    Between their versions, libraries change what the numbers of a stored model mean.

    Parameters
    ----------
    ours : numpy.ndarray of float64, shape (rows, outputs)
    theirs : array-like of as many numbers
    what : str
        What is wrong if they differ.
    reach : float, default=0.0
        What the results are sums of, where that is greater: they are rounded accordingly.
    tolerance : float, default=1e-5
        How much they may differ, in parts of what is greatest.
    """
    theirs = np.asarray(theirs, dtype=np.float64).reshape(len(ours), -1)
    largest = max(1.0, reach, float(np.abs(theirs).max(initial=0.0)))
    difference = np.abs(theirs - ours).max(initial=0.0) if theirs.shape == ours.shape else np.inf
    if not difference <= tolerance * largest:
        raise ModelError(f"{what} (it gives results that differ by {difference:.3g})")


def split_by_category(ensemble: TreeEnsemble) -> set[int]:
    """The features that some trees split by category."""
    return {int(f) for tree in ensemble.trees for f in tree.feature[list(tree.categories)]}


def reach_of(ensemble: TreeEnsemble) -> float:
    """The sum of the greatest values of all trees."""
    tallest = (float(np.abs(tree.values).max(initial=0.0)) for tree in ensemble.trees)
    return float(np.abs(ensemble.base).max(initial=0.0)) + sum(tallest)


def alike(ours: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Rows of which all labels are alike."""
    rows = len(ours)
    return np.asarray((ours.reshape(rows, -1) == exact.reshape(rows, -1)).all(axis=1))


def as_probable(ours: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Rows of which the most probable class is one of the most probable.

    Leaves of a single tree often have two such classes, and rounding chooses between them.
    """
    chosen = np.take_along_axis(exact, ours.argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.asarray(chosen >= exact.max(axis=1) - 1e-9)


def explained(ours: np.ndarray, exact: np.ndarray) -> float:
    """R2 of values, where the exact ones are the truth; a mean over outputs."""
    rows = len(ours)
    ours, exact = ours.reshape(rows, -1), exact.reshape(rows, -1)
    error, spread = ((ours - exact) ** 2).mean(axis=0), exact.var(axis=0)
    # Values that are all the same have no spread: there, one per cent of them is near enough.
    size = 1e-4 * (exact**2).mean(axis=0)
    constant = spread <= 1e-12 * np.maximum(size, 1e-300)
    found = 1 - error / np.where(constant, 1.0, spread)
    return float(np.where(constant, np.where(error <= size, 1.0, 0.0), found).mean())
