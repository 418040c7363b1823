"""How far quantized answers are those of the float model, and what users are told of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cipherlearn.errors import AgreementWarning, warn

#: Shares below which users are warned: of labels, of values.
LEAST_ALIKE, LEAST_EXPLAINED = 0.99, 0.98

#: Shares from which on more bits change nothing that matters.
CLOSE_ALIKE, CLOSE_EXPLAINED = 0.999, 0.9999

#: The same of median errors.
MOST_TYPICAL_ERROR, CLOSE_TYPICAL_ERROR = 0.1, 0.02


@dataclass(frozen=True)
class Agreement:
    """How far answers are alike.

    Parameters
    ----------
    share : float
        Of rows with the same label; of values, R2 with the float model's as the truth.
    rows : int
        How many were compared.
    of_values : bool
    typical_error : float, default=0.0
        Of values: the median error, in units of the distance between their quartiles. R2 may be
        decided by a few large values alone.
    """

    share: float
    rows: int
    of_values: bool
    typical_error: float = 0.0

    @property
    def is_poor(self) -> bool:
        """Whether users should know; a single row may always differ."""
        if self.of_values:
            return self.share < LEAST_EXPLAINED or self.typical_error > MOST_TYPICAL_ERROR
        return round((1 - self.share) * self.rows) > (1 - LEAST_ALIKE) * self.rows + 1

    @property
    def is_close(self) -> bool:
        """Whether it could hardly be better."""
        if self.of_values:
            return self.share >= CLOSE_EXPLAINED and self.typical_error <= CLOSE_TYPICAL_ERROR
        return self.share >= CLOSE_ALIKE

    def __str__(self) -> str:
        """In words."""
        if self.of_values:
            typical = f"{100 * self.typical_error:.0f} % of what is between their quartiles"
            return f"R2 is {self.share:.3f}, and the median error {typical}"
        return f"{100 * (1 - self.share):.1f} % of the rows have another prediction"


def agreement_of(ours: np.ndarray, exact: np.ndarray, *, of_values: bool) -> Agreement:
    """Of answers: labels, or values."""
    if not of_values:
        return Agreement(float(alike(ours, exact).mean()), len(ours), of_values)
    return Agreement(explained(ours, exact), len(ours), of_values, typical_error(ours, exact))


def tell(estimator: Any, found: Agreement, ways: Iterable[str]) -> None:
    """Warn users of poor agreement, and of what to try."""
    if found.is_poor:
        warn(
            f"the {type(estimator).__name__} does not predict X as its "
            f"{estimator.float_class.__name__} of floating-point numbers does: {found}. Try "
            f"{', '.join(ways)}",
            AgreementWarning,
        )


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


def typical_error(ours: np.ndarray, exact: np.ndarray) -> float:
    """The median error in units of the distance between quartiles; the worst of all outputs."""
    rows = len(ours)
    ours, exact = ours.reshape(rows, -1), exact.reshape(rows, -1)
    low, high = np.quantile(exact, [0.25, 0.75], axis=0)
    error = np.median(np.abs(ours - exact), axis=0)
    # Values that are nearly all the same have no such distance.
    known = high - low > 1e-9 * np.abs(exact).max(axis=0)
    return float(np.max(error[known] / (high - low)[known], initial=0.0))


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
