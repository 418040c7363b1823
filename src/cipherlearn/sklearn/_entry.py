"""Steps that each feature goes through by itself, before its value is compared with cuts.

A comparison after an increasing step is a comparison before it, with another cut: such steps cost
nothing, and the client learns where the cuts are, as it does without the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from cipherlearn.errors import ModelError
from cipherlearn.sklearn.encoding import FeatureCode, OrdinalCode

#: How often the range that a cut is sought in doubles, and is halved: until numbers are neighbours.
_DOUBLINGS, _HALVINGS = 40, 110

Transform = Callable[[np.ndarray], np.ndarray]


def codes_before(
    codes: Sequence[FeatureCode], transform: Transform, rows: np.ndarray
) -> tuple[OrdinalCode, ...]:
    """Codes of features as they are before steps: they have the states of those after them.

    Parameters
    ----------
    codes : sequence of FeatureCode
        Of features after the steps.
    transform : callable
        The steps: rows of shape (rows, features) -> (rows, features).
    rows : numpy.ndarray of float64, shape (rows, features)
        Rows as they are before the steps, for what they are checked on.

    Raises
    ------
    ModelError
        If a feature does not go through the steps by itself, or does not grow with them.
    """
    if any(not isinstance(code, OrdinalCode) for code in codes) or len(codes) != rows.shape[1]:
        raise _not_by_itself()
    known = [code for code in codes if isinstance(code, OrdinalCode)]
    dtype = np.result_type(*(code.cuts.dtype for code in known))
    most = max(1, *(len(code.cuts) for code in known))
    values = np.full((most, len(known)), np.inf, dtype)
    for code, column in zip(known, values.T, strict=True):
        column[: len(code.cuts)] = code.cuts
    ends = ends_before(values, transform, rows)
    found = tuple(
        replace(code, cuts=column[: len(code.cuts)])
        for code, column in zip(known, ends.T, strict=True)
    )
    mixed = np.random.default_rng(0).permuted(rows, axis=0)
    for each in (rows, mixed):
        after = transform(each)
        for feature, (code, given) in enumerate(zip(found, known, strict=True)):
            if not np.array_equal(code.states(each[:, feature]), given.states(after[:, feature])):
                raise _not_by_itself()
    return found


def ends_before(values: np.ndarray, transform: Transform, rows: np.ndarray) -> np.ndarray:
    """The least values of features that steps take to so much; infinite where none is found.

    Parameters
    ----------
    values : numpy.ndarray of float, shape (n, features)
        What is to be reached after the steps, compared in its precision.
    transform : callable
    rows : numpy.ndarray of float64, shape (rows, features)
        Rows as they are before the steps.

    Returns
    -------
    numpy.ndarray of float64, shape (n, features)
    """

    def reaches(given: np.ndarray) -> np.ndarray:
        after = transform(given)
        if after.shape != given.shape:
            raise _not_by_itself()
        return np.asarray(after.astype(values.dtype) >= values)

    low, high = (np.tile(end(rows, axis=0), (len(values), 1)) for end in (np.nanmin, np.nanmax))
    width = np.where(high > low, high - low, np.maximum(np.abs(high), 1.0))
    for _ in range(_DOUBLINGS):
        above, below = reaches(low), ~reaches(high)
        if not above.any() and not below.any():
            break
        low, high = np.where(above, low - width, low), np.where(below, high + width, high)
        width = 2 * width
    never, always = ~reaches(high), reaches(low)
    for _ in range(_HALVINGS):
        middle = low + (high - low) / 2
        reached = reaches(middle)
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return np.where(never, np.inf, np.where(always, -np.inf, high))


def _not_by_itself() -> ModelError:
    return ModelError(
        "the model compares features, and these steps mix them, or turn their order around: only "
        "those that each feature goes through by itself can be left to its comparisons"
    )
