"""Columns of tables as numbers: categories by their place in a list, numbers as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cipherlearn.errors import CipherlearnWarning, InvalidParameterError, warn

#: Dtypes of columns that hold text, or whatever else.
_OBJECTS = frozenset({"object", "str", "string"})


def holds_categories(column: Any) -> bool:
    """Whether a column of a data frame holds categories: their dtype, or values not all numbers."""
    return column.dtype.name == "category" or (
        column.dtype.name in _OBJECTS and not _are_numbers(column)
    )


def check_names(X: Any) -> None:
    """Raise `InvalidParameterError` unless the columns of a data frame have different names."""
    twice = [str(name) for name in X.columns[X.columns.duplicated()].unique()]
    if twice:
        raise InvalidParameterError(
            f"X has several columns of the names {twice}; give each column a name of its own"
        )


def categories_of(column: Any) -> list[Any]:
    """The categories of a column, in the order that numbers them."""
    found: list[Any] = column.astype("category").cat.categories.tolist()
    return found


def numbered(X: Any, categories: Mapping[int, Sequence[Any]]) -> Any:
    """A data frame with numbers in place of categories, and of objects that are numbers.

    Parameters
    ----------
    X : pandas.DataFrame
    categories : mapping of int to sequence
        Place of a column -> its categories in order. Others are as missing values.
    """
    X = X.copy()
    for place, name in enumerate(X.columns):
        column = X[name]
        if place in categories:
            X[name] = _places(column, categories[place])
        elif column.dtype.name in {*_OBJECTS, "category"} and _are_numbers(column):
            X[name] = np.array(
                [np.nan if gap else float(v) for v, gap in zip(column, column.isna(), strict=True)]
            )
    return X


def _places(column: Any, categories: Sequence[Any]) -> np.ndarray:
    """The place of each value among the categories; NaN for others."""
    places = {value: float(place) for place, value in enumerate(categories)}
    found = np.array([places.get(value, np.nan) for value in column], dtype=np.float64)
    present = ~column.isna().to_numpy(dtype=bool)
    unknown = column.to_numpy(dtype=object)[present & np.isnan(found)].tolist()
    if not unknown or not places:
        return found
    kinds = {isinstance(value, str) for value in places}
    if len(unknown) == present.sum() and not kinds & {isinstance(v, str) for v in unknown}:
        raise InvalidParameterError(
            f"column {column.name!r} of X holds values such as {unknown[0]!r}, and none of the "
            f"categories of training, such as {categories[0]!r}: numbers and text are never the "
            "same category. Convert the column to what it was in training"
        )
    if 2 * len(unknown) > present.sum():
        warn(
            f"{len(unknown)} of {present.sum()} values in column {column.name!r} of X, such as "
            f"{unknown[0]!r}, are categories that the model does not know: they count as missing "
            f"values. It knows {len(places)}, such as {categories[0]!r}",
            CipherlearnWarning,
        )
    return found


def refuse_text(X: Any, use: str, takes_categories: bool) -> None:
    """Raise `InvalidParameterError` if values are dates, or strings that are no numbers.

    Parameters
    ----------
    X : array-like of shape (rows, features)
    use : {"train", "predict"}
        What the rows are for.
    takes_categories : bool
        Whether columns of data frames may hold some.
    """
    if isinstance(X, list | tuple):
        X = np.array(X, dtype=object)
    if hasattr(X, "iloc"):
        kinds = [X.iloc[:, place].dtype.kind for place in range(X.shape[1])]
        if dates := [str(n) for n, kind in zip(X.columns, kinds, strict=True) if kind in "mM"]:
            raise InvalidParameterError(
                f"the columns {dates} of X hold dates or durations; this estimator takes numbers: "
                "give what matters of them, such as the year or the days since some day"
            )
        columns = {
            name: np.asarray(X.iloc[:, place], dtype=object)
            for place, (name, kind) in enumerate(zip(X.columns, kinds, strict=True))
            if kind not in "biufc"
        }
    elif isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind in "OU":
        columns = dict(enumerate(X.T))
    else:
        return
    for name, values in columns.items():
        text = next((v for v in values if isinstance(v, str) and not _is_number(v)), None)
        if text is None:
            continue
        if use == "predict":
            advice = "encode it as it was in training"
        elif takes_categories:
            advice = "give a data frame in which the column has the dtype category"
        else:
            advice = (
                "encode it as numbers (as OrdinalEncoder or OneHotEncoder of scikit-learn do), or "
                "take an estimator whose trees know categories: docs/trees.md lists them"
            )
        raise InvalidParameterError(
            f"column {name!r} of X holds text, such as {text!r}; this estimator takes numbers "
            f"there: {advice}"
        )


def check_range(rows: np.ndarray, precision: Any) -> None:
    """Raise `InvalidParameterError` if values are beyond what they are compared in."""
    largest = float(np.finfo(precision).max)
    finite = rows[np.isfinite(rows)]
    if len(beyond := finite[np.abs(finite) > largest]):
        raise InvalidParameterError(
            f"X holds {beyond[0]:.3g}, and the library compares values in {np.dtype(precision)}, "
            f"which ends at {largest:.3g}: scale the feature, or clip it"
        )


def _are_numbers(column: Any) -> bool:
    """Whether all values that are not missing are numbers, or text that spells them."""
    return all(_is_number(value) for value in column[~column.isna()].unique().tolist())


def _is_number(value: Any) -> bool:
    if not isinstance(value, str | bool | int | float | np.number):
        return False
    try:
        return not isinstance(value, complex) and not math.isnan(float(value))
    except (ValueError, TypeError):
        return False
