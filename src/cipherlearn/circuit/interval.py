"""Integer ranges of a value, element by element, and the width they need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cipherlearn.errors import AccumulatorOverflowError, CircuitError

#: Evaluation runs on int64; one bit is kept so that a sum of two legal values cannot wrap.
MAXIMUM_MAGNITUDE = 2**62


def width_of(lo: int, hi: int) -> int:
    """Bits that hold every integer of ``[lo, hi]``, in two's complement if ``lo`` is negative.

    >>> width_of(0, 15), width_of(-8, 7), width_of(0, 16)
    (4, 4, 5)
    """
    if lo < 0:
        return max(int(-lo - 1).bit_length(), max(int(hi), 0).bit_length()) + 1
    return max(1, int(hi).bit_length())


@dataclass(frozen=True, eq=False)
class Interval:
    """Proved (or declared) range of every element of a value.

    Parameters
    ----------
    lo, hi : numpy.ndarray of int64, both of the value's shape
        Smallest and largest integer that each element can take; kept as read-only copies.
    step : int, default=1
        Every element is a multiple of ``step`` (more than 1 after rounding).

    Raises
    ------
    AccumulatorOverflowError
        If an element may leave the 62 bits that evaluation is exact on.
    CircuitError
        If the bounds do not match each other.
    """

    lo: np.ndarray
    hi: np.ndarray
    step: int = 1

    def __post_init__(self) -> None:
        for name in ("lo", "hi"):
            own = np.array(getattr(self, name), dtype=np.int64)
            own.flags.writeable = False
            object.__setattr__(self, name, own)
        if self.lo.shape != self.hi.shape:
            raise CircuitError(f"bounds of shapes {self.lo.shape} and {self.hi.shape} do not match")
        if self.lo.size and bool((self.lo > self.hi).any()):
            raise CircuitError("a lower bound lies above its upper bound")
        if max(-self.min, self.max) >= MAXIMUM_MAGNITUDE:
            raise AccumulatorOverflowError(
                f"values from {self.min} to {self.max} do not fit the 62 bits that circuits are "
                "evaluated on; use fewer bits for weights or inputs"
            )

    @classmethod
    def constant(cls, values: np.ndarray) -> Interval:
        """Range of a value that is known."""
        return cls(values, values, max(1, int(np.gcd.reduce(np.ravel(values)))))

    @classmethod
    def full(cls, shape: tuple[int, ...], lo: int, hi: int) -> Interval:
        """The same range for all elements of ``shape``."""
        return cls(np.full(shape, lo, dtype=np.int64), np.full(shape, hi, dtype=np.int64))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value."""
        return self.lo.shape

    @property
    def min(self) -> int:
        """Smallest integer over all elements (0 for a value without elements)."""
        return int(self.lo.min()) if self.lo.size else 0

    @property
    def max(self) -> int:
        """Largest integer over all elements (0 for a value without elements)."""
        return int(self.hi.max()) if self.hi.size else 0

    @property
    def width(self) -> int:
        """Bits that hold all elements."""
        return width_of(self.min, self.max)

    @property
    def is_signed(self) -> bool:
        """Whether some element may be negative."""
        return self.min < 0

    @property
    def is_constant(self) -> bool:
        """Whether every element can take one value only."""
        return bool((self.lo == self.hi).all())

    @property
    def domain(self) -> np.ndarray:
        """Every multiple of `step` in the range of all elements, in order: int64 of shape (n,)."""
        first = self.min // self.step * self.step
        return np.arange(first, self.max + 1, self.step, dtype=np.int64)

    @property
    def domain_size(self) -> int:
        """Number of integers in `domain`."""
        return self.max // self.step - self.min // self.step + 1

    @property
    def lookup_width(self) -> int:
        """Bits that a table look-up on this value reads: its width less what rounding removed."""
        return width_of(self.min // self.step, self.max // self.step)
