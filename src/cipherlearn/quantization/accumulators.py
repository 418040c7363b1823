"""What happens to an accumulator before its look-up: range, offset, factor, rounding.

An accumulator's look-up costs by its width, so its range is made as small and as full as possible.
Three things are free: a constant added per channel, an integer factor per channel (it joins the
weights), and any function per channel in the table that follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cipherlearn.circuit import Interval, IntValue
from cipherlearn.quantization.n_bits import Rounding

#: Observed ranges are widened by this share of their size, half on each side ...
MARGIN = 0.1
#: ... and reach this many standard deviations from the mean at least (few calibration rows).
SIGMAS = 3.0
#: Bits spent on fitting the range of every channel to the rounding step.
FILL_BITS = 3
#: A channel's factor may amplify its weights to this multiple of the typical channel's at most.
NOISE_CAP = 2.0


@dataclass(frozen=True)
class Observed:
    """What calibration data showed of an accumulator, per channel.

    Parameters
    ----------
    lo, hi : numpy.ndarray of int64
        Observed range, widened by a margin; axis 0, the batch, has extent 1.
    """

    lo: np.ndarray
    hi: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, channel_axis: int | None) -> Observed:
        """Range of a batch of accumulators; axis 0 is the batch.

        Parameters
        ----------
        values : numpy.ndarray of int64
        channel_axis : int or None
            Axis whose entries have ranges of their own.
        """
        keep = None if channel_axis is None else channel_axis % values.ndim
        axes = tuple(axis for axis in range(values.ndim) if axis != keep)
        lo = values.min(axis=axes, keepdims=True).astype(np.float64)
        hi = values.max(axis=axes, keepdims=True).astype(np.float64)
        margin = (hi - lo) * (MARGIN / 2.0)
        mean = values.mean(axis=axes, keepdims=True)
        reach = SIGMAS * values.std(axis=axes, keepdims=True)
        lowest = np.floor(np.minimum(lo - margin, mean - reach)).astype(np.int64)
        highest = np.ceil(np.maximum(hi + margin, mean + reach)).astype(np.int64)
        return cls(lowest, highest)


@dataclass(frozen=True)
class AccumulatorPlan:
    """How one accumulator is brought to its look-up: ``round(factor * accumulator + offset)``.

    Parameters
    ----------
    factor, offset : numpy.ndarray of int64
        Per channel; they broadcast against one sample.
    lo, hi : numpy.ndarray of int64 or None
        Declared range after factor and offset; None if the proved range is used.
    lsbs : int
        Bits that rounding removes.
    exact : bool
        Whether rounding is exact.
    """

    factor: np.ndarray
    offset: np.ndarray
    lo: np.ndarray | None
    hi: np.ndarray | None
    lsbs: int = 0
    exact: bool = True

    @property
    def is_proved(self) -> bool:
        """Whether no accumulator can leave its range, whatever the input."""
        return self.lo is None

    def place(self, accumulator: Any) -> Any:
        """The accumulator with factor, offset and range (arrays and values of a circuit alike)."""
        placed = accumulator
        if (self.factor != 1).any():
            placed = placed * self.factor
        if self.offset.any():
            placed = placed + self.offset
        if self.lo is None or self.hi is None:
            return placed
        if isinstance(placed, IntValue):
            return placed.assume(self.lo, self.hi)
        return np.clip(placed, self.lo, self.hi)

    def round(self, placed: Any) -> Any:
        """What a look-up reads of the placed accumulator."""
        if isinstance(placed, IntValue):
            return placed.round(self.lsbs, exact=self.exact)
        if not self.lsbs:
            return placed
        half = 1 << (self.lsbs - 1)
        return ((placed + half) >> self.lsbs) << self.lsbs


def plan_accumulator(
    proved: Interval,
    observed: Observed,
    rounding: Rounding | None,
    least_saving: float = 1,
) -> AccumulatorPlan:
    """Choose range, factor, offset and rounding of an accumulator.

    The proved range is kept if the observed one would not make the look-up narrower.

    Parameters
    ----------
    proved : Interval
        What interval arithmetic shows for one sample.
    observed : Observed
        What calibration data showed.
    rounding : Rounding or None
        Bits to keep, if any.
    least_saving : float, default=1
        Bits that the observed range must save, unless the accumulator is rounded: outside of it,
        encrypted results are wrong.
    """
    lo, hi = _proved_per_channel(proved, observed)
    narrow_lo = np.clip(observed.lo, lo, hi)
    narrow_hi = np.clip(observed.hi, narrow_lo, hi)
    if rounding is not None and _extent(narrow_lo, narrow_hi) >= 2 ** int(rounding.n_bits):
        return _rounded(lo, hi, narrow_lo, narrow_hi, rounding)
    width = _extent(narrow_lo, narrow_hi).bit_length()
    if _extent(lo, hi).bit_length() - width < least_saving:
        return AccumulatorPlan(np.ones_like(lo), -lo, None, None)
    # The width is paid for whole: centre each channel in it, the slack is a free margin.
    top = 2**width - 1
    offset = -narrow_lo + (top - (narrow_hi - narrow_lo)) // 2
    return AccumulatorPlan(np.ones_like(lo), offset, np.zeros_like(lo), np.full_like(lo, top))


def _rounded(
    lo: np.ndarray, hi: np.ndarray, narrow_lo: np.ndarray, narrow_hi: np.ndarray, rounding: Rounding
) -> AccumulatorPlan:
    """Fill the ``2**kept`` steps with the range of every channel.

    The factors make one step fit channels of different ranges; they are capped where a channel's
    range is small against its weights, since they amplify noise as well.
    """
    kept = int(rounding.n_bits)
    extents = np.maximum(narrow_hi - narrow_lo, 1)
    lsbs = 1
    while _top(kept, lsbs) < int(extents.max()):
        lsbs += 1
    lsbs += FILL_BITS
    top = _top(kept, lsbs)
    factor = top // extents
    weight = np.maximum(hi - lo, 1).astype(np.float64)
    typical = np.median(factor * weight)
    factor = np.clip(factor, 1, np.maximum(1, NOISE_CAP * typical // weight).astype(np.int64))
    offset = -factor * narrow_lo + (top - factor * (narrow_hi - narrow_lo)) // 2
    if bool((factor * lo + offset >= 0).all() and (factor * hi + offset <= top).all()):
        return AccumulatorPlan(factor, offset, None, None, lsbs, rounding.exact)
    declared = np.zeros_like(lo), np.full_like(lo, top)
    return AccumulatorPlan(factor, offset, *declared, lsbs, rounding.exact)


def _top(kept: int, lsbs: int) -> int:
    """Largest value that rounds to fewer than ``2**kept`` steps of ``2**lsbs``, noise included.

    Above the last step, approximate rounding might decide for one that does not exist.
    """
    return ((1 << kept) - 1) << lsbs


def _extent(lo: np.ndarray, hi: np.ndarray) -> int:
    return int((hi - lo).max())


def _proved_per_channel(proved: Interval, observed: Observed) -> tuple[np.ndarray, np.ndarray]:
    """The proved range, reduced to the axes along which ranges are kept apart."""
    keep = observed.lo.shape
    axes = tuple(axis for axis, extent in enumerate(keep) if extent == 1)
    lo = proved.lo.min(axis=axes, keepdims=True)
    return lo, proved.hi.max(axis=axes, keepdims=True)
