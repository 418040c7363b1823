"""Steps of pipelines side by side, some of them public: what the client computes, and the rest."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cipherlearn.sklearn._public_steps import is_plain
from cipherlearn.sklearn._steps import dense, through

#: Rows that a step in two parts is compared with the whole on.
_COMPARED_ROWS = 1000


@dataclass(frozen=True)
class Branch:
    """One of the steps side by side, of what is left of them.

    Parameters
    ----------
    step : object or None
        A transformer, or None for what passes.
    width : int
        How many of the columns that the client gives are its own.
    weight : float
        What its new features are multiplied with.
    """

    step: Any
    width: int
    weight: float = 1.0

    def transform(self, rows: np.ndarray) -> np.ndarray:
        """New features of rows of its own columns."""
        return rows if self.step is None else self.weight * through([self.step], rows)


@dataclass(frozen=True)
class SideBySide:
    """What is left of steps side by side once the client has computed those that are public.

    Parameters
    ----------
    branches : tuple of Branch
        In the order of their columns.
    """

    branches: tuple[Branch, ...]

    def transform(self, X: Any) -> np.ndarray:
        """New features of rows, shape (rows, columns that the client gives)."""
        ends = np.cumsum([branch.width for branch in self.branches])[:-1]
        parts = np.split(np.asarray(X, dtype=np.float64), ends, axis=1)
        each = zip(self.branches, parts, strict=True)
        return np.hstack([branch.transform(part) for branch, part in each])


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
    hidden : dict of str to object
        The other branches.
    """

    client: Any
    encrypted: SideBySide
    public: dict[str, Any]
    hidden: dict[str, Any]


class _Passing:
    """Gives columns as they are, and remembers how many there were."""

    width = 0

    def transform(self, X: Any) -> Any:
        self.width = np.shape(X)[1]
        return X

    def get_feature_names_out(self, input_features: Any) -> Any:
        return input_features

    def set_output(self, *, transform: Any = None) -> Any:
        del transform
        return self


def branches_of(step: Any) -> list[tuple[str, Any]]:
    """Names and transformers of a `ColumnTransformer` or `FeatureUnion`; none of other steps."""
    if is_plain(step, "ColumnTransformer"):
        return [(name, part) for name, part, _ in getattr(step, "transformers_", step.transformers)]
    return list(step.transformer_list) if is_plain(step, "FeatureUnion") else []


def split(step: Any, rows: Any, is_public: Callable[[str, Any], bool]) -> Split | None:
    """Part a fitted step of branches; None if one side has all of them, or it cannot be parted.

    Parameters
    ----------
    step : object
    rows : array-like of shape (rows, features)
        Rows that it takes, which the parts are compared with the whole on.
    is_public : callable
        Whether the client may compute a branch, by its name and its transformer.
    """
    every = branches_of(step)
    known = [each for each in every if not _is_string(each[1], "drop")]
    public = {name: part for name, part in known if is_public(name, part)}
    hidden = {name: part for name, part in known if name not in public}
    if not hidden or (not public and len(known) == len(every)):
        return None
    try:
        client, passed = _client_part(step, [*hidden])
        first = rows[:_COMPARED_ROWS]
        given = dense(client.transform(first))
        weights = step.transformer_weights or {}
        widths = {name: each.width for name, each in passed.items()}
        widths |= {name: _width(step, name, part, first) for name, part in public.items()}
        encrypted = SideBySide(
            tuple(
                Branch(part, widths[name], weights.get(name, 1.0))
                if name in hidden and widths[name]
                else Branch(None, widths[name])
                for name, part in known
            )
        )
        whole = np.asarray(dense(step.transform(first)), dtype=np.float64)
        is_same = np.allclose(encrypted.transform(given), whole, rtol=1e-9, equal_nan=True)
    except Exception:  # noqa: BLE001 - transformers raise anything; the step stays whole then
        return None
    return Split(client, encrypted, public, hidden) if is_same else None


def _client_part(step: Any, hidden: list[str]) -> tuple[Any, dict[str, _Passing]]:
    """A copy of a step that passes on the columns of some branches, and what passes them."""
    client, passed = copy.deepcopy(step), {name: _Passing() for name in hidden}
    if hasattr(client, "transformers_"):
        client.transformers_ = [
            (name, passed.get(name, part), columns) for name, part, columns in client.transformers_
        ]
        client.sparse_output_ = False
    else:
        client.transformer_list = [
            (name, passed.get(name, part)) for name, part in client.transformer_list
        ]
    weights = step.transformer_weights or {}
    client.transformer_weights = {n: w for n, w in weights.items() if n not in hidden} or None
    client.n_jobs = None
    client.set_output(transform="default")
    return client, passed


def _width(step: Any, name: str, part: Any, rows: Any) -> int:
    """How many columns a branch of the client gives."""
    if hasattr(step, "output_indices_"):
        place = step.output_indices_[name]
        return int(place.stop - place.start)
    return int(np.shape(rows if _is_string(part, "passthrough") else part.transform(rows))[1])


def _is_string(step: Any, value: str) -> bool:
    return isinstance(step, str) and step == value
