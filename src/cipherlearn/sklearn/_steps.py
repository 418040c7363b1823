"""Fitted steps of a pipeline, and rows of numbers that go through them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from cipherlearn.errors import ModelError


def dense(values: Any) -> np.ndarray:
    """An array, of a sparse matrix as well."""
    return np.asarray(values.toarray() if sparse.issparse(values) else values)


def named(rows: Any, names: Any) -> Any:
    """Rows with the names that a transformer knows its features by."""
    if names is None or hasattr(rows, "iloc"):
        return rows
    import pandas as pd  # whoever trained a step on names has it

    return pd.DataFrame(rows, columns=names)


def through(steps: Sequence[Any], rows: np.ndarray, names: Any = None) -> np.ndarray:
    """Rows after fitted steps.

    Parameters
    ----------
    steps : sequence of transformers
    rows : numpy.ndarray of float64, shape (rows, features)
    names : array-like of str, optional
        Of the features that the first step takes.

    Raises
    ------
    ModelError
        If a step refuses them.
    """
    for step in steps:
        given = named(rows, getattr(step, "feature_names_in_", names))
        try:
            rows = step.transform(given)
        except Exception as error:
            raise ModelError(
                f"the step {type(step).__name__} refuses rows of numbers in the range of "
                f"training ({type(error).__name__}: {error})"
            ) from error
        names = None
    return dense(rows)
