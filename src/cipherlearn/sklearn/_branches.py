"""Steps of pipelines side by side, some of them public: what the client computes, and the rest."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cipherlearn.sklearn._steps import dense, named


@dataclass(frozen=True)
class SideBySide:
    """What is left of steps side by side once the client has computed those that are public.

    Parameters
    ----------
    branches : tuple of (object or None, int)
        Transformers, or None for what passes, and how many of the columns that the client gives
        are theirs, in order.
    """

    branches: tuple[tuple[Any, int], ...]

    def transform(self, X: Any) -> np.ndarray:
        """New features of rows, shape (rows, columns that the client gives)."""
        rows, done, found = np.asarray(X), 0, []
        for step, width in self.branches:
            own = rows[:, done : done + width]
            done += width
            names = getattr(step, "feature_names_in_", None)
            found.append(own if step is None else dense(step.transform(named(own, names))))
        return np.hstack(found)


@dataclass(frozen=True)
class Split:
    """A step of branches in two: what the client computes of rows, and what is computed after it.

    Parameters
    ----------
    client : object
        The step with columns passed on where a branch is not public.
    encrypted : SideBySide
    public : dict of str to object
        Branches of the client, by name.
    hidden : list of str
        Names of the other branches.
    """

    client: Any
    encrypted: SideBySide
    public: dict[str, Any]
    hidden: list[str]


class _Passing:
    """Gives columns as they are; of a `ColumnTransformer`, a fitted part."""

    def transform(self, X: Any) -> Any:
        return X

    def get_feature_names_out(self, input_features: Any) -> Any:
        return input_features


def branches_of(step: Any) -> list[tuple[str, Any]]:
    """Names and transformers of a `ColumnTransformer` or `FeatureUnion`; none of other steps."""
    if hasattr(step, "transformers"):
        return [(name, part) for name, part, _ in getattr(step, "transformers_", step.transformers)]
    return [(name, part) for name, part in getattr(step, "transformer_list", [])]


def split(step: Any, rows: Any, is_public: Callable[[str, Any], bool]) -> Split | None:
    """Part a fitted step of branches; None if it has none, or all of them belong to one side.

    Parameters
    ----------
    step : object
    rows : array-like of shape (rows, features)
        Rows that it takes.
    is_public : callable
        Whether the client may compute a branch, by its name and its transformer.
    """
    known = [each for each in branches_of(step) if not _is_string(each[1], "drop")]
    public = {name: part for name, part in known if is_public(name, part)}
    hidden = [name for name, _ in known if name not in public]
    if not public or not hidden:
        return None
    passed = _Passing()
    client = copy.copy(step)
    if hasattr(step, "transformers_"):
        client.transformers_ = [
            (name, passed if name in hidden else part, columns)
            for name, part, columns in step.transformers_
        ]
    else:
        client.transformer_list = [
            (name, passed if name in hidden else part) for name, part in step.transformer_list
        ]
    widths = _widths(step, rows, known, hidden)
    parts = [(part if name in hidden else None, widths[name]) for name, part in known]
    return Split(client, SideBySide(tuple(parts)), public, hidden)


def _widths(
    step: Any, rows: Any, known: list[tuple[str, Any]], hidden: list[str]
) -> dict[str, int]:
    """How many columns the client gives for each branch."""
    found = {name: part.n_features_in_ for name, part in known if name in hidden}
    for name, part in known:
        if name in found:
            continue
        if hasattr(step, "output_indices_"):
            place = step.output_indices_[name]
            found[name] = place.stop - place.start
        else:
            passes = _is_string(part, "passthrough")
            found[name] = np.shape(rows if passes else part.transform(rows))[1]
    return found


def _is_string(step: Any, value: str) -> bool:
    return isinstance(step, str) and step == value
