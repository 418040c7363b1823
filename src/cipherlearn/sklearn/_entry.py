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
) -> tuple[FeatureCode, ...]:
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
    if len(codes) != rows.shape[1]:
        raise _not_by_itself()
    known = {f: code for f, code in enumerate(codes) if isinstance(code, OrdinalCode)}
    _check_gaps(codes, transform, rows)
    dtype = np.result_type(np.float32, *(code.cuts.dtype for code in known.values()))
    most = max(1, *(len(code.cuts) for code in known.values())) if known else 1
    values = np.full((most, len(codes)), np.inf, dtype)
    for feature, ordinal in known.items():
        values[: len(ordinal.cuts), feature] = ordinal.cuts
    ends = ends_before(values, transform, rows)
    found = tuple(
        replace(code, cuts=ends[: len(code.cuts), f]) if isinstance(code, OrdinalCode) else code
        for f, code in enumerate(codes)
    )
    for each in _probes(rows):
        after = transform(each)
        for given, taken, code, before in zip(each.T, after.T, codes, found, strict=True):
            is_same = isinstance(code, OrdinalCode) or np.array_equal(given, taken, equal_nan=True)
            if not is_same or not np.array_equal(before.states(given), code.states(taken)):
                raise _not_by_itself()
    _check_others_stay(transform, rows)
    return found


def _probes(rows: np.ndarray) -> list[np.ndarray]:
    """Rows; features of several of them together; and values between those, and beyond."""
    mixed = np.random.default_rng(0).permuted(rows, axis=0)
    ordered = np.sort(rows, axis=0)
    beyond = np.nan_to_num(np.nanmax(rows, axis=0) - np.nanmin(rows, axis=0)) + 1.0
    between = (ordered[1:] + ordered[:-1]) / 2
    ends = np.stack([np.nanmin(rows, axis=0) - beyond, np.nanmax(rows, axis=0) + beyond])
    return [rows, mixed, np.concatenate([between, ends])]


def _check_others_stay(transform: Transform, rows: np.ndarray) -> None:
    """Raise `ModelError` if a feature that moves takes others with it."""
    whole = rows[~np.isnan(rows).any(axis=1)]
    if not len(whole):
        return
    n_features = rows.shape[1]
    for end in (whole.min(axis=0), whole.max(axis=0)):
        moved = np.tile(whole[0], (n_features, 1))
        np.fill_diagonal(moved, end)
        changed = transform(moved) != transform(whole[:1])
        if changed[~np.eye(n_features, dtype=bool)].any():
            raise _not_by_itself()


def _check_gaps(codes: Sequence[FeatureCode], transform: Transform, rows: np.ndarray) -> None:
    """Raise `ModelError` if steps do something about missing values."""
    tried = rows[np.isnan(rows).any(axis=1)]
    if any(code.missing != "refused" for code in codes):  # there may be some though none is here
        tried = np.concatenate([tried, np.full((1, len(codes)), np.nan)])
    if len(tried):
        after = transform(tried)
        if after.shape != tried.shape or (np.isnan(tried) & ~np.isnan(after)).any():
            raise ModelError("these steps fill in missing values, and only the client sees them")


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
