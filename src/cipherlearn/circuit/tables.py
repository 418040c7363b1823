"""Tables of functions, on plain arrays: one row an input, the other axes broadcast to a value."""

from __future__ import annotations

import numpy as np

from cipherlearn.circuit.interval import MAXIMUM_MAGNITUDE, Interval
from cipherlearn.errors import AccumulatorOverflowError


def with_axes(table: np.ndarray, ndim: int) -> np.ndarray:
    """A table with as many axes as the value (and one of rows): leading ones are added."""
    missing = max(0, ndim + 1 - table.ndim)
    return table.reshape(*table.shape[:1], *(1,) * missing, *table.shape[1:])


def without_unread(table: np.ndarray, interval: Interval) -> np.ndarray:
    """The table, with NaN in place of what does not fit 62 bits and is never read.

    Parameters
    ----------
    table : numpy.ndarray, shape (n, *broadcast)
        One row an integer of ``interval.domain``.
    interval : Interval
        Range of the elements that read the table. Those that share a column share its range.
    """
    if table.dtype.kind != "f" or bool((np.abs(table) < MAXIMUM_MAGNITUDE).all()):
        return table
    shared = tuple(axis for axis, extent in enumerate(table.shape[1:]) if extent == 1)
    domain = interval.domain.reshape(-1, *(1,) * (table.ndim - 1))
    below = domain < interval.lo.min(axis=shared, keepdims=True, initial=MAXIMUM_MAGNITUDE)
    above = domain > interval.hi.max(axis=shared, keepdims=True, initial=-MAXIMUM_MAGNITUDE)
    large = ~(np.abs(table) < MAXIMUM_MAGNITUDE)
    return np.where(large & (below | above), np.nan, table)


def to_integers(table: np.ndarray) -> np.ndarray:
    """The table truncated to int64, as `numpy.ndarray.astype` does.

    Where the function is not a number, the nearest entry of its column that is one stands in, 0 if
    there is none.

    Raises
    ------
    AccumulatorOverflowError
        If an entry is infinite, or needs more than 62 bits.
    """
    filled = np.trunc(_filled(table)) if table.dtype.kind == "f" else table
    lowest, highest = (float(filled.min()), float(filled.max())) if filled.size else (0.0, 0.0)
    if max(-lowest, highest) >= MAXIMUM_MAGNITUDE:
        raise AccumulatorOverflowError(
            f"a table has entries from {lowest:g} to {highest:g}, which do not fit 62 bits: clip "
            "the function first"
        )
    return filled.astype(np.int64)


def _filled(table: np.ndarray) -> np.ndarray:
    if not np.isnan(table).any():
        return table
    columns = table.reshape(table.shape[0], -1).copy()
    for column in columns.T:
        _fill(column)
    return columns.reshape(table.shape)


def _fill(column: np.ndarray) -> None:
    """Put the nearest number in place of each NaN; the earlier one of two that are as near."""
    missing = np.isnan(column)
    if missing.all():
        column[:] = 0
        return
    rows = np.flatnonzero(missing)
    known = np.flatnonzero(~missing)
    after = np.clip(np.searchsorted(known, rows), 0, known.size - 1)
    before = np.clip(after - 1, 0, None)
    nearer = np.abs(rows - known[before]) <= np.abs(known[after] - rows)
    column[rows] = column[np.where(nearer, known[before], known[after])]
