"""What the client sends of a feature: bits that any function of it is linear in.

A feature is in one of a few **states**: the interval between two cuts that its value lies in, its
category, or missing. Numbers are sent in unary (thermometer) code: one bit a cut, "is the value at
least that". Categories are sent one-hot. State 0 has no bit set, and every other state has a
pattern of its own, so that any function of the state is ``constant + coefficients @ bits``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

#: Stands for all categories that have no state: these are counted from 0.
OTHER_CATEGORY = -1.0


class FeatureCode(ABC):
    """The states of one feature, and their bits."""

    @property
    @abstractmethod
    def n_states(self) -> int:
        """How many states there are."""

    @property
    @abstractmethod
    def representatives(self) -> np.ndarray:
        """A value in each state; NaN where the value is missing. Shape (states,)."""

    @abstractmethod
    def states(self, values: np.ndarray) -> np.ndarray:
        """The state of each value, as int64."""

    @abstractmethod
    def coefficients(self, function: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What bits are multiplied with to give a function of the state.

        Parameters
        ----------
        function : numpy.ndarray of int64, shape (states, ...)

        Returns
        -------
        (coefficients, constant)
            Of shapes (bits, ...) and (...).
        """

    #: Whether a value may be missing: not if it is ``"refused"``.
    missing: str

    @property
    def n_bits(self) -> int:
        """How many bits are sent."""
        return self.n_states - 1

    @abstractmethod
    def bits(self, states: np.ndarray) -> np.ndarray:
        """The bits of states, as booleans of shape (rows, bits)."""

    @abstractmethod
    def coarse(self, states: int) -> np.ndarray:
        """Bits that tell about so many states apart, evenly spread, and the missing ones.

        Which they are depends on the code alone. Shape (bits,), as booleans.
        """

    @abstractmethod
    def merged(self, told_apart: np.ndarray) -> FeatureCode:
        """A code with fewer states, of which all given functions are functions still.

        Parameters
        ----------
        told_apart : numpy.ndarray of bool, shape (functions, states)
        """


@dataclass(frozen=True, eq=False)
class OrdinalCode(FeatureCode):
    """Numbers, in unary code. They are compared in the precision of the cuts.

    Parameters
    ----------
    cuts : numpy.ndarray of float32 or float64, shape (n,)
        Ascending. The state of a value is the number of cuts that it reaches.
    points : numpy.ndarray, shape (n + 1,)
        A value in each state: what trees are trained on.
    missing : {"refused", "lowest", "own"}, default="refused"
        Missing values: an error; as what lies below all cuts; the last state, with a bit of its
        own.
    """

    cuts: np.ndarray
    points: np.ndarray
    missing: str = "refused"

    @classmethod
    def between(cls, cuts: np.ndarray, missing: str = "refused") -> OrdinalCode:
        """States that nothing is known of but their cuts, which may be in any order."""
        cuts = np.unique(cuts)
        ends = np.concatenate([2 * cuts[:1] - cuts[1:2], cuts, 2 * cuts[-1:] - cuts[-2:-1]])
        if len(cuts) < 2:
            ends = np.concatenate([cuts - 1, cuts, cuts + 1])
        points = (ends[1:] + ends[:-1]) / 2
        # Between neighbouring numbers there is none.
        points[1:] = np.where(points[1:] < ends[2:], points[1:], ends[1:-1])
        points[:1] = np.minimum(points[:1], np.nextafter(cuts[:1], cuts.dtype.type(-np.inf)))
        return cls(cuts, points if len(cuts) else np.zeros(1, dtype=cuts.dtype), missing)

    @property
    def n_states(self) -> int:
        """One more than there are cuts, and that of missing values."""
        return len(self.points) + (self.missing == "own")

    @property
    def representatives(self) -> np.ndarray:
        """The points, and NaN."""
        gap = np.full(int(self.missing == "own"), np.nan)
        return np.concatenate([self.points.astype(np.float64), gap])

    def states(self, values: np.ndarray) -> np.ndarray:
        """How many cuts a value reaches."""
        found = np.searchsorted(self.cuts, values.astype(self.cuts.dtype), side="right")
        return np.where(np.isnan(values), len(self.points) if self.missing == "own" else 0, found)

    def coefficients(self, function: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Differences of neighbours."""
        known = function[: len(self.points)]
        missing = function[len(known) :] - function[:1]
        return np.concatenate([np.diff(known, axis=0), missing]), function[0]

    def bits(self, states: np.ndarray) -> np.ndarray:
        """One a cut, and one for a missing value."""
        missing = states[:, None] == len(self.points)
        known = (states[:, None] >= np.arange(1, len(self.points))) & ~missing
        return np.concatenate([known, missing], axis=1) if self.missing == "own" else known

    def coarse(self, states: int) -> np.ndarray:
        """Cuts with about as many others between them."""
        kept = np.zeros(self.n_bits, dtype=bool)
        kept[len(self.cuts) :] = True
        known = len(self.points)
        places = np.arange(1, states) * known // states if known > states else np.arange(1, known)
        kept[places - 1] = True
        return kept

    def merged(self, told_apart: np.ndarray) -> FeatureCode:
        """Without the cuts that no function needs."""
        known = told_apart[:, : len(self.points)]
        needed = (known[:, 1:] != known[:, :-1]).any(axis=0)
        points = self.points[np.concatenate([[True], needed])]
        as_lowest = not (told_apart[:, -1:] != known[:, :1]).any()
        missing = "lowest" if self.missing == "own" and as_lowest else self.missing
        return OrdinalCode(self.cuts[needed], points, missing)


@dataclass(frozen=True, eq=False)
class CategoricalCode(FeatureCode):
    """Categories, one-hot.

    Parameters
    ----------
    categories : numpy.ndarray of float64, shape (n,)
        Ascending. State 0 is that of all other categories.
    missing : {"lowest", "own"}, default="lowest"
        Missing values: as other categories; the last state, with a bit of its own.
    """

    categories: np.ndarray
    missing: str = "lowest"

    @property
    def n_states(self) -> int:
        """One more than there are categories, and that of missing values."""
        return len(self.categories) + 1 + (self.missing == "own")

    @property
    def representatives(self) -> np.ndarray:
        """The categories, after NaN; or after what is none of them, and before NaN."""
        if self.missing == "own":
            return np.concatenate([[OTHER_CATEGORY], self.categories, [np.nan]])
        return np.concatenate([[np.nan], self.categories])

    def states(self, values: np.ndarray) -> np.ndarray:
        """The place of a category, counted from 1."""
        place = np.searchsorted(self.categories, values)
        known = np.where(np.isin(values, self.categories), place + 1, 0)
        return np.where(np.isnan(values) & (self.missing == "own"), self.n_states - 1, known)

    def coefficients(self, function: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Differences to state 0."""
        return function[1:] - function[:1], function[0]

    def bits(self, states: np.ndarray) -> np.ndarray:
        """One a category, and one for a missing value."""
        return np.asarray(states[:, None] == np.arange(1, self.n_states))

    def coarse(self, states: int) -> np.ndarray:
        """All bits: categories have no order in which some would be enough."""
        del states
        return np.ones(self.n_bits, dtype=bool)

    def merged(self, told_apart: np.ndarray) -> FeatureCode:
        """Without the categories that no function tells from the others."""
        needed = (told_apart[:, 1:] != told_apart[:, :1]).any(axis=0)
        as_others = self.missing == "own" and not needed[-1]
        categories = self.categories[needed[: len(self.categories)]]
        return CategoricalCode(categories, "lowest" if as_others else self.missing)


def feature_code(
    values: np.ndarray, bits: int, *, categorical: bool = False, precision: Any = np.float32
) -> FeatureCode:
    """The states of one feature, from its training values alone.

    Cuts divide the mean of two distributions evenly: that of the values, and the uniform one over
    their range. The latter alone wastes states on outliers, the former on what is common; this way
    each has half of the states at least. Few values have a state each.

    Parameters
    ----------
    values : numpy.ndarray of float64, shape (rows,)
        NaN where a value is missing.
    bits : int
        At most ``2**bits`` states, beside that of missing values.
    categorical : bool, default=False
        Whether values are numbers of categories: each has a state then, however many there are.
    precision : numpy dtype, default=float32
        What values are compared in.
    """
    present = values[~np.isnan(values)]
    known = np.unique(present)
    if categorical:
        return CategoricalCode(known)
    code = OrdinalCode.between(_cuts(known, present, 2**bits).astype(precision))
    states = code.states(present)
    count = np.bincount(states, minlength=code.n_states)
    total = np.bincount(states, weights=present, minlength=code.n_states)
    means = (total / np.maximum(count, 1)).astype(precision)
    # Of values that are nearly equal, the mean may round into another state.
    usable = (count > 0) & (code.states(means) == np.arange(code.n_states))
    points = np.where(usable, means, code.points)
    return replace(code, points=points, missing="own" if len(present) < len(values) else "refused")


def _cuts(known: np.ndarray, present: np.ndarray, states: int) -> np.ndarray:
    if len(known) <= states:
        return np.asarray((known[1:] + known[:-1]) / 2)
    counts = np.unique(present, return_counts=True)[1]
    by_count = (np.cumsum(counts) - counts / 2) / len(present)
    by_distance = (known - known[0]) / (known[-1] - known[0])
    # The mean of both distributions: whatever the outliers, half of the states follow the counts.
    return np.interp(np.arange(1, states) / states, (by_count + by_distance) / 2, known)
