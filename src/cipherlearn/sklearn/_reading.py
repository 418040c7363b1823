"""Whether a model of another library can be read, and what was read is that model."""

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
            "a Pipeline is no single model: import all of it with cipherlearn.sklearn.from_model, "
            "or its last step, pipeline[-1], with X as pipeline[:-1].transform(X) gives it"
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
